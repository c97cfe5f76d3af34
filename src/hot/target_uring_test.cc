// A target on a real file, by io_uring and O_DIRECT: what a simulated disk cannot show is
// alignment.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "hot/target.h"
#include "runtime/uring/reactor.h"
#include "stripe/fragment.h"

namespace headrace {
namespace {

constexpr TargetFormat kFormat{TargetId(5), ClusterId(6), NamespaceId(7), 64 * kMiB, 0};

FragmentWrite fragment(uint64_t sequence, uint64_t blocks) {
  FragmentWrite out;
  out.target = kFormat.id;
  out.segment = SegmentId(NamespaceId(7), Slot(1), NamespaceEpoch(1), sequence);
  out.index = 0;
  out.protection = {1, 1};
  out.segment_length = blocks * kBlock;
  // Not aligned on purpose, as a payload in this process may be.
  Buffer whole = Buffer::zeroed(blocks * kBlock + 64);
  out.payload = whole.slice(64, blocks * kBlock);
  for (size_t i = 0; i < out.payload.size(); i += 512)
    out.payload.data()[i] = static_cast<std::byte>(sequence + i / 512);
  out.crcs = block_crcs(out.segment, 0, 0, out.payload.view());
  return out;
}

Task<void> use(Env env, std::string directory) {
  auto made = co_await Target::format(env, directory, kFormat);
  EXPECT_TRUE(made.ok()) << (made.ok() ? "" : made.error().text());
  if (!made) co_return;
  std::unique_ptr<Target> target = *std::move(made);
  Result<void> opened =
      co_await target->journal_open({kFormat.id, RunId(1), Position(1), "x"}, PartitionId(0), PartitionEpoch(1));
  EXPECT_TRUE(opened.ok());
  for (int round = 0; round < 2; ++round) {
    for (uint64_t i = 1; i <= 20; ++i) {
      Result<void> written = co_await target->write(fragment(i, 1 + i * 7));
      EXPECT_TRUE(written.ok()) << written.error().text();
      auto at = Position(static_cast<uint64_t>(round) * 20 + i);
      Result<void> appended = co_await target->journal_append(
          {kFormat.id, RunId(1), at, at, fragment(i, i).payload.slice(0, 3000 + i)}, PartitionId(0), PartitionEpoch(1));
      EXPECT_TRUE(appended.ok()) << appended.error().text();
    }
    co_await target->close();
    target.reset();
    auto again = co_await Target::open(env, directory, {kFormat.id, kFormat.cluster, 0, 0});
    EXPECT_TRUE(again.ok()) << (again.ok() ? "" : again.error().text());
    if (!again) co_return;
    target = *std::move(again);
    for (uint64_t i = 1; i <= 20; ++i) {
      FragmentWrite w = fragment(i, 1 + i * 7);
      auto got = co_await target->read({w.target, w.segment, 0, 3 * kBlock, 4 * kBlock});
      EXPECT_TRUE(got.ok()) << (got.ok() ? "" : got.error().text());
      if (got) {
        EXPECT_TRUE(got->payload.text() == w.payload.slice(3 * kBlock, 4 * kBlock).text());
      }
    }
    auto journal = co_await target->journal_read({kFormat.id, RunId(1), Position(1)});
    EXPECT_TRUE(journal.ok() && journal->batches.size() == 20u * (static_cast<uint64_t>(round) + 1));
  }
  co_await target->close();
}

TEST(TargetOnARealFile, KeepsFragmentsAndJournalsOverRestarts) {
  std::string path = (std::filesystem::temp_directory_path() / "headrace-target-XXXXXX").string();
  ASSERT_NE(mkdtemp(path.data()), nullptr);
  auto reactor = Reactor::create();
  ASSERT_TRUE(reactor.ok()) << reactor.error().text();
  (*reactor)->run(use((*reactor)->env(), path + "/t0"));
  std::filesystem::remove_all(path);
}

}  // namespace
}  // namespace headrace
