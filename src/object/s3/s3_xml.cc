#include "object/s3/s3_xml.h"

#include <charconv>
#include <cstring>
#include <sstream>

#include <fmt/core.h>
#include <pugixml.hpp>

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

std::string_view local_name(const char* name) {
  const char* colon = std::strchr(name, ':');
  return colon != nullptr ? colon + 1 : name;
}

// The document's element of that name, empty when it is another or the document is broken.
pugi::xml_node root_of(pugi::xml_document& document, std::string_view xml, std::string_view name) {
  const pugi::xml_parse_result parsed = document.load_buffer(
      xml.data(), xml.size(), pugi::parse_default | pugi::parse_ws_pcdata_single, pugi::encoding_utf8);
  if (!parsed) return {};
  const pugi::xml_node root = document.document_element();
  if (local_name(root.name()) != name || too_deep(root, 0)) return {};
  return root;
}

Error not_a(std::string_view name) {
  return Error(Code::kCorrupt, fmt::format("the service's reply is no {} document", name));
}

std::optional<std::string> url_decoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '+') {
      out.push_back(' ');
    } else if (text[i] == '%') {
      if (text.size() - i < 3) return std::nullopt;
      unsigned value = 0;
      auto [end, error] = std::from_chars(text.data() + i + 1, text.data() + i + 3, value, 16);
      if (error != std::errc() || end != text.data() + i + 3) return std::nullopt;
      out.push_back(static_cast<char>(value));
      i += 2;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

std::string text_of_document(const pugi::xml_document& document) {
  std::ostringstream out;
  document.save(out, "", pugi::format_raw, pugi::encoding_utf8);
  return std::move(out).str();
}

}  // namespace

std::string quoted_etag(std::string_view etag) {
  if (etag.empty() || etag.front() == '"' || etag.starts_with("W/")) return std::string(etag);
  return fmt::format("\"{}\"", etag);
}

std::optional<S3Error> parse_s3_error(std::string_view xml) {
  pugi::xml_document document;
  const pugi::xml_node root = root_of(document, xml, "Error");
  if (!root) return std::nullopt;
  return S3Error{root.child_value("Code"), root.child_value("Message"), root.child_value("Region"),
                 root.child_value("ServerTime")};
}

Result<S3Listing> parse_s3_listing(std::string_view xml) {
  pugi::xml_document document;
  const pugi::xml_node root = root_of(document, xml, "ListBucketResult");
  if (!root) return not_a("ListBucketResult");
  const bool encoded = std::string_view(root.child_value("EncodingType")) == "url";
  S3Listing listing;
  for (const pugi::xml_node& node : root.children("Contents")) {
    S3Listing::Entry entry;
    entry.key = node.child_value("Key");
    if (encoded) {
      std::optional<std::string> decoded = url_decoded(entry.key);
      if (!decoded) return Error(Code::kCorrupt, "a listed key is not encoded as it says");
      entry.key = *std::move(decoded);
    }
    const std::string_view size = node.child_value("Size");
    auto [end, error] = std::from_chars(size.data(), size.data() + size.size(), entry.size);
    if (error != std::errc() || end != size.data() + size.size() || entry.key.empty())
      return Error(Code::kCorrupt, "a listed object has no key or no size");
    entry.etag = quoted_etag(node.child_value("ETag"));
    listing.entries.push_back(std::move(entry));
  }
  if (std::string_view(root.child_value("IsTruncated")) == "true") {
    listing.continuation = root.child_value("NextContinuationToken");
    if (listing.continuation.empty()) return Error(Code::kCorrupt, "a truncated listing names no continuation");
  }
  return listing;
}

Result<std::string> parse_s3_upload_id(std::string_view xml) {
  pugi::xml_document document;
  const pugi::xml_node root = root_of(document, xml, "InitiateMultipartUploadResult");
  std::string id = root.child_value("UploadId");
  if (id.empty()) return not_a("InitiateMultipartUploadResult");
  return id;
}

Result<std::string> parse_s3_completion(std::string_view xml) {
  pugi::xml_document document;
  if (const pugi::xml_node root = root_of(document, xml, "CompleteMultipartUploadResult")) {
    std::string etag = quoted_etag(root.child_value("ETag"));
    if (etag.empty()) return not_a("CompleteMultipartUploadResult");
    return etag;
  }
  if (const std::optional<S3Error> error = parse_s3_error(xml)) {
    const Code code = error->code == "PreconditionFailed" || error->code == "ConditionalRequestConflict"
                          ? Code::kConflict
                      : error->code == "InternalError" ? Code::kTimeout
                                                       : Code::kUnavailable;
    return Error(code,
                 fmt::format("completing the upload failed in a reply of 200: {}: {}", error->code, error->message));
  }
  return not_a("CompleteMultipartUploadResult");
}

Result<std::vector<S3RemoveError>> parse_s3_removal(std::string_view xml) {
  pugi::xml_document document;
  const pugi::xml_node root = root_of(document, xml, "DeleteResult");
  if (!root) return not_a("DeleteResult");
  std::vector<S3RemoveError> errors;
  for (const pugi::xml_node& node : root.children("Error"))
    errors.push_back({node.child_value("Key"), node.child_value("Code"), node.child_value("Message")});
  return errors;
}

std::string s3_removal_request(const std::vector<std::string>& keys) {
  pugi::xml_document document;
  pugi::xml_node root = document.append_child("Delete");
  root.append_attribute("xmlns") = "http://s3.amazonaws.com/doc/2006-03-01/";
  root.append_child("Quiet").text() = "true";
  for (const std::string& key : keys) root.append_child("Object").append_child("Key").text() = key.c_str();
  return text_of_document(document);
}

std::string s3_completion_request(const std::vector<S3Part>& parts) {
  pugi::xml_document document;
  pugi::xml_node root = document.append_child("CompleteMultipartUpload");
  root.append_attribute("xmlns") = "http://s3.amazonaws.com/doc/2006-03-01/";
  int number = 0;
  for (const S3Part& part : parts) {
    pugi::xml_node node = root.append_child("Part");
    node.append_child("PartNumber").text() = ++number;
    node.append_child("ETag").text() = part.etag.c_str();
    if (!part.crc32c.empty()) node.append_child("ChecksumCRC32C").text() = part.crc32c.c_str();
  }
  return text_of_document(document);
}

}  // namespace headrace
