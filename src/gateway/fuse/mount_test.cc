#include "gateway/fuse/mount.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace headrace {
namespace {

TEST(Mount, BadInputAMissingMountPointIsNamedWithTheMend) {
  Result<Mount> mounted = Mount::at("/tmp/headrace-is-not-there/a", {});
  ASSERT_FALSE(mounted.ok());
  EXPECT_EQ(mounted.code(), Code::kNotFound);
  EXPECT_NE(mounted.error().message().find("mkdir -p /tmp/headrace-is-not-there/a"), std::string::npos)
      << mounted.error().text();
}

TEST(Mount, BadInputAFileIsNoMountPoint) {
  std::string file = "/tmp/headrace-mount-test-" + std::to_string(getpid());
  std::ofstream(file) << "x";
  Result<Mount> mounted = Mount::at(file, {});
  ASSERT_FALSE(mounted.ok());
  EXPECT_EQ(mounted.code(), Code::kNotDirectory);
  std::filesystem::remove(file);
}

TEST(Mount, BadInputWhoIsNotRootIsToldSo) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to stop being it";
  pid_t child = fork();
  if (child == 0) {
    if (setuid(65534) != 0) _exit(2);
    Result<Mount> mounted = Mount::at("/tmp", {});
    _exit(!mounted.ok() && mounted.error().message().find("root") != std::string::npos ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST(Mount, UnmountingWhatIsNotMountedSaysSo) {
  Result<void> unmounted = unmount_directory("/tmp", false);
  ASSERT_FALSE(unmounted.ok());
  EXPECT_EQ(unmounted.code(), Code::kNotFound);
}

TEST(Mount, FindsWhatIsMounted) {
  EXPECT_FALSE(mounted_at("/").type.empty());
  EXPECT_EQ(mounted_at("/proc").type, "proc");
  EXPECT_TRUE(mounted_at("/no/such/place").type.empty());
}

}  // namespace
}  // namespace headrace
