// The examples of "Authorize with Shared Key", Azure Storage REST API reference.
#include <gtest/gtest.h>

#include "object/azure/azure_client.h"

namespace headrace {

TEST(SharedKey, SignsTheExampleOfContainerMetadata) {
  const SharedKeyInput input{
      .method = "GET",
      .account = "myaccount",
      .path = "/mycontainer",
      .query = {{"restype", "container"}, {"comp", "metadata"}, {"timeout", "20"}},
      .headers = {{"x-ms-version", "2015-02-21"}, {"x-ms-date", "Fri, 26 Jun 2015 23:39:12 GMT"}}};
  EXPECT_EQ(shared_key_text(input),
            "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 "
            "GMT\nx-ms-version:2015-02-21\n/myaccount/mycontainer\ncomp:metadata\nrestype:"
            "container\ntimeout:20");
}

TEST(SharedKey, SignsLengthConditionAndRange) {
  const SharedKeyInput input{.method = "PUT",
                             .account = "a",
                             .path = "/a/c/b%20b",
                             .headers = {{"if-none-match", "*"},
                                         {"content-md5", "md5"},
                                         {"content-type", "text"},
                                         {"range", "bytes=0-1"},
                                         {"x-ms-b", "2"},
                                         {"x-ms-a", "1"}},
                             .content_length = 7};
  EXPECT_EQ(shared_key_text(input), "PUT\n\n\n7\nmd5\ntext\n\n\n\n*\n\nbytes=0-1\nx-ms-a:1\nx-ms-b:2\n/a/a/c/b%20b");
}

}  // namespace headrace
