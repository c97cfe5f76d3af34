// HttpPool: HTTP/1.1 requests by libcurl, blocking, from any thread; connections are kept and used
// again.
//
// Each request borrows a curl handle (with its connections) and gives it back: the handles are as
// many as there were requests at once. Nothing is retried here, redirections are not followed.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "runtime/timers.h"

namespace headrace {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;  // names in lower case

// Empty when absent.
[[nodiscard]] std::string_view header_value(const HttpHeaders& headers, std::string_view lower_case_name);

struct HttpRequest {
  std::string method;
  std::string url;  // as it goes on the wire: encoded by the caller
  HttpHeaders headers;
  Buffer body;
  uint64_t most_reply = kGiB;  // a longer body is kTooLarge
  Nanos connect_timeout = seconds(5);
  Nanos silence_timeout = seconds(30);  // less than 1 KiB/s for so long, in either direction
  bool direct = false;                  // no proxy, whatever the environment says
};

struct HttpReply {
  int status = 0;
  HttpHeaders headers;
  Buffer body;
};

struct HttpOptions {
  std::string ca_bundle;                      // file of trusted certificates; empty: the system's
  std::string ca_variable = "AWS_CA_BUNDLE";  // that names such a file, for messages
};

class HttpPool {
 public:
  explicit HttpPool(HttpOptions options = {});
  ~HttpPool();
  HttpPool(const HttpPool&) = delete;
  HttpPool& operator=(const HttpPool&) = delete;

  // Any status is a reply. kUnavailable: nothing was sent. kTimeout, kDisconnected: unknown
  // outcome, or a body that is shorter than announced. kDenied: the peer's certificate is not
  // trusted.
  [[nodiscard]] Result<HttpReply> perform(const HttpRequest& request);
  // From any thread: requests under way end within about a second, later ones at once, with
  // kCancelled.
  void cancel() { cancelled_ = true; }

 private:
  class Handle;
  static int on_progress(void* self, int64_t, int64_t, int64_t, int64_t);
  HttpOptions options_;
  std::atomic<bool> cancelled_ = false;
  std::mutex mutex_;
  std::vector<void*> idle_;  // CURL*
};

}  // namespace headrace
