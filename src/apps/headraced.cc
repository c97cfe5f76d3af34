// headraced: one node on this machine, on the embedded coordinator. `headrace up` starts it; it can be run by hand.
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "admin/admin_server.h"
#include "apps/device_copies.h"
#include "apps/devices.h"
#include "apps/json_text.h"
#include "apps/log.h"
#include "apps/node.h"
#include "apps/node_status.h"
#include "apps/process.h"
#include "apps/state.h"
#include "apps/target_guards.h"
#include "coord/embedded/embedded_coordinator.h"
#include "meta/store/rocksdb/rocksdb_store.h"
#include "object/open.h"
#include "object/probe.h"
#include "runtime/scope.h"
#include "runtime/uring/disk.h"
#include "runtime/uring/reactor.h"
#include "runtime/uring/thread_pool.h"
#include "stripe/placement_policy.h"

namespace headrace {
namespace {

struct Options {
  std::string state;
  std::string protection;     // of a new namespace; empty: 4+2, or as the bucket's manifest has it
  std::string targets;        // how many, or where: devices.h
  bool force = false;         // although a device holds something
  uint64_t capacity_mib = 0;  // of each target; 0: chosen from the free space
  std::string bucket;         // of a new namespace; empty: a directory beside the state
  std::string rehydrate;      // bucket of a namespace to take
  bool take_over = false;
  double scrub_days = 7;  // of a pass over all targets
  int ready_fd = -1;
  uint32_t restarts = 0;  // how often it has begun anew of its own, without serving for long since
};

Task<Result<std::string>> serve_status(Node* node, const EmbeddedCoordinator* coordinator) {
  co_return status_json(*node, *coordinator);
}
Task<Result<std::string>> serve_pins(Node* node, Clock* clock) {
  co_return pins_json(*node, *clock);
}
Task<Result<std::string>> serve_targets(Node* node) {
  co_return targets_json(*node);
}
Task<Result<std::string>> serve_metrics(Node* node) {
  co_return metrics_text(*node);
}

// {"number": N, "force": true}
Task<Result<std::string>> replace_target(Node* node, std::string body) {
  nlohmann::json asked = nlohmann::json::parse(body, nullptr, false);
  if (!asked.is_object() || !asked.contains("number") || !asked["number"].is_number_unsigned())
    co_return Error(Code::kInvalid, "which target? {\"number\": N} of tN");
  const bool force = asked.contains("force") && asked["force"] == true;
  HR_CO_TRY(TargetId id, co_await node->keeper().replace(asked["number"].get<uint32_t>(), force));
  co_return json_text(nlohmann::json{{"id", to_string(id)}});
}

// {"number": N}
Task<Result<std::string>> remove_target(Node* node, std::string body) {
  nlohmann::json asked = nlohmann::json::parse(body, nullptr, false);
  if (!asked.is_object() || !asked.contains("number") || !asked["number"].is_number_unsigned())
    co_return Error(Code::kInvalid, "which target? {\"number\": N} of tN");
  HR_CO_TRY(co_await node->keeper().remove(asked["number"].get<uint32_t>()));
  co_return std::string("{}");
}

// {"number": N}, or {} for all of them
Task<Result<std::string>> scrub_targets(Node* node, std::string body) {
  nlohmann::json asked = nlohmann::json::parse(body, nullptr, false);
  if (!asked.is_object() || (asked.contains("number") && !asked["number"].is_number_unsigned()))
    co_return Error(Code::kInvalid, "which target? {\"number\": N} of tN, or {} for all");
  std::optional<uint32_t> number;
  if (asked.contains("number")) number = asked["number"].get<uint32_t>();
  HR_CO_TRY(uint64_t run, node->keeper().scrubber().ask(number));
  co_return json_text(nlohmann::json{{"run", run}});
}

Task<Result<std::string>> push(Node* node) {
  HR_CO_TRY(Cut cut, co_await node->push());
  co_return json_text(nlohmann::json{{"published", to_string(cut)}});
}

Task<Result<std::string>> spin_down(Node* node) {
  HR_CO_TRY(co_await node->tier().spin_down());
  co_return json_text(nlohmann::json{{"evicted", node->tier().spin_down_progress().evicted}});
}

Task<Result<std::string>> undo_spin_down(Node* node) {
  HR_CO_TRY(co_await node->tier().undo_spin_down());
  co_return std::string("{}");
}

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "unknown";
}

constexpr uint64_t kKeepFree = 16 * kMiB;     // of the targets' file system, for local stores, log and coordinator
constexpr const char* kBucketKey = "bucket";  // URL, without secrets

uint64_t choose_capacity(const std::string& state, const Options& options, uint32_t targets) {
  if (options.capacity_mib > 0) return options.capacity_mib * kMiB;
  std::error_code error;
  uint64_t free = std::filesystem::space(state, error).available;
  uint64_t share = round_down(free * 6 / 10 / std::max(targets, 1u), kMiB);
  return std::min<uint64_t>(share, 256 * kGiB);
}

// A new namespace begins only on a bucket that answers and is empty; what is wrong with it is found before anything is
// made here. An existing one waits for its bucket while it serves what is hot.
Task<Result<void>> check_new_bucket(Env env, BucketUrl url, ObjectStoreOptions options) {
  options.retries.attempts = 3;
  options.retries.total = seconds(10);
  HR_CO_TRY(std::unique_ptr<ObjectStore> store, open_object_store(url, env, options));
  Result<Got> head = co_await store->get_with_etag(kHeadKey);
  if (head.ok()) {
    Result<HeadRecord> record = decode_bucket_head(head->body.view());
    co_return Error(Code::kInvalid, store->url() + " holds a namespace already" +
                                        (record.ok() ? " (" + describe(*record) + ")" : "") +
                                        ": bring that one back with `headrace rehydrate " + store->url() +
                                        "`, or name an empty bucket or prefix");
  }
  if (head.code() != Code::kNotFound)
    co_return std::move(head).error().within("the bucket " + store->url() + " cannot be used");
  Result<void> probed = co_await probe_conditional_writes(*store, env.random);
  if (!probed.ok()) co_return std::move(probed).error().within("the bucket " + store->url() + " cannot be used");
  co_return Result<void>();
}

// Bytes that the file systems under the targets' files have left for them; one that several share counts once.
class DiskRoom {
 public:
  DiskRoom(std::string targets, Clock& clock) : targets_(std::move(targets)), clock_(clock) {}
  uint64_t now() {
    if (looked_ && clock_.now() - *looked_ < milliseconds(200)) return room_;
    looked_ = clock_.now();
    std::map<dev_t, uint64_t> left;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(targets_, error)) {
      const std::string file = entry.path() / "target.dat";
      struct stat about{};
      struct statvfs disk{};
      if (::stat(file.c_str(), &about) != 0 || ::statvfs(file.c_str(), &disk) != 0) continue;
      const uint64_t free = uint64_t{disk.f_bavail} * disk.f_frsize;
      left[about.st_dev] = free - std::min(free, kKeepFree);
    }
    room_ = 0;
    for (const auto& [device, bytes] : left) room_ += bytes;
    return room_;
  }

 private:
  std::string targets_;
  Clock& clock_;
  std::optional<Nanos> looked_;
  uint64_t room_ = 0;
};

constexpr Nanos kBucketGrace = seconds(2);  // of a stop, for what is under way to the bucket
constexpr unsigned kEndGrace = 5;           // seconds, for what is left of a process that has stopped
constexpr uint64_t kRoomToBegin = 2 * kKeepFree;
constexpr Nanos kPatienceForRoom = seconds(600);

struct Ends {
  Once<int> signal;
  Once<std::string> partition;  // the first one that does not serve any more, and why
  Event any;
  bool ready = false;
};

// Before it is ready it owes nothing to anybody, and what it waits for may never come: it ends where it stands.
Task<void> watch_signal(Reactor* reactor, Options* options, const EventLog* log, Ends* ends) {
  ends->signal.set(co_await reactor->wait_signal());
  ends->any.set();
  if (ends->ready) co_return;
  log->info("stopped", {{"signal", std::to_string(ends->signal.value())}, {"while", "starting"}});
  tell_starter(options->ready_fd, "error: it was told to stop");
  ::_exit(0);
}

// A bucket that does not answer holds up no end: what waits for it then is given up, as in a crash.
Task<void> cancel_bucket(Reactor* reactor, ObjectStore* bucket, Ends* ends) {
  (void)co_await ends->signal.wait();
  co_await reactor->sleep(kBucketGrace);
  bucket->cancel();
}

// Begins anew in this process, as after a kill: with nothing of what was in memory, and with everything that was
// acknowledged. Where a disk is full it would not get far: then only once there is some room, or after a while.
Task<void> begin_anew(Reactor& reactor, const Options& options, const EventLog& log, Ends& ends, std::string why) {
  const Nanos pause = pause_before_restart(options.restarts);
  log.warning("begins_anew", {{"why", std::move(why)}, {"in_s", std::to_string(pause.seconds())}});
  std::error_code error;
  Nanos waited;
  while (waited < pause ||
         (waited < kPatienceForRoom && std::filesystem::space(options.state, error).available < kRoomToBegin)) {
    if (co_await ends.signal.wait_until(reactor.env().clock, reactor.now() + seconds(1))) co_return;
    waited = waited + seconds(1);
  }
  std::vector<std::string> arguments = {"/proc/self/exe",
                                        "--state",
                                        options.state,
                                        "--scrub-days",
                                        std::to_string(options.scrub_days),
                                        "--restarts",
                                        std::to_string(options.restarts + 1)};
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  remove_node_file(options.state);  // until it serves again
  ::close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
  ::execv(argv[0], argv.data());
  log.warning("cannot_begin_anew", {{"why", std::strerror(errno)}});
}

// Of the targets of a cluster that is here, before anything of them is opened.
Task<Result<void>> guard_targets(Env env, TargetGuards& guards, const std::string& state, const ClusterMap& map) {
  for (const TargetInfo& target : map.targets) {
    if (target.state == TargetState::kRetired || target.state == TargetState::kLost) continue;  // the node itself does
    const std::string name = "t" + std::to_string(target.number);
    Result<void> held = co_await guards.hold_soon(env, state + "/targets/" + name);
    if (!held.ok()) co_return std::move(held).error().within("target " + name);
  }
  co_return Result<void>();
}

// Of places that are there already.
Task<Result<void>> guard_places(Env env, TargetGuards& guards, const BootstrapOptions& bootstrap) {
  for (uint32_t i = 0; i < bootstrap.targets; ++i) {
    HR_CO_TRY(co_await guards.hold_soon(env, bootstrap.state + "/targets/t" + std::to_string(i)));
    if (bootstrap.devices.empty()) continue;
    HR_CO_TRY(co_await guards.hold_soon(env, bootstrap.devices.at(i).path));
  }
  co_return Result<void>();
}

// Ok: it was told to stop.
Task<Result<void>> run_node(Reactor& reactor, Options& options, const EventLog& log, Ends& ends) {
  Env env = reactor.env();
  TargetDeviceCopies device_copies(env);
  EmbeddedCoordinator coordinator(env, options.state + "/coord", options.state + "/targets", &device_copies);
  HR_CO_TRY(co_await coordinator.load());
  if (!coordinator.mended().empty()) log.warning("coordinator_mended", {{"what", coordinator.mended()}});
  Address address = "unix:" + options.state + "/node.sock";
  HR_CO_TRY(CoordRecord map, co_await coordinator.get(kMapKey));
  HR_CO_TRY(CoordRecord resuming, co_await coordinator.get(kResumeKey));
  HR_CO_TRY(CoordRecord bucket_record, co_await coordinator.get(kBucketKey));
  const bool fresh = map.value.empty() && resuming.value.empty();
  std::string bucket = bucket_record.value;
  std::string asked = !options.rehydrate.empty() ? options.rehydrate : options.bucket;
  if (!asked.empty()) {
    HR_CO_TRY(BucketUrl parsed, parse_bucket_url(asked));
    asked = parsed.text();
  }
  if (!fresh && !options.rehydrate.empty())
    co_return Error(Code::kExists, options.state + " holds a cluster already (bucket " + bucket +
                                       "): choose an empty --state, or start it with `headrace up --state " +
                                       options.state + "`");
  if (bucket.empty() || (fresh && !asked.empty()))
    bucket = !asked.empty() ? asked : "file://" + options.state + ".bucket";
  if (!asked.empty() && asked != bucket)
    co_return Error(Code::kInvalid,
                    options.state + " belongs to the bucket " + bucket +
                        ": a namespace keeps its bucket (leave --bucket out, or choose an empty --state)");
  HR_CO_TRY(BucketUrl url, parse_bucket_url(bucket));
  ThreadPool requests(reactor, 16);
  ObjectStoreOptions store_options;
  store_options.requests = &requests;
  const std::unique_ptr<Disk> directory = make_disk(reactor, requests);
  store_options.directory = directory.get();
  HR_CO_TRY(std::unique_ptr<ObjectStore> store, open_object_store(url, env, store_options));
  Scope watching;
  watching.spawn(cancel_bucket(&reactor, store.get(), &ends));
  const OnNodeEvent on_event = [&log](const NodeEvent& event) {
    event.trouble ? log.warning(event.name, event.fields) : log.info(event.name, event.fields);
  };
  TargetGuards guards;
  if (!fresh) {
    HR_CO_TRY(ClusterMap known, decode_durable<ClusterMap>(map.value.empty() ? resuming.value : map.value));
    HR_CO_TRY(co_await guard_targets(env, guards, options.state, known));
  }
  std::string description = host_name() + ":" + options.state;
  std::optional<HeadVersion> held;
  if (fresh) {
    HR_CO_TRY(co_await Node::check_unused(env, coordinator, options.state));
    BootstrapOptions bootstrap;
    bootstrap.state = options.state;
    bootstrap.address = address;
    bootstrap.force = options.force;
    HR_CO_TRY(TargetPlaces places, parse_target_places(options.targets));
    bootstrap.targets = places.count;
    bootstrap.target_capacity = places.paths.empty() || options.capacity_mib > 0
                                    ? choose_capacity(options.state, options, places.count)
                                    : kMinTargetCapacity;
    if (options.capacity_mib == 0 && bootstrap.target_capacity < kMinTargetCapacity)
      co_return Error(Code::kNoSpace, options.state + " has too little free space for " + std::to_string(places.count) +
                                          " targets: free some, choose another --state, or fewer --targets");
    if (!options.protection.empty()) {
      HR_CO_TRY(bootstrap.protection, parse_protection(options.protection));
    }
    HR_CO_TRY(Node::check(bootstrap));
    HR_CO_TRY(prepare_target_places(
        places, {.state = options.state, .capacity_mib = options.capacity_mib, .force = options.force}, bootstrap));
    HR_CO_TRY(co_await guard_places(env, guards, bootstrap));
    if (options.rehydrate.empty()) {
      HR_CO_TRY(co_await check_new_bucket(env, url, store_options));
    }
    HR_CO_TRY(co_await coordinator.put(kBucketKey, bucket, bucket_record.version));
    if (!options.rehydrate.empty()) {
      AttachOptions attach_options;
      attach_options.cluster = ClusterId(env.random.nonzero());
      attach_options.description = description;
      attach_options.take_over = options.take_over;
      HR_CO_TRY(bootstrap.attached, co_await attach(env, coordinator, *store, attach_options));
      held = bootstrap.attached->head;
      log.info(options.take_over ? "take_over" : "attached",
               {{"bucket", bucket}, {"before", describe(bootstrap.attached->before)}});
      if (options.protection.empty()) bootstrap.protection = bootstrap.attached->manifest.protection;
      HR_CO_TRY(Node::check(bootstrap));
    }
    HR_CO_TRY(co_await Node::bootstrap(env, coordinator, bootstrap));
  } else if (options.restarts == 0 || !resuming.value.empty()) {  // a namespace is taken back where somebody asks
    ResumeFromBucket resume;
    resume.state = options.state;
    resume.address = address;
    resume.description = description;
    resume.force = options.force;
    resume.on_event = on_event;
    resume.guards = &guards;
    HR_CO_TRY(held, co_await Node::resume(env, coordinator, *store, resume));
    if (held) log.info("resumed", {{"bucket", bucket}, {"owner", describe(held->record)}});
  }
  HR_CO_TRY(map, co_await coordinator.get(kMapKey));
  HR_CO_TRY(ClusterMap made, decode_durable<ClusterMap>(map.value));
  HR_CO_TRY(co_await guard_targets(env, guards, options.state, made));
  RocksDbStoreFactory stores(env.blocking, options.state + "/store");
  HR_CO_TRY(co_await stores.remove_leftovers());
  NodeOptions node_options;
  node_options.state = options.state;
  node_options.listen = address;
  node_options.tier.description = description;
  node_options.keeper.scrub.pass = Nanos{static_cast<int64_t>(options.scrub_days * 86'400e9)};
  node_options.targets.keep_free = kKeepFree;
  node_options.on_event = on_event;
  node_options.on_partition_failed = [&ends](const std::string& why) {
    if (!ends.partition.is_set()) ends.partition.set(why);
    ends.any.set();
  };
  node_options.guards = &guards;
  DiskRoom disk_room(options.state + "/targets", env.clock);
  node_options.disk_room = [&disk_room] { return disk_room.now(); };
  Node node(env, coordinator, stores, *store, node_options);
  Result<void> started = co_await node.start(std::move(held));
  if (started.code() == Code::kStale)
    co_return Error(Code::kStale, options.state + " was spun down: everything is in " + bucket +
                                      ". Bring it back with `headrace rehydrate '" + bucket +
                                      "' --state DIR`, where DIR is a new, empty directory; " + options.state +
                                      " may be deleted");
  HR_CO_TRY(std::move(started));

  NodeFile file;
  file.pid = ::getpid();
  file.address = node.address();
  file.admin_token = hex(env.random.secret()) + hex(env.random.secret());
  AdminServer admin([&reactor](std::move_only_function<void()> f) { reactor.post(std::move(f)); }, file.admin_token);
  admin.get("/status", [n = &node, c = &coordinator](std::string) { return serve_status(n, c); });
  admin.get("/targets", [n = &node](std::string) { return serve_targets(n); });
  admin.get("/tier", [n = &node](std::string) { return tier_json(n); });
  admin.get("/metrics", [n = &node](std::string) { return serve_metrics(n); }, true);
  admin.get("/tier/pins", [n = &node, clock = &env.clock](std::string) { return serve_pins(n, clock); });
  admin.post("/tier/fetch",
             [n = &node, clock = &env.clock](std::string body) { return fetch_path(n, clock, std::move(body)); });
  admin.post("/tier/pin", [n = &node](std::string body) { return pin_path(n, std::move(body)); });
  admin.post("/tier/release", [n = &node](std::string body) { return release_path(n, std::move(body)); });
  admin.post("/tier/of", [n = &node](std::string body) { return where_path(n, std::move(body)); });
  admin.post("/tier/push", [n = &node](std::string) { return push(n); });
  admin.post("/targets/replace", [n = &node](std::string body) { return replace_target(n, std::move(body)); });
  admin.post("/targets/remove", [n = &node](std::string body) { return remove_target(n, std::move(body)); });
  admin.post("/targets/scrub", [n = &node](std::string body) { return scrub_targets(n, std::move(body)); });
  admin.post("/spin-down", [n = &node](std::string) { return spin_down(n); });
  admin.post("/spin-down/undo", [n = &node](std::string) { return undo_spin_down(n); }, true);
  HR_CO_TRY(file.admin_port, admin.start());
  HR_CO_TRY(write_node_file(options.state, file));
  const Node::Times& times = node.start_times();
  log.info("started", {{"pid", std::to_string(file.pid)},
                       {"bucket", bucket},
                       {"admin_port", std::to_string(file.admin_port)},
                       {"targets_s", std::to_string(times.targets)},
                       {"partitions_s", std::to_string(times.partitions)},
                       {"bucket_s", std::to_string(times.bucket)},
                       {"new", fresh ? "yes" : "no"}});
  ends.ready = true;
  tell_starter(options.ready_fd, "ready");
  const Nanos ready = reactor.now();
  co_await ends.any.wait();
  // What is released serves nobody: it only waits to be told to stop.
  const bool released = node.tier().spin_down_progress().step == SpinDownStep::kReleased;
  options.restarts = restarts_that_count(options.restarts, reactor.now() - ready);
  if (!ends.signal.is_set() && !released) co_await begin_anew(reactor, options, log, ends, ends.partition.value());
  log.info("stopping", {{"signal", std::to_string(co_await ends.signal.wait())}});
  admin.stop();
  remove_node_file(options.state);
  co_await node.stop();
  co_await coordinator.close();
  log.info("stopped");
  // All that was to be flushed is. A thread that hangs in a disk or a bucket's directory holds up no end.
  ::signal(SIGALRM, [](int) { ::_exit(0); });
  ::alarm(kEndGrace);
  co_return Result<void>();
}

Task<void> run_main(Reactor* reactor, Options* options, const EventLog* log, int* exit_code) {
  Ends ends;
  Scope watching;
  watching.spawn(watch_signal(reactor, options, log, &ends));
  Result<void> done = co_await run_node(*reactor, *options, *log, ends);
  if (done.ok()) co_return;
  // It was up before: whoever waits for it is not asked. What was spun down meanwhile stays so.
  if (options->restarts > 0 && done.code() != Code::kStale)
    co_await begin_anew(*reactor, *options, *log, ends, done.error().text());
  log->warning("ended", {{"error", done.error().text()}});
  std::string why = done.error().message();
  if (done.code() == Code::kNoSpace && why.find("free") == std::string::npos) why += "; free some space there";
  tell_starter(options->ready_fd, "error: " + why);
  *exit_code = 1;
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app{"headraced: a Headrace node on this machine"};
  app.add_option("--state", options.state, "directory of the node's state")->required();
  app.add_option("--protection", options.protection, "of a new namespace: D+P or replica-N");
  app.add_option(
      "--targets", options.targets,
      "how many file-backed targets a new namespace gets (6), or directories and block devices, with commas");
  app.add_flag("--force", options.force,
               "although a device of a target holds a file system or another cluster's target");
  app.add_option("--capacity-mib", options.capacity_mib, "of each new target; 0: from the free space");
  app.add_option("--bucket", options.bucket,
                 "of a new namespace: file:///DIR, s3://BUCKET/PREFIX?endpoint=URL or az://ACCOUNT/CONTAINER/PREFIX");
  app.add_option("--rehydrate", options.rehydrate, "bucket of a namespace to bring back here");
  app.add_flag("--take-over", options.take_over, "although another cluster still owns it");
  app.add_option("--scrub-days", options.scrub_days, "in which all targets are read and verified once")
      ->check(CLI::Range(0.01, 3650.0));
  app.add_option("--ready-fd", options.ready_fd, "where to write 'ready' or 'error: …'");
  app.add_option("--restarts", options.restarts)->group("");
  CLI11_PARSE(app, argc, argv);

  std::error_code error;
  options.state = std::filesystem::absolute(options.state).string();
  if (Result<void> named = check_state_path(options.state); !named.ok()) {
    tell_starter(options.ready_fd, "error: " + named.error().message());
    return 1;
  }
  std::filesystem::create_directories(options.state, error);
  int lock = ::open((options.state + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock < 0 || ::flock(lock, LOCK_EX | LOCK_NB) != 0) {
    tell_starter(options.ready_fd, "error: " + options.state +
                                       (lock < 0 ? " cannot be written"
                                                 : " is in use by another node: stop it with `headrace stop --state " +
                                                       options.state + "`"));
    return 1;
  }
  // Memory of what comes and goes is kept instead of being given back page by page.
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
  Result<std::unique_ptr<Reactor>> reactor = Reactor::create();
  if (!reactor.ok()) {
    tell_starter(options.ready_fd, "error: " + reactor.error().message());
    return 1;
  }
  Result<void> caught = (*reactor)->catch_signals({SIGTERM, SIGINT});
  if (!caught.ok()) {
    tell_starter(options.ready_fd, "error: " + caught.error().message());
    return 1;
  }
  Result<EventLog> log = EventLog::open(options.state);
  if (!log.ok()) {
    tell_starter(options.ready_fd, "error: " + log.error().message());
    return 1;
  }
  int exit_code = 0;
  (*reactor)->run(run_main(reactor->get(), &options, &*log, &exit_code));
  return exit_code;
}

}  // namespace
}  // namespace headrace

int main(int argc, char** argv) {
  headrace::raise_descriptor_limit();
  return headrace::run(argc, argv);
}
