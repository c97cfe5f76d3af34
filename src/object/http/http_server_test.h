// A tiny HTTP server on a free port of the loopback, for tests that need a service that lies.
#pragma once

#include <arpa/inet.h>
#include <httplib.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>

#include "base/result.h"

namespace headrace::test {

class HttpServer {
 public:
  using Handler = std::function<void(const httplib::Request&, httplib::Response&)>;
  explicit HttpServer(Handler handler) {
    // Not as a pre-routing handler: that answers before the body has been read.
    auto handle = [this, handler = std::move(handler)](const httplib::Request& request, httplib::Response& response) {
      ++requests;
      handler(request, response);
    };
    server_.Get(".*", handle).Put(".*", handle).Post(".*", handle).Delete(".*", handle);
    server_.set_keep_alive_timeout(1);  // stop() waits for idle connections
    port_ = server_.bind_to_any_port("127.0.0.1");
    thread_ = std::thread([this] { server_.listen_after_bind(); });
    server_.wait_until_ready_or_running();
  }
  ~HttpServer() {
    server_.stop();
    thread_.join();
  }
  [[nodiscard]] std::string endpoint() const { return "http://127.0.0.1:" + std::to_string(port_); }
  std::atomic<int> requests = 0;

 private:
  struct Server : httplib::Server {
    // 0.11 has no wait_until_ready().
    void wait_until_ready_or_running() {
      while (!is_running()) std::this_thread::yield();
    }
  };
  Server server_;
  int port_ = 0;
  std::thread thread_;
};

// Takes connections and never answers.
class SilentServer {
 public:
  SilentServer() {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    HR_ASSERT(::bind(listener_, reinterpret_cast<sockaddr*>(&address), size) == 0);
    HR_ASSERT(::listen(listener_, 64) == 0);
    HR_ASSERT(::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) == 0);
    port_ = ntohs(address.sin_port);
  }
  ~SilentServer() { ::close(listener_); }
  [[nodiscard]] std::string endpoint() const { return "http://127.0.0.1:" + std::to_string(port_); }

 private:
  int listener_ = -1;
  int port_ = 0;
};

// Answers each connection with the same raw bytes, then closes it: what no HTTP library would send.
class RawServer {
 public:
  explicit RawServer(std::string reply);
  ~RawServer();
  [[nodiscard]] std::string endpoint() const { return "http://127.0.0.1:" + std::to_string(port_); }

 private:
  void serve();
  std::string reply_;
  int listener_ = -1;
  int port_ = 0;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

inline RawServer::RawServer(std::string reply) : reply_(std::move(reply)) {
  listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  HR_ASSERT(::bind(listener_, reinterpret_cast<sockaddr*>(&address), size) == 0);
  HR_ASSERT(::listen(listener_, 16) == 0);
  HR_ASSERT(::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { serve(); });
}

inline RawServer::~RawServer() {
  stop_ = true;
  ::shutdown(listener_, SHUT_RDWR);
  thread_.join();
  ::close(listener_);
}

inline void RawServer::serve() {
  while (!stop_) {
    int fd = ::accept(listener_, nullptr, nullptr);
    if (fd < 0) return;
    std::string request;
    char bytes[4096];
    while (request.find("\r\n\r\n") == std::string::npos) {
      ssize_t n = ::recv(fd, bytes, sizeof bytes, 0);
      if (n <= 0) break;
      request.append(bytes, static_cast<size_t>(n));
    }
    (void)!::send(fd, reply_.data(), reply_.size(), MSG_NOSIGNAL);
    ::shutdown(fd, SHUT_WR);
    while (::recv(fd, bytes, sizeof bytes, 0) > 0) {
    }
    ::close(fd);
  }
}

}  // namespace headrace::test
