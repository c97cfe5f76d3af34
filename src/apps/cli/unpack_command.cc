// unpack: files out of a bucket with no cluster.
#include <unistd.h>

#include <cstdio>
#include <filesystem>

#include "apps/cli/cli.h"
#include "apps/json_text.h"
#include "apps/unpack.h"
#include "meta/store/rocksdb/rocksdb_store.h"
#include "object/open.h"
#include "runtime/uring/disk.h"
#include "runtime/uring/reactor.h"
#include "runtime/uring/thread_pool.h"

namespace headrace {

using nlohmann::json;

namespace {

constexpr unsigned kRequests = 24;  // of the bucket at once: each holds a thread
constexpr uint64_t kLossesShown = 1000;

struct Outcome {
  Result<void> done{Code::kIo, "not run"};
  UnpackProgress progress;
  std::vector<std::pair<std::string, std::string>> lost;
  double seconds = 0;
};

std::string progress_text(const UnpackProgress& now, double seconds) {
  std::string out = "unpacking: " + std::to_string(now.files) + " of " + std::to_string(now.files_total) + " files, " +
                    bytes_text(now.bytes) + " of " + bytes_text(now.bytes_total);
  if (seconds <= 0) return out;
  double rate = static_cast<double>(now.bytes) / seconds;
  out += ", " + bytes_text(static_cast<uint64_t>(rate)) + "/s";
  // Small files take their time by number, large ones by bytes: what is further behind says how long.
  double by_bytes =
      now.bytes_total > now.bytes && rate > 0 ? static_cast<double>(now.bytes_total - now.bytes) / rate : 0;
  double by_files = now.files_total > now.files && now.files > 0
                        ? static_cast<double>(now.files_total - now.files) * seconds / static_cast<double>(now.files)
                        : 0;
  if (now.files > 0 || now.bytes > 0) out += ", " + duration_text(std::max(by_bytes, by_files)) + " left";
  return out;
}

Task<void> show_progress(Env env, const Unpacker* unpacker, ProgressLine* line, CancelToken* ended) {
  const Nanos began = env.clock.now();
  for (;;) {
    bool slept = co_await ended->sleep(env.clock, seconds(1));
    if (!slept) co_return;
    line->show(progress_text(unpacker->progress(), (env.clock.now() - began).seconds()));
  }
}

Task<Result<void>> unpack(Reactor* reactor, BucketUrl url, std::string destination, std::string scratch, Outcome* out) {
  Env env = reactor->env();
  ThreadPool requests(*reactor, kRequests);
  ObjectStoreOptions store_options;
  store_options.requests = &requests;
  const std::unique_ptr<Disk> directory = make_disk(*reactor, requests);
  store_options.directory = directory.get();
  HR_CO_TRY(std::unique_ptr<ObjectStore> store, open_object_store(std::move(url), env, store_options));
  RocksDbStoreFactory stores(env.blocking, scratch);
  HR_CO_TRY(co_await stores.remove_leftovers());
  ProgressLine line;
  UnpackOptions options;
  options.destination = std::move(destination);
  Unpacker unpacker(env, *store, stores, std::move(options),
                    [&line, out](const std::string& path, const std::string& why) {
                      if (out->lost.size() >= kLossesShown) return;
                      line.end();
                      std::fprintf(stderr, "lost: %s: %s\n", path.c_str(), why.c_str());
                      out->lost.emplace_back(path, why);
                    });
  const Nanos began = env.clock.now();
  Scope scope;
  scope.spawn(show_progress(env, &unpacker, &line, &scope.token()));
  Result<void> done = co_await unpacker.run();
  scope.cancel();
  co_await scope.join();
  out->seconds = (env.clock.now() - began).seconds();
  out->progress = unpacker.progress();
  co_return done;
}

Task<void> run_to(Reactor* reactor, BucketUrl url, std::string destination, std::string scratch, Outcome* out) {
  out->done = co_await unpack(reactor, std::move(url), std::move(destination), std::move(scratch), out);
}

void print_json(const Outcome& outcome, const CliOptions& options) {
  const UnpackProgress& p = outcome.progress;
  json lost = json::array();
  for (const auto& [path, why] : outcome.lost) lost.push_back({{"path", path}, {"why", why}});
  json out{{"bucket", options.bucket},
           {"destination", options.destination},
           {"cut", to_string(p.head.cut)},
           {"published_s", p.head.published_s},
           {"files", p.files},
           {"links", p.links},
           {"bytes", p.bytes},
           {"seconds", outcome.seconds},
           {"lost_count", p.lost},
           {"lost", lost},
           {"not_applied", p.not_applied},
           {"complete", outcome.done.ok() && p.lost == 0},
           {"error", outcome.done.ok() ? "" : outcome.done.error().message()}};
  std::printf("%s\n", json_text(out, 2).c_str());
}

}  // namespace

int run_unpack(const CliOptions& options) {
  Result<BucketUrl> url = parse_bucket_url(options.bucket);
  if (!url.ok()) return fail(url.error());
  Result<std::unique_ptr<Reactor>> reactor = Reactor::create();
  if (!reactor.ok()) return fail(reactor.error());
  const std::string destination = absolute_path(options.destination);
  // The rows of the namespace, while it takes: beside the destination, where there is room for more.
  std::string scratch = destination + ".unpack-" + std::to_string(::getpid());
  Outcome outcome;
  (*reactor)->run(run_to(reactor->get(), *std::move(url), destination, scratch, &outcome));
  reactor->reset();  // stores are closed by jobs of its threads: these have ended now
  std::error_code error;
  std::filesystem::remove_all(scratch, error);
  if (error) std::fprintf(stderr, "headrace: remove %s by hand: %s\n", scratch.c_str(), error.message().c_str());
  const UnpackProgress& p = outcome.progress;
  if (options.as_json) print_json(outcome, options);
  if (!outcome.done.ok()) return fail(outcome.done.error());
  if (!options.as_json) {
    std::printf("restored %llu files and %llu further links, %s, of cut %s in %s\n",
                static_cast<unsigned long long>(p.files), static_cast<unsigned long long>(p.links),
                bytes_text(p.bytes).c_str(), to_string(p.head.cut).c_str(), duration_text(outcome.seconds).c_str());
    if (p.head.state != HeadState::kReleased)
      std::printf("the bucket is in use (%s): what was written since that manifest is not in it\n",
                  describe(p.head).c_str());
  }
  if (p.not_applied > 0)
    std::fprintf(stderr,
                 "headrace: owner, mode, times or attributes of %llu files were not taken here; the first: %s%s\n",
                 static_cast<unsigned long long>(p.not_applied), p.first_not_applied.c_str(),
                 ::geteuid() == 0 ? "" : " (owners need root)");
  if (p.lost > kLossesShown)
    std::fprintf(stderr, "headrace: only the first %llu losses are named\n",
                 static_cast<unsigned long long>(kLossesShown));
  if (p.lost > 0) return fail(std::to_string(p.lost) + " could not be restored; everything else was");
  return p.not_applied > 0 && ::geteuid() == 0 ? 1 : 0;
}

}  // namespace headrace
