// AzureClient: one authorized request to the Blob service and what its reply means. Blocking,
// thread-safe, without retries.
//
// Shared by the store and by the jobs that it has under way: a job may outlive the task that
// started it. Every reply that is not a success becomes an Error that names the cause and, where a
// person can act, the mend.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "object/azure/azure_credentials.h"
#include "object/bucket_url.h"
#include "object/http/http.h"

namespace headrace {

struct AzureRequest {
  std::string method;
  std::string blob;  // with the URL's prefix; empty: the container itself
  std::vector<std::pair<std::string, std::string>> query;
  HttpHeaders headers;
  Buffer body;
  uint64_t most_reply = kMiB;
  bool conditional = false;  // a write with If-Match or If-None-Match: a lost reply leaves its outcome unknown
};

// What Shared Key signs ("Authorize with Shared Key", Azure Storage REST API reference), version
// 2015-02-21 and later.
struct SharedKeyInput {
  std::string method;
  std::string account;
  std::string path;                                        // encoded, as on the wire
  std::vector<std::pair<std::string, std::string>> query;  // decoded; names in lower case
  HttpHeaders headers;                                     // names in lower case
  uint64_t content_length = 0;
};
[[nodiscard]] std::string shared_key_text(const SharedKeyInput& input);

class AzureClient {
 public:
  explicit AzureClient(BucketUrl url, EnvironmentLookup environment = process_environment,
                       Nanos silence_timeout = seconds(30));

  // A reply of 2xx, or an Error. `wall` dates and signs.
  [[nodiscard]] Result<HttpReply> call(const AzureRequest& request, Nanos wall);
  [[nodiscard]] const BucketUrl& url() const { return url_; }
  void cancel() { http_.cancel(); }

 private:
  [[nodiscard]] Result<HttpReply> call_once(const AzureRequest& request, Nanos wall, bool* expired);

  BucketUrl url_;
  HttpPool http_;
  AzureCredentials credentials_;
  std::string base_;         // scheme://host[:port]
  std::string path_prefix_;  // "/container", or "/account/container" where the host names no account
  Nanos silence_timeout_;
};

// What a reply of status ≥ 300 means. `skew`: the service's clock minus ours, by its Date header; 0
// when unknown. `source`: whence the credentials.
[[nodiscard]] Error azure_reply_error(const AzureRequest& request, const BucketUrl& url, const HttpReply& reply,
                                      Nanos skew, std::string_view source);

}  // namespace headrace
