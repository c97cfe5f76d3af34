// target_bench DIRECTORY: what one target does on the disk under DIRECTORY: fragment writes,
// journal appends, reads.
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "hot/target.h"
#include "runtime/uring/reactor.h"
#include "stripe/fragment.h"

namespace headrace {
namespace {

constexpr TargetFormat kFormat{TargetId(5), ClusterId(6), NamespaceId(7), 2 * kGiB, 0};
constexpr uint64_t kFragmentBytes = kMiB;
constexpr uint64_t kFragments = 512;

struct Bench {
  Env env;
  Target& target;
  std::vector<FragmentWrite> fragments;
  uint64_t next = 0;
  uint64_t limit = 0;
};

Task<void> write_some(Bench& bench) {
  while (bench.next < bench.limit) {
    Result<void> written = co_await bench.target.write(bench.fragments[bench.next++]);
    HR_ASSERT(written.ok());
  }
}

Task<void> read_some(Bench& bench) {
  while (bench.next < bench.limit) {
    ++bench.next;
    const FragmentWrite& w = bench.fragments[bench.env.random.below(bench.fragments.size())];
    uint64_t offset = bench.env.random.below(kFragmentBytes / kBlock) * kBlock;
    auto got = co_await bench.target.read({w.target, w.segment, w.index, offset, kBlock});
    HR_ASSERT(got.ok());
  }
}

Task<void> append_some(Bench& bench, RunId run) {
  Buffer payload = Buffer::zeroed(3000);
  for (uint64_t at = 1; bench.next < bench.limit; ++at) {
    ++bench.next;
    auto done = co_await bench.target.journal_append({kFormat.id, run, Position(at), Position(at), payload},
                                                     PartitionId(0), PartitionEpoch(1));
    HR_ASSERT(done.ok());
  }
}

void report(const char* what, Bench& bench, Nanos began, double unit) {
  double elapsed = (bench.env.clock.now() - began).seconds();
  std::printf("%-28s %10.0f /s  %8.1f MB/s\n", what, static_cast<double>(bench.limit) / elapsed,
              static_cast<double>(bench.limit) * unit / elapsed / 1e6);
}

Task<void> run(Env env, std::string directory) {
  auto made = co_await Target::format(env, directory, kFormat, {.prewrite_ahead = kGiB});
  HR_ASSERT(made.ok());
  std::unique_ptr<Target> target = *std::move(made);
  while (target->counters().prewritten_bytes < kGiB - 8 * kMiB) co_await env.clock.sleep(milliseconds(50));
  Bench bench{env, *target, {}, 0, kFragments};
  Buffer payload = Buffer::zeroed(kFragmentBytes);
  for (uint64_t i = 1; i <= kFragments; ++i) {
    FragmentWrite w;
    w.target = kFormat.id;
    w.segment = SegmentId(NamespaceId(7), Slot(1), NamespaceEpoch(1), i);
    w.protection = {4, 2};
    w.segment_length = 4 * kFragmentBytes;
    w.payload = payload;
    w.crcs = block_crcs(w.segment, 0, 0, payload.view());
    bench.fragments.push_back(std::move(w));
  }
  for (uint64_t depth : {8}) {
    Nanos began = env.clock.now();
    Scope scope;
    for (uint64_t i = 0; i < depth; ++i) scope.spawn(write_some(bench));
    co_await scope.join();
    report("write 1 MiB, depth 8", bench, began, kFragmentBytes);
  }
  for (uint64_t depth : {1, 32, 128}) {
    bench.next = 0;
    bench.limit = depth == 1 ? 10'000 : 100'000;
    Nanos began = env.clock.now();
    Scope scope;
    for (uint64_t i = 0; i < depth; ++i) scope.spawn(read_some(bench));
    co_await scope.join();
    report(("read 4 KiB, depth " + std::to_string(depth)).c_str(), bench, began, kBlock);
  }
  uint64_t run_id = 1;
  for (uint64_t depth : {1, 1, 1, 16, 16, 64}) {
    bench.next = 0;
    bench.limit = depth == 1 ? 5'000 : 30'000;
    std::vector<RunId> runs;
    for (uint64_t i = 0; i < depth; ++i) {
      runs.push_back(RunId(run_id++));
      auto opened =
          co_await target->journal_open({kFormat.id, runs.back(), Position(1), ""}, PartitionId(0), PartitionEpoch(1));
      HR_ASSERT(opened.ok());
    }
    Nanos began = env.clock.now();
    Scope scope;
    for (RunId id : runs) scope.spawn(append_some(bench, id));
    co_await scope.join();
    report(("append 3 KB, depth " + std::to_string(depth)).c_str(), bench, began, 3000);
  }
  const TargetCounters& counters = target->counters();
  std::printf("commits %lu for %lu operations, flips %lu\n", counters.commits, counters.committed, counters.flips);
  co_await target->close();
}

}  // namespace
}  // namespace headrace

int main(int argc, char** argv) {
  using namespace headrace;
  if (argc != 2) {
    std::fprintf(stderr, "usage: target_bench DIRECTORY\n");
    return 2;
  }
  std::string directory = std::string(argv[1]) + "/target-bench";
  std::filesystem::remove_all(directory);
  auto reactor = Reactor::create();
  HR_ASSERT(reactor.ok());
  (*reactor)->run(run((*reactor)->env(), directory));
  std::filesystem::remove_all(directory);
  return 0;
}
