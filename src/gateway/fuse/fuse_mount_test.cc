// The gateway as programs see it: system calls on a real mount of a MemoryFileSystem.
#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include <chrono>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

#include "gateway/fuse/served_mount_test.h"

namespace headrace {
namespace {

class FuseMount : public testing::Test {
 protected:
  void SetUp() override {
    std::string why = no_fuse_because();
    if (!why.empty()) GTEST_SKIP() << why;
    mount_at();
  }
  void mount_at(FuseGatewayOptions options = {}) {
    mount_.reset();
    options.mount.allow_suid = true;
    options.mount.allow_devices = true;
    mount_ = std::make_unique<ServedMount>(std::move(options));
    ASSERT_EQ(mount_->started(), "mounted");
  }
  [[nodiscard]] std::string at(const std::string& name) const { return mount_->path(name); }
  void write(const std::string& name, const std::string& text) const {
    int fd = ::open(at(name).c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    ASSERT_GE(fd, 0) << std::strerror(errno);
    ASSERT_EQ(::write(fd, text.data(), text.size()), static_cast<ssize_t>(text.size())) << std::strerror(errno);
    ASSERT_EQ(::close(fd), 0);
  }
  [[nodiscard]] std::string read(const std::string& name) const {
    std::ifstream file(at(name), std::ios::binary);
    std::ostringstream out;
    out << file.rdbuf();
    return out.str();
  }
  [[nodiscard]] struct stat status(const std::string& name) const {
    struct stat out{};
    EXPECT_EQ(::lstat(at(name).c_str(), &out), 0) << name << ": " << std::strerror(errno);
    return out;
  }
  // Runs a program as another user; its exit status.
  static int as_user(uid_t uid, gid_t gid, const std::function<int()>& work) {
    pid_t child = fork();
    if (child == 0) {
      if (setgroups_none() != 0 || setgid(gid) != 0 || setuid(uid) != 0) _exit(99);
      _exit(work());
    }
    int result = 0;
    waitpid(child, &result, 0);
    return WEXITSTATUS(result);
  }
  static int setgroups_none();
  std::unique_ptr<ServedMount> mount_;
};

}  // namespace
}  // namespace headrace

#include <grp.h>

namespace headrace {
namespace {

int FuseMount::setgroups_none() {
  return ::setgroups(0, nullptr);
}

#define EXPECT_FAILS(call, expected)                    \
  do {                                                  \
    errno = 0;                                          \
    EXPECT_EQ(call, -1);                                \
    EXPECT_EQ(errno, expected) << std::strerror(errno); \
  } while (false)

std::string pattern(size_t size, unsigned seed) {
  std::string out(size, 0);
  for (size_t i = 0; i < size; ++i) out[i] = static_cast<char>((i * 31 + i / 251 + seed) & 0xff);
  return out;
}

TEST_F(FuseMount, WritesAndReadsBackFilesOfAllSizes) {
  for (size_t size : {0UL, 1UL, 4095UL, 4096UL, 4097UL, 65536UL, 1000003UL, 5UL << 20}) {
    std::string bytes = pattern(size, 7);
    write("f", bytes);
    EXPECT_EQ(read("f"), bytes) << size;
    EXPECT_EQ(status("f").st_size, static_cast<off_t>(size));
  }
  EXPECT_EQ(status("f").st_blksize, 128 * 1024);
  EXPECT_EQ(status("f").st_blocks, (5 << 20) / 512);
}

TEST_F(FuseMount, GivesTypesModesOwnersAndNumbers) {
  umask(0027);
  ASSERT_EQ(::mkdir(at("d").c_str(), 0777), 0);
  ASSERT_EQ(::mknod(at("fifo").c_str(), S_IFIFO | 0666, 0), 0);
  ASSERT_EQ(::mknod(at("socket").c_str(), S_IFSOCK | 0666, 0), 0);
  ASSERT_EQ(::mknod(at("device").c_str(), S_IFCHR | 0600, makedev(259, 70000)), 0);
  ASSERT_EQ(::symlink("some/where", at("link").c_str()), 0);
  write("file", "x");
  umask(0022);
  EXPECT_EQ(status("d").st_mode, mode_t{S_IFDIR | 0750});
  EXPECT_EQ(status("d").st_nlink, 2U);
  EXPECT_EQ(status("fifo").st_mode, mode_t{S_IFIFO | 0640});
  EXPECT_EQ(status("socket").st_mode, mode_t{S_IFSOCK | 0640});
  EXPECT_EQ(status("device").st_rdev, makedev(259, 70000));
  EXPECT_EQ(status("link").st_size, 10);
  EXPECT_EQ(status("file").st_mode, mode_t{S_IFREG | 0640});
  EXPECT_GT(status("file").st_ino, uint64_t{1} << 48) << "the whole id is the inode number";
  EXPECT_EQ(status("").st_ino, 1U);
  char target[64];
  ASSERT_EQ(::readlink(at("link").c_str(), target, sizeof target), 10);
  EXPECT_EQ(std::string(target, 10), "some/where");
  struct statx extended{};
  ASSERT_EQ(::statx(AT_FDCWD, at("file").c_str(), 0, STATX_BASIC_STATS | STATX_BTIME, &extended), 0);
  EXPECT_TRUE((extended.stx_mask & STATX_BTIME) != 0);
  EXPECT_GT(extended.stx_btime.tv_sec, 1'600'000'000);
  EXPECT_EQ(extended.stx_size, 1U);
}

TEST_F(FuseMount, ChangesAttributes) {
  write("f", "hello");
  ASSERT_EQ(::chmod(at("f").c_str(), 0751), 0);
  ASSERT_EQ(::chown(at("f").c_str(), 12, 34), 0);
  timespec times[2] = {{.tv_sec = -5, .tv_nsec = 123456789}, {.tv_sec = 1'000'000'000, .tv_nsec = 987654321}};
  ASSERT_EQ(::utimensat(AT_FDCWD, at("f").c_str(), times, 0), 0);
  struct stat now = status("f");
  EXPECT_EQ(now.st_mode & 07777, 0751U);
  EXPECT_EQ(now.st_uid, 12U);
  EXPECT_EQ(now.st_gid, 34U);
  EXPECT_EQ(now.st_atim.tv_sec, -5);
  EXPECT_EQ(now.st_atim.tv_nsec, 123456789);
  EXPECT_EQ(now.st_mtim.tv_sec, 1'000'000'000);
  EXPECT_EQ(now.st_mtim.tv_nsec, 987654321);
  ASSERT_EQ(::utimensat(AT_FDCWD, at("f").c_str(), nullptr, 0), 0);
  EXPECT_GT(status("f").st_mtim.tv_sec, 1'600'000'000);
}

TEST_F(FuseMount, TruncatesAndGrowsWithZeros) {
  write("f", pattern(100000, 1));
  ASSERT_EQ(::truncate(at("f").c_str(), 50), 0);
  EXPECT_EQ(read("f"), pattern(100000, 1).substr(0, 50));
  ASSERT_EQ(::truncate(at("f").c_str(), 8192), 0);
  EXPECT_EQ(read("f"), pattern(100000, 1).substr(0, 50) + std::string(8142, 0));
  int fd = ::open(at("f").c_str(), O_RDWR | O_TRUNC | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(status("f").st_size, 0);
  ASSERT_EQ(::ftruncate(fd, 10), 0);
  EXPECT_EQ(status("f").st_size, 10);
  ::close(fd);
}

TEST_F(FuseMount, KeepsSparseFilesSparse) {
  int fd = ::open(at("f").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  ASSERT_EQ(::pwrite(fd, "end", 3, 5L << 30), 3);
  EXPECT_EQ(status("f").st_size, (5L << 30) + 3);
  EXPECT_LT(status("f").st_blocks, 1000);
  char bytes[8];
  ASSERT_EQ(::pread(fd, bytes, 8, 1L << 30), 8);
  EXPECT_EQ(std::string(bytes, 8), std::string(8, 0));
  ASSERT_EQ(::pread(fd, bytes, 8, 5L << 30), 3);
  EXPECT_EQ(std::string(bytes, 3), "end");
  ::close(fd);
}

TEST_F(FuseMount, PunchesHolesAndPreallocates) {
  std::string bytes = pattern(300000, 3);
  write("f", bytes);
  int fd = ::open(at("f").c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_EQ(::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1000, 200000), 0);
  std::string expected = bytes.substr(0, 1000) + std::string(200000, 0) + bytes.substr(201000);
  EXPECT_EQ(read("f"), expected);
  ASSERT_EQ(::fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 1 << 20), 0);
  EXPECT_EQ(status("f").st_size, 300000);
  ASSERT_EQ(::fallocate(fd, 0, 100, 1000), 0);
  EXPECT_EQ(status("f").st_size, 300000) << "it never shrinks";
  ASSERT_EQ(::fallocate(fd, 0, 0, 400000), 0);
  EXPECT_EQ(status("f").st_size, 400000);
  ASSERT_EQ(::fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 399'000, 4096), 0);
  EXPECT_EQ(status("f").st_size, 400'000);
  ASSERT_EQ(::fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, 500'000), 0);
  EXPECT_EQ(read("f"), std::string(500'000, 0));
  EXPECT_FAILS(::fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, 4096), EOPNOTSUPP);
  ::close(fd);
}

TEST_F(FuseMount, LinksCountNames) {
  write("a", "same");
  ASSERT_EQ(::link(at("a").c_str(), at("b").c_str()), 0);
  EXPECT_EQ(status("a").st_nlink, 2U);
  EXPECT_EQ(status("a").st_ino, status("b").st_ino);
  write("b", "changed");
  EXPECT_EQ(read("a"), "changed");
  ASSERT_EQ(::unlink(at("a").c_str()), 0);
  EXPECT_EQ(status("b").st_nlink, 1U);
  EXPECT_FAILS(::link(at("b").c_str(), at("b").c_str()), EEXIST);
  ASSERT_EQ(::mkdir(at("d").c_str(), 0755), 0);
  EXPECT_FAILS(::link(at("d").c_str(), at("e").c_str()), EPERM);
}

TEST_F(FuseMount, RenamesReplacesAndRefuses) {
  write("a", "1");
  write("b", "2");
  EXPECT_FAILS(::renameat2(AT_FDCWD, at("a").c_str(), AT_FDCWD, at("b").c_str(), RENAME_NOREPLACE), EEXIST);
  ASSERT_EQ(::renameat2(AT_FDCWD, at("a").c_str(), AT_FDCWD, at("c").c_str(), RENAME_NOREPLACE), 0);
  ASSERT_EQ(::rename(at("c").c_str(), at("b").c_str()), 0);
  EXPECT_EQ(read("b"), "1");
  EXPECT_FAILS(::access(at("c").c_str(), F_OK), ENOENT);
  ASSERT_EQ(::mkdir(at("d").c_str(), 0755), 0);
  ASSERT_EQ(::mkdir(at("d/e").c_str(), 0755), 0);
  EXPECT_FAILS(::rename(at("d").c_str(), at("d/e/f").c_str()), EINVAL);
  EXPECT_FAILS(::rename(at("b").c_str(), at("d").c_str()), EISDIR);
  EXPECT_FAILS(::rmdir(at("d").c_str()), ENOTEMPTY);
  ASSERT_EQ(::rename(at("d/e").c_str(), at("e").c_str()), 0);
  EXPECT_EQ(status("d").st_nlink, 2U);
  ASSERT_EQ(::rmdir(at("d").c_str()), 0);
}

TEST_F(FuseMount, RefusesNamesThatAreTooLong) {
  std::string longest(255, 'n');
  write(longest, "x");
  EXPECT_EQ(read(longest), "x");
  std::string longer(256, 'n');
  EXPECT_FAILS(::open(at(longer).c_str(), O_RDONLY), ENAMETOOLONG);
  EXPECT_FAILS(::mkdir(at(longer).c_str(), 0755), ENAMETOOLONG);
  EXPECT_FAILS(::rename(at(longest).c_str(), at(longer).c_str()), ENAMETOOLONG);
  EXPECT_FAILS(::open(at(longest + "/x").c_str(), O_RDONLY), ENOTDIR);
}

TEST_F(FuseMount, KeepsUnlinkedFilesWhileTheyAreOpen) {
  write("f", "still here");
  int fd = ::open(at("f").c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_EQ(::unlink(at("f").c_str()), 0);
  EXPECT_FAILS(::access(at("f").c_str(), F_OK), ENOENT);
  char bytes[16];
  EXPECT_EQ(::pread(fd, bytes, 16, 0), 10);
  EXPECT_EQ(::pwrite(fd, "more", 4, 10), 4);
  struct stat now{};
  ASSERT_EQ(::fstat(fd, &now), 0);
  EXPECT_EQ(now.st_size, 14);
  EXPECT_EQ(now.st_nlink, 0U);
  ASSERT_EQ(::ftruncate(fd, 2), 0);
  EXPECT_EQ(::pread(fd, bytes, 16, 0), 2);
  ::close(fd);
  for (int i = 0; mount_->ask("inodes") != "1" && i < 10000; ++i) std::this_thread::yield();
  EXPECT_EQ(mount_->ask("inodes"), "1") << "the file is gone after its last close";
  EXPECT_EQ(mount_->ask("open files"), "0");
}

TEST_F(FuseMount, AppendsWhereTheEndIs) {
  write("f", "12345");
  int a = ::open(at("f").c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  int b = ::open(at("f").c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  ASSERT_EQ(::write(a, "a", 1), 1);
  ASSERT_EQ(::write(b, "b", 1), 1);
  ASSERT_EQ(::write(a, "c", 1), 1);
  mount_->ask("write f ZZZZZZZZZZ");  // another client made it longer
  ASSERT_EQ(::write(a, "d", 1), 1);
  EXPECT_EQ(read("f"), "ZZZZZZZZZZd");
  // The flag can change on an open description.
  ASSERT_EQ(::fcntl(b, F_SETFL, 0), 0);
  ASSERT_EQ(::pwrite(b, "0", 1, 0), 1);
  ASSERT_EQ(::fcntl(b, F_SETFL, O_APPEND), 0);
  ASSERT_EQ(::write(b, "e", 1), 1);
  EXPECT_EQ(read("f"), "0ZZZZZZZZZde");
  ::close(a);
  ::close(b);
}

TEST_F(FuseMount, ReadsAndWritesDirectly) {
  int fd = ::open(at("f").c_str(), O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0644);
  ASSERT_GE(fd, 0);
  std::string bytes = pattern(3 << 20, 9);
  void* memory = nullptr;
  ASSERT_EQ(posix_memalign(&memory, 4096, bytes.size()), 0);
  std::memcpy(memory, bytes.data(), bytes.size());
  ASSERT_EQ(::pwrite(fd, memory, bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  std::memset(memory, 0, bytes.size());
  ASSERT_EQ(::pread(fd, memory, bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  EXPECT_EQ(std::memcmp(memory, bytes.data(), bytes.size()), 0);
  EXPECT_EQ(read("f"), bytes) << "through the page cache too";
  std::free(memory);
  ::close(fd);
}

TEST_F(FuseMount, MapsFilesSharedAndPrivate) {
  constexpr size_t kSize = 1 << 20;
  write("f", pattern(kSize, 4));
  int fd = ::open(at("f").c_str(), O_RDWR | O_CLOEXEC);
  auto* shared = static_cast<char*>(::mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  ASSERT_NE(shared, MAP_FAILED);
  auto* own = static_cast<char*>(::mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
  ASSERT_NE(own, MAP_FAILED);
  EXPECT_EQ(std::string(shared, kSize), pattern(kSize, 4));
  std::memcpy(shared + 5000, "mapped", 6);
  own[0] = 'p';
  ASSERT_EQ(::msync(shared, kSize, MS_SYNC), 0);
  std::string expected = pattern(kSize, 4);
  expected.replace(5000, 6, "mapped");
  EXPECT_EQ(read("f"), expected);
  ASSERT_EQ(::pwrite(fd, "written", 7, 9000), 7);
  EXPECT_EQ(std::string(shared + 9000, 7), "written");
  shared[100] = '!';
  ::munmap(shared, kSize);
  ::munmap(own, kSize);
  ::close(fd);
  EXPECT_EQ(read("f")[100], '!');
}

TEST_F(FuseMount, SyncsWhenAsked) {
  int fd = ::open(at("f").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  ASSERT_EQ(::write(fd, "x", 1), 1);
  ASSERT_EQ(::fsync(fd), 0);
  EXPECT_EQ(mount_->ask("syncs"), "1");
  ASSERT_EQ(::fdatasync(fd), 0);
  EXPECT_EQ(mount_->ask("syncs"), "2");
  ::close(fd);
  int directory = ::open(at("").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  ASSERT_EQ(::fsync(directory), 0);
  EXPECT_EQ(mount_->ask("syncs"), "3");
  ::close(directory);
}

TEST_F(FuseMount, KeepsExtendedAttributes) {
  write("f", "x");
  std::string path = at("f");
  ASSERT_EQ(::setxattr(path.c_str(), "user.a", "value", 5, 0), 0);
  EXPECT_FAILS(::setxattr(path.c_str(), "user.a", "v", 1, XATTR_CREATE), EEXIST);
  EXPECT_FAILS(::setxattr(path.c_str(), "user.b", "v", 1, XATTR_REPLACE), ENODATA);
  ASSERT_EQ(::setxattr(path.c_str(), "user.empty", "", 0, XATTR_CREATE), 0);
  std::string big(65536, 'b');
  ASSERT_EQ(::setxattr(path.c_str(), "user.big", big.data(), big.size(), 0), 0);
  char value[65536];
  EXPECT_EQ(::getxattr(path.c_str(), "user.a", nullptr, 0), 5);
  EXPECT_EQ(::getxattr(path.c_str(), "user.a", value, sizeof value), 5);
  EXPECT_EQ(std::string(value, 5), "value");
  EXPECT_EQ(::getxattr(path.c_str(), "user.empty", value, sizeof value), 0);
  EXPECT_EQ(::getxattr(path.c_str(), "user.big", value, sizeof value), 65536);
  EXPECT_FAILS(::getxattr(path.c_str(), "user.a", value, 3), ERANGE);
  EXPECT_FAILS(::getxattr(path.c_str(), "user.none", value, 3), ENODATA);
  EXPECT_EQ(::listxattr(path.c_str(), nullptr, 0), 7 + 11 + 9);
  EXPECT_EQ(::listxattr(path.c_str(), value, sizeof value), 7 + 11 + 9);
  EXPECT_EQ(std::string(value, 27), std::string("user.a\0user.big\0user.empty\0", 27));
  EXPECT_FAILS(::listxattr(path.c_str(), value, 5), ERANGE);
  ASSERT_EQ(::removexattr(path.c_str(), "user.a"), 0);
  EXPECT_FAILS(::removexattr(path.c_str(), "user.a"), ENODATA);
}

TEST_F(FuseMount, EnforcesAclsAndLetsThemBeInherited) {
  // user::rwx, user:1001:rwx, group::---, mask::rwx, other::---
  constexpr uint16_t kAcl[] = {2, 0,      1,      7,  0xffff, 0xffff, 2,      7,  1001, 0,      4,
                               0, 0xffff, 0xffff, 16, 7,      0xffff, 0xffff, 32, 0,    0xffff, 0xffff};
  char value[64];
  write("f", "x");
  auto readable = [&](const char* name, uid_t uid) {
    return as_user(uid, uid, [&] { return ::open(at(name).c_str(), O_RDONLY) >= 0 ? 0 : errno; });
  };
  EXPECT_FAILS(::getxattr(at("f").c_str(), "system.posix_acl_access", value, sizeof value), ENODATA);
  ASSERT_EQ(::setxattr(at("f").c_str(), "system.posix_acl_access", kAcl, sizeof kAcl, 0), 0) << std::strerror(errno);
  EXPECT_EQ(status("f").st_mode & 07777, 0770U);
  EXPECT_EQ(readable("f", 1001), 0);
  EXPECT_EQ(readable("f", 1002), EACCES);
  ASSERT_EQ(::chmod(at("f").c_str(), 0700), 0);
  EXPECT_EQ(readable("f", 1001), EACCES) << "the mask is the group's part of the mode";
  EXPECT_EQ(::getxattr(at("f").c_str(), "system.posix_acl_access", value, sizeof value), int{sizeof kAcl});
  EXPECT_EQ(value[30], 0);
  ASSERT_EQ(::mkdir(at("d").c_str(), 0755), 0);
  ASSERT_EQ(::setxattr(at("d").c_str(), "system.posix_acl_default", kAcl, sizeof kAcl, 0), 0);
  EXPECT_FAILS(::setxattr(at("f").c_str(), "system.posix_acl_default", kAcl, sizeof kAcl, 0), EACCES);
  const mode_t umask_before = ::umask(077);
  write("d/f", "x");
  ASSERT_EQ(::mkdir(at("d/e").c_str(), 0777), 0);
  write("g", "x");
  (void)::umask(umask_before);
  EXPECT_EQ(status("d/f").st_mode & 07777, 0640U) << "no umask where a default ACL is";
  EXPECT_EQ(status("d/e").st_mode & 07777, 0770U);
  EXPECT_EQ(status("g").st_mode & 07777, 0600U);
  EXPECT_EQ(readable("d/f", 1001), 0);
  EXPECT_EQ(::getxattr(at("d/e").c_str(), "system.posix_acl_default", value, sizeof value), int{sizeof kAcl});
  ASSERT_EQ(::removexattr(at("f").c_str(), "system.posix_acl_access"), 0);
  EXPECT_FAILS(::getxattr(at("f").c_str(), "system.posix_acl_access", value, sizeof value), ENODATA);
}

TEST_F(FuseMount, ListsTenThousandNamesWhileOthersAreMade) {
  constexpr int kFiles = 10000;
  ASSERT_EQ(::mkdir(at("d").c_str(), 0755), 0);
  for (int i = 0; i < kFiles; ++i) ASSERT_EQ(::mknod(at("d/f" + std::to_string(i)).c_str(), S_IFREG | 0644, 0), 0);
  DIR* directory = ::opendir(at("d").c_str());
  ASSERT_NE(directory, nullptr);
  std::multiset<std::string> names;
  int made = 0;
  while (dirent* found = ::readdir(directory)) {
    names.insert(found->d_name);
    // Between the reads names come and go.
    if (names.size() % 7 == 0) {
      (void)::mknod(at("d/new" + std::to_string(made)).c_str(), S_IFREG | 0644, 0);
      if (made >= 2) (void)::unlink(at("d/new" + std::to_string(made - 2)).c_str());
      if (++made > 2000) break;
    }
  }
  for (int i = 0; i < kFiles; ++i) EXPECT_EQ(names.count("f" + std::to_string(i)), 1U) << i;
  EXPECT_EQ(names.count("."), 1U);
  EXPECT_EQ(names.count(".."), 1U);
  ::rewinddir(directory);
  for (int i = 0; i < 5; ++i) ASSERT_NE(::readdir(directory), nullptr);
  long place = ::telldir(directory);
  std::string expected = ::readdir(directory)->d_name;
  for (int i = 0; i < 5000; ++i) ASSERT_NE(::readdir(directory), nullptr);
  ::seekdir(directory, place);
  EXPECT_EQ(::readdir(directory)->d_name, expected);
  ::closedir(directory);
  // Sizes as they are now, through readdirplus.
  write("d/f17", "seventeen");
  uint64_t sum = 0;
  for (const auto& entry : std::filesystem::directory_iterator(at("d"))) sum += entry.file_size();
  EXPECT_EQ(sum, 9U);
  EXPECT_GT(std::filesystem::remove_all(at("d")), static_cast<uint64_t>(kFiles));
}

TEST_F(FuseMount, TellsSpace) {
  struct statvfs found{};
  ASSERT_EQ(::statvfs(at("").c_str(), &found), 0);
  EXPECT_EQ(found.f_blocks * found.f_frsize, uint64_t{64} << 30);
  EXPECT_EQ(found.f_namemax, 255U);
  EXPECT_GT(found.f_favail, 1'000'000U);
}

TEST_F(FuseMount, EnforcesPermissionsAndGivesFilesToWhoMakesThem) {
  ASSERT_EQ(::mkdir(at("open").c_str(), 0), 0);
  ASSERT_EQ(::chmod(at("open").c_str(), 0777), 0);
  write("secret", "x");
  ASSERT_EQ(::chmod(at("secret").c_str(), 0600), 0);
  EXPECT_EQ(as_user(1001, 1002, [&] { return ::open(at("secret").c_str(), O_RDONLY) < 0 ? errno : 0; }), EACCES);
  EXPECT_EQ(as_user(1001, 1002, [&] { return ::mkdir(at("mine").c_str(), 0755) < 0 ? errno : 0; }), EACCES);
  EXPECT_EQ(as_user(1001, 1002, [&] { return ::open(at("open/f").c_str(), O_CREAT | O_WRONLY, 0644) < 0 ? errno : 0; }),
            0);
  EXPECT_EQ(status("open/f").st_uid, 1001U);
  EXPECT_EQ(status("open/f").st_gid, 1002U);
}

TEST_F(FuseMount, DirectoriesWithSgidGiveTheirGroup) {
  ASSERT_EQ(::mkdir(at("d").c_str(), 0755), 0);
  ASSERT_EQ(::chown(at("d").c_str(), 0, 55), 0);
  ASSERT_EQ(::chmod(at("d").c_str(), 02777), 0);
  write("d/f", "x");
  ASSERT_EQ(::mkdir(at("d/e").c_str(), 0755), 0);
  EXPECT_EQ(status("d/f").st_gid, 55U);
  EXPECT_EQ(status("d/e").st_gid, 55U);
  EXPECT_EQ(status("d/e").st_mode & 07777, 02755U);
}

TEST_F(FuseMount, TakesPrivilegesFromProgramsThatAreChanged) {
  auto prepare = [&] {
    write("program", "x");
    ASSERT_EQ(::chown(at("program").c_str(), 1001, 1001), 0);
    ASSERT_EQ(::chmod(at("program").c_str(), 06777), 0);
    ASSERT_EQ(status("program").st_mode & 07777, 06777U);
  };
  prepare();
  EXPECT_EQ(as_user(1001, 1001,
                    [&] {
                      int fd = ::open(at("program").c_str(), O_WRONLY);
                      return ::write(fd, "y", 1) == 1 ? 0 : errno;
                    }),
            0);
  EXPECT_EQ(status("program").st_mode & 07777, 0777U) << "write";
  prepare();
  EXPECT_EQ(as_user(1001, 1001, [&] { return ::truncate(at("program").c_str(), 0) == 0 ? 0 : errno; }), 0);
  EXPECT_EQ(status("program").st_mode & 07777, 0777U) << "truncate";
  prepare();
  EXPECT_EQ(as_user(1001, 1001, [&] { return ::open(at("program").c_str(), O_WRONLY | O_TRUNC) >= 0 ? 0 : errno; }), 0);
  EXPECT_EQ(status("program").st_mode & 07777, 0777U) << "open with O_TRUNC";
  prepare();
  ASSERT_EQ(::chown(at("program").c_str(), 1003, 1003), 0);
  EXPECT_EQ(status("program").st_mode & 07777, 0777U) << "chown";
  prepare();
  int fd = ::open(at("program").c_str(), O_WRONLY | O_CLOEXEC);
  ASSERT_EQ(::write(fd, "y", 1), 1);
  ::close(fd);
  EXPECT_EQ(status("program").st_mode & 07777, 06777U) << "root may";
  // version 2, effective: cap_net_bind_service
  const unsigned char capability[20] = {1, 0, 0, 2, 0, 4};
  ASSERT_EQ(::setxattr(at("program").c_str(), "security.capability", capability, sizeof capability, 0), 0)
      << std::strerror(errno);
  EXPECT_EQ(as_user(1001, 1001,
                    [&] {
                      int program = ::open(at("program").c_str(), O_WRONLY);
                      return ::write(program, "y", 1) == 1 ? 0 : errno;
                    }),
            0);
  EXPECT_FAILS(::getxattr(at("program").c_str(), "security.capability", nullptr, 0), ENODATA);
}

TEST_F(FuseMount, TakesPrivilegesFromProgramsThatAreAllocatedPunchedOrCopiedInto) {
  write("program", std::string(200'000, 'x'));
  write("from", std::string(200'000, 'y'));
  ASSERT_EQ(::chown(at("program").c_str(), 1001, 1001), 0);
  constexpr int kCopy = -1;
  auto mode_after = [&](int how, uid_t user, mode_t mode) {
    EXPECT_EQ(::chmod(at("program").c_str(), mode), 0);
    EXPECT_EQ(status("program").st_mode & 07777, mode);
    auto change = [&] {
      int from = ::open(at("from").c_str(), O_RDONLY | O_CLOEXEC);
      int fd = ::open(at("program").c_str(), O_WRONLY | O_CLOEXEC);
      if (how != kCopy) return ::fallocate(fd, how, 65'536, 65'536) == 0 ? 0 : errno;
      off_t at_from = 0;
      off_t at_to = 0;
      return ::copy_file_range(from, &at_from, fd, &at_to, 70'000, 0) == 70'000 ? 0 : errno;
    };
    EXPECT_EQ(as_user(user, user, change), 0);
    return status("program").st_mode & 07777;
  };
  for (int how : {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE, kCopy}) {
    EXPECT_EQ(mode_after(how, 1001, 06777), 0777U) << how;
    EXPECT_EQ(mode_after(how, 1002, 06777), 0777U) << how;
    EXPECT_EQ(mode_after(how, 1002, 02676), 0676U) << how;
    EXPECT_EQ(mode_after(how, 1002, 06766), 0766U) << how << ": not even what gives nothing";
    EXPECT_EQ(mode_after(how, 1001, 06766), 02766U) << how << ": but to who is of the group";
    EXPECT_EQ(mode_after(how, 0, 06777), 06777U) << how << ": root may";
  }
}

TEST_F(FuseMount, AnswersWhatItCannotDo) {
  write("f", "0123456789");
  int fd = ::open(at("f").c_str(), O_RDWR | O_CLOEXEC);
  EXPECT_EQ(::lseek(fd, 3, SEEK_DATA), 3);
  EXPECT_EQ(::lseek(fd, 3, SEEK_HOLE), 10);
  int flags = 0;
  EXPECT_FAILS(::ioctl(fd, 0x12345678, &flags), ENOTTY);
  off_t from = 0;
  off_t to = 10;
  EXPECT_EQ(::copy_file_range(fd, &from, fd, &to, 5, 0), 5);
  EXPECT_EQ(read("f"), "012345678901234");
  EXPECT_FAILS(::fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, 4096), EOPNOTSUPP);
  EXPECT_FAILS(::fallocate(fd, FALLOC_FL_INSERT_RANGE, 0, 4096), EOPNOTSUPP);
  write("g", "g");
  EXPECT_FAILS(::renameat2(AT_FDCWD, at("f").c_str(), AT_FDCWD, at("g").c_str(), RENAME_WHITEOUT), EINVAL);
  ::close(fd);
}

TEST_F(FuseMount, ExchangesTwoNames) {
  write("f", "of f");
  EXPECT_EQ(::mkdir(at("d").c_str(), 0755), 0);
  write("d/g", "of g");
  EXPECT_EQ(::renameat2(AT_FDCWD, at("f").c_str(), AT_FDCWD, at("d/g").c_str(), RENAME_EXCHANGE), 0);
  EXPECT_EQ(read("f"), "of g");
  EXPECT_EQ(read("d/g"), "of f");
  EXPECT_FAILS(::renameat2(AT_FDCWD, at("f").c_str(), AT_FDCWD, at("absent").c_str(), RENAME_EXCHANGE), ENOENT);
}

TEST_F(FuseMount, MakesAFileWithoutAName) {
  int fd = ::open(at("").c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  ASSERT_GE(fd, 0) << std::strerror(errno);
  struct stat s{};
  EXPECT_EQ(::fstat(fd, &s), 0);
  EXPECT_EQ(s.st_nlink, 0U);
  EXPECT_EQ(::write(fd, "named", 5), 5);
  std::string self = "/proc/self/fd/" + std::to_string(fd);
  EXPECT_EQ(::linkat(AT_FDCWD, self.c_str(), AT_FDCWD, at("name").c_str(), AT_SYMLINK_FOLLOW), 0);
  ::close(fd);
  EXPECT_EQ(read("name"), "named");
}

TEST_F(FuseMount, LocksAreTheFileSystems) {
  write("f", "0123456789");
  int mine = ::open(at("f").c_str(), O_RDWR | O_CLOEXEC);
  struct flock lock{.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 2, .l_len = 3, .l_pid = 0};
  EXPECT_EQ(::fcntl(mine, F_SETLK, &lock), 0);
  pid_t child = ::fork();
  if (child == 0) {
    int fd = ::open(at("f").c_str(), O_RDWR | O_CLOEXEC);
    struct flock other{.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 0, .l_pid = 0};
    bool refused = ::fcntl(fd, F_SETLK, &other) == -1 && errno == EAGAIN;
    bool found = ::fcntl(fd, F_GETLK, &other) == 0 && other.l_type == F_WRLCK && other.l_start == 2 &&
                 other.l_len == 3 && other.l_pid == ::getppid();
    other = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 5, .l_len = 0, .l_pid = 0};
    bool apart = ::fcntl(fd, F_SETLK, &other) == 0;
    bool flocked = ::flock(fd, LOCK_EX | LOCK_NB) == 0;  // the other kind
    ::_exit(refused && found && apart && flocked ? 0 : 1);
  }
  int status = 1;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(::flock(mine, LOCK_EX), 0) << "the child's went with it";
  ::close(mine);
}

TEST_F(FuseMount, LocksOfAnOpenFileEndWithItsLastClose) {
  write("f", "0123456789");
  auto try_lock = [](int fd) {
    struct flock lock{.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 0, .l_pid = 0};
    return ::fcntl(fd, F_OFD_SETLK, &lock) == 0;
  };
  int first = ::open(at("f").c_str(), O_RDWR | O_CLOEXEC);
  int second = ::open(at("f").c_str(), O_RDWR | O_CLOEXEC);
  EXPECT_TRUE(try_lock(first));
  EXPECT_FALSE(try_lock(second));
  int copy = ::dup(first);
  ::close(first);
  EXPECT_FALSE(try_lock(second));
  ::close(copy);  // the kernel tells of it afterwards
  bool locked = false;
  for (int i = 0; i < 1000 && !locked; ++i) {
    locked = try_lock(second);
    if (!locked) ::usleep(10'000);
  }
  EXPECT_TRUE(locked);
  ::close(second);
}

TEST_F(FuseMount, ShowsWhatOtherClientsWrite) {
  write("f", "old old old");
  int fd = ::open(at("f").c_str(), O_RDONLY | O_CLOEXEC);
  auto* mapped = static_cast<char*>(::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd, 0));
  char bytes[16] = {};
  ASSERT_EQ(::pread(fd, bytes, 11, 0), 11);
  EXPECT_EQ(std::string(mapped, 3), "old");
  for (int i = 0; i < 1000; ++i) {
    std::string text = "new " + std::to_string(10000 + i);
    ASSERT_EQ(mount_->ask("write f " + text + "x"), "ok");
    ASSERT_EQ(::pread(fd, bytes, 9, 0), 9);
    ASSERT_EQ(std::string(bytes, 9), text) << "read(2)";
    ASSERT_EQ(std::string(mapped, 9), text) << "mmap";
    struct stat now{};
    ASSERT_EQ(::fstat(fd, &now), 0);
    ASSERT_EQ(now.st_size, i == 0 ? 11 : 11);
  }
  // The invalidation alone does it, too.
  ASSERT_EQ(mount_->ask("write silently f SILENT"), "ok");
  ASSERT_EQ(::pread(fd, bytes, 6, 0), 6);
  EXPECT_EQ(std::string(bytes, 6), "SILENT");
  EXPECT_EQ(mount_->ask("late invalidations"), "0");
  ::munmap(mapped, 4096);
  ::close(fd);
}

TEST_F(FuseMount, InvalidatesWhileAReadHoldsThePage) {
  write("f", "old");
  ASSERT_EQ(mount_->ask("hold reads"), "ok");
  std::string seen;
  std::thread reader([&] { seen = read("f"); });
  while (mount_->ask("waiting reads") == "0") std::this_thread::yield();
  // Answers although the kernel keeps the page locked until the read is answered.
  EXPECT_EQ(mount_->ask("write f new"), "ok");
  EXPECT_EQ(mount_->ask("late invalidations"), "1");
  ASSERT_EQ(mount_->ask("release reads"), "ok");
  reader.join();
  EXPECT_EQ(seen, "new");
  EXPECT_EQ(read("f"), "new");
}

TEST_F(FuseMount, PagesThatAreReadForLongKeepNoOthersFromBeingDropped) {
  write("g", "old old");
  EXPECT_EQ(read("g"), "old old");
  constexpr int kReaders = 5;
  auto name = [](int i) { return "f" + std::to_string(i); };
  for (int i = 0; i < kReaders; ++i) write(name(i), "old");
  ASSERT_EQ(mount_->ask("hold reads"), "ok");
  std::vector<std::thread> readers;
  for (int i = 0; i < kReaders; ++i) readers.emplace_back([&, i] { (void)read(name(i)); });
  while (mount_->ask("waiting reads") != std::to_string(kReaders)) std::this_thread::yield();
  for (int i = 0; i < kReaders; ++i) EXPECT_EQ(mount_->ask("write " + name(i) + " new"), "ok");
  EXPECT_EQ(mount_->ask("write silently g SILENT!"), "ok");
  EXPECT_EQ(mount_->ask("late invalidations"), std::to_string(kReaders)) << "those of pages that are read, and no more";
  ASSERT_EQ(mount_->ask("release reads"), "ok");
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(read("g"), "SILENT!");
}

TEST_F(FuseMount, ServesManyAtOnce) {
  constexpr int kThreads = 16;
  std::vector<std::thread> threads;
  std::atomic<int> failures{0};
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::string directory = at("t" + std::to_string(t));
      if (::mkdir(directory.c_str(), 0755) != 0) ++failures;
      for (int i = 0; i < 50; ++i) {
        std::string path = directory + "/f" + std::to_string(i);
        std::string bytes = pattern(static_cast<size_t>(i) * 3001, static_cast<unsigned>(t));
        std::ofstream(path, std::ios::binary) << bytes;
        std::ifstream in(path, std::ios::binary);
        std::ostringstream back;
        if (!bytes.empty()) back << in.rdbuf();
        if (back.str() != bytes) ++failures;
        if (i % 3 == 0 && ::unlink(path.c_str()) != 0) ++failures;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failures, 0);
}

TEST_F(FuseMount, RunsPrograms) {
  std::string script = "set -e; cd " + at("") +
                       "; mkdir src; cp -a /usr/include/linux src/; diff -r /usr/include/linux "
                       "src/linux; tar cf a.tar src; mkdir x; "
                       "tar xf a.tar -C x; diff -r src x/src; mv x y; rm -r src; test $(find y "
                       "-type f | wc -l) -gt 100; rm -rf y a.tar; test -z \"$(ls)\"";
  EXPECT_EQ(std::system(("bash -c '" + script + "'").c_str()), 0);
}

TEST_F(FuseMount, RunsGitAndSqlite) {
  const std::string script = "set -e; cd " + at("") + R"SH(
export HOME=$PWD GIT_CONFIG_NOSYSTEM=1
git init -q a; cd a; mkdir d; for i in $(seq 300); do echo $i > d/f$i; done
git add .; git -c user.name=x -c user.email=x@x commit -qm m; cd ..
git clone -q --bare a b.git; git clone -q b.git c; git -C c fsck --full --strict; diff -r a/d c/d
python3 - <<'END'
import sqlite3
first = sqlite3.connect("wal.db")
first.execute("pragma journal_mode=wal")
first.execute("create table t(i integer primary key, b blob)")
second = sqlite3.connect("wal.db")
for i in range(300):
    with first: first.execute("insert into t values(?, randomblob(3000))", (i,))
    assert second.execute("select count(*) from t").fetchone()[0] == i + 1
assert second.execute("pragma integrity_check").fetchone()[0] == "ok"
END
)SH";
  write("script", script);
  EXPECT_EQ(std::system(("bash " + at("script")).c_str()), 0);
}

TEST_F(FuseMount, LetsGoOfAKilledProcessThatWaits) {
  FuseGatewayOptions options;
  options.session.interrupt_patience = milliseconds(50);
  mount_at(options);
  write("f", "x");
  ASSERT_EQ(mount_->ask("hold reads"), "ok");
  pid_t child = fork();
  if (child == 0) {
    int fd = ::open(at("f").c_str(), O_RDONLY);
    char byte;
    _exit(::read(fd, &byte, 1) == 1 ? 0 : 1);
  }
  while (mount_->ask("waiting reads") == "0") std::this_thread::yield();
  kill(child, SIGKILL);
  int result = 0;
  ASSERT_EQ(waitpid(child, &result, 0), child);  // would hang
  EXPECT_TRUE(WIFSIGNALED(result));
  ASSERT_EQ(mount_->ask("release reads"), "ok");
  EXPECT_EQ(read("f"), "x");
}

TEST_F(FuseMount, EndsCleanlyWhileFilesAreOpen) {
  write("f", pattern(8192, 1));
  int fd = ::open(at("f").c_str(), O_RDWR | O_CLOEXEC);
  EXPECT_EQ(mount_->end(), 0);
  char byte;
  EXPECT_FAILS(::pread(fd, &byte, 1, 0), ENOTCONN);
  ::close(fd);
  EXPECT_TRUE(std::filesystem::is_empty(at("")));
}

TEST_F(FuseMount, EndsWhenSomebodyElseUnmounts) {
  ASSERT_TRUE(unmount_directory(at(""), false).ok());
  EXPECT_EQ(mount_->wait(), 0);
}

TEST_F(FuseMount, EndsWhenTheConnectionIsAborted) {
  int fd = ::open(at("").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  Result<void> busy = unmount_directory(at(""), false);
  EXPECT_EQ(busy.code(), Code::kBusy);
  ASSERT_TRUE(unmount_directory(at(""), true).ok());
  EXPECT_EQ(mount_->wait(), 0);
  ::close(fd);
}

TEST_F(FuseMount, ANewMountClearsADeadOne) {
  std::string directory = at("");
  int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  EXPECT_EQ(mount_->kill_server(), 128 + SIGKILL);
  // The kernel ends the connection when the last request of its ring is gone, a moment after the
  // process.
  int failed = ::access(directory.c_str(), F_OK);
  EXPECT_TRUE(failed != 0 && (errno == ENOTCONN || errno == ECONNABORTED)) << std::strerror(errno);
  {
    ServedMount again({}, directory);
    ASSERT_EQ(again.started(), "mounted");
    EXPECT_EQ(::access(directory.c_str(), F_OK), 0);
  }
  ::close(fd);
}

TEST_F(FuseMount, BadInputASecondMountAtTheSamePlaceIsRefused) {
  ServedMount second({}, at(""));
  EXPECT_NE(second.started().find("is mounted already (headrace)"), std::string::npos) << second.started();
  EXPECT_NE(second.started().find("umount"), std::string::npos) << second.started();
  EXPECT_EQ(second.wait(), 0);
}

TEST_F(FuseMount, AnotherSessionGoesOnWithWhatIsOpenLockedAndMapped) {
  write("f", "0123456789");
  int fd = ::open(at("f").c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(::flock(fd, LOCK_EX), 0);
  auto* mapped = static_cast<char*>(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  ASSERT_NE(mapped, MAP_FAILED);
  write("gone", "unlinked");
  int gone = ::open(at("gone").c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_EQ(::unlink(at("gone").c_str()), 0);
  std::thread waiter([this] {
    int other = ::open(at("f").c_str(), O_RDONLY | O_CLOEXEC);
    EXPECT_EQ(::flock(other, LOCK_EX), 0) << "through all of it: " << std::strerror(errno);
    ::close(other);
  });
  for (char round = '0'; round < '5'; ++round) {
    mapped[0] = round;  // a dirty page
    ASSERT_EQ(mount_->ask("pause"), "ok");
    std::thread early([&] { EXPECT_EQ(read("f"), std::string(1, round) + "123456789"); });
    usleep(20'000);
    ASSERT_EQ(mount_->ask(round == '2' ? "resume" : "succeed"), "ok");
    early.join();
    EXPECT_EQ(mapped[1], '1');
    char text[8];
    EXPECT_EQ(::pread(gone, text, sizeof text, 0), 8);
    EXPECT_EQ(::pwrite(gone, text, sizeof text, 0), 8);
    int other = ::open(at("f").c_str(), O_RDONLY | O_CLOEXEC);
    EXPECT_EQ(::flock(other, LOCK_EX | LOCK_NB), -1);
    EXPECT_EQ(errno, EWOULDBLOCK);
    ::close(other);
  }
  ASSERT_EQ(::flock(fd, LOCK_UN), 0);
  waiter.join();
  ASSERT_EQ(::munmap(mapped, 4096), 0);
  ::close(fd);
  ::close(gone);
  EXPECT_EQ(read("f"), "4123456789");
  for (int i = 0; i < 100 && mount_->ask("handles") != "0"; ++i) usleep(10'000);
  EXPECT_EQ(mount_->ask("handles"), "0");
}

// The kernel holds a page for a READ that nobody takes: what is to be dropped meanwhile is dropped after it.
TEST_F(FuseMount, WhatChangesWhileNobodyServesIsSeenAfterwards) {
  write("f", std::string(8192, 'a'));
  int fd = ::open(at("f").c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  auto* mapped = static_cast<char*>(::mmap(nullptr, 8192, PROT_READ, MAP_SHARED, fd, 0));
  ASSERT_NE(mapped, MAP_FAILED);
  for (char now = 'b'; now < 'f'; ++now) {
    EXPECT_EQ(mapped[5000], now - 1);
    ASSERT_EQ(::posix_fadvise(fd, 0, 4096, POSIX_FADV_DONTNEED), 0);
    ASSERT_EQ(mount_->ask("pause"), "ok");
    std::thread reader([&] { EXPECT_EQ(read("f"), std::string(8192, now)); });
    usleep(20'000);
    const auto begun = std::chrono::steady_clock::now();
    ASSERT_EQ(mount_->ask("write f " + std::string(8192, now)), "ok");
    EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::milliseconds(700))
        << "nobody waits for the kernel";
    ASSERT_EQ(mount_->ask("succeed"), "ok");
    reader.join();
    for (int i = 0; i < 100 && mapped[5000] != now; ++i) usleep(10'000);
    EXPECT_EQ(mapped[5000], now);
  }
  ASSERT_EQ(::munmap(mapped, 8192), 0);
  ::close(fd);
}

}  // namespace
}  // namespace headrace
