// What the tests on a real mount share: a MemoryFileSystem served by a child process. A process of
// its own, because a caller and a server that are killed together while one waits for the other
// could never end.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <string>

#include "gateway/fuse/gateway.h"
#include "gateway/fuse/memory_file_system.h"
#include "runtime/uring/reactor.h"
#include "runtime/uring/thread_pool.h"

namespace headrace {

// Why these tests cannot run here; empty where they can.
inline std::string no_fuse_because() {
  if (geteuid() != 0) return "not root: a mount needs it";
  if (access("/dev/fuse", R_OK | W_OK) != 0) return "/dev/fuse is missing";
  return {};
}

class ServedMount {
 public:
  explicit ServedMount(FuseGatewayOptions options = {}, std::string where = {}) {
    std::string name = "/tmp/headrace-fuse-test-XXXXXX";
    if (where.empty()) {
      HR_ASSERT(mkdtemp(name.data()) != nullptr);
      directory_ = name;
    } else {
      directory_ = where;
      owned_ = false;
    }
    int pair[2];
    HR_ASSERT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    child_ = fork();
    HR_ASSERT(child_ >= 0);
    if (child_ == 0) {
      close(pair[0]);
      int status = serve(pair[1], directory_, std::move(options));
      std::fflush(nullptr);
      _exit(status);
    }
    close(pair[1]);
    control_ = pair[0];
    started_ = receive();
  }
  ServedMount(const ServedMount&) = delete;
  ServedMount& operator=(const ServedMount&) = delete;
  ~ServedMount() {
    if (child_ > 0) EXPECT_EQ(end(), 0) << "the server's exit status";
    close(control_);
    if (owned_) rmdir(directory_.c_str());
  }

  [[nodiscard]] const std::string& started() const { return started_; }  // "mounted", or the error
  [[nodiscard]] std::string path(const std::string& name = "") const {
    return name.empty() ? directory_ : directory_ + "/" + name;
  }
  // What serve() below understands.
  std::string ask(const std::string& command) {
    if (send(control_, command.data(), command.size(), MSG_NOSIGNAL) < 0) return "gone";
    return receive();
  }
  int end() {
    (void)ask("unmount");
    return wait();
  }
  int kill_server() {
    kill(child_, SIGKILL);
    return wait();
  }
  int wait() {
    int status = 0;
    HR_ASSERT(waitpid(child_, &status, 0) == child_);
    child_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  struct Server {
    std::unique_ptr<Reactor> reactor;
    MemoryFileSystem files;
    ThreadPool notifiers;
    ThreadPool quick;
    FuseGatewayOptions options;
    std::vector<std::unique_ptr<FuseGateway>> former;
    std::unique_ptr<FuseGateway> gateway;
    int control;
    bool failed = false;
    Event ended;
    Scope scope;
    Server(std::unique_ptr<Reactor> r, int fd, FuseGatewayOptions o)
        : reactor(std::move(r)),
          files(*reactor),
          notifiers(*reactor, FuseGateway::kNotifierThreads),
          quick(*reactor, 1),
          options(std::move(o)),
          gateway(new_gateway()),
          control(fd) {}
    std::unique_ptr<FuseGateway> new_gateway() {
      return std::make_unique<FuseGateway>(
          reactor->env(), files, [this](int poll_fd, unsigned events) { return reactor->poll(poll_fd, events); },
          notifiers, quick, options);
    }
    void say(const std::string& text) const { (void)!send(control, text.data(), text.size(), MSG_NOSIGNAL); }
  };

  static int serve(int control, const std::string& directory, FuseGatewayOptions options) {
    Result<std::unique_ptr<Reactor>> reactor = Reactor::create();
    HR_ASSERT(reactor.ok());
    Reactor& loop = **reactor;
    Server server(*std::move(reactor), control, std::move(options));
    loop.run(run(server, directory));
    return server.failed ? 1 : 0;
  }
  static Task<void> run(Server& server, std::string directory) {  // NOLINT: the server outlives it
    Result<void> mounted = co_await server.gateway->mount(directory);
    server.say(mounted.ok() ? "mounted" : mounted.error().text());
    if (!mounted.ok()) co_return;
    server.scope.spawn(obey(server));
    server.scope.spawn(serve_it(server, server.gateway.get()));
    co_await server.ended.wait();
  }
  static Task<void> serve_it(Server& server, FuseGateway* gateway) {  // NOLINT: as above
    Result<void> served = co_await gateway->serve();
    if (!served.ok()) std::fprintf(stderr, "serve: %s\n", served.error().text().c_str());
    server.failed = !served.ok();
    server.ended.set();
  }
  // From a paused session to another, as from one process to the next.
  static Task<std::string> succeed(Server& server) {  // NOLINT: as above
    FuseGateway& old = *server.gateway;
    std::unique_ptr<FuseGateway> next = server.new_gateway();
    const int fd = ::dup(old.fd());
    Result<void> gone_on = co_await next->go_on(old.directory(), fd, old.session().hand_over());
    if (!gone_on.ok()) co_return gone_on.error().text();
    old.leave();
    server.former.push_back(std::exchange(server.gateway, std::move(next)));
    server.scope.spawn(serve_it(server, server.gateway.get()));
    co_return "ok";
  }
  static Task<void> obey(Server& server) {  // NOLINT: as above
    for (;;) {
      (void)co_await server.reactor->poll(server.control, POLLIN);
      char text[16384];
      ssize_t got = recv(server.control, text, sizeof text, MSG_DONTWAIT);
      std::string command(text, static_cast<size_t>(std::max<ssize_t>(got, 0)));
      std::string answer = "ok";
      if (command.empty() || command == "unmount") {  // empty: the test is gone
        Result<void> unmounted = co_await server.gateway->unmount(milliseconds(200));
        if (!unmounted.ok()) std::fprintf(stderr, "unmount: %s\n", unmounted.error().text().c_str());
        server.say(unmounted.ok() ? "ok" : unmounted.error().text());
        co_return;
      }
      if (command == "hold reads") server.files.hold_reads(true);
      if (command == "release reads") server.files.hold_reads(false);
      if (command == "pause") {
        Result<void> paused = co_await server.gateway->session().pause(seconds(5));
        if (!paused.ok()) answer = paused.error().text();
      }
      if (command == "resume") server.gateway->session().resume();
      if (command == "succeed") answer = co_await succeed(server);
      if (command == "syncs") answer = std::to_string(server.files.syncs());
      if (command == "inodes") answer = std::to_string(server.files.inodes());
      if (command == "open files") answer = std::to_string(server.files.open_files());
      if (command == "handles") answer = std::to_string(server.gateway->statistics().open_files);
      if (command == "waiting reads") answer = std::to_string(server.files.waiting_reads());
      if (command == "late invalidations") answer = std::to_string(server.gateway->statistics().late_invalidations);
      if (command == "invalidations") answer = std::to_string(server.gateway->statistics().invalidations);
      if (command == "errors") answer = std::to_string(server.gateway->statistics().errors);
      // "write NAME BYTES", "write silently NAME BYTES" (mtime stands still)
      if (command.starts_with("write ")) {
        std::string rest = command.substr(6);
        bool silently = rest.starts_with("silently ");
        if (silently) rest = rest.substr(9);
        size_t space = rest.find(' ');
        co_await server.files.write_elsewhere(kRootFile, rest.substr(0, space), rest.substr(space + 1), !silently);
      }
      server.say(answer);
    }
  }
  std::string receive() {
    char text[4096];
    ssize_t got = recv(control_, text, sizeof text, 0);
    return got <= 0 ? "gone" : std::string(text, static_cast<size_t>(got));
  }

  std::string directory_;
  bool owned_ = true;
  pid_t child_ = 0;
  int control_ = -1;
  std::string started_;
};

}  // namespace headrace
