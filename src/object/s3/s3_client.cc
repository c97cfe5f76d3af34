#include "object/s3/s3_client.h"

#include <curl/curl.h>

#include <cstdlib>

#include <fmt/core.h>

#include "object/s3/s3_xml.h"

namespace headrace {

namespace {

constexpr Nanos kSkewAllowed = seconds(5 * 60);  // services refuse from 15 minutes on

std::string_view mend_of(std::string_view code) {
  if (code == "InvalidAccessKeyId" || code == "XAdminUserNotFound")  // versitygw's name for it
    return "the service does not know this access key: check AWS_ACCESS_KEY_ID or the profile";
  if (code == "SignatureDoesNotMatch")
    return "the secret key does not belong to the access key: check AWS_SECRET_ACCESS_KEY or the "
           "profile";
  if (code == "ExpiredToken" || code == "InvalidToken" || code == "TokenRefreshRequired")
    return "the session token has ended: renew AWS_SESSION_TOKEN";
  if (code == "AccessDenied" || code == "AllAccessDisabled")
    return "the credentials lack the right: allow s3:GetObject, PutObject, DeleteObject and "
           "ListBucket on this bucket";
  return {};
}

Nanos skew_of(const HttpHeaders& headers, Nanos wall) {
  const std::string date(header_value(headers, "date"));
  const time_t time = date.empty() ? -1 : ::curl_getdate(date.c_str(), nullptr);
  return time < 0 ? Nanos{} : seconds(time) - wall;
}

bool is_conflict(std::string_view code) {
  return code == "PreconditionFailed" || code == "ConditionalRequestConflict";
}

}  // namespace

Error s3_reply_error(const S3Request& request, const BucketUrl& url, const HttpReply& reply, Nanos skew) {
  S3Error error = parse_s3_error(reply.body.text()).value_or(S3Error{});
  const int status = reply.status;
  const std::string what = fmt::format(
      "{} {} of {}: HTTP {}{}{}{}{}", request.method, request.key.empty() ? "request" : request.key, url.text(), status,
      error.code.empty() ? "" : " ", error.code, error.message.empty() ? "" : ": ", error.message.substr(0, 300));
  auto fail = [&what](Code code, std::string_view mend = {}) {
    return Error(code, mend.empty() ? what : fmt::format("{}: {}", what, mend));
  };
  if (status == 301 || status == 307 || error.code == "AuthorizationHeaderMalformed" ||
      error.code == "PermanentRedirect") {
    std::string region(header_value(reply.headers, "x-amz-bucket-region"));
    if (region.empty()) region = error.region;
    return fail(Code::kInvalid, region.empty()
                                    ? std::string("the bucket is elsewhere: add its region= or endpoint= to the URL")
                                    : fmt::format("the bucket is in {0}: add region={0} to its URL", region));
  }
  const bool skewed = error.code == "RequestTimeTooSkewed" || error.code == "RequestExpired" ||
                      (status == 403 && (skew > kSkewAllowed || skew < Nanos{} - kSkewAllowed));
  if (skewed) {
    const std::string says =
        error.server_time.empty() ? std::string(header_value(reply.headers, "date")) : error.server_time;
    return fail(Code::kDenied,
                fmt::format("this machine's clock is off: the service says it is {}; set the clock (NTP)", says));
  }
  if (status == 412 || is_conflict(error.code)) return fail(Code::kConflict);
  if (status == 409) {
    if (error.code == "BucketAlreadyExists" || error.code == "InvalidBucketState") return fail(Code::kInvalid);
    return fail(request.conditional ? Code::kConflict : Code::kUnavailable);
  }
  if (error.code == "NoSuchBucket") return fail(Code::kNotFound, "create the bucket or fix its name in the URL");
  if (error.code == "NoSuchUpload") return fail(Code::kUnavailable, "somebody has removed the unfinished upload");
  if (error.code == "NoSuchKey" || (status == 404 && request.method == "HEAD"))  // its reply has no body to say more
    return fail(request.conditional ? Code::kConflict : Code::kNotFound);        // If-Match on what is not there
  if (status == 401 || status == 403 || !mend_of(error.code).empty()) {
    if (error.code == "QuotaExceeded") return fail(Code::kNoSpace, "the bucket's quota is used up: raise it");
    return fail(Code::kDenied,
                error.code.empty() ? "check the credentials and their rights on this bucket" : mend_of(error.code));
  }
  // 'Not found' by somebody who is no S3 service must not pass for an absent object.
  if (status == 404) return fail(Code::kInvalid, "check that the endpoint is an S3 service");
  if (status == 507 || error.code == "QuotaExceeded" || error.code.find("StorageFull") != std::string::npos)
    return fail(Code::kNoSpace, "the service has no room left");
  if (status == 416) return fail(Code::kRange);
  if (status == 413 || error.code == "EntityTooLarge") return fail(Code::kTooLarge);
  if (status == 501 || error.code == "NotImplemented") return fail(Code::kNotSupported);
  if (error.code == "KeyTooLongError") return fail(Code::kNameTooLong);
  // The bytes were damaged on their way, and refused: sending them again is right.
  if (error.code == "BadDigest" || error.code == "InvalidDigest" || error.code == "XAmzContentSHA256Mismatch" ||
      error.code == "XAmzContentChecksumMismatch" || error.code == "IncompleteBody" || error.code == "RequestTimeout")
    return fail(Code::kUnavailable);
  if (status == 429 || status == 503 || error.code == "SlowDown") return fail(Code::kUnavailable);
  // Any other failure inside the service may come after the effect. (408: it gave up waiting for us, or for itself.)
  if (status >= 500 || status == 408) return fail(request.conditional ? Code::kTimeout : Code::kUnavailable);
  return fail(Code::kInvalid);
}

S3Client::S3Client(BucketUrl url, EnvironmentLookup environment, Nanos silence_timeout)
    : url_(std::move(url)),
      http_({.ca_bundle = environment("AWS_CA_BUNDLE").value_or("")}),
      credentials_(http_, std::move(environment)),
      silence_timeout_(silence_timeout) {
  region_ = url_.region.empty() ? credentials_.region() : url_.region;
  if (region_.empty()) region_ = "us-east-1";
  std::string endpoint = url_.endpoint;
  // A dot in the name would not match the service's wildcard certificate.
  const bool dotted = url_.bucket.find('.') != std::string::npos;
  bool path_style = !endpoint.empty() || dotted;
  if (url_.style != BucketUrl::Style::kAuto) path_style = url_.style == BucketUrl::Style::kPath;
  if (endpoint.empty())
    endpoint = fmt::format("https://s3.{}.amazonaws.com{}", region_, region_.starts_with("cn-") ? ".cn" : "");
  tls_ = endpoint.starts_with("https://");
  const size_t host_at = endpoint.find("://") + 3;
  host_ = endpoint.substr(host_at);
  if (path_style)
    path_prefix_ = "/" + url_.bucket;
  else
    host_ = url_.bucket + "." + host_;
  base_ = endpoint.substr(0, host_at) + host_;
  // curl leaves out a scheme's own port in the Host header, and it is the Host header that is
  // signed.
  const std::string_view own_port = tls_ ? ":443" : ":80";
  if (host_.ends_with(own_port)) host_.resize(host_.size() - own_port.size());
}

Result<HttpReply> S3Client::call(const S3Request& request, Nanos wall) {
  bool expired = false;
  Result<HttpReply> reply = call_once(request, wall, &expired);
  if (!expired) return reply;
  credentials_.forget();
  return call_once(request, wall, &expired);
}

Result<HttpReply> S3Client::call_once(const S3Request& request, Nanos wall, bool* expired) {
  *expired = false;
  HR_TRY(Credentials credentials, credentials_.get(wall));
  SigningInput input;
  input.method = request.method;
  input.host = host_;
  input.path = path_prefix_ + "/" + request.key;
  // In path style the bucket itself is "/bucket".
  if (request.key.empty() && !path_prefix_.empty()) input.path = path_prefix_;
  input.query = request.query;
  input.headers = request.headers;
  // Over TLS the body cannot be changed under way, and its checksum header is signed.
  input.payload_hash = tls_ && !request.body.empty() ? std::string(kUnsignedPayload) : sha256_hex(request.body.view());
  input.region = region_;
  input.wall = wall;

  HttpRequest http;
  http.method = request.method;
  http.headers = sign_v4(input, credentials);
  const std::string query = canonical_query(request.query);
  http.url = fmt::format("{}{}{}{}", base_, uri_encoded(input.path, true), query.empty() ? "" : "?", query);
  http.body = request.body;
  http.most_reply = request.most_reply;
  http.silence_timeout = silence_timeout_;
  Result<HttpReply> reply = http_.perform(http);
  if (!reply.ok()) return std::move(reply).error().within(url_.text());
  if (reply->status >= 200 && reply->status < 300) return reply;
  const S3Error error = parse_s3_error(reply->body.text()).value_or(S3Error{});
  *expired = error.code == "ExpiredToken" || error.code == "TokenRefreshRequired";
  // A HEAD's reply has no body to say so.
  const bool refused = reply->status == 400 || reply->status == 401 || reply->status == 403;
  if (request.method == "HEAD" && refused && !credentials.session_token.empty()) *expired = true;
  return s3_reply_error(request, url_, *reply, skew_of(reply->headers, wall));
}

}  // namespace headrace
