// headrace-mount: a namespace at a directory, through FUSE, until it is unmounted, told to end, the node closes it, or
// another process takes it over.
#include <malloc.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <filesystem>

#include "apps/handover_socket.h"
#include "apps/process.h"
#include "apps/state.h"
#include "client/client.h"
#include "gateway/fuse/gateway.h"
#include "runtime/uring/reactor.h"
#include "runtime/uring/thread_pool.h"

namespace headrace {
namespace {

struct Options {
  std::string directory;
  std::string node;        // address
  std::string state;       // where to leave the mount's file; may be empty
  uint64_t dirty_mib = 0;  // 0: as the process that is taken over has it, or 1 GiB
  uint64_t cache_mib = 0;
  bool noatime = false;
  int take_over = 0;  // pid
  int ready_fd = -1;
};

constexpr Nanos kUnmountGrace = seconds(20);

// What serves, and what may end that. One at a time: `ending` is held by whoever unmounts or hands over.
struct Serving {
  Reactor& reactor;
  Options& options;
  const ClientOptions& client_options;
  Client& client;
  FuseGateway& gateway;
  bool access_times;
  std::unique_ptr<HandoverListener> listener;
  Mutex ending;
  bool told_to_end = false;  // by a signal
};

Task<void> unmount_on_signal(Serving* serving) {
  (void)co_await serving->reactor.wait_signal();
  serving->told_to_end = true;
  Mutex::Guard guard = co_await serving->ending.lock();
  (void)co_await serving->gateway.unmount(kUnmountGrace);
}

Task<void> unmount_on_closing(Serving* serving) {
  co_await serving->client.closing().wait();
  Mutex::Guard guard = co_await serving->ending.lock();
  (void)co_await serving->gateway.unmount(kUnmountGrace);
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

void tell_losses(Client& client) {
  for (const Client::Loss& loss : client.take_losses())
    std::fprintf(
        stderr,
        "headrace-mount: partition %u ended this mount's session: it was not heard of for longer than its lease. "
        "%llu bytes and %llu changes of names that nobody had synced are lost; a sync tells who wrote them\n",
        static_cast<unsigned>(loss.partition.value()), static_cast<unsigned long long>(loss.bytes),
        static_cast<unsigned long long>(loss.changes));
}

Task<void> report_loop(Env env, Client* client) {
  for (;;) {
    co_await env.clock.sleep(milliseconds(500));
    tell_losses(*client);
    co_await report_once(client);
  }
}

// --- Handing over: the old process ---

constexpr Nanos kWord = seconds(5);       // for what needs no work
constexpr Nanos kDrain = seconds(10);     // for requests that run
constexpr Nanos kTakeOver = seconds(20);  // until the new one is ready
constexpr Nanos kFlush = seconds(600);    // of what is dirty, by the old one

// Everything stands still from the first to the last of it.
Task<Result<void>> offer(Serving& serving, const HandoverChannel& to) {
  HR_CO_TRY(co_await serving.gateway.session().pause(kDrain));
  HR_CO_TRY(ClientHandover client, co_await serving.client.hand_over(kDrain));
  const MountHandover handover{.directory = serving.gateway.directory(),
                               .dirty_limit = serving.client_options.dirty_limit,
                               .read_cache = serving.client_options.read_cache,
                               .access_times = serving.access_times,
                               .client = std::move(client),
                               .session = serving.gateway.session().hand_over()};
  HR_CO_TRY(DescriptorRef record, memory_file(encode_mount_handover(handover)));
  to.send("state", {serving.gateway.fd(), record->fd()});
  HR_CO_TRY(HandoverChannel::Message ready, co_await to.receive(kTakeOver));
  if (serving.client.closing().is_set()) co_return Error(Code::kUnavailable, "the node is closing this client");
  to.send("go");
  Result<HandoverChannel::Message> begun = co_await to.receive(kTakeOver);
  // One that lives but says nothing serves, as far as anyone can know.
  if (!begun.ok() && begun.code() != Code::kTimeout) co_return std::move(begun).error();
  co_return Result<void>();
}

[[noreturn]] void leave(Serving& serving, const HandoverChannel& to) {
  serving.listener.reset();
  remove_mount_file(serving.options.state, ::getpid());
  if (serving.told_to_end) ::kill(to.peer(), SIGTERM);
  // Nothing is closed or given back: it is another's. A thread may be inside the kernel until that one serves.
  ::_exit(0);
}

Task<Result<void>> hand_over(Serving& serving, const HandoverChannel& to) {
  HR_CO_TRY(HandoverChannel::Message asked, co_await to.receive(kWord));
  constexpr std::string_view kAsk = "take over ";
  int format = 0;
  if (asked.text.starts_with(kAsk))
    std::from_chars(asked.text.data() + kAsk.size(), asked.text.data() + asked.text.size(), format);
  if (format < MountHandover::kFormat)
    co_return Error(Code::kUnsupportedFormat,
                    "the new process is of an older version than the one that serves: unmount, and mount again");
  if (serving.ending.locked()) co_return Error(Code::kBusy, "it is being unmounted");
  Mutex::Guard guard = co_await serving.ending.lock();
  HR_CO_TRY(co_await serving.client.prepare_hand_over());
  Result<void> taken = co_await offer(serving, to);
  if (taken.ok()) leave(serving, to);
  serving.client.resume();
  serving.gateway.session().resume();
  co_return taken;
}

Task<void> hand_over_when_asked(Serving* serving) {
  for (;;) {
    HandoverChannel to = co_await serving->listener->accept();
    Result<void> over = co_await hand_over(*serving, to);
    to.send("no: " + over.error().message());
    std::fprintf(stderr, "headrace-mount: %s was not handed over to process %d: %s\n",
                 serving->gateway.directory().c_str(), to.peer(), over.error().message().c_str());
  }
}

// --- Taking over: the new process ---

// Until it serves it must not end like one that does, which would close sessions and unmount.
[[noreturn]] void give_up(const HandoverChannel& from, Options& options, const Error& error) {
  from.send("no: " + error.message());
  remove_mount_file(options.state, ::getpid());
  tell_starter(options.ready_fd, "error: " + error.message());
  ::_exit(1);
}

struct Predecessor {
  HandoverChannel channel;
  MountHandover handover;
  DescriptorRef fuse;
};

Task<Result<Predecessor>> ask_for_the_mount(Reactor& reactor, Options& options) {
  HR_CO_TRY(HandoverChannel channel, HandoverChannel::connect(reactor, options.state, options.take_over));
  channel.send("take over " + std::to_string(MountHandover::kFormat));
  Result<HandoverChannel::Message> state = co_await channel.receive(kFlush);
  if (!state.ok()) give_up(channel, options, state.error());
  if (state->descriptors.size() != 2) give_up(channel, options, Error(Code::kInvalid, "no descriptors came along"));
  Result<std::string> record = read_memory_file(state->descriptors[1]->fd());
  if (!record.ok()) give_up(channel, options, record.error());
  Result<MountHandover> handover = decode_mount_handover(*record);
  if (!handover.ok()) give_up(channel, options, handover.error());
  co_return Predecessor{std::move(channel), *std::move(handover), std::move(state->descriptors[0])};
}

Task<void> begin_to_serve(const HandoverChannel& from, Options& options) {
  from.send("ready");
  Result<HandoverChannel::Message> go = co_await from.receive(kTakeOver);
  if (!go.ok() && go.code() != Code::kDisconnected) give_up(from, options, go.error());
  from.send("serving");
}

// --- Both ---

struct Pools {
  ThreadPool* notifiers;
  ThreadPool* quick;
};

Task<Result<void>> run_mount(Reactor& reactor, Pools pools, Options& options) {
  Env env = reactor.env();
  ClientOptions client_options;
  client_options.nodes = {options.node};
  std::optional<Predecessor> before;
  if (options.take_over > 0) {
    HR_CO_TRY(before, co_await ask_for_the_mount(reactor, options));
    if (before->handover.dirty_limit > 0) client_options.dirty_limit = before->handover.dirty_limit;
    if (before->handover.read_cache > 0) client_options.read_cache = before->handover.read_cache;
    client_options.handover = std::move(before->handover.client);
    client_options.start_timeout = kWord;
  }
  if (options.dirty_mib > 0) client_options.dirty_limit = options.dirty_mib * kMiB;
  if (options.cache_mib > 0) client_options.read_cache = options.cache_mib * kMiB;
  Result<std::unique_ptr<Client>> started = co_await Client::start(env, client_options);
  client_options.handover.reset();
  if (before && !started.ok()) give_up(before->channel, options, started.error());
  HR_CO_TRY(std::unique_ptr<Client> client, std::move(started));
  FuseGatewayOptions gateway_options;
  gateway_options.mount.access_times = gateway_options.session.access_times =
      !options.noatime && (!before || before->handover.access_times);
  FuseGateway gateway(
      env, *client, [&reactor](int fd, unsigned events) { return reactor.poll(fd, events); }, *pools.notifiers,
      *pools.quick, gateway_options);
  if (before) {
    Result<void> gone_on = co_await gateway.go_on(before->handover.directory, ::dup(before->fuse->fd()),
                                                  std::move(before->handover.session));
    if (!gone_on.ok()) give_up(before->channel, options, gone_on.error());
  } else {
    HR_CO_TRY(co_await gateway.mount(options.directory));
  }
  if (!options.state.empty()) {
    Result<void> written = write_mount_file(options.state, {static_cast<int>(::getpid()), gateway.directory()});
    if (before && !written.ok()) give_up(before->channel, options, written.error());
    if (!written.ok()) co_return written;
  }
  if (before) co_await begin_to_serve(before->channel, options);
  before.reset();
  Result<void> served;
  {
    Serving serving{.reactor = reactor,
                    .options = options,
                    .client_options = client_options,
                    .client = *client,
                    .gateway = gateway,
                    .access_times = gateway_options.mount.access_times};
    if (!options.state.empty()) {
      Result<std::unique_ptr<HandoverListener>> opened = HandoverListener::open(reactor, options.state);
      if (opened.ok()) serving.listener = *std::move(opened);
      if (!opened.ok()) std::fprintf(stderr, "headrace-mount: %s\n", opened.error().message().c_str());
    }
    tell_starter(options.ready_fd, "ready");
    Scope scope;
    scope.spawn(unmount_on_signal(&serving));
    scope.spawn(unmount_on_closing(&serving));
    scope.spawn(report_loop(env, client.get()));
    if (serving.listener != nullptr) scope.spawn(hand_over_when_asked(&serving));
    served = co_await gateway.serve();
  }
  co_await report_once(client.get());
  Result<void> ended = co_await client->shut_down();
  if (!options.state.empty()) remove_mount_file(options.state, ::getpid());
  if (!served.ok()) co_return served;
  co_return ended;
}

Task<void> run_main(Reactor* reactor, Pools pools, Options* options, int* exit_code) {
  Result<void> done = co_await run_mount(*reactor, pools, *options);
  if (done.ok()) co_return;
  tell_starter(options->ready_fd, "error: " + done.error().message());
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
  CLI::Option* state = app.add_option("--state", options.state,
                                      "state directory of a local node, so that `headrace stop` finds the mount");
  app.add_option("--dirty-mib", options.dirty_mib, "unsynced bytes held in memory at most (default 1024)");
  app.add_option("--cache-mib", options.cache_mib, "memory for what was read (default 256)");
  app.add_flag("--noatime", options.noatime, "reading a file does not move its access time");
  app.add_option("--take-over", options.take_over,
                 "go on serving the mount of this process, which ends: open files, locks and mappings stay")
      ->needs(state);
  app.add_option("--ready-fd", options.ready_fd, "where to write 'ready' or 'error: …'");
  CLI11_PARSE(app, argc, argv);
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
  Result<std::unique_ptr<Reactor>> reactor = Reactor::create({.spin = kSpin});
  Result<void> caught = reactor.ok() ? (*reactor)->catch_signals({SIGTERM, SIGINT}) : Result<void>(reactor.error());
  if (!caught.ok()) {
    tell_starter(options.ready_fd, "error: " + caught.error().message());
    return 1;
  }
  int exit_code = 0;
  {
    ThreadPool notifiers(**reactor, FuseGateway::kNotifierThreads);
    ThreadPool quick(**reactor, 1);
    (*reactor)->run(run_main(reactor->get(), {&notifiers, &quick}, &options, &exit_code));
  }
  return exit_code;
}

}  // namespace
}  // namespace headrace

int main(int argc, char** argv) {
  headrace::raise_descriptor_limit();
  return headrace::run(argc, argv);
}
