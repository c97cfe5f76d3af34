#include "object/bucket_url.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include <fmt/core.h>

namespace headrace {

namespace {

constexpr size_t kMaxUrl = 4096;

Error invalid(std::string_view url, std::string_view why) {
  // A misplaced secret may stand before an '@' or in an option: neither is repeated.
  const size_t end = url.find('@') == std::string_view::npos ? url.find('?') : url.find(':');
  const std::string_view shown = url.substr(0, std::min<size_t>(end, 120));
  return Error(Code::kInvalid, fmt::format("bucket URL '{}': {}", shown, why));
}

bool is_lower_or_digit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}
bool is_letter_or_digit(char c) {
  return is_lower_or_digit(c) || (c >= 'A' && c <= 'Z');
}

bool is_bucket_name(std::string_view name) {
  if (name.size() < 3 || name.size() > 63) return false;
  if (!is_lower_or_digit(name.front()) || !is_lower_or_digit(name.back())) return false;
  return std::all_of(name.begin(), name.end(), [](char c) { return is_lower_or_digit(c) || c == '-' || c == '.'; });
}

bool has_control(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

// Calls visit(part) for each '/'-separated part; false as soon as visit says so.
template <class Visit>
bool each_part(std::string_view path, Visit visit) {
  size_t begin = 0;
  while (begin <= path.size()) {
    const size_t end = std::min(path.find('/', begin), path.size());
    if (!visit(path.substr(begin, end - begin))) return false;
    begin = end + 1;
  }
  return true;
}

std::optional<std::string> percent_decoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out.push_back(text[i]);
      continue;
    }
    if (text.size() - i < 3) return std::nullopt;
    unsigned value = 0;
    auto [end, error] = std::from_chars(text.data() + i + 1, text.data() + i + 3, value, 16);
    if (error != std::errc() || end != text.data() + i + 3) return std::nullopt;
    out.push_back(static_cast<char>(value));
    i += 2;
  }
  return out;
}

// Empty when it is right, otherwise why not.
std::string_view endpoint_fault(std::string& endpoint) {
  while (endpoint.ends_with('/')) endpoint.pop_back();
  std::string_view rest = endpoint;
  if (rest.starts_with("http://"))
    rest.remove_prefix(7);
  else if (rest.starts_with("https://"))
    rest.remove_prefix(8);
  else
    return "endpoint must begin with http:// or https://, as in endpoint=http://127.0.0.1:9000";
  if (rest.find('@') != std::string_view::npos)
    return "credentials do not belong in a URL: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
  if (rest.find('/') != std::string_view::npos) return "endpoint is http(s)://host[:port] without a path";
  std::string_view host = rest;
  std::string_view port;
  if (rest.starts_with('[')) {  // an IPv6 address
    const size_t close = rest.find(']');
    if (close == std::string_view::npos) return "endpoint has '[' without ']'";
    host = rest.substr(1, close - 1);
    if (host.find_first_not_of("0123456789abcdefABCDEF:.") != std::string_view::npos)
      return "endpoint has no valid IPv6 address";
    rest.remove_prefix(close + 1);
    if (!rest.empty() && rest.front() != ':') return "endpoint is http(s)://host[:port]";
    if (!rest.empty()) port = rest.substr(1);
    if (!rest.empty() && port.empty()) return "endpoint has an empty port";
  } else {
    const size_t colon = rest.find(':');
    host = rest.substr(0, colon);
    if (!std::all_of(host.begin(), host.end(),
                     [](char c) { return is_letter_or_digit(c) || c == '-' || c == '.' || c == '_'; }))
      return "endpoint's host has a character that no host name has";
    if (colon != std::string_view::npos) {
      port = rest.substr(colon + 1);
      if (port.empty()) return "endpoint has an empty port";
    }
  }
  if (host.empty()) return "endpoint names no host, as in endpoint=http://127.0.0.1:9000";
  if (!port.empty()) {
    unsigned number = 0;
    auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
    if (error != std::errc() || end != port.data() + port.size() || number == 0 || number > 65535)
      return "endpoint's port is not a number from 1 to 65535";
  }
  return {};
}

Result<BucketUrl> parse_directory(std::string_view text, std::string_view rest) {
  if (!rest.starts_with('/'))
    return invalid(text, "a directory's URL is absolute and has three slashes, as in file:///srv/bucket");
  BucketUrl url;
  url.kind = BucketUrl::Kind::kDirectory;
  const bool plain = each_part(rest.substr(1), [&](std::string_view part) {
    if (part == "." || part == "..") return false;
    if (!part.empty()) url.path.append("/").append(part);
    return true;
  });
  if (!plain) return invalid(text, "write the directory without '.' and '..'");
  if (url.path.empty()) return invalid(text, "name a directory below '/', as in file:///srv/bucket");
  return url;
}

Result<void> take_option(std::string_view text, std::string_view option, BucketUrl& url) {
  const size_t equals = option.find('=');
  const std::string_view name = option.substr(0, equals);
  const std::optional<std::string> value =
      percent_decoded(equals == std::string_view::npos ? std::string_view() : option.substr(equals + 1));
  if (!value || value->empty() || has_control(*value))
    return invalid(text,
                   fmt::format("option '{}' has no valid value; options are written name=value", name.substr(0, 40)));
  if (name == "endpoint") {
    url.endpoint = *value;
    const std::string_view fault = endpoint_fault(url.endpoint);
    if (!fault.empty()) return invalid(text, fault);
  } else if (url.kind == BucketUrl::Kind::kAzure) {
    const bool signature = name == "sig" || name == "sv" || name == "se" || name == "sp";
    return invalid(text, signature ? std::string("a SAS token does not belong in a URL: set "
                                                 "AZURE_STORAGE_SAS_TOKEN")
                                   : fmt::format("unknown option '{}'; there is endpoint", name.substr(0, 40)));
  } else if (name == "region") {
    url.region = *value;
    if (url.region.size() > 64 || !std::all_of(url.region.begin(), url.region.end(),
                                               [](char c) { return is_letter_or_digit(c) || c == '-' || c == '_'; }))
      return invalid(text, "region is a name like eu-central-1");
  } else if (name == "style") {
    if (*value == "path")
      url.style = BucketUrl::Style::kPath;
    else if (*value == "virtual")
      url.style = BucketUrl::Style::kVirtual;
    else
      return invalid(text, "style is path or virtual");
  } else {
    return invalid(text, fmt::format("unknown option '{}'; there are endpoint, region and style", name.substr(0, 40)));
  }
  return {};
}

Result<void> take_prefix(std::string_view text, std::string_view prefix, BucketUrl& url) {
  if (prefix.ends_with('/')) prefix.remove_suffix(1);
  if (prefix.empty()) return {};
  const bool plain =
      each_part(prefix, [](std::string_view part) { return !part.empty() && part != "." && part != ".."; });
  if (!plain) return invalid(text, "a prefix has no empty part and none that is '.' or '..'");
  if (prefix.size() > 120) return invalid(text, "a prefix has at most 120 bytes");
  url.prefix = prefix;
  return {};
}

Result<void> take_options(std::string_view text, std::string_view options, BucketUrl& url) {
  while (!options.empty()) {
    const size_t end = std::min(options.find('&'), options.size());
    if (end > 0) HR_TRY(take_option(text, options.substr(0, end), url));
    options.remove_prefix(std::min(end + 1, options.size()));
  }
  return {};
}

// What stands before the '?', and what after it.
std::pair<std::string_view, std::string_view> split_options(std::string_view rest) {
  const size_t question = rest.find('?');
  if (question == std::string_view::npos) return {rest, {}};
  return {rest.substr(0, question), rest.substr(question + 1)};
}

Result<BucketUrl> parse_s3(std::string_view text, std::string_view rest) {
  BucketUrl url;
  url.kind = BucketUrl::Kind::kS3;
  const auto [place, options] = split_options(rest);
  const size_t slash = std::min(place.find('/'), place.size());
  url.bucket = place.substr(0, slash);
  if (url.bucket.find('@') != std::string::npos)
    return invalid(text, "credentials do not belong in a URL: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY");
  if (!is_bucket_name(url.bucket))
    return invalid(text, "a bucket's name has 3 to 63 of a-z, 0-9, '-' and '.', as in s3://my-bucket/prefix");
  HR_TRY(take_prefix(text, place.substr(std::min(slash + 1, place.size())), url));
  HR_TRY(take_options(text, options, url));
  return url;
}

Result<BucketUrl> parse_azure(std::string_view text, std::string_view rest) {
  BucketUrl url;
  url.kind = BucketUrl::Kind::kAzure;
  const auto [place, options] = split_options(rest);
  if (place.find('@') != std::string_view::npos)
    return invalid(text,
                   "credentials do not belong in a URL: set AZURE_STORAGE_KEY or "
                   "AZURE_STORAGE_SAS_TOKEN");
  const size_t slash = std::min(place.find('/'), place.size());
  url.account = place.substr(0, slash);
  if (url.account.size() < 3 || url.account.size() > 24 ||
      !std::all_of(url.account.begin(), url.account.end(), is_lower_or_digit))
    return invalid(text,
                   "a storage account's name has 3 to 24 of a-z and 0-9, as in "
                   "az://account/container/prefix");
  const std::string_view below = place.substr(std::min(slash + 1, place.size()));
  const size_t end = std::min(below.find('/'), below.size());
  url.bucket = below.substr(0, end);
  if (!is_bucket_name(url.bucket) || url.bucket.find('.') != std::string::npos ||
      url.bucket.find("--") != std::string::npos)
    return invalid(text,
                   "a container's name has 3 to 63 of a-z, 0-9 and single '-', as in "
                   "az://account/container/prefix");
  HR_TRY(take_prefix(text, below.substr(std::min(end + 1, below.size())), url));
  HR_TRY(take_options(text, options, url));
  return url;
}

}  // namespace

std::string BucketUrl::text() const {
  if (kind == Kind::kDirectory) return "file://" + path;
  if (kind == Kind::kMemory) return "memory:" + bucket;
  std::string out = kind == Kind::kAzure ? "az://" + account + "/" + bucket : "s3://" + bucket;
  if (!prefix.empty()) out += "/" + prefix;
  char separator = '?';
  auto option = [&](std::string_view name, std::string_view value) {
    if (value.empty()) return;
    out += fmt::format("{}{}={}", separator, name, value);
    separator = '&';
  };
  option("endpoint", endpoint);
  option("region", region);
  option("style", style == Style::kAuto ? "" : style == Style::kPath ? "path" : "virtual");
  return out;
}

Result<BucketUrl> parse_bucket_url(std::string_view text) {
  if (text.empty())
    return invalid(text, "it is empty; write file:///dir, s3://bucket/prefix or az://account/container/prefix");
  if (text.size() > kMaxUrl) return invalid(text, "it is longer than 4,096 bytes");
  if (has_control(text)) return Error(Code::kInvalid, "bucket URL: it contains a control character");
  if (text.starts_with("file://")) return parse_directory(text, text.substr(7));
  if (text.starts_with("s3://")) return parse_s3(text, text.substr(5));
  if (text.starts_with("az://")) return parse_azure(text, text.substr(5));
  if (text.starts_with("memory:")) {
    BucketUrl url;
    url.kind = BucketUrl::Kind::kMemory;
    url.bucket = text.substr(7);
    return url;
  }
  if (text.starts_with('/')) return invalid(text, fmt::format("a directory is written file://{}", text.substr(0, 200)));
  if (text.starts_with("http://") || text.starts_with("https://"))
    return invalid(text, "a service's address is an option: s3://BUCKET/PREFIX?endpoint=http://HOST:PORT");
  if (text.starts_with("azure://") || text.starts_with("abfs"))
    return invalid(text, "an Azure container is written az://ACCOUNT/CONTAINER/PREFIX");
  return invalid(text,
                 "unknown scheme; write file:///dir, s3://bucket/prefix or "
                 "az://account/container/prefix");
}

}  // namespace headrace
