// Unpack over a bucket that a node filled, into a real directory.
#include "apps/unpack.h"

#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "apps/node_test_support.h"

namespace headrace {
namespace {

namespace fs = std::filesystem;

std::string content(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

struct UnpackTest : NodeTest {
  std::string base = fs::temp_directory_path() / ("unpack_test." + std::to_string(::getpid()));
  std::map<std::string, std::string> lost;

  ~UnpackTest() override { fs::remove_all(base); }

  Result<void> unpack(const std::string& name, UnpackProgress* progress = nullptr) {
    MemoryStore store(bucket);
    MemoryStoreFactory stores;
    UnpackOptions options;
    options.destination = base + "/" + name;
    lost.clear();
    Unpacker unpacker(other_machine.env(), store, stores, options,
                      [this](const std::string& path, const std::string& why) { lost[path] = why; });
    Result<void> done = world.run(unpacker.run());
    if (progress != nullptr) *progress = unpacker.progress();
    return done;
  }
  std::string at(const std::string& path) const { return base + "/" + path; }
};

TEST_F(UnpackTest, FilesComeBackFromTheBucketAlone) {
  NodeProcess& node = start_node();
  std::string large = pattern(9 * kMiB + 77, 1);
  {
    auto client = start_client(client_machine);
    FileId d = make_directory(*client, kRootFile, "d").id;
    FileId e = make_directory(*client, d, "e").id;
    write_file(*client, d, "small", "some bytes");
    write_file(*client, e, "large", large);
    write_file(*client, e, "empty", "");
    FileId file = write_file(*client, e, "linked", "two names");
    ASSERT_TRUE(world.run(client->link(file, d, "other")).ok());
    MakeOptions symlink;
    symlink.type = FileType::kSymlink;
    symlink.target = "../d/small";
    ASSERT_TRUE(world.run(client->make(e, "symlink", symlink, {})).ok());
    MakeOptions fifo;
    fifo.type = FileType::kFifo;
    fifo.mode = 0640;
    ASSERT_TRUE(world.run(client->make(e, "fifo", fifo, {})).ok());
    // A hole, times before 1970, a mode.
    FileId holes = write_file(*client, kRootFile, "holes", "a");
    AttributeChange set;
    set.mask = kSetSize | kSetMtime | kSetMode;
    set.size = 10 * kMiB;
    set.mtime = -1'500'000'001;
    set.mode = 0400;
    ASSERT_TRUE(world.run(client->set_attributes(holes, set)).ok());
    EXPECT_TRUE(world.run(client->shut_down()).ok());
  }
  ASSERT_TRUE(world.run(node.node->tier().spin_down()).ok());
  node_machine.crash(CrashKind::kPower);
  node_machine.disk().wipe();

  UnpackProgress progress;
  Result<void> done = unpack("out", &progress);
  ASSERT_TRUE(done.ok()) << done.error().text();
  EXPECT_TRUE(lost.empty()) << lost.begin()->first << ": " << lost.begin()->second;
  EXPECT_EQ(content(at("out/d/small")), "some bytes");
  EXPECT_TRUE(content(at("out/d/e/large")) == large);
  EXPECT_EQ(fs::file_size(at("out/d/e/empty")), 0u);
  EXPECT_EQ(fs::read_symlink(at("out/d/e/symlink")), "../d/small");
  EXPECT_TRUE(fs::is_fifo(at("out/d/e/fifo")));
  EXPECT_TRUE(fs::equivalent(at("out/d/e/linked"), at("out/d/other")));
  EXPECT_EQ(content(at("out/d/other")), "two names");
  struct stat s{};
  ASSERT_EQ(::stat(at("out/holes").c_str(), &s), 0);
  EXPECT_EQ(s.st_size, static_cast<off_t>(10 * kMiB));
  EXPECT_LT(s.st_blocks * 512, 64 * 1024) << "holes stay holes";
  EXPECT_EQ(s.st_mode & 07777, 0400u);
  EXPECT_EQ(s.st_mtim.tv_sec, -2);
  EXPECT_EQ(s.st_mtim.tv_nsec, 499'999'999);
  EXPECT_EQ(progress.files, progress.files_total);
  EXPECT_EQ(progress.links, 1u);
}

TEST_F(UnpackTest, ABucketInUseGivesItsCurrentManifest) {
  NodeProcess& node = start_node();
  auto client = start_client(client_machine);
  write_file(*client, kRootFile, "before", "published");
  ASSERT_TRUE(world.run(node.node->push()).ok());
  write_file(*client, kRootFile, "after", "not published");
  ASSERT_TRUE(unpack("out").ok());
  EXPECT_EQ(content(at("out/before")), "published");
  EXPECT_FALSE(fs::exists(at("out/after")));
  EXPECT_TRUE(world.run(client->shut_down()).ok());
}

// Whatever single byte of an object is wrong: the files that have it are named and absent, the others are whole.
TEST_F(UnpackTest, ADamagedObjectLosesTheFilesInItAndNoOthers) {
  NodeProcess& node = start_node();
  std::map<std::string, std::string> written;
  {
    auto client = start_client(client_machine);
    for (int i = 0; i < 12; ++i) {
      std::string name = "f" + std::to_string(i);
      written[name] = pattern(300'000 + static_cast<size_t>(i), static_cast<uint64_t>(i));
      write_file(*client, kRootFile, name, written[name]);
    }
    EXPECT_TRUE(world.run(client->shut_down()).ok());
  }
  ASSERT_TRUE(world.run(node.node->tier().spin_down()).ok());
  int damaged = 0;
  for (const auto& [key, object] : bucket->contents()) {
    if (!key.starts_with("d/")) continue;
    std::string bytes(object.body.text());
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
    ASSERT_TRUE(bucket->put(key, Buffer::adopt(std::move(bytes)), {}).ok());
    if (++damaged == 1) break;
  }
  ASSERT_EQ(damaged, 1);
  Result<void> done = unpack("out");
  ASSERT_TRUE(done.ok()) << done.error().text();
  EXPECT_FALSE(lost.empty());
  EXPECT_LT(lost.size(), 4u) << "one frame is damaged";
  for (const auto& [name, bytes] : written) {
    if (lost.contains(at("out/" + name)))
      EXPECT_FALSE(fs::exists(at("out/" + name))) << name;
    else
      EXPECT_TRUE(content(at("out/" + name)) == bytes) << name;
  }
}

TEST_F(UnpackTest, ADamagedStoreFileLosesItsPartitionAndNamesIt) {
  NodeProcess& node = start_node();
  {
    auto client = start_client(client_machine);
    for (int i = 0; i < 16; ++i)
      write_file(*client, make_directory(*client, kRootFile, "d" + std::to_string(i)).id, "f", "content");
    EXPECT_TRUE(world.run(client->shut_down()).ok());
  }
  ASSERT_TRUE(world.run(node.node->tier().spin_down()).ok());
  // The last partition's (the root lives in the first).
  std::string chosen;
  for (const auto& [key, object] : bucket->contents())
    if (key.starts_with("m/0001-0003/") && object.body.size() > 100 && key.find("locations") == std::string::npos)
      chosen = key;
  ASSERT_FALSE(chosen.empty());
  std::string bytes(bucket->get(chosen)->body.text());
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  ASSERT_TRUE(bucket->put(chosen, Buffer::adopt(std::move(bytes)), {}).ok());
  Result<void> done = unpack("out");
  ASSERT_TRUE(done.ok()) << done.error().text();
  ASSERT_FALSE(lost.empty());
  int whole = 0;
  for (int i = 0; i < 16; ++i) {
    std::string directory = at("out/d" + std::to_string(i));
    if (lost.contains(directory))
      EXPECT_NE(lost[directory].find("partition 3"), std::string::npos) << lost[directory];
    else
      whole += content(directory + "/f") == "content" ? 1 : 0;
  }
  EXPECT_EQ(static_cast<size_t>(whole) + lost.size(), 16u);
  EXPECT_GT(whole, 0);
}

TEST_F(UnpackTest, NothingIsWrittenWhereSomethingIs) {
  NodeProcess& node = start_node();
  ASSERT_TRUE(world.run(node.node->push()).ok());
  fs::create_directories(at("out"));
  std::ofstream(at("out/mine")) << "x";
  EXPECT_EQ(unpack("out").code(), Code::kNotEmpty);
  bucket->clear();
  Result<void> empty = unpack("other");
  EXPECT_EQ(empty.code(), Code::kNotFound);
  EXPECT_NE(empty.error().message().find("holds no namespace"), std::string::npos);
}

}  // namespace
}  // namespace headrace
