#include "object/azure/azure_xml.h"

#include <gtest/gtest.h>

namespace headrace {

TEST(AzureXml, ReadsAnError) {
  auto error = parse_azure_error(
      "\xef\xbb\xbf<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>BlobNotFound</Code><Message>The "
      "specified blob does not exist.\nRequestId:1\nTime:2</Message></Error>");
  ASSERT_TRUE(error.has_value());
  EXPECT_EQ(error->code, "BlobNotFound");
  EXPECT_EQ(error->message, "The specified blob does not exist.");
  EXPECT_FALSE(parse_azure_error("<html></html>").has_value());
}

TEST(AzureXml, ReadsAListing) {
  auto listing = parse_azure_listing(
      "<EnumerationResults ContainerName=\"c\"><Blobs><Blob><Name>a &amp; b</Name><Properties>"
      "<Content-Length>7</Content-Length><Etag>0x8D</Etag></Properties></Blob>"
      "<Blob><Name Encoded=\"true\">x%EF%BF%BE</Name><Properties><Content-Length>0</Content-Length>"
      "<Etag>\"0x9\"</Etag></Properties></Blob></Blobs><NextMarker>2!mark</NextMarker>"
      "</EnumerationResults>");
  ASSERT_TRUE(listing.ok()) << listing.error().text();
  ASSERT_EQ(listing->entries.size(), 2U);
  EXPECT_EQ(listing->entries[0].name, "a & b");
  EXPECT_EQ(listing->entries[0].size, 7U);
  EXPECT_EQ(listing->entries[0].etag, "\"0x8D\"");
  EXPECT_EQ(listing->entries[1].name, "x\xef\xbf\xbe");
  EXPECT_EQ(listing->entries[1].etag, "\"0x9\"");
  EXPECT_EQ(listing->marker, "2!mark");
}

TEST(AzureXml, RefusesBadInput) {
  std::string deep;
  for (int i = 0; i < 100; ++i) deep += "<a>";
  for (const std::string& xml :
       {std::string(), std::string("<"), std::string("<EnumerationResults>"),
        std::string("<EnumerationResults><Blobs><Blob><Name>x</Name></Blob></Blobs></"
                    "EnumerationResults>"),
        std::string("<EnumerationResults><Blobs><Blob><Name Encoded=\"true\">%</Name><Properties>"
                    "<Content-Length>1</Content-Length></Properties></Blob></Blobs>"
                    "</EnumerationResults>"),
        std::string("<EnumerationResults><Blobs><Blob><Properties><Content-Length>-1</"
                    "Content-Length></Properties></Blob></Blobs></EnumerationResults>"),
        "<EnumerationResults>" + deep})
    EXPECT_EQ(parse_azure_listing(xml).code(), Code::kCorrupt) << xml.substr(0, 80);
}

TEST(AzureXml, WritesABlockList) {
  EXPECT_EQ(azure_block_list({"AA==", "AQ=="}),
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList><Latest>AA==</Latest><Latest>AQ==</"
            "Latest></BlockList>");
}

}  // namespace headrace
