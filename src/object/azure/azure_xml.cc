#include "object/azure/azure_xml.h"

#include <charconv>
#include <cstring>

#include <fmt/core.h>
#include <pugixml.hpp>

#include "object/http/encoding.h"

namespace headrace {

namespace {

constexpr int kDeepest = 16;

// pugixml recurses nowhere while parsing, but what is nested deeper than any reply is no reply.
bool too_deep(const pugi::xml_node& node, int depth) {
  if (depth > kDeepest) return true;
  for (const pugi::xml_node& child : node.children())
    if (too_deep(child, depth + 1)) return true;
  return false;
}

// The document's element of that name, empty when it is another or the document is broken.
pugi::xml_node root_of(pugi::xml_document& document, std::string_view xml, std::string_view name) {
  if (xml.starts_with("\xef\xbb\xbf")) xml.remove_prefix(3);
  const pugi::xml_parse_result parsed = document.load_buffer(
      xml.data(), xml.size(), pugi::parse_default | pugi::parse_ws_pcdata_single, pugi::encoding_utf8);
  if (!parsed) return {};
  const pugi::xml_node root = document.document_element();
  if (root.name() != name || too_deep(root, 0)) return {};
  return root;
}

std::string quoted(std::string_view etag) {
  if (etag.empty() || etag.front() == '"') return std::string(etag);
  return fmt::format("\"{}\"", etag);
}

}  // namespace

std::optional<AzureError> parse_azure_error(std::string_view xml) {
  pugi::xml_document document;
  const pugi::xml_node root = root_of(document, xml, "Error");
  if (!root) return std::nullopt;
  const std::string_view message = root.child_value("Message");  // then RequestId and Time, a line each
  return AzureError{root.child_value("Code"), std::string(message.substr(0, message.find('\n'))),
                    root.child_value("AuthenticationErrorDetail")};
}

Result<AzureListing> parse_azure_listing(std::string_view xml) {
  pugi::xml_document document;
  const pugi::xml_node root = root_of(document, xml, "EnumerationResults");
  if (!root) return Error(Code::kCorrupt, "the service's reply is no EnumerationResults document");
  AzureListing listing;
  for (const pugi::xml_node& node : root.child("Blobs").children("Blob")) {
    AzureListing::Entry entry;
    const pugi::xml_node name = node.child("Name");
    entry.name = name.child_value();
    if (name.attribute("Encoded").as_bool()) {  // it has characters that XML has not
      std::optional<std::string> decoded = uri_decoded(entry.name);
      if (!decoded) return Error(Code::kCorrupt, "a listed name is not encoded as it says");
      entry.name = *std::move(decoded);
    }
    const pugi::xml_node properties = node.child("Properties");
    const std::string_view size = properties.child_value("Content-Length");
    auto [end, error] = std::from_chars(size.data(), size.data() + size.size(), entry.size);
    if (error != std::errc() || end != size.data() + size.size() || entry.name.empty())
      return Error(Code::kCorrupt, "a listed blob has no name or no size");
    entry.etag = quoted(properties.child_value("Etag"));
    listing.entries.push_back(std::move(entry));
  }
  listing.marker = root.child_value("NextMarker");
  return listing;
}

std::string azure_block_list(const std::vector<std::string>& ids) {
  std::string out = "<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>";
  for (const std::string& id : ids) out += "<Latest>" + id + "</Latest>";  // base64: nothing to escape
  return out + "</BlockList>";
}

}  // namespace headrace
