// Random operations of several clients against models. Every failure prints its seed.
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "client/fake_cluster_test_support.h"

namespace headrace {
namespace {

constexpr OpenMode kReadWrite{.read = true, .write = true};

std::string joined(const std::vector<Buffer>& pieces) {
  std::string out;
  for (const Buffer& piece : pieces) out += piece.text();
  return out;
}

ClientOptions small_options(SeededRandom& random) {
  ClientOptions options;
  options.dirty_limit = random.chance(1, 2) ? 300 * kKiB : kGiB;
  options.file_dirty_limit = random.chance(1, 3) ? 100 * kKiB : kGiB;
  options.flush_after = milliseconds(static_cast<int64_t>(random.between(600, 5000)));
  options.stage_limit = random.chance(1, 3) ? 4 * kKiB : 64 * kKiB;
  options.read_cache = random.chance(1, 2) ? kMiB : 256 * kMiB;
  options.idle_grant = random.chance(1, 2) ? seconds(6) : seconds(600);
  options.max_files = random.chance(1, 2) ? 3 : 1000;
  options.directory_write_grants = random.chance(3, 4);
  options.max_unsent = random.chance(1, 4) ? 2 : 16'384;
  return options;
}

// One operation at a time, by whichever client: every answer must be that of one byte model.
class OneByOne {
 public:
  OneByOne(uint64_t seed, size_t clients)
      : random_(seed), seed_(seed), cluster_(seed, clients, small_options(random_)), clients_(clients) {
    cluster_.node().slow = milliseconds(static_cast<int64_t>(random_.below(3)));
  }

  void run(int steps) {
    for (int i = 0; i < steps && !::testing::Test::HasFailure(); ++i) {
      step_ = i;
      step();
    }
    if (::testing::Test::HasFailure()) return;
    // In the end all that was written is there for a client that knows nothing.
    for (size_t c = 0; c < clients_; ++c) {
      Result<void> synced = cluster_.world.run(cluster_.client(c).sync_all());
      ASSERT_TRUE(synced.ok()) << where() << synced.error().text();
    }
    for (auto& [name, file] : files_) {
      handles_.clear();
      check_read(pick_client(), file, 0, file->bytes.size() + 1000);
    }
  }

 private:
  struct File {
    FileId id;
    std::string bytes;
  };
  struct Open {
    size_t client;
    std::shared_ptr<File> file;
    OpenFileRef handle;
  };

  std::string where() const { return "seed " + std::to_string(seed_) + " step " + std::to_string(step_) + ": "; }
  size_t pick_client() { return random_.below(clients_); }
  Client& client(size_t c) { return cluster_.client(c); }
  // A client learns of a file by its name: an id is nobody's business before it has one at the partition.
  void know(size_t c, const std::shared_ptr<File>& file) {
    if (!known_.insert({c, file->id}).second) return;
    for (const auto& [name, at] : files_) {
      if (at != file) continue;
      auto found = cluster_.world.run(client(c).lookup(kRootFile, name));
      ASSERT_TRUE(found.ok()) << where() << found.error().text();
      ASSERT_EQ(found->id, file->id) << where();
    }
  }
  OpenFileRef handle(size_t c, const std::shared_ptr<File>& file) {
    know(c, file);
    for (Open& open : handles_)
      if (open.client == c && open.file == file) return open.handle;
    auto opened = cluster_.world.run(client(c).open(file->id, kReadWrite));
    EXPECT_TRUE(opened.ok()) << where() << opened.error().text();
    if (!opened.ok()) return nullptr;
    handles_.push_back({c, file, *opened});
    return *opened;
  }
  void check_read(size_t c, const std::shared_ptr<File>& shared, uint64_t offset, uint64_t length) {
    const File& file = *shared;
    OpenFileRef h = handle(c, shared);
    if (h == nullptr) return;
    auto bytes = cluster_.world.run(client(c).read(h, offset, length));
    ASSERT_TRUE(bytes.ok()) << where() << bytes.error().text();
    const std::string expected = offset < file.bytes.size() ? file.bytes.substr(offset, length) : "";
    const std::string got = joined(*bytes);
    if (got == expected) return;
    size_t at = 0;
    while (at < got.size() && at < expected.size() && got[at] == expected[at]) ++at;
    FAIL() << where() << "client " << c << " read " << offset << "+" << length << " of " << to_string(file.id) << ": "
           << got.size() << " bytes for " << expected.size() << ", differ at " << offset + at;
  }

  void step() {
    const size_t c = pick_client();
    if (files_.empty() || (files_.size() < 5 && random_.chance(1, 10))) {
      const std::string name = "f" + std::to_string(random_.below(8));
      auto made = cluster_.world.run(client(c).create(kRootFile, name, 0644, kReadWrite, {}));
      if (files_.contains(name)) {
        ASSERT_EQ(made.code(), Code::kExists) << where();
        return;
      }
      ASSERT_TRUE(made.ok()) << where() << made.error().text();
      auto file = std::make_shared<File>(File{made->attributes.id, ""});
      files_[name] = file;
      known_.insert({c, file->id});
      handles_.push_back({c, file, made->file});
      return;
    }
    auto at = files_.begin();
    std::advance(at, random_.below(files_.size()));
    std::shared_ptr<File> file = at->second;
    const std::string name = at->first;
    know(c, file);
    const uint64_t room = random_.chance(1, 4) ? 400'000 : 40'000;
    switch (random_.below(18)) {
      case 0:
      case 1:
      case 2:
      case 3: {
        const uint64_t offset = random_.below(room);
        std::string bytes(1 + random_.below(random_.chance(1, 3) ? 150'000 : 5'000), '\0');
        const char first = static_cast<char>(random_.next());
        for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(first + i % 251);
        OpenFileRef h = handle(c, file);
        auto written = cluster_.world.run(client(c).write(h, offset, Buffer::copy_of(bytes_of(bytes))));
        ASSERT_TRUE(written.ok()) << where() << written.error().text();
        if (file->bytes.size() < offset + bytes.size()) file->bytes.resize(offset + bytes.size());
        file->bytes.replace(offset, bytes.size(), bytes);
        break;
      }
      case 4:
      case 5:
      case 6:
        check_read(c, file, random_.below(room), 1 + random_.below(200'000));
        break;
      case 7: {
        auto attributes = cluster_.world.run(client(c).get_attributes(file->id));
        ASSERT_TRUE(attributes.ok()) << where();
        ASSERT_EQ(attributes->size, file->bytes.size()) << where() << "client " << c;
        break;
      }
      case 8: {
        auto found = cluster_.world.run(client(c).lookup(kRootFile, name));
        ASSERT_TRUE(found.ok()) << where();
        ASSERT_EQ(found->id, file->id) << where();
        ASSERT_EQ(found->size, file->bytes.size()) << where() << "client " << c;
        break;
      }
      case 9: {
        const uint64_t size = random_.below(room);
        auto set = cluster_.world.run(client(c).set_attributes(file->id, {.mask = kSetSize, .size = size}));
        ASSERT_TRUE(set.ok()) << where() << set.error().text();
        file->bytes.resize(size);
        ASSERT_EQ(set->size, size) << where();
        break;
      }
      case 10: {
        const uint64_t offset = random_.below(room);
        const uint64_t length = 1 + random_.below(50'000);
        auto punched = cluster_.world.run(client(c).punch(handle(c, file), offset, length));
        ASSERT_TRUE(punched.ok()) << where();
        for (uint64_t i = offset; i < std::min<uint64_t>(file->bytes.size(), offset + length); ++i) file->bytes[i] = 0;
        break;
      }
      case 11: {
        auto synced = cluster_.world.run(client(c).sync(file->id));
        ASSERT_TRUE(synced.ok()) << where() << synced.error().text();
        break;
      }
      case 12:
        if (random_.chance(1, 2)) {
          std::erase_if(handles_, [&](const Open& open) { return open.file == file && open.client == c; });
        } else {
          ASSERT_TRUE(cluster_.world.run(client(c).unlink(kRootFile, name)).ok()) << where();
          files_.erase(at);
        }
        break;
      case 13: {
        const std::string to = "f" + std::to_string(random_.below(8));
        auto renamed = cluster_.world.run(client(c).rename({kRootFile, name, kRootFile, to, false}));
        ASSERT_TRUE(renamed.ok()) << where() << renamed.error().text();
        if (to != name) {
          files_.erase(at);
          files_[to] = file;
        }
        break;
      }
      case 15:
      case 16: {  // through whatever is open, unlinked or not
        if (handles_.empty()) break;
        const Open open = handles_[random_.below(handles_.size())];
        if (random_.chance(1, 2)) {
          check_read(open.client, open.file, 0, 500'000);
          break;
        }
        const std::string bytes(1 + random_.below(5000), static_cast<char>('a' + random_.below(26)));
        auto written = cluster_.world.run(client(open.client).write(open.handle, 0, Buffer::copy_of(bytes_of(bytes))));
        ASSERT_TRUE(written.ok()) << where() << written.error().text();
        if (open.file->bytes.size() < bytes.size()) open.file->bytes.resize(bytes.size());
        open.file->bytes.replace(0, bytes.size(), bytes);
        break;
      }
      case 14: {
        const std::string some = "f" + std::to_string(random_.below(8));
        auto found = cluster_.world.run(client(c).lookup(kRootFile, some));
        ASSERT_EQ(found.ok(), files_.contains(some)) << where() << "client " << c << " looked up " << some;
        break;
      }
      default:
        if (random_.chance(1, 12)) {
          const Nanos slow = cluster_.node().slow;
          cluster_.restart_node();
          cluster_.node().slow = slow;
        } else {
          cluster_.world.run_for(milliseconds(static_cast<int64_t>(random_.below(4000))));
        }
    }
  }

  SeededRandom random_;
  uint64_t seed_;
  int step_ = 0;
  FakeCluster cluster_;
  size_t clients_;
  std::map<std::string, std::shared_ptr<File>> files_;
  std::set<std::pair<size_t, FileId>> known_;
  std::vector<Open> handles_;
};

TEST(ClientRandom, OneByOneEveryAnswerIsThatOfOneFileSystem) {
  for (uint64_t seed = 1; seed <= 40 && !::testing::Test::HasFailure(); ++seed) OneByOne(seed, 1 + seed % 3).run(250);
}

// Many at once. Each block of a shared file has one writer, who counts upwards; each name one
// owner, who makes and removes it. Whoever looks must see no less than what was complete when he
// began, and no more than what had begun when he got the answer.
class AtOnce {
 public:
  AtOnce(uint64_t seed, bool restarts)
      : random_(seed), seed_(seed), cluster_(seed, kClients, small_options(random_)), restarts_(restarts) {
    cluster_.node().slow = milliseconds(static_cast<int64_t>(1 + random_.below(4)));
  }

  void run() {
    auto made = cluster_.world.run(cluster_.client(0).create(kRootFile, "shared", 0644, kReadWrite, {}));
    ASSERT_TRUE(made.ok());
    file_ = made->attributes.id;
    for (size_t c = 0; c < kClients; ++c) {
      auto marked = cluster_.world.run(cluster_.client(c).make(kRootFile, "m" + std::to_string(c), {.mode = 0}, {}));
      ASSERT_TRUE(marked.ok());
      marked_[c] = marked->id;
    }
    for (size_t c = 0; c < kClients; ++c) {
      for (const std::string name : {"shared", "m0", "m1", "m2"}) {
        auto found = cluster_.world.run(cluster_.client(c).lookup(kRootFile, name));
        ASSERT_TRUE(found.ok());
      }
    }
    Scope scope;
    for (size_t c = 0; c < kClients; ++c) {
      scope.spawn(writer(c, c));
      scope.spawn(writer(c, c + kClients));
      scope.spawn(reader(c));
      scope.spawn(owner(c));
      scope.spawn(looker(c));
      scope.spawn(syncer(c));
      scope.spawn(marker(c));
      scope.spawn(stater(c));
      scope.spawn(stater(c));
    }
    bool over = false;
    for (int i = 0; restarts_ && i < 3 && !over; ++i) {
      cluster_.world.run_for(milliseconds(static_cast<int64_t>(random_.between(50, 2000))));
      if (scope.running() == 0) break;
      const Nanos slow = cluster_.node().slow;
      cluster_.restart_node();
      cluster_.node().slow = slow;
    }
    over = cluster_.world.run_until([&] { return scope.running() == 0; }, seconds(600));
    ASSERT_TRUE(over) << "seed " << seed_ << ": did not end";
    if (::testing::Test::HasFailure()) return;
    // What is durable is the last of everything.
    for (size_t c = 0; c < kClients; ++c) {
      auto synced = cluster_.world.run(cluster_.client(c).sync_all());
      ASSERT_TRUE(synced.ok()) << "seed " << seed_ << synced.error().text();
    }
    cluster_.start_client_again(0);
    auto file = cluster_.world.run(cluster_.client(0).open(file_, kReadWrite));
    ASSERT_TRUE(file.ok());
    for (size_t b = 0; b < kBlocks; ++b) {
      auto bytes = cluster_.world.run(cluster_.client(0).read(*file, b * kSize, kSize));
      ASSERT_TRUE(bytes.ok());
      EXPECT_EQ(value(joined(*bytes)), blocks_[b].completed) << "seed " << seed_ << " block " << b;
    }
  }

 private:
  static constexpr size_t kClients = 3;
  static constexpr size_t kBlocks = 2 * kClients;
  static constexpr uint64_t kSize = 3000;  // not aligned to anything
  struct Block {
    uint64_t begun = 0;
    uint64_t completed = 0;
  };
  struct Name {
    uint64_t changes_begun = 0;  // odd: made, even: removed
    uint64_t changes_completed = 0;
  };

  // The number that fills the block, ~0 where it does not fill it.
  static uint64_t value(const std::string& bytes) {
    uint64_t first = 0;
    if (bytes.size() < 8) return 0;
    std::memcpy(&first, bytes.data(), 8);
    for (size_t i = 0; i + 8 <= bytes.size(); i += 8)
      if (std::memcmp(bytes.data() + i, &first, 8) != 0) return ~uint64_t{0};
    return first;
  }
  Task<void> rest() { co_await cluster_.world.clock().sleep(Nanos{static_cast<int64_t>(random_.below(20'000'000))}); }

  Task<void> writer(size_t c, size_t block) {
    auto file = co_await cluster_.client(c).open(file_, kReadWrite);
    EXPECT_TRUE(file.ok());
    if (!file.ok()) co_return;
    for (uint64_t n = 1; n <= 25; ++n) {
      Buffer bytes = Buffer::allocate(kSize);
      for (size_t i = 0; i + 8 <= kSize; i += 8) std::memcpy(bytes.data() + i, &n, 8);
      blocks_[block].begun = n;
      auto written = co_await cluster_.client(c).write(*file, block * kSize, bytes);
      EXPECT_TRUE(written.ok()) << "seed " << seed_ << ": " << (written.ok() ? "" : written.error().text());
      if (!written.ok()) co_return;
      blocks_[block].completed = n;
      co_await rest();
    }
  }
  Task<void> reader(size_t c) {
    auto file = co_await cluster_.client(c).open(file_, {.read = true});
    EXPECT_TRUE(file.ok());
    if (!file.ok()) co_return;
    for (int i = 0; i < 60; ++i) {
      const size_t block = random_.below(kBlocks);
      const uint64_t least = blocks_[block].completed;
      auto bytes = co_await cluster_.client(c).read(*file, block * kSize, kSize);
      EXPECT_TRUE(bytes.ok()) << "seed " << seed_ << ": " << (bytes.ok() ? "" : bytes.error().text());
      if (!bytes.ok()) co_return;
      const uint64_t got = value(joined(*bytes));
      EXPECT_GE(got, least) << "seed " << seed_ << ": client " << c << " read stale block " << block;
      EXPECT_LE(got, blocks_[block].begun) << "seed " << seed_ << ": client " << c << " read a torn block " << block;
      co_await rest();
    }
  }
  Task<void> owner(size_t c) {
    const std::string name = "n" + std::to_string(c);
    for (int i = 0; i < 12; ++i) {
      ++names_[c].changes_begun;
      if (i % 2 == 0) {
        auto made = co_await cluster_.client(c).make(kRootFile, name, {}, {});
        EXPECT_TRUE(made.ok()) << "seed " << seed_ << ": " << (made.ok() ? "" : made.error().text());
      } else {
        auto gone = co_await cluster_.client(c).unlink(kRootFile, name);
        EXPECT_TRUE(gone.ok()) << "seed " << seed_ << ": " << (gone.ok() ? "" : gone.error().text());
      }
      ++names_[c].changes_completed;
      co_await rest();
    }
  }
  Task<void> looker(size_t c) {
    for (int i = 0; i < 60; ++i) {
      const size_t n = random_.below(kClients);
      const Name before = names_[n];
      auto found = co_await cluster_.client(c).lookup(kRootFile, "n" + std::to_string(n));
      const uint64_t after = names_[n].changes_begun;
      // Without any change in between the answer is determined.
      if (before.changes_begun == before.changes_completed && after == before.changes_begun) {
        EXPECT_EQ(found.ok(), after % 2 == 1) << "seed " << seed_ << ": client " << c << " looked up n" << n;
      }
      if (::testing::Test::HasFailure()) co_return;
      co_await rest();
    }
  }
  // A file's mode counts upwards; so does its size, by another way.
  Task<void> marker(size_t c) {
    for (uint32_t n = 1; n <= 30; ++n) {
      marks_[c].begun = n;
      AttributeChange change{.mask = kSetMode, .mode = n};
      if (n % 5 == 0) change = {.mask = kSetMode | kSetSize, .mode = n, .size = n};
      auto set = co_await cluster_.client(c).set_attributes(marked_[c], change);
      EXPECT_TRUE(set.ok()) << "seed " << seed_ << ": " << (set.ok() ? "" : set.error().text());
      if (!set.ok()) co_return;
      marks_[c].completed = n;
      if (random_.chance(1, 2)) co_await rest();
    }
  }
  Task<void> stater(size_t c) {
    for (int i = 0; i < 80; ++i) {
      const size_t m = random_.below(kClients);
      const uint64_t least = marks_[m].completed;
      Result<Attributes> seen = Error(Code::kIo, "");
      if (random_.chance(1, 2)) {
        seen = co_await cluster_.client(c).get_attributes(marked_[m]);
      } else {
        seen = co_await cluster_.client(c).lookup(kRootFile, "m" + std::to_string(m));
      }
      EXPECT_TRUE(seen.ok()) << "seed " << seed_ << ": " << (seen.ok() ? "" : seen.error().text());
      if (!seen.ok()) co_return;
      EXPECT_GE(seen->mode, least) << "seed " << seed_ << ": client " << c << " saw a stale mode of m" << m;
      EXPECT_LE(seen->mode, marks_[m].begun) << "seed " << seed_;
      EXPECT_GE(seen->size, least / 5 * 5) << "seed " << seed_ << ": client " << c << " saw a stale size of m" << m;
      if (random_.chance(1, 2)) co_await rest();
    }
  }
  Task<void> syncer(size_t c) {
    uint64_t size = 0;
    for (int i = 0; i < 20; ++i) {
      if (random_.chance(1, 2)) {
        auto synced = co_await cluster_.client(c).sync(file_);
        EXPECT_TRUE(synced.ok()) << "seed " << seed_ << ": " << (synced.ok() ? "" : synced.error().text());
      } else {
        auto attributes = co_await cluster_.client(c).get_attributes(file_);
        EXPECT_TRUE(attributes.ok());
        if (attributes.ok()) {
          EXPECT_GE(attributes->size, size) << "seed " << seed_;
          size = attributes->size;
        }
      }
      co_await rest();
    }
  }

  SeededRandom random_;
  uint64_t seed_;
  FakeCluster cluster_;
  bool restarts_;
  FileId file_;
  FileId marked_[kClients];
  Block marks_[kClients];
  Block blocks_[kBlocks];
  Name names_[kClients];
};

TEST(ClientRandom, AtOnceNobodySeesAnythingStale) {
  for (uint64_t seed = 1; seed <= 60 && !::testing::Test::HasFailure(); ++seed) AtOnce(seed, false).run();
}

TEST(ClientRandom, AtOnceNodeRestartsLoseNothing) {
  for (uint64_t seed = 1001; seed <= 1060 && !::testing::Test::HasFailure(); ++seed) AtOnce(seed, true).run();
}

TEST(ClientRandomLongRun, ManySeeds) {
  for (uint64_t seed = 5000; seed < 7000 && !::testing::Test::HasFailure(); ++seed) {
    OneByOne(seed, 1 + seed % 3).run(250);
    if (!::testing::Test::HasFailure()) AtOnce(seed, seed % 2 == 0).run();
  }
}

}  // namespace
}  // namespace headrace
