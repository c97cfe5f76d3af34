#include "apps/state.h"

#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

namespace headrace {
namespace {

class StateTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "state.XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    state_ = pattern;
    me_ = static_cast<int>(::getpid());
  }
  void TearDown() override { std::filesystem::remove_all(state_); }

  // As if another process had been born with our number, after a restart of the machine.
  static void age(const std::string& path) {
    nlohmann::json file = nlohmann::json::parse(std::ifstream(path));
    file["birth"] = "00000000-0000-0000-0000-000000000000/1";
    std::ofstream(path) << file.dump();
  }

  std::string state_;
  int me_ = 0;
};

TEST_F(StateTest, TheNodeThatRunsIsFound) {
  ASSERT_TRUE(write_node_file(state_, {me_, "unix:/somewhere", 7, "token"}).ok());
  Result<NodeFile> found = read_node_file(state_);
  ASSERT_TRUE(found.ok()) << found.error().text();
  EXPECT_EQ(found->pid, me_);
  EXPECT_EQ(found->admin_token, "token");
}

TEST_F(StateTest, BadInputNamesThatAreNotUtf8EndNobody) {
  EXPECT_TRUE(check_state_path("/var/lib/heißes Wasser").ok());
  Result<void> refused = check_state_path("/srv/\xff");
  EXPECT_EQ(refused.code(), Code::kInvalid);
  ASSERT_TRUE(write_mount_file(state_, {me_, "/mnt/\xff"}).ok());
  EXPECT_EQ(read_mount_files(state_).size(), 1U);
  ASSERT_TRUE(write_node_file(state_, {me_, "unix:/srv/\xff", 7, "token"}).ok());
  EXPECT_EQ(read_node_file(state_)->admin_port, 7);
}

TEST_F(StateTest, AFileWhoseNumberBelongsToAnotherProcessNowCountsAsNothing) {
  ASSERT_TRUE(write_node_file(state_, {me_, "unix:/somewhere", 7, "token"}).ok());
  ASSERT_TRUE(write_mount_file(state_, {me_, "/mnt"}).ok());
  EXPECT_EQ(read_mount_files(state_).size(), 1U);
  age(state_ + "/node.json");
  age(state_ + "/mounts/" + std::to_string(me_) + ".json");
  EXPECT_EQ(read_node_file(state_).code(), Code::kNotFound);
  EXPECT_TRUE(read_mount_files(state_).empty());
}

TEST_F(StateTest, AProcessHasOneBirthAndAnotherProcessAnotherOrNone) {
  EXPECT_FALSE(process_birth(me_).empty());
  EXPECT_EQ(process_birth(me_), process_birth(me_));
  pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  ::waitpid(child, nullptr, 0);
  EXPECT_EQ(process_birth(static_cast<int>(child)), "");
}

TEST_F(StateTest, AProcessLivesUntilItsLastThreadHasEnded) {
  int gate[2];
  ASSERT_EQ(::pipe(gate), 0);
  pid_t child = ::fork();
  if (child == 0) {
    ::close(gate[1]);
    std::thread last([in = gate[0]] {
      char byte;
      ::_exit(::read(in, &byte, 1) == 0 ? 0 : 1);
    });
    last.detach();
    ::syscall(SYS_exit, 0);  // of this thread alone
  }
  ::close(gate[0]);
  auto state = [child] {
    std::ifstream in("/proc/" + std::to_string(child) + "/stat");
    std::string text((std::istreambuf_iterator<char>(in)), {});
    return text[text.rfind(')') + 2];
  };
  while (state() != 'Z') std::this_thread::yield();
  EXPECT_TRUE(alive(static_cast<int>(child)));
  ::close(gate[1]);
  while (alive(static_cast<int>(child))) std::this_thread::yield();  // a zombie that nobody has waited for
  EXPECT_EQ(state(), 'Z');
  ::waitpid(child, nullptr, 0);
}

}  // namespace
}  // namespace headrace
