#include "admin/admin_server.h"

#include <httplib.h>

#include <atomic>
#include <chrono>
#include <future>
#include <nlohmann/json.hpp>
#include <thread>

namespace headrace {

namespace {

constexpr int kThreads = AdminServer::kMaxCommands + 8;

int http_status(Code code) {
  switch (code) {
    case Code::kNotFound:
      return 404;
    case Code::kInvalid:
      return 400;
    case Code::kConflict:
    case Code::kExists:
      return 409;
    case Code::kUnavailable:
      return 503;
    default:
      return 500;
  }
}

// Equal time for every token of the same length.
bool same_token(const std::string& a, const std::string& b) {
  if (a.size() != b.size()) return false;
  unsigned char difference = 0;
  for (size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned char>(a[i] ^ b[i]);
  return difference == 0;
}

struct Answer {
  std::promise<Result<std::string>> promise;
  bool given = false;
  void give(Result<std::string> result) {
    if (given) return;
    given = true;
    promise.set_value(std::move(result));
  }
  ~Answer() { give(Error(Code::kCancelled, "the node is stopping")); }
};

Task<void> answer_with(AdminServer::Handler handler, std::string body, std::shared_ptr<Answer> answer) {
  Result<std::string> result = co_await handler(std::move(body));
  answer->give(std::move(result));
}

}  // namespace

std::string error_json(const Error& error) {
  return nlohmann::json{{"error", {{"code", std::string(code_name(error.code()))}, {"message", error.message()}}}}.dump(
      -1, ' ', false, nlohmann::json::error_handler_t::replace);  // it may hold names of files
}

struct AdminServer::Impl {
  Post post;
  std::string token;
  httplib::Server server;
  std::thread thread;
  std::unique_ptr<Scope> scope = std::make_unique<Scope>();  // on the core
  std::atomic<bool> stopping = false;
  std::atomic<int> commands = 0;  // that run

  void run_command(const Handler& handler, const httplib::Request& request, httplib::Response& response) {
    if (++commands <= kMaxCommands) {
      run(handler, false, request, response);
    } else {
      const Error error(Code::kUnavailable, "the node is at " + std::to_string(kMaxCommands) +
                                                " commands already (`headrace status` shows what it does): try again");
      response.status = http_status(error.code());
      response.set_content(error_json(error), "application/json");
    }
    --commands;
  }

  void run(const Handler& handler, bool open, const httplib::Request& request, httplib::Response& response) {
    if (!open && !same_token(request.get_header_value("Authorization"), "Bearer " + token)) {
      response.status = 401;
      response.set_content(error_json(Error(Code::kDenied, "the token of STATE/node.json is needed")),
                           "application/json");
      return;
    }
    auto answer = std::make_shared<Answer>();
    std::future<Result<std::string>> future = answer->promise.get_future();
    post([this, handler, body = request.body, answer] {
      if (scope != nullptr) scope->spawn(answer_with(handler, body, answer));
    });
    answer.reset();
    // The core may be waiting for this very thread in stop(): then no answer comes any more.
    while (future.wait_for(std::chrono::milliseconds(50)) != std::future_status::ready && !stopping) {
    }
    bool there = future.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
    Result<std::string> result = there ? future.get() : Result<std::string>(Code::kCancelled, "the node is stopping");
    if (!result.ok()) response.status = http_status(result.code());
    response.set_content(result.ok() ? *result : error_json(result.error()), open ? "text/plain" : "application/json");
  }
};

AdminServer::AdminServer(Post post, std::string token) : impl_(std::make_shared<Impl>()) {
  impl_->post = std::move(post);
  impl_->token = std::move(token);
  impl_->server.new_task_queue = [] { return new httplib::ThreadPool(kThreads); };
  impl_->server.set_payload_max_length(1 << 20);
}

AdminServer::~AdminServer() {
  stop();
}

void AdminServer::get(const std::string& path, Handler handler, bool open) {
  Impl* impl = impl_.get();
  impl->server.Get(
      path, [impl, handler, open](const httplib::Request& q, httplib::Response& r) { impl->run(handler, open, q, r); });
}

void AdminServer::post(const std::string& path, Handler handler, bool always) {
  Impl* impl = impl_.get();
  impl->server.Post(path, [impl, handler, always](const httplib::Request& q, httplib::Response& r) {
    if (always)
      impl->run(handler, false, q, r);
    else
      impl->run_command(handler, q, r);
  });
}

Result<int> AdminServer::start() {
  int port = impl_->server.bind_to_any_port("127.0.0.1");
  if (port <= 0) return Error(Code::kUnavailable, "no free port on 127.0.0.1 for the admin API");
  Impl* impl = impl_.get();
  impl_->thread = std::thread([impl] { impl->server.listen_after_bind(); });
  return port;
}

void AdminServer::stop() {
  if (!impl_->thread.joinable()) return;
  impl_->stopping = true;
  impl_->scope.reset();
  impl_->server.stop();
  impl_->thread.join();
}

}  // namespace headrace
