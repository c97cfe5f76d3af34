// What every Store must do, over memory and RocksDB alike.
#include <gtest/gtest.h>

#include <functional>
#include <map>

#include "meta/store/memory/memory_store.h"
#include "meta/store/rocksdb/rocksdb_store.h"
#include "runtime/random.h"
#include "runtime/uring/uring_test.h"

namespace headrace {
namespace {

using Model = std::map<Key, RowValue>;

enum class Kind { kMemory, kRocksDb };

class StoreContract : public UringTest, public testing::WithParamInterface<Kind> {
 protected:
  StoreContract() {
    if (GetParam() == Kind::kMemory) {
      factory_ = std::make_unique<MemoryStoreFactory>();
    } else {
      RocksDbOptions options;
      options.write_buffer = 256 * kKiB;  // so that flushes and compactions happen
      factory_ = std::make_unique<RocksDbStoreFactory>(reactor_->env().blocking, directory_.path("stores"), options);
    }
  }
  void run(Task<void> task) { reactor_->run(std::move(task)); }

  TempDirectory directory_;
  std::unique_ptr<StoreFactory> factory_;
};

Key random_key(Random& random) { return "k" + std::to_string(random.below(3000)); }

Task<void> change_some(Store& store, Model& model, Random& random, uint64_t& at, int batches) {
  for (int b = 0; b < batches; ++b) {
    std::vector<RowChange> changes;
    for (uint64_t i = 0, n = random.between(1, 50); i < n; ++i) {
      Key key = random_key(random);
      if (random.chance(1, 4)) {
        changes.push_back({key, std::nullopt});
        model.erase(key);
      } else {
        RowValue value(random.between(0, 300), static_cast<char>('a' + random.below(26)));
        changes.push_back({key, value});
        model[key] = value;
      }
    }
    Result<void> applied = co_await store.apply(std::move(changes), Position(++at));
    EXPECT_TRUE(applied.ok());
  }
}

Task<void> expect_equal(Store& store, const Model& model) {
  auto rows = co_await store.scan("", "z", 100'000);
  EXPECT_TRUE(rows.ok());
  if (!rows.ok()) co_return;
  EXPECT_EQ(Model(rows->begin(), rows->end()), model);
  EXPECT_TRUE(std::is_sorted(rows->begin(), rows->end()));
  for (int i = 0; i < 3000; i += 7) {
    Key key = "k" + std::to_string(i);
    auto row = co_await store.get(key);
    EXPECT_TRUE(row.ok());
    auto it = model.find(key);
    EXPECT_EQ(row.ok() && row->has_value(), it != model.end()) << key;
    RowValue now;
    Found found = store.get_now(key, now);
    if (found == Found::kRow) {
      EXPECT_TRUE(it != model.end() && it->second == now) << key;
    }
    if (found == Found::kAbsent) {
      EXPECT_TRUE(it == model.end()) << key;
    }
  }
}

FetchFile fetch_from(Store& store, uint64_t tag) {
  return [&store, tag](StoreFile file, uint64_t offset, uint64_t length) { return store.read_file(tag, file.name, offset, length); };
}

Task<void> behaves_like_a_map(StoreFactory& factory) {
  SeededRandom random(5);
  auto store = co_await factory.create("p0-1");
  EXPECT_TRUE(store.ok()) << (store.ok() ? "" : store.error().text());
  if (!store.ok()) co_return;
  Model model;
  uint64_t at = 0;
  co_await change_some(**store, model, random, at, 200);
  EXPECT_EQ((*store)->applied(), Position(at));
  co_await expect_equal(**store, model);
  auto two = co_await (*store)->scan("k1", "k3", 2);
  EXPECT_TRUE(two.ok());
  EXPECT_EQ(two->size(), 2u);
}
TEST_P(StoreContract, BehavesLikeAMap) { run(behaves_like_a_map(*factory_)); }

Task<void> checkpoint_is_a_point(StoreFactory& factory) {
  SeededRandom random(6);
  auto store = co_await factory.create("p0-1");
  EXPECT_TRUE(store.ok());
  if (!store.ok()) co_return;
  Model model;
  uint64_t at = 0;
  co_await change_some(**store, model, random, at, 100);
  Model then = model;
  uint64_t then_at = at;
  auto files = co_await (*store)->checkpoint(1);
  EXPECT_TRUE(files.ok()) << (files.ok() ? "" : files.error().text());
  if (!files.ok()) co_return;
  co_await change_some(**store, model, random, at, 100);
  auto again = co_await factory.import("p0-2", *files, fetch_from(**store, 1));
  EXPECT_TRUE(again.ok()) << (again.ok() ? "" : again.error().text());
  if (!again.ok()) co_return;
  EXPECT_EQ((*again)->applied(), Position(then_at));
  co_await expect_equal(**again, then);
  co_await expect_equal(**store, model);
  co_await change_some(**again, then, random, then_at, 50);  // and it lives on
  co_await expect_equal(**again, then);
  auto released = co_await (*store)->release(1);
  EXPECT_TRUE(released.ok());
}
TEST_P(StoreContract, ACheckpointIsOnePointAndImportsElsewhere) { run(checkpoint_is_a_point(*factory_)); }

Task<Result<Buffer>> damaged(Store& store, std::string victim, StoreFile file, uint64_t offset, uint64_t length) {
  HR_CO_TRY(Buffer shared, co_await store.read_file(1, file.name, offset, length));
  Buffer bytes = Buffer::copy_of(shared.view());
  if (file.name == victim && offset == 0) bytes.data()[bytes.size() / 2] ^= std::byte{1};
  co_return bytes;
}

Task<void> refuses_damage(StoreFactory& factory) {
  SeededRandom random(7);
  auto store = co_await factory.create("p0-1");
  EXPECT_TRUE(store.ok());
  if (!store.ok()) co_return;
  Model model;
  uint64_t at = 0;
  co_await change_some(**store, model, random, at, 60);
  auto files = co_await (*store)->checkpoint(1);
  EXPECT_TRUE(files.ok());
  if (!files.ok()) co_return;
  EXPECT_FALSE(files->files.empty());
  for (const StoreFile& victim : files->files) {
    Store* from = store->get();
    FetchFile fetch = [from, name = victim.name](StoreFile file, uint64_t offset, uint64_t length) {
      return damaged(*from, name, std::move(file), offset, length);
    };
    auto bad = co_await factory.import("p0-bad", *files, fetch);
    EXPECT_FALSE(bad.ok());
    if (!bad.ok()) {
      EXPECT_EQ(bad.code(), Code::kCorrupt);
      EXPECT_NE(bad.error().message().find(victim.name), std::string::npos) << bad.error().text();
    }
  }
}
TEST_P(StoreContract, BadInputAFlippedByteOfACheckpointIsRefusedByName) { run(refuses_damage(*factory_)); }

INSTANTIATE_TEST_SUITE_P(Stores, StoreContract, testing::Values(Kind::kMemory, Kind::kRocksDb),
                         [](const auto& info) { return info.param == Kind::kMemory ? "memory" : "rocksdb"; });

}  // namespace
}  // namespace headrace
