// headrace-mount: a namespace at a directory, through FUSE, until it is unmounted, told to end, or the node closes it.
#include <malloc.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <filesystem>

#include "apps/state.h"
#include "client/client.h"
#include "gateway/fuse/gateway.h"
#include "runtime/uring/reactor.h"
#include "runtime/uring/thread_pool.h"

namespace headrace {
namespace {

struct Options {
  std::string directory;
  std::string node;   // address
  std::string state;  // where to leave the mount's file; may be empty
  uint64_t dirty_mib = 1024;
  uint64_t cache_mib = 256;
  bool noatime = false;
  int ready_fd = -1;
};

void tell(const Options& options, const std::string& line) {
  std::string text = line + "\n";
  int fd = options.ready_fd >= 0 ? options.ready_fd : 2;
  ssize_t written = ::write(fd, text.data(), text.size());
  (void)written;  // nobody listens any more
  if (options.ready_fd >= 0) ::close(options.ready_fd);
}

constexpr Nanos kUnmountGrace = seconds(20);

Task<void> unmount_on_signal(Reactor* reactor, FuseGateway* gateway) {
  (void)co_await reactor->wait_signal();
  (void)co_await gateway->unmount(kUnmountGrace);
}

Task<void> unmount_on_closing(Client* client, FuseGateway* gateway) {
  co_await client->closing().wait();
  (void)co_await gateway->unmount(kUnmountGrace);
}

Task<void> report_once(Client* client) {
  ClientStatistics counters = client->counters();
  Report report{counters.segments.degraded_reads, counters.segments.bytes_read, counters.segments.bytes_written,
                client->take_damage()};
  // What does not fit, or does not arrive, is met again by the next read of it.
  if (report.damage.size() > Report::kMaxDamage) report.damage.resize(Report::kMaxDamage);
  CallOptions options;
  options.timeout = seconds(2);
  for (const NodeInfo& node : client->map().nodes) {
    Result<Empty> sent = co_await client->hub().call(node.address, report, options);
    (void)sent.ok();  // the next one says it again
  }
}

Task<void> report_loop(Env env, Client* client) {
  for (;;) {
    co_await env.clock.sleep(milliseconds(500));
    co_await report_once(client);
  }
}

Task<Result<void>> run_mount(Reactor& reactor, ThreadPool& notifiers, const Options& options) {
  Env env = reactor.env();
  ClientOptions client_options;
  client_options.nodes = {options.node};
  client_options.dirty_limit = options.dirty_mib * kMiB;
  client_options.read_cache = options.cache_mib * kMiB;
  HR_CO_TRY(std::unique_ptr<Client> client, co_await Client::start(env, client_options));
  FuseGatewayOptions gateway_options;
  gateway_options.mount.access_times = gateway_options.session.access_times = !options.noatime;
  FuseGateway gateway(
      env, *client, [&reactor](int fd, unsigned events) { return reactor.poll(fd, events); }, notifiers,
      gateway_options);
  HR_CO_TRY(co_await gateway.mount(options.directory));
  if (!options.state.empty()) {
    Result<void> written = write_mount_file(options.state, {static_cast<int>(::getpid()), gateway.directory()});
    if (!written.ok()) co_return written;
  }
  tell(options, "ready");
  Result<void> served;
  {
    Scope scope;
    scope.spawn(unmount_on_signal(&reactor, &gateway));
    scope.spawn(unmount_on_closing(client.get(), &gateway));
    scope.spawn(report_loop(env, client.get()));
    served = co_await gateway.serve();
  }
  co_await report_once(client.get());
  Result<void> ended = co_await client->shut_down();
  if (!options.state.empty()) remove_mount_file(options.state, ::getpid());
  if (!served.ok()) co_return served;
  co_return ended;
}

Task<void> run_main(Reactor* reactor, ThreadPool* notifiers, const Options* options, int* exit_code) {
  Result<void> done = co_await run_mount(*reactor, *notifiers, *options);
  if (done.ok()) co_return;
  tell(*options, "error: " + done.error().message());
  *exit_code = 1;
}

// A program that waits for each answer is back with the next request within it: waking it on another core takes half of
// that.
constexpr Nanos kSpin = microseconds(60);

int run(int argc, char** argv) {
  Options options;
  CLI::App app{"headrace-mount: a Headrace namespace at a directory"};
  app.add_option("directory", options.directory, "where to mount")->required();
  app.add_option("--node", options.node, "a node's address: unix:PATH or tcp:HOST:PORT")->required();
  app.add_option("--state", options.state, "state directory of a local node, so that `headrace stop` finds the mount");
  app.add_option("--dirty-mib", options.dirty_mib, "unsynced bytes held in memory at most");
  app.add_option("--cache-mib", options.cache_mib, "memory for what was read");
  app.add_flag("--noatime", options.noatime, "reading a file does not move its access time");
  app.add_option("--ready-fd", options.ready_fd, "where to write 'ready' or 'error: …'");
  CLI11_PARSE(app, argc, argv);
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
  Result<std::unique_ptr<Reactor>> reactor = Reactor::create({.spin = kSpin});
  Result<void> caught = reactor.ok() ? (*reactor)->catch_signals({SIGTERM, SIGINT}) : Result<void>(reactor.error());
  if (!caught.ok()) {
    tell(options, "error: " + caught.error().message());
    return 1;
  }
  int exit_code = 0;
  {
    ThreadPool notifiers(**reactor, 2);
    (*reactor)->run(run_main(reactor->get(), &notifiers, &options, &exit_code));
  }
  return exit_code;
}

}  // namespace
}  // namespace headrace

int main(int argc, char** argv) {
  return headrace::run(argc, argv);
}
