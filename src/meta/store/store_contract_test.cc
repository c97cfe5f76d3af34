// What every Store must do, over memory and RocksDB alike.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <map>

#include "meta/store/memory/memory_store.h"
#include "meta/store/rocksdb/rocksdb_node.h"
#include "meta/store/rocksdb/rocksdb_store.h"
#include "meta/store/store_reader.h"
#include "runtime/random.h"
#include "runtime/scope.h"
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
  std::unique_ptr<StoreFactory> factory_;
};

Key random_key(Random& random) {
  return "k" + std::to_string(random.below(3000));
}

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
  return [&store, tag](StoreFile file, uint64_t offset, uint64_t length) {
    return store.read_file(tag, file.name, offset, length);
  };
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
TEST_P(StoreContract, BehavesLikeAMap) {
  run(behaves_like_a_map(*factory_));
}

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
TEST_P(StoreContract, ACheckpointIsOnePointAndImportsElsewhere) {
  run(checkpoint_is_a_point(*factory_));
}

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
TEST_P(StoreContract, BadInputAFlippedByteOfACheckpointIsRefusedByName) {
  run(refuses_damage(*factory_));
}

// --- Truncation, other sets ---

Task<Result<Buffer>> truncated(Store& store, StoreFile file, uint64_t offset, uint64_t length) {
  HR_CO_TRY(Buffer bytes, co_await store.read_file(1, file.name, offset, length));
  co_return bytes.slice(0, bytes.size() - 1);
}

Task<void> refuses_what_is_not_whole(StoreFactory& factory) {
  SeededRandom random(8);
  auto store = co_await factory.create("p0-1");
  if (!store.ok()) co_return;
  Model model;
  uint64_t at = 0;
  co_await change_some(**store, model, random, at, 60);
  auto files = co_await (*store)->checkpoint(1);
  EXPECT_TRUE(files.ok());
  if (!files.ok()) co_return;
  Store* from = store->get();
  FetchFile fetch = [from](StoreFile file, uint64_t offset, uint64_t length) {
    return truncated(*from, std::move(file), offset, length);
  };
  auto bad = co_await factory.import("p0-2", *files, fetch);
  EXPECT_EQ(bad.code(), Code::kCorrupt);
  if (!bad.ok()) {
    EXPECT_NE(bad.error().message().find(files->files[0].name), std::string::npos) << bad.error().text();
  }
  StoreFiles fewer = *files;
  fewer.files.pop_back();
  bad = co_await factory.import("p0-3", fewer, fetch_from(**store, 1));
  EXPECT_EQ(bad.code(), Code::kCorrupt);
  StoreFiles twice = *files;
  twice.files.push_back(twice.files[0]);
  bad = co_await factory.import("p0-4", twice, fetch_from(**store, 1));
  EXPECT_EQ(bad.code(), Code::kCorrupt);
  StoreFiles garbage = *files;
  garbage.import = "garbage";
  bad = co_await factory.import("p0-5", garbage, fetch_from(**store, 1));
  EXPECT_FALSE(bad.ok());
  auto released = co_await (*store)->release(1);
  EXPECT_TRUE(released.ok());
  bad = co_await factory.import("p0-6", *files, fetch_from(**store, 1));
  EXPECT_EQ(bad.code(), Code::kNotFound);
}
TEST_P(StoreContract, BadInputATruncatedOrIncompleteSetIsRefused) {
  run(refuses_what_is_not_whole(*factory_));
}

// --- Incremental shipping ---

Task<void> keeps_names(StoreFactory& factory) {
  auto store = co_await factory.create("p0-1");
  if (!store.ok()) co_return;
  Model model;
  uint64_t at = 0;
  for (int batch = 0; batch < 40; ++batch) {
    std::vector<RowChange> changes;
    for (int i = 0; i < 500; ++i) {
      Key key = "a" + std::to_string(1'000'000 + batch * 500 + i);
      changes.push_back({key, RowValue(100, static_cast<char>('a' + i % 26))});
      model[key] = *changes.back().value;
    }
    auto applied = co_await (*store)->apply(std::move(changes), Position(++at));
    EXPECT_TRUE(applied.ok());
  }
  auto first = co_await (*store)->checkpoint(1);
  EXPECT_TRUE(first.ok());
  if (!first.ok()) co_return;
  auto twin = co_await factory.import("p0-2", *first, fetch_from(**store, 1));
  EXPECT_TRUE(twin.ok());
  if (!twin.ok()) co_return;
  std::map<std::string, uint32_t> before;
  for (const StoreFile& file : first->files) before[file.name] = file.crc;
  // A row more at the end of the range, in a store that goes on and in one that was imported.
  for (Store* one : {store->get(), twin->get()}) {
    std::vector<RowChange> change;
    change.push_back({"b", "new"});
    auto applied = co_await one->apply(std::move(change), Position(at + 1));
    EXPECT_TRUE(applied.ok());
    auto second = co_await one->checkpoint(2);
    EXPECT_TRUE(second.ok());
    if (!second.ok()) co_return;
    size_t kept = 0;
    for (const StoreFile& file : second->files) {
      if (!before.contains(file.name)) continue;
      ++kept;
      EXPECT_EQ(before[file.name], file.crc);
    }
    EXPECT_GT(kept, 0u);
    EXPECT_GT(second->files.size(), kept);
    auto again = co_await factory.import("p0-3", *second, fetch_from(*one, 2));
    EXPECT_TRUE(again.ok()) << (again.ok() ? "" : again.error().text());
    if (!again.ok()) co_return;
    Model then = model;
    then["b"] = "new";
    co_await expect_equal(**again, then);
    auto held = co_await one->checkpoint(2);
    EXPECT_EQ(held.code(), Code::kExists);
  }
}
TEST_P(StoreContract, UnchangedFilesKeepTheirNameAndAreShippedOnce) {
  // Few enough flushes that no compaction rewrites what is there.
  RocksDbStoreFactory few(reactor_->env().blocking, directory_.path("few"));
  run(keeps_names(GetParam() == Kind::kMemory ? *factory_ : few));
}

// --- Edges ---

Task<void> empty_store(StoreFactory& factory) {
  auto store = co_await factory.create("p0-1");
  if (!store.ok()) co_return;
  auto files = co_await (*store)->checkpoint(1);
  EXPECT_TRUE(files.ok()) << (files.ok() ? "" : files.error().text());
  if (!files.ok()) co_return;
  auto again = co_await factory.import("p0-2", *files, fetch_from(**store, 1));
  EXPECT_TRUE(again.ok()) << (again.ok() ? "" : again.error().text());
  if (!again.ok()) co_return;
  EXPECT_EQ((*again)->applied(), Position());
  // A position without any row is a state, too.
  auto applied = co_await (*again)->apply({}, Position(9));
  EXPECT_TRUE(applied.ok());
  auto later = co_await (*again)->checkpoint(1);
  EXPECT_TRUE(later.ok());
  if (!later.ok()) co_return;
  auto third = co_await StoreReader::open(factory, "p0-3", *later, fetch_from(**again, 1));
  EXPECT_TRUE(third.ok()) << (third.ok() ? "" : third.error().text());
  if (!third.ok()) co_return;
  EXPECT_EQ((*third)->at(), Position(9));
  auto rows = co_await (*third)->scan("", std::string(20, '\xff'));
  EXPECT_TRUE(rows.ok() && rows->empty());
}
TEST_P(StoreContract, AnEmptyStoreHasCheckpointsToo) {
  run(empty_store(*factory_));
}

Task<void> scans(StoreFactory& factory) {
  auto store = co_await factory.create("p0-1");
  if (!store.ok()) co_return;
  std::vector<RowChange> changes;
  for (Key key : {"a", "b", "c"}) changes.push_back({key, key});
  Key high =
      "\xff\xff\xff"
      "counters";  // a row of the partition, in the last slot
  changes.push_back({high, "h"});
  auto applied = co_await (*store)->apply(std::move(changes), Position(1));
  EXPECT_TRUE(applied.ok());
  auto rows = co_await (*store)->scan("a", "c", 10);
  EXPECT_TRUE(rows.ok() && rows->size() == 2 && (*rows)[1].first == "b");
  rows = co_await (*store)->scan("b", "b", 10);
  EXPECT_TRUE(rows.ok() && rows->empty());
  rows = co_await (*store)->scan("c", "a", 10);
  EXPECT_TRUE(rows.ok() && rows->empty());
  rows = co_await (*store)->scan("", "z", 0);
  EXPECT_TRUE(rows.ok() && rows->empty());
  rows = co_await (*store)->scan("", std::string(20, '\xff'), 100);
  EXPECT_TRUE(rows.ok() && rows->size() == 4 && rows->back().first == high);
}
TEST_P(StoreContract, ScansAreHalfOpenBoundedAndShowNoRowOfTheStoresOwn) {
  run(scans(*factory_));
}

// --- Reads beside a checkpoint; size ---

struct Beside {
  bool ended = false;
  uint64_t reads = 0;
};

Task<void> checkpoint_beside(Store* store, Beside* beside) {
  auto files = co_await store->checkpoint(7);
  EXPECT_TRUE(files.ok());
  beside->ended = true;
}

Task<void> read_beside(StoreFactory& factory) {
  auto store = co_await factory.create("p0-1");
  if (!store.ok()) co_return;
  constexpr int kRows = 100'000;
  uint64_t at = 0;
  for (int base = 0; base < kRows; base += 1000) {
    std::vector<RowChange> changes;
    for (int i = base; i < base + 1000; ++i)
      changes.push_back({"n" + std::to_string(i), RowValue(80, static_cast<char>('a' + i % 26))});
    auto applied = co_await (*store)->apply(std::move(changes), Position(++at));
    EXPECT_TRUE(applied.ok());
  }
  Beside beside;
  Scope scope;
  scope.spawn(checkpoint_beside(store->get(), &beside));
  SeededRandom random(9);
  do {
    int i = static_cast<int>(random.below(kRows));
    auto row = co_await (*store)->get("n" + std::to_string(i));
    EXPECT_TRUE(row.ok() && *row && **row == RowValue(80, static_cast<char>('a' + i % 26)));
    ++beside.reads;
  } while (!beside.ended && beside.reads < 1'000'000);
  co_await scope.join();
  auto rows = co_await (*store)->scan("n", "o", 200'000);
  EXPECT_TRUE(rows.ok());
  EXPECT_EQ(rows->size(), static_cast<size_t>(kRows));
}
TEST_P(StoreContract, ReadsGoOnBesideACheckpointOfAHundredThousandRows) {
  run(read_beside(*factory_));
}

Task<void> same_name_again(StoreFactory& factory) {
  for (int life = 0; life < 5; ++life) {
    auto store = co_await factory.create("p0-1");
    EXPECT_TRUE(store.ok()) << (store.ok() ? "" : store.error().text());
    if (!store.ok()) co_return;
    auto row = co_await (*store)->get("k");
    EXPECT_TRUE(row.ok() && !*row);
    std::vector<RowChange> changes;
    changes.push_back({"k", "v"});
    auto applied = co_await (*store)->apply(std::move(changes), Position(1));
    EXPECT_TRUE(applied.ok());
    auto files = co_await (*store)->checkpoint(1);
    EXPECT_TRUE(files.ok());
  }
}
TEST_P(StoreContract, CreateStartsEmptyWhateverWasUnderTheName) {
  run(same_name_again(*factory_));
}

INSTANTIATE_TEST_SUITE_P(Stores, StoreContract, testing::Values(Kind::kMemory, Kind::kRocksDb),
                         [](const auto& info) { return info.param == Kind::kMemory ? "memory" : "rocksdb"; });

// --- RocksDB alone ---

class RocksDbStoreTest : public UringTest {
 protected:
  RocksDbStoreTest() : factory_(reactor_->env().blocking, directory_.path("stores")) {}
  RocksDbStoreFactory factory_;
};

Task<void> names_live_damage(StoreFactory& factory, std::string directory) {
  auto store = co_await factory.create("p0-1");
  EXPECT_TRUE(store.ok());
  if (!store.ok()) co_return;
  std::vector<RowChange> changes;
  for (int i = 0; i < 2000; ++i) changes.push_back({"k" + std::to_string(i), RowValue(100, 'x')});
  auto applied = co_await (*store)->apply(std::move(changes), Position(1));
  EXPECT_TRUE(applied.ok());
  auto files = co_await (*store)->checkpoint(1);
  EXPECT_TRUE(files.ok());
  int damaged_files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    if (entry.path().extension() != ".sst" || entry.path().parent_path().filename() != "db") continue;
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(100);
    file.put('\x5a');
    ++damaged_files;
  }
  EXPECT_GT(damaged_files, 0);
  auto row = co_await (*store)->get("k0");
  EXPECT_EQ(row.code(), Code::kCorrupt);
  if (!row.ok()) {
    EXPECT_NE(row.error().message().find(".sst"), std::string::npos) << row.error().text();
  }
}
TEST_F(RocksDbStoreTest, BadInputADamagedFileUnderARunningStoreIsNamed) {
  run(names_live_damage(factory_, directory_.path("stores")));
}

Task<void> lists_no_damage(StoreFactory& factory, Clock& clock, std::string directory) {
  SeededRandom random(8);
  auto store = co_await factory.create("p0-1");
  EXPECT_TRUE(store.ok());
  if (!store.ok()) co_return;
  Model model;
  uint64_t at = 0;
  std::filesystem::path flushed;
  for (int i = 0; i < 500 && flushed.empty(); ++i) {
    co_await change_some(**store, model, random, at, 10);
    co_await clock.sleep(milliseconds(1));
    for (const auto& entry : std::filesystem::recursive_directory_iterator(directory))
      if (entry.path().extension() == ".sst" && entry.file_size() > 0) flushed = entry.path();
  }
  EXPECT_FALSE(flushed.empty());
  co_await clock.sleep(milliseconds(200));
  {
    std::fstream file(flushed, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(1000);
    const char byte = static_cast<char>(file.get() ^ 1);
    file.seekp(1000);
    file.put(byte);
  }
  auto files = co_await (*store)->checkpoint(1);
  EXPECT_EQ(files.code(), Code::kCorrupt);
  if (!files.ok()) {
    EXPECT_NE(files.error().message().find(".sst"), std::string::npos) << files.error().text();
  }
}
TEST_F(RocksDbStoreTest, BadInputACheckpointListsNoDamagedFile) {
  RocksDbOptions options;
  options.write_buffer = 256 * kKiB;
  RocksDbStoreFactory factory(reactor_->env().blocking, directory_.path("stores"), options);
  run(lists_no_damage(factory, reactor_->env().clock, directory_.path("stores")));
}

Task<void> leaves_nothing(RocksDbStoreFactory& factory, std::string directory) {
  std::filesystem::create_directories(directory + "/p7-1/3/db");
  std::ofstream(directory + "/p7-1/3/db/000001.sst") << "of another life";
  auto removed = co_await factory.remove_leftovers();
  EXPECT_TRUE(removed.ok());
  EXPECT_TRUE(std::filesystem::is_empty(directory));  // itself it may be a disk of its own
  auto store = co_await factory.create("p0-1");
  EXPECT_TRUE(store.ok());
}
TEST_F(RocksDbStoreTest, NothingIsLeftOfAStoreThatIsGone) {
  run(leaves_nothing(factory_, directory_.path("stores")));
  reactor_.reset();  // ends the jobs that close stores
  EXPECT_TRUE(!std::filesystem::exists(directory_.path("stores")) ||
              std::filesystem::is_empty(directory_.path("stores")));
}

Task<void> missing_then_cached(StoreFactory& factory) {
  auto store = co_await factory.create("p0-1");
  EXPECT_TRUE(store.ok());
  if (!store.ok()) co_return;
  std::vector<RowChange> changes;
  changes.push_back({"k", "v"});
  auto applied = co_await (*store)->apply(std::move(changes), Position(1));
  RowValue value;
  EXPECT_EQ((*store)->get_now("k", value), Found::kRow);  // in the memtable
  EXPECT_EQ((*store)->get_now("l", value), Found::kAbsent);
  auto files = co_await (*store)->checkpoint(1);
  EXPECT_TRUE(files.ok() && applied.ok());
  EXPECT_EQ((*store)->get_now("k", value), Found::kNeedsDisk);  // its block was never read
  auto row = co_await (*store)->get("k");
  EXPECT_TRUE(row.ok() && *row && **row == "v");
  EXPECT_EQ((*store)->get_now("k", value), Found::kRow);
}
TEST_F(RocksDbStoreTest, WhatIsNotInMemoryNeedsTheDiskOnce) {
  run(missing_then_cached(factory_));
}

Task<void> stalled_writes(StoreFactory& factory) {
  auto store = co_await factory.create("p0-1");
  EXPECT_TRUE(store.ok());
  if (!store.ok()) co_return;
  Model model;
  SeededRandom random(3);
  for (uint64_t at = 1; at <= 400; ++at) {
    std::vector<RowChange> changes;
    for (int i = 0; i < 50; ++i) {
      RowValue value;
      for (int n = 0; n < 512; ++n) value.push_back(static_cast<char>(random.next()));
      Key key = "k" + std::to_string(random.below(20'000));
      model[key] = value;
      changes.push_back({key, std::move(value)});
    }
    auto applied = co_await (*store)->apply(std::move(changes), Position(at));
    EXPECT_TRUE(applied.ok()) << (applied.ok() ? "" : applied.error().text());
  }
  EXPECT_EQ((*store)->applied(), Position(400));
  auto rows = co_await (*store)->scan("", "z", 100'000);
  EXPECT_TRUE(rows.ok());
  EXPECT_TRUE(Model(rows->begin(), rows->end()) == model);
}
TEST_F(RocksDbStoreTest, WritesThatRocksDbHoldsBackStillArriveInOrder) {
  RocksDbOptions options;
  options.write_buffer = 64 * kKiB;  // so that flushes and compactions cannot keep up
  RocksDbStoreFactory factory(reactor_->env().blocking, directory_.path("small"), options);
  run(stalled_writes(factory));
}

TEST(RocksDbErrors, BadInputAFullDiskIsNoSpaceAndNamesTheMend) {
  Error full = rocksdb_error(rocksdb::Status::NoSpace("write /x/db/000007.sst"), "checkpoint of store");
  EXPECT_EQ(full.code(), Code::kNoSpace);
  EXPECT_NE(full.message().find("free space"), std::string::npos);
  EXPECT_EQ(rocksdb_error(rocksdb::Status::Corruption("block"), "read").code(), Code::kCorrupt);
  EXPECT_EQ(rocksdb_error(rocksdb::Status::IOError("read"), "read").code(), Code::kIo);
}

// --- Memory alone ---

Task<void> misses_then_warm(Clock& clock, Random& random) {
  MemoryStoreFactory factory(
      {.clock = &clock, .random = &random, .miss_percent = 100, .min = microseconds(1), .max = microseconds(9)});
  auto store = co_await factory.create("p0-1");
  if (!store.ok()) co_return;
  std::vector<RowChange> changes;
  changes.push_back({"k", "v"});
  auto applied = co_await (*store)->apply(std::move(changes), Position(1));
  EXPECT_TRUE(applied.ok());
  RowValue value;
  EXPECT_EQ((*store)->get_now("k", value), Found::kNeedsDisk);
  auto row = co_await (*store)->get("k");
  EXPECT_TRUE(row.ok() && *row && **row == "v");
  EXPECT_EQ((*store)->get_now("k", value), Found::kRow);  // so that a restarted operation gets on
}
TEST_F(UringTest, AMemoryStoreWithLatencyMissesOnce) {
  SeededRandom random(1);
  run(misses_then_warm(*reactor_, random));
}

}  // namespace
}  // namespace headrace
