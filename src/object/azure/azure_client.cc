#include "object/azure/azure_client.h"

#include <curl/curl.h>
#include <time.h>

#include <algorithm>
#include <map>

#include <fmt/core.h>

#include "object/azure/azure_xml.h"
#include "object/http/encoding.h"

namespace headrace {

namespace {

// Old enough for every service and emulator, new enough for bearer tokens and large blobs.
constexpr std::string_view kApiVersion = "2021-12-02";
constexpr Nanos kSkewAllowed = seconds(5 * 60);  // the service refuses from 15 minutes on

// "Sun, 06 Nov 1994 08:49:37 GMT", in any locale.
std::string http_date(Nanos wall) {
  constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const time_t time = static_cast<time_t>(wall.count / 1'000'000'000);
  tm utc{};
  ::gmtime_r(&time, &utc);
  return fmt::format("{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT", kDays[utc.tm_wday], utc.tm_mday, kMonths[utc.tm_mon],
                     utc.tm_year + 1900, utc.tm_hour, utc.tm_min, utc.tm_sec);
}

Nanos skew_of(const HttpHeaders& headers, Nanos wall) {
  const std::string date(header_value(headers, "date"));
  const time_t time = date.empty() ? -1 : ::curl_getdate(date.c_str(), nullptr);
  return time < 0 ? Nanos{} : seconds(time) - wall;
}

// Refusals of who we are or may do: code → mend.
std::string_view mend_of(std::string_view code) {
  if (code == "AuthenticationFailed" || code == "InvalidAuthenticationInfo")
    return "the service does not accept the credentials: check that they are of this account, whole "
           "and not expired";
  if (code == "AuthorizationPermissionMismatch" || code == "AuthorizationFailure" ||
      code == "InsufficientAccountPermissions" || code == "AuthorizationServiceMismatch" ||
      code == "AuthorizationResourceTypeMismatch")
    return "the credentials lack the right: give the identity the role Storage Blob Data "
           "Contributor (or the SAS token the permissions racwdl), and let the account's firewall "
           "admit this machine";
  if (code == "AuthorizationSourceIPMismatch" || code == "AuthorizationProtocolMismatch")
    return "the SAS token does not allow this address or protocol";
  if (code == "KeyBasedAuthenticationNotPermitted")
    return "the account forbids keys: use a managed identity instead of AZURE_STORAGE_KEY";
  if (code == "AccountIsDisabled") return "the storage account is disabled";
  if (code == "PublicAccessNotPermitted" || code == "NoAuthenticationInformation")
    return "the service wants credentials";
  if (code == "BlobImmutableDueToPolicy" || code == "LeaseIdMissing")
    return "a lease or an immutability policy protects this blob: remove it";
  return {};
}

bool is_conflict(std::string_view code) {
  return code == "ConditionNotMet" || code == "TargetConditionNotMet" || code == "BlobAlreadyExists";
}

}  // namespace

Error azure_reply_error(const AzureRequest& request, const BucketUrl& url, const HttpReply& reply, Nanos skew,
                        std::string_view source) {
  AzureError error = parse_azure_error(reply.body.text()).value_or(AzureError{});
  const std::string_view named = header_value(reply.headers, "x-ms-error-code");  // HEAD: no body
  if (error.code.empty()) error.code = named;
  const std::string& code = error.code;
  const int status = reply.status;
  const std::string what = fmt::format(
      "{} {} of {}: HTTP {}{}{}{}{}", request.method, request.blob.empty() ? "request" : request.blob, url.text(),
      status, code.empty() ? "" : " ", code, error.message.empty() ? "" : ": ", error.message.substr(0, 300));
  auto fail = [&what](Code result, std::string_view mend = {}) {
    return Error(result, mend.empty() ? what : fmt::format("{}: {}", what, mend));
  };
  if (status == 403 && (skew > kSkewAllowed || skew < Nanos{} - kSkewAllowed))
    return fail(Code::kDenied, fmt::format("this machine's clock is off: the service says it is {}; set the clock "
                                           "(NTP)",
                                           header_value(reply.headers, "date")));
  if (!mend_of(code).empty()) return fail(Code::kDenied, fmt::format("{} (they come from {})", mend_of(code), source));
  if (is_conflict(code)) return fail(Code::kConflict);
  if (code == "ContainerNotFound") return fail(Code::kNotFound, "create the container or fix its name in the URL");
  if (code == "ContainerBeingDeleted") return fail(Code::kUnavailable);
  if (code == "ContainerAlreadyExists") return fail(Code::kExists);
  // Somebody else put the same blob meanwhile, and with that discarded our blocks.
  if (code == "InvalidBlockList" || code == "InvalidBlobOrBlock") return fail(Code::kUnavailable);
  if (code == "BlobNotFound" || (status == 404 && code.empty() && request.method == "HEAD"))
    return fail(request.conditional ? Code::kConflict : Code::kNotFound);  // If-Match on nothing
  if (status == 401 || status == 403)
    return fail(Code::kDenied, fmt::format("check the credentials (they come from {}) and their "
                                           "rights on this container",
                                           source));
  // 'Not found' by somebody who is no Blob service must not pass for an absent object.
  if (status == 404)
    return fail(Code::kInvalid, "check the account's name and that the endpoint is an Azure Blob service");
  if (status == 412) return fail(Code::kConflict);
  if (status == 409) return fail(request.conditional ? Code::kConflict : Code::kUnavailable);
  if (status == 416) return fail(Code::kRange);
  if (status == 413) return fail(Code::kTooLarge);
  if (status == 507) return fail(Code::kNoSpace, "the service has no room left");
  if (error.message.find("x-ms-version") != std::string::npos || error.message.find("API version") != std::string::npos)
    return fail(Code::kNotSupported, fmt::format("the service does not know API version {}: update it", kApiVersion));
  // The bytes were damaged on their way, and refused: sending them again is right.
  if (code == "Md5Mismatch" || code == "Crc64Mismatch") return fail(Code::kUnavailable);
  if (status == 429 || status == 503) return fail(Code::kUnavailable);  // before the effect
  // Any other failure inside the service may come after the effect.
  if (status >= 500 || status == 408) return fail(request.conditional ? Code::kTimeout : Code::kUnavailable);
  return fail(Code::kInvalid);
}

std::string shared_key_text(const SharedKeyInput& input) {
  std::string text = input.method + "\n";
  auto add = [&](std::string_view value) { text.append(value).append("\n"); };
  for (const char* name : {"content-encoding", "content-language"}) add(header_value(input.headers, name));
  add(input.content_length == 0 ? std::string() : std::to_string(input.content_length));
  for (const char* name : {"content-md5", "content-type", "date", "if-modified-since", "if-match", "if-none-match",
                           "if-unmodified-since", "range"})
    add(header_value(input.headers, name));
  std::map<std::string, std::string> own;
  for (const auto& [name, value] : input.headers)
    if (name.starts_with("x-ms-")) own[name] = value;
  for (const auto& [name, value] : own) add(name + ":" + value);
  text += "/" + input.account + input.path;
  std::map<std::string, std::string> query(input.query.begin(), input.query.end());
  for (const auto& [name, value] : query) text += "\n" + name + ":" + value;
  return text;
}

AzureClient::AzureClient(BucketUrl url, EnvironmentLookup environment, Nanos silence_timeout)
    : url_(std::move(url)),
      http_({.ca_bundle = environment("SSL_CERT_FILE").value_or(""), .ca_variable = "SSL_CERT_FILE"}),
      credentials_(http_, url_.account, std::move(environment)),
      base_(url_.endpoint),
      path_prefix_("/" + url_.bucket),
      silence_timeout_(silence_timeout) {
  if (base_.empty()) base_ = fmt::format("https://{}.blob.core.windows.net", url_.account);
  const std::string_view host = std::string_view(base_).substr(base_.find("://") + 3);
  // Emulators, and whatever has an address instead of a name of its own.
  if (!host.starts_with(url_.account + ".")) path_prefix_ = "/" + url_.account + path_prefix_;
}

Result<HttpReply> AzureClient::call(const AzureRequest& request, Nanos wall) {
  bool expired = false;
  Result<HttpReply> reply = call_once(request, wall, &expired);
  if (!expired) return reply;
  credentials_.forget();
  return call_once(request, wall, &expired);
}

Result<HttpReply> AzureClient::call_once(const AzureRequest& request, Nanos wall, bool* expired) {
  *expired = false;
  HR_TRY(AzureAuthorization authorization, credentials_.get(wall));
  HttpRequest http;
  http.method = request.method;
  http.headers = request.headers;
  http.headers.emplace_back("x-ms-version", kApiVersion);
  http.headers.emplace_back("x-ms-date", http_date(wall));
  http.body = request.body;
  http.most_reply = request.most_reply;
  http.silence_timeout = silence_timeout_;
  const bool with_body = request.method == "PUT";
  if (with_body && header_value(http.headers, "content-type").empty())
    http.headers.emplace_back("content-type", "application/octet-stream");  // it is signed
  const std::string path = path_prefix_ + (request.blob.empty() ? "" : "/" + uri_encoded(request.blob, true));
  std::string query = canonical_query(request.query);
  switch (authorization.kind) {
    case AzureAuthorization::Kind::kKey: {
      const std::string text = shared_key_text({.method = request.method,
                                                .account = url_.account,
                                                .path = path,
                                                .query = request.query,
                                                .headers = http.headers,
                                                .content_length = request.body.size()});
      http.headers.emplace_back("authorization", fmt::format("SharedKey {}:{}", url_.account,
                                                             base64(hmac_sha256(authorization.secret, text))));
      break;
    }
    case AzureAuthorization::Kind::kSas:
      if (!query.empty()) query += "&";
      query += authorization.secret;
      break;
    case AzureAuthorization::Kind::kBearer:
      http.headers.emplace_back("authorization", "Bearer " + authorization.secret);
      break;
  }
  http.url = fmt::format("{}{}{}{}", base_, path, query.empty() ? "" : "?", query);
  Result<HttpReply> reply = http_.perform(http);
  if (!reply.ok()) return std::move(reply).error().within(url_.text());
  if (reply->status >= 200 && reply->status < 300) return reply;
  *expired = reply->status == 401 && authorization.kind == AzureAuthorization::Kind::kBearer;
  return azure_reply_error(request, url_, *reply, skew_of(reply->headers, wall), authorization.source);
}

}  // namespace headrace
