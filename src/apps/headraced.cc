// headraced: one node on this machine, on the embedded coordinator. `headrace up` starts it; it can be run by hand.
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "admin/admin_server.h"
#include "apps/node.h"
#include "apps/state.h"
#include "coord/embedded/embedded_coordinator.h"
#include "meta/store/rocksdb/rocksdb_store.h"
#include "object/open.h"
#include "runtime/uring/reactor.h"
#include "runtime/uring/thread_pool.h"
#include "stripe/placement_policy.h"

namespace headrace {
namespace {

struct Options {
  std::string state;
  std::string protection = "4+2";
  uint32_t targets = 6;
  uint64_t capacity_mib = 0;  // of each target; 0: chosen from the free space
  std::string bucket;         // of a new namespace; empty: a directory beside the state
  std::string rehydrate;      // bucket of a namespace to take
  bool take_over = false;
  int ready_fd = -1;
};

// Tells whoever started us: a line "ready" or "error: …".
void tell(const Options& options, const std::string& line) {
  std::string text = line + "\n";
  int fd = options.ready_fd >= 0 ? options.ready_fd : 2;
  ssize_t written = ::write(fd, text.data(), text.size());
  (void)written;  // nobody listens any more
  if (options.ready_fd >= 0) ::close(options.ready_fd);
}

std::string status_json(Node& node) {
  using nlohmann::json;
  json out;
  const ClusterMap& map = node.map();
  out["cluster"] = hex(map.cluster.value());
  out["namespace"] = hex(map.name_space.value(), 12);
  out["namespace_epoch"] = map.namespace_epoch.value();
  out["protection"] = to_string(map.protection);
  Report reported = node.reported();
  out["degraded_reads"] = reported.degraded_reads;
  out["bytes_read"] = reported.bytes_read;
  out["bytes_written"] = reported.bytes_written;
  uint64_t inodes = 0, bytes = 0, hot = 0, bucket = 0, objects = 0, staged = 0, sessions = 0, grants = 0;
  json partitions = json::array();
  for (const auto& [id, partition] : node.partitions().all()) {
    PartitionStatusReply s = partition->status();
    inodes += s.inodes;
    bytes += s.bytes;
    hot += s.hot_bytes;
    bucket += s.bucket_bytes;
    objects += s.objects;
    staged += s.staged_bytes;
    sessions += s.sessions;
    grants += s.grants;
    partitions.push_back({{"id", id.value()}, {"epoch", s.epoch.value()}, {"state", s.state}, {"last", s.last.value()},
                          {"checkpoint_at", s.checkpoint_at.value()}, {"operations", s.operations}});
  }
  uint64_t cached = node.cache_bytes();
  TierStatus tier = node.tier().status();
  out["published"] = to_string(tier.published);
  out["published_s"] = tier.published_s;
  out["upload"] = {{"segments", tier.upload.segments}, {"objects", tier.upload.objects}, {"bytes", tier.upload.bytes}, {"last_error", tier.upload.last_error}};
  json targets = json::array();
  for (const auto& [id, s] : node.targets().statuses()) {
    cached += s.cached;
    targets.push_back({{"id", to_string(id)}, {"capacity", s.capacity}, {"used", s.used}, {"fragments", s.fragments},
                       {"corrupt_blocks", s.corrupt_blocks}, {"fenced", s.fenced}, {"reason", s.reason}});
  }
  out["files"] = inodes;
  out["bytes"] = bytes;
  out["hot_bytes"] = hot;
  out["cache_bytes"] = cached;
  out["bucket_bytes"] = bucket;
  out["objects"] = objects;
  out["staged_bytes"] = staged;
  out["sessions"] = sessions;
  out["grants"] = grants;
  out["owner"] = node.why_read_only().empty() ? "this cluster (" + hex(map.cluster.value()) + ")" : node.why_read_only();
  out["owned"] = node.why_read_only().empty();
  out["partitions"] = std::move(partitions);
  out["targets"] = std::move(targets);
  return out.dump();
}

Task<Result<std::string>> serve_status(Node* node) { co_return status_json(*node); }

Task<Result<std::string>> push(Node* node) {
  HR_CO_TRY(Cut cut, co_await node->push());
  co_return nlohmann::json{{"published", to_string(cut)}}.dump();
}

Task<Result<std::string>> spin_down(Node* node) {
  HR_CO_TRY(co_await node->tier().spin_down());
  co_return nlohmann::json{{"evicted", node->tier().spin_down_progress().evicted}}.dump();
}

Task<Result<std::string>> undo_spin_down(Node* node) {
  HR_CO_TRY(co_await node->tier().undo_spin_down());
  co_return std::string("{}");
}

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "unknown";
}

constexpr const char* kBucketKey = "bucket";  // URL, without secrets

uint64_t choose_capacity(const std::string& state, const Options& options) {
  if (options.capacity_mib > 0) return options.capacity_mib * kMiB;
  std::error_code error;
  uint64_t free = std::filesystem::space(state, error).available;
  uint64_t share = round_down(free * 6 / 10 / std::max(options.targets, 1u), kMiB);
  return std::min<uint64_t>(share, 256 * kGiB);
}

Task<Result<void>> run_node(Reactor& reactor, const Options& options) {
  Env env = reactor.env();
  EmbeddedCoordinator coordinator(env, options.state + "/coord");
  HR_CO_TRY(co_await coordinator.load());
  Address address = "unix:" + options.state + "/node.sock";
  HR_CO_TRY(CoordRecord map, co_await coordinator.get(kMapKey));
  HR_CO_TRY(CoordRecord bucket_record, co_await coordinator.get(kBucketKey));
  std::string bucket = bucket_record.value;
  if (bucket.empty()) {
    bucket = !options.rehydrate.empty() ? options.rehydrate : !options.bucket.empty() ? options.bucket : "file://" + options.state + ".bucket";
    HR_CO_TRY(co_await coordinator.put(kBucketKey, bucket, bucket_record.version));
  } else if ((!options.bucket.empty() && options.bucket != bucket) || (!options.rehydrate.empty() && options.rehydrate != bucket)) {
    co_return Error(Code::kInvalid, options.state + " belongs to the bucket " + bucket + ": a namespace keeps its bucket");
  }
  HR_CO_TRY(BucketUrl url, parse_bucket_url(bucket));
  ThreadPool requests(reactor, 16);
  ObjectStoreOptions store_options;
  store_options.requests = &requests;
  HR_CO_TRY(std::unique_ptr<ObjectStore> store, open_object_store(url, env, store_options));
  std::string description = host_name() + ":" + options.state;
  std::optional<HeadVersion> held;
  if (map.version == 0) {
    BootstrapOptions bootstrap;
    bootstrap.state = options.state;
    bootstrap.address = address;
    bootstrap.targets = options.targets;
    bootstrap.target_capacity = choose_capacity(options.state, options);
    HR_CO_TRY(bootstrap.protection, parse_protection(options.protection));
    if (!options.rehydrate.empty()) {
      AttachOptions attach_options;
      attach_options.cluster = ClusterId(env.random.nonzero());
      attach_options.description = description;
      attach_options.take_over = options.take_over;
      HR_CO_TRY(bootstrap.attached, co_await attach(env, coordinator, *store, attach_options));
      held = bootstrap.attached->head;
      if (options.protection.empty()) bootstrap.protection = bootstrap.attached->manifest.protection;
    }
    HR_CO_TRY(co_await Node::bootstrap(env, coordinator, bootstrap));
  } else if (!options.rehydrate.empty()) {
    co_return Error(Code::kExists, options.state + " holds a cluster already: choose an empty --state");
  }
  RocksDbStoreFactory stores(env.blocking, options.state + "/store");
  HR_CO_TRY(co_await stores.remove_leftovers());
  NodeOptions node_options;
  node_options.state = options.state;
  node_options.listen = address;
  node_options.tier.description = description;
  Node node(env, coordinator, stores, *store, node_options);
  HR_CO_TRY(co_await node.start(std::move(held)));

  NodeFile file;
  file.pid = ::getpid();
  file.address = node.address();
  file.admin_token = hex(env.random.next()) + hex(env.random.next());
  AdminServer admin([&reactor](std::move_only_function<void()> f) { reactor.post(std::move(f)); }, file.admin_token);
  admin.get("/status", [n = &node](std::string) { return serve_status(n); });
  admin.post("/tier/push", [n = &node](std::string) { return push(n); });
  admin.post("/spin-down", [n = &node](std::string) { return spin_down(n); });
  admin.post("/spin-down/undo", [n = &node](std::string) { return undo_spin_down(n); });
  HR_CO_TRY(file.admin_port, admin.start());
  HR_CO_TRY(write_node_file(options.state, file));
  tell(options, "ready");
  int signal = co_await reactor.wait_signal();
  (void)signal;
  admin.stop();
  remove_node_file(options.state);
  co_await node.stop();
  co_await coordinator.close();
  co_return {};
}

Task<void> run_main(Reactor* reactor, const Options* options, int* exit_code) {
  Result<void> done = co_await run_node(*reactor, *options);
  if (done.ok()) co_return;
  tell(*options, "error: " + done.error().message());
  *exit_code = 1;
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app{"headraced: a Headrace node on this machine"};
  app.add_option("--state", options.state, "directory of the node's state")->required();
  app.add_option("--protection", options.protection, "of a new namespace: D+P or replica-N");
  app.add_option("--targets", options.targets, "how many file-backed targets a new namespace gets");
  app.add_option("--capacity-mib", options.capacity_mib, "of each new target; 0: from the free space");
  app.add_option("--bucket", options.bucket, "of a new namespace: file:///DIR or s3://BUCKET/PREFIX?endpoint=URL");
  app.add_option("--rehydrate", options.rehydrate, "bucket of a namespace to bring back here");
  app.add_flag("--take-over", options.take_over, "although another cluster still owns it");
  app.add_option("--ready-fd", options.ready_fd, "where to write 'ready' or 'error: …'");
  CLI11_PARSE(app, argc, argv);

  std::error_code error;
  std::filesystem::create_directories(options.state, error);
  options.state = std::filesystem::absolute(options.state).string();
  int lock = ::open((options.state + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock < 0 || ::flock(lock, LOCK_EX | LOCK_NB) != 0) {
    tell(options, "error: " + options.state + (lock < 0 ? " cannot be written" : " is in use by another node: stop it with `headrace stop --state " + options.state + "`"));
    return 1;
  }
  // Buffers of segments come and go: keep their memory instead of giving it back page by page.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
  Result<std::unique_ptr<Reactor>> reactor = Reactor::create();
  if (!reactor.ok()) {
    tell(options, "error: " + reactor.error().message());
    return 1;
  }
  Result<void> caught = (*reactor)->catch_signals({SIGTERM, SIGINT});
  if (!caught.ok()) {
    tell(options, "error: " + caught.error().message());
    return 1;
  }
  int exit_code = 0;
  (*reactor)->run(run_main(reactor->get(), &options, &exit_code));
  return exit_code;
}

}  // namespace
}  // namespace headrace

int main(int argc, char** argv) { return headrace::run(argc, argv); }
