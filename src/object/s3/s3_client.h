// S3Client: one signed request to the S3 API and what its reply means. Blocking, thread-safe,
// without retries.
//
// Shared by the store and by the jobs that it has under way: a job may outlive the task that
// started it. Every reply that is not a success becomes an Error that names the cause and, where a
// person can act, the mend.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "object/bucket_url.h"
#include "object/http/http.h"
#include "object/s3/credentials.h"

namespace headrace {

struct S3Request {
  std::string method;
  std::string key;  // with the URL's prefix; empty: the bucket itself
  std::vector<std::pair<std::string, std::string>> query;
  HttpHeaders headers;
  Buffer body;
  uint64_t most_reply = kMiB;
  bool conditional = false;  // a write with If-Match or If-None-Match: a lost reply leaves its outcome unknown
};

class S3Client {
 public:
  explicit S3Client(BucketUrl url, EnvironmentLookup environment = process_environment,
                    Nanos silence_timeout = seconds(30));

  // A reply of 2xx, or an Error. `wall` signs.
  [[nodiscard]] Result<HttpReply> call(const S3Request& request, Nanos wall);
  [[nodiscard]] const BucketUrl& url() const { return url_; }
  void cancel() { http_.cancel(); }

 private:
  [[nodiscard]] Result<HttpReply> call_once(const S3Request& request, Nanos wall, bool* expired);

  BucketUrl url_;
  HttpPool http_;
  CredentialChain credentials_;
  std::string region_;
  std::string base_;         // scheme://host[:port]
  std::string host_;         // for the Host header
  std::string path_prefix_;  // "/bucket" in path style
  bool tls_ = true;
  Nanos silence_timeout_;
};

// What a reply of status ≥ 300 means. `skew`: the service's clock minus ours, by its Date header; 0
// when unknown.
[[nodiscard]] Error s3_reply_error(const S3Request& request, const BucketUrl& url, const HttpReply& reply, Nanos skew);

}  // namespace headrace
