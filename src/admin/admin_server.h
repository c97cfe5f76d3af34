// AdminServer: the HTTP API of one node, for the CLI, the console and Prometheus. JSON in, JSON out, on loopback.
//
// Requests arrive on threads of the HTTP library; handlers run as tasks on the node's core and their results are
// carried back. A command holds a thread until it ends, also when whoever gave it is gone; only so many run at once
// that whoever looks, and whoever takes a command back, always gets through. Every path but /metrics needs
// `Authorization: Bearer TOKEN`; the token is in STATE/node.json, readable by the node's user alone. Owner: the node's
// main; start() and stop() on the core, stop() before what handlers use goes.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "runtime/scope.h"
#include "runtime/task.h"

namespace headrace {

class AdminServer {
 public:
  using Handler = std::function<Task<Result<std::string>>(std::string body)>;  // JSON texts
  using Post = std::function<void(std::move_only_function<void()>)>;           // runs it on the core; thread-safe
  AdminServer(Post post, std::string token);
  ~AdminServer();

  // Before start(). `open`: without a token (metrics).
  void get(const std::string& path, Handler handler, bool open = false);
  // kUnavailable while kMaxCommands others run; `always`: not so, since it ends soon.
  void post(const std::string& path, Handler handler, bool always = false);
  static constexpr int kMaxCommands = 24;
  // Listens on 127.0.0.1; returns the port that the kernel picked.
  [[nodiscard]] Result<int> start();
  // No new requests; those in progress are cut off.
  void stop();

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

// {"error": {"code": "...", "message": "..."}}
[[nodiscard]] std::string error_json(const Error& error);

}  // namespace headrace
