#include "object/directory/directory_store.h"

#include <sys/wait.h>

#include <fstream>

#include "object/object_store_contract_test.h"

namespace headrace::test {

const TempDir& shared_dir() {
  static TempDir dir;
  return dir;
}

INSTANTIATE_TEST_SUITE_P(Directory, ObjectStoreContract,
                         ::testing::Values(Backend{.name = "directory",
                                                   .make =
                                                       [](World& world, const std::string& fresh) {
                                                         return std::make_unique<DirectoryStore>(
                                                             shared_dir().path + "/" + fresh, world.env());
                                                       }}),
                         [](const auto& info) { return info.param.name; });

class Directory : public ::testing::Test {
 protected:
  TempDir dir_;
  World world_;
  std::string root_ = dir_.path + "/deep/bucket";
  DirectoryStore store_{root_, world_.env()};
};

TEST_F(Directory, KeepsObjectsAsPlainFilesUnderTheirNames) {
  ASSERT_OK(world_.run(store_.put("d/7f/object-1", text("bytes"))));
  std::ifstream file(root_ + "/d/7f/object-1");
  std::string content;
  std::getline(file, content);
  EXPECT_EQ(content, "bytes");
  EXPECT_TRUE(std::filesystem::is_empty(root_ + "/.headrace/tmp"));
}

TEST_F(Directory, ServesFilesThatOthersPutThere) {
  std::filesystem::create_directories(root_ + "/data");
  std::ofstream(root_ + "/data/.hidden file") << "foreign";
  auto got = world_.run(store_.get_with_etag("data/.hidden file"));
  ASSERT_OK(got);
  EXPECT_EQ(got->body.text(), "foreign");
  std::ofstream(root_ + "/data/.hidden file") << "changed";
  EXPECT_EQ(world_.run(store_.get_range("data/.hidden file", 0, 3, got->etag)).code(), Code::kConflict);
}

TEST_F(Directory, NoticesThatALargeFileWasChangedInPlace) {
  auto info = world_.run(store_.put("big", pattern(200'000, 1)));
  ASSERT_OK(info);
  std::fstream file(root_ + "/big", std::ios::in | std::ios::out);
  file.seekp(100'000);
  file << "x";
  file.close();
  EXPECT_EQ(world_.run(store_.get_range("big", 0, 10, info->etag)).code(), Code::kConflict);
}

TEST_F(Directory, KeepsBadInputInKeysInsideTheRoot) {
  const std::vector<std::string> keys = {
      "../up", "a/../../up",        ".",          "..",       "/etc/passwd", "a//b", "a/",
      "/",     ".headrace/lock/00", ".headrace2", "%2E%2E/x", "%",           "a/%/b"};
  std::set<std::string> paths;
  for (const std::string& key : keys) {
    auto path = object_path(key);
    ASSERT_OK(path);
    EXPECT_TRUE(paths.insert(*path).second) << key;
    for (const auto& part : std::filesystem::path(*path)) {
      EXPECT_NE(part, ".");
      EXPECT_NE(part, "..");
    }
    EXPECT_FALSE(path->starts_with("/") || path->starts_with(".headrace")) << *path;
    EXPECT_EQ(object_key(*path), key);
  }
  ASSERT_OK(world_.run(store_.put("../../escaped", text("x"))));
  EXPECT_FALSE(std::filesystem::exists(dir_.path + "/escaped"));
  EXPECT_EQ(world_.run(store_.get("../../escaped"))->text(), "x");
  EXPECT_EQ(world_.run(store_.put(std::string(300, 'n'), text("x"))).code(), Code::kNameTooLong);
}

TEST_F(Directory, SaysSoWhenAKeyIsAFolderBadInput) {
  ASSERT_OK(world_.run(store_.put("a/b", text("x"))));
  auto put = world_.run(store_.put("a", text("y")));
  ASSERT_FALSE(put.ok());
  EXPECT_NE(put.error().message().find("a folder of the same name"), std::string::npos) << put.error().text();
  EXPECT_FALSE(world_.run(store_.put("a/b/c", text("z"))).ok());
  EXPECT_EQ(world_.run(store_.get("a/b"))->text(), "x");
  EXPECT_TRUE(std::filesystem::is_empty(root_ + "/.headrace/tmp"));
}

TEST_F(Directory, SurvivesAFullDiskBadInput) {
  ASSERT_OK(world_.run(store_.put("kept", text("before"))));
  world_.disk.faults.full = true;
  auto put = world_.run(store_.put("kept", text("after")));
  EXPECT_EQ(put.code(), Code::kNoSpace);
  EXPECT_TRUE(std::filesystem::is_empty(root_ + "/.headrace/tmp"));
  bool early = false;
  EXPECT_EQ(world_.run(upload_pieces(&store_, "new", {text("x")}, {}, &early)).code(), Code::kNoSpace);
  EXPECT_TRUE(std::filesystem::is_empty(root_ + "/.headrace/tmp"));
  world_.disk.faults.full = false;
  EXPECT_EQ(world_.run(store_.get("kept"))->text(), "before");
  ASSERT_OK(world_.run(store_.put("kept", text("after"))));
}

// What may vanish with the power is not shown, neither by what reads it back nor by a put that finds it there.
TEST_F(Directory, ShowsWhatItCouldNotSyncOnlyWhenItIsDurable) {
  ASSERT_OK(world_.run(store_.put("d/00/before", text("x"))));
  world_.disk.faults.fail_syncs = true;
  EXPECT_EQ(world_.run(store_.put("d/00/a", text("y"))).code(), Code::kTimeout);
  bool early = false;
  EXPECT_EQ(world_.run(upload_pieces(&store_, "d/00/b", {text("z")}, {}, &early)).code(), Code::kTimeout);
  for (const char* key : {"d/00/a", "d/00/b"}) {
    EXPECT_EQ(world_.run(store_.get(key)).code(), Code::kIo);
    EXPECT_EQ(world_.run(store_.get_range(key, 0, 1)).code(), Code::kIo);
    EXPECT_EQ(world_.run(store_.head(key)).code(), Code::kIo);
    EXPECT_EQ(world_.run(store_.put(key, text("y"), PutCondition::if_absent())).code(), Code::kIo);
  }
  DirectoryStore next_life(root_, world_.env());
  EXPECT_FALSE(world_.run(next_life.put("d/00/a", text("y"), PutCondition::if_absent())).ok());
  EXPECT_EQ(world_.run(store_.get("d/00/before"))->text(), "x");
  world_.disk.faults = {};
  EXPECT_EQ(world_.run(next_life.put("d/00/a", text("y"), PutCondition::if_absent())).code(), Code::kConflict);
  EXPECT_EQ(world_.run(store_.get("d/00/a"))->text(), "y");
  EXPECT_GE(world_.disk.faults.syncs, 2U);
  const uint64_t syncs = world_.disk.faults.syncs;
  EXPECT_EQ(world_.run(store_.get("d/00/a"))->text(), "y");
  EXPECT_EQ(world_.disk.faults.syncs, syncs);
}

TEST_F(Directory, SyncsEachDirectoryOnceAndItsParentAtEachPut) {
  ASSERT_OK(world_.run(store_.put("d/00/a", text("x"))));
  world_.disk.faults = {};
  ASSERT_OK(world_.run(store_.put("d/00/b", text("x"))));
  EXPECT_EQ(world_.disk.faults.syncs, 1U);
  EXPECT_EQ(world_.disk.faults.flushes, 1U);
}

TEST_F(Directory, RecoversFromRemovalOfItsDirectories) {
  ASSERT_OK(world_.run(store_.put("d/00/a", text("x"))));
  std::filesystem::remove_all(root_);
  EXPECT_EQ(world_.run(store_.get("d/00/a")).code(), Code::kNotFound);
  ASSERT_OK(world_.run(store_.put("d/00/b", text("y"))));
  EXPECT_EQ(world_.run(store_.get("d/00/b"))->text(), "y");
  std::filesystem::remove_all(root_ + "/d");
  ASSERT_OK(world_.run(store_.put("d/00/c", text("z"))));
}

TEST_F(Directory, ClearsWhatCrashedProcessesLeft) {
  std::filesystem::create_directories(root_ + "/.headrace/tmp");
  const std::string old_file = root_ + "/.headrace/tmp/old";
  const std::string fresh = root_ + "/.headrace/tmp/fresh";
  std::ofstream(old_file) << "x";
  std::ofstream(fresh) << "x";
  std::filesystem::last_write_time(old_file, std::filesystem::last_write_time(fresh) - std::chrono::hours(2));
  ASSERT_OK(world_.run(store_.put("a", text("x"))));
  EXPECT_FALSE(std::filesystem::exists(old_file));
  EXPECT_TRUE(std::filesystem::exists(fresh));
}

// Processes are what the lock is for; each counts, and no count may be lost.
TEST_F(Directory, LosesNoSwapAmongProcesses) {
  ASSERT_OK(world_.run(store_.put("counter", text("0"))));
  constexpr int kProcesses = 4;
  constexpr int kTimes = 25;
  std::vector<pid_t> children;
  for (int i = 0; i < kProcesses; ++i) {
    // exec'd anew: threads and a scheduler do not survive a fork.
    const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
    pid_t pid = ::fork();
    if (pid == 0) {
      ::setenv("HEADRACE_TEST_COUNT_IN", root_.c_str(), 1);
      ::execl(self.c_str(), self.c_str(), "--gtest_filter=DirectoryChild.Counts", nullptr);
      ::_exit(127);
    }
    children.push_back(pid);
  }
  for (pid_t pid : children) {
    int status = 0;
    ::waitpid(pid, &status, 0);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(world_.run(store_.get("counter"))->text(), std::to_string(kProcesses * kTimes));
}

TEST(DirectoryChild, Counts) {
  const char* root = std::getenv("HEADRACE_TEST_COUNT_IN");
  if (root == nullptr) GTEST_SKIP() << "run by LosesNoSwapAmongProcesses";
  World world(false, 2, static_cast<uint64_t>(::getpid()));  // processes draw different names
  DirectoryStore store(root, world.env());
  int done = 0;
  Scope scope;
  scope.spawn(count_up(&store, 25, &done));
  while (scope.running() > 0) world.step();
  EXPECT_EQ(done, 25);
}

}  // namespace headrace::test
