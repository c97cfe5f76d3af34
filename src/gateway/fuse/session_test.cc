// FuseSession against a kernel that is played: what real ones do seldom, or never.
#include "gateway/fuse/session.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/falloc.h>

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <set>

#include "base/posix_acl.h"
#include "gateway/fuse/memory_file_system.h"
#include "runtime/uring/reactor.h"

namespace headrace {
namespace {

class PlayedKernel final : public Transport {
 public:
  struct Answer {
    int error;
    std::string bytes;
  };
  Task<Result<Buffer>> receive() override {
    std::optional<Buffer> next = co_await requests_.pop();
    if (!next) co_return Error(Code::kCancelled, "unmounted");
    co_return *next;
  }
  Result<void> reply(uint64_t unique, int error, ByteView head, std::span<const Buffer> bulk) override {
    EXPECT_FALSE(answers_.contains(unique)) << "answered twice: " << unique;
    std::string bytes(text_of(head));
    for (const Buffer& piece : bulk) bytes += piece.text();
    answers_[unique] = {error, error == 0 ? bytes : ""};
    answered_.set();
    if (gone_.contains(unique)) return Error(Code::kNotFound, "gone");
    return {};
  }
  Task<bool> notify(int code, std::vector<std::string> bodies) override {
    const bool known = unknown_ == 0;
    if (!known) --unknown_;
    for (size_t i = 0; i < bodies.size(); ++i) notified_.push_back(code);
    for (std::string& body : bodies) bodies_.push_back(std::move(body));
    if (notify_hangs_) co_await released_.wait();
    co_return known;
  }

  template <class... Parts>
  uint64_t send(uint32_t opcode, FileId node, const Parts&... parts) {
    std::string body;
    (append(body, parts), ...);
    fuse_in_header header{.len = static_cast<uint32_t>(sizeof(fuse_in_header) + body.size()),
                          .opcode = opcode,
                          .unique = ++unique_,
                          .nodeid = node.packed()};
    std::string all(reinterpret_cast<const char*>(&header), sizeof header);
    all += body;
    HR_ASSERT(requests_.try_push(Buffer::copy_of(bytes_of(all))));
    return unique_;
  }
  template <class... Parts>
  Task<Answer> ask(uint32_t opcode, FileId node, Parts... parts) {
    return answer_to(send(opcode, node, parts...));
  }
  Task<Answer> answer_to(uint64_t unique) {
    while (!answers_.contains(unique)) {
      answered_.reset();
      co_await answered_.wait();
    }
    co_return answers_[unique];
  }
  [[nodiscard]] bool answered(uint64_t unique) const { return answers_.contains(unique); }
  void unmount() { requests_.close(); }
  [[nodiscard]] size_t waiting() const { return requests_.size(); }

  std::map<uint64_t, bool> gone_;  // callers that nobody will answer
  std::vector<int> notified_;
  std::vector<std::string> bodies_;  // of them
  bool notify_hangs_ = false;
  int unknown_ = 0;  // so many notifications find nothing
  Event released_;

 private:
  static void append(std::string& body, const std::string& text) { body += text + '\0'; }
  template <class T>
    requires std::is_trivially_copyable_v<T>
  static void append(std::string& body, const T& part) {
    body.append(reinterpret_cast<const char*>(&part), sizeof part);
  }
  Queue<Buffer> requests_{10000};
  uint64_t unique_ = 0;
  std::map<uint64_t, Answer> answers_;
  Event answered_;
};

fuse_init_in init(uint32_t minor) {
  return {.major = 7, .minor = minor, .max_readahead = 131072, .flags = 0x7fffffff, .flags2 = 0xffffffff};
}

struct World {
  explicit World(Reactor& r, FuseSessionOptions options = {})
      : reactor(r), clock(r), files(r), session(r.env(), files, kernel, options) {}
  Reactor& reactor;
  Clock& clock;
  MemoryFileSystem files;
  PlayedKernel kernel;
  FuseSession session;
  Result<void> outcome;
  bool ended = false;
  Scope scope;
};
Task<void> serve(World& world) {
  world.outcome = co_await world.session.run();
  world.ended = true;
}
Task<void> until_ended(World& world) {
  world.kernel.unmount();
  while (!world.ended) co_await yield();
}

class FuseSessionTest : public testing::Test {
 protected:
  FuseSessionTest() : reactor_(*Reactor::create()) {}
  void play(Task<void> (*script)(World&), FuseSessionOptions options = {}) {
    World world(*reactor_, options);
    world.scope.spawn(serve(world));
    reactor_->run(script(world));
  }
  std::unique_ptr<Reactor> reactor_;
};

Task<uint64_t> make_file(World& world, std::string name) {
  PlayedKernel::Answer made =
      co_await world.kernel.ask(FUSE_CREATE, kRootFile, fuse_create_in{.flags = 2, .mode = 0100644}, std::move(name));
  EXPECT_EQ(made.error, 0);
  fuse_entry_out entry{};
  std::memcpy(&entry, made.bytes.data(), sizeof entry);
  co_return entry.nodeid;
}

Task<void> negotiates(World& world) {
  PlayedKernel::Answer answer = co_await world.kernel.ask(FUSE_INIT, FileId(), init(45));
  EXPECT_EQ(answer.error, 0);
  fuse_init_out out{};
  EXPECT_EQ(answer.bytes.size(), sizeof out);
  std::memcpy(&out, answer.bytes.data(), sizeof out);
  EXPECT_EQ(out.minor, 45U);
  EXPECT_EQ(out.max_write, kMiB);
  EXPECT_TRUE((out.flags & FUSE_AUTO_INVAL_DATA) != 0);
  EXPECT_FALSE((out.flags & FUSE_WRITEBACK_CACHE) != 0);
  EXPECT_TRUE((out.flags & FUSE_POSIX_LOCKS) != 0);
  EXPECT_TRUE((out.flags & FUSE_POSIX_ACL) != 0);
  EXPECT_TRUE(world.session.initialised().is_set());
  co_await until_ended(world);
  EXPECT_TRUE(world.outcome.ok());
}
TEST_F(FuseSessionTest, NegotiatesWithTheKernel) {
  play(negotiates);
}

Task<void> refuses_old(World& world) {
  PlayedKernel::Answer answer = co_await world.kernel.ask(FUSE_INIT, FileId(), init(20));
  EXPECT_EQ(answer.error, EPROTO);
  co_await until_ended(world);
  EXPECT_EQ(world.outcome.code(), Code::kNotSupported);
  EXPECT_NE(world.outcome.error().message().find("7.20"), std::string::npos);
}
TEST_F(FuseSessionTest, BadInputAnOldKernelIsRefusedByItsVersion) {
  play(refuses_old);
}

Task<void> survives_garbage(World& world) {
  PlayedKernel::Answer answer = co_await world.kernel.ask(FUSE_LOOKUP, kRootFile, uint32_t{0x41414141});
  EXPECT_EQ(answer.error, EINVAL);
  answer = co_await world.kernel.ask(FUSE_READ, kRootFile, fuse_read_in{.fh = 99, .size = 10});
  EXPECT_EQ(answer.error, EBADF);
  answer = co_await world.kernel.ask(FUSE_RELEASE, kRootFile, fuse_release_in{.fh = 99});
  EXPECT_EQ(answer.error, EBADF);
  answer = co_await world.kernel.ask(4711, kRootFile);
  EXPECT_EQ(answer.error, ENOSYS);
  answer = co_await world.kernel.ask(FUSE_GETATTR, FileId(123456), fuse_getattr_in{});
  EXPECT_EQ(answer.error, ENOENT);
  answer = co_await world.kernel.ask(FUSE_GETATTR, kRootFile, fuse_getattr_in{});
  EXPECT_EQ(answer.error, 0);
  EXPECT_EQ(world.session.statistics().malformed, 1U);
  co_await until_ended(world);
}
TEST_F(FuseSessionTest, BadInputMalformedRequestsGetAnErrorAndNothingElseSuffers) {
  play(survives_garbage);
}

Task<void> looks_up_handles(World& world) {
  (void)co_await world.kernel.ask(FUSE_INIT, FileId(), init(45));
  const uint64_t file = co_await make_file(world, "f");
  auto found = [&world](FileId at, std::string name) -> Task<std::pair<int, uint64_t>> {
    PlayedKernel::Answer answer = co_await world.kernel.ask(FUSE_LOOKUP, at, std::move(name));
    fuse_entry_out out{};
    std::memcpy(&out, answer.bytes.data(), std::min(sizeof out, answer.bytes.size()));
    co_return std::pair(answer.error, out.nodeid);
  };
  EXPECT_EQ(co_await found(FileId(file), "."), std::pair(0, file));
  EXPECT_EQ(co_await found(FileId(file), ".."), std::pair(ENOTDIR, uint64_t{0}));
  EXPECT_EQ(co_await found(kRootFile, ".."), std::pair(0, kRootFile.packed()));
  EXPECT_EQ(co_await found(FileId(4711), "."), std::pair(ENOENT, uint64_t{0}));
}
TEST_F(FuseSessionTest, FindsWhatAFileHandleNames) {
  play(looks_up_handles);
}

Task<void> shows_removed_directories(World& world) {
  (void)co_await world.kernel.ask(FUSE_INIT, FileId(), init(45));
  PlayedKernel::Answer answer =
      co_await world.kernel.ask(FUSE_MKDIR, kRootFile, fuse_mkdir_in{.mode = 0750}, std::string("d"));
  fuse_entry_out entry{};
  std::memcpy(&entry, answer.bytes.data(), std::min(sizeof entry, answer.bytes.size()));
  const FileId directory(entry.nodeid);
  // By another mount.
  Result<void> removed = co_await world.files.remove_directory(kRootFile, "d");
  EXPECT_TRUE(removed.ok());
  answer = co_await world.kernel.ask(FUSE_GETATTR, directory, fuse_getattr_in{});
  EXPECT_EQ(answer.error, 0);
  fuse_attr_out out{};
  std::memcpy(&out, answer.bytes.data(), std::min(sizeof out, answer.bytes.size()));
  EXPECT_EQ(out.attr.nlink, 0U);
  EXPECT_EQ(out.attr.mode, static_cast<uint32_t>(S_IFDIR | 0750));
  EXPECT_EQ(out.attr_valid, 0U);
  for (uint64_t offset : {0, 2, 7}) {
    answer = co_await world.kernel.ask(FUSE_READDIR, directory, fuse_read_in{.offset = offset, .size = 4096});
    EXPECT_EQ(answer.error, 0) << offset;
    EXPECT_TRUE(answer.bytes.empty()) << offset;
  }
  answer = co_await world.kernel.ask(FUSE_FSYNCDIR, directory, fuse_fsync_in{});
  EXPECT_EQ(answer.error, 0);
  answer = co_await world.kernel.ask(FUSE_MKDIR, directory, fuse_mkdir_in{.mode = 0755}, std::string("in"));
  EXPECT_EQ(answer.error, ENOENT);
  answer = co_await world.kernel.ask(FUSE_LOOKUP, kRootFile, std::string("d"));
  EXPECT_EQ(answer.error, ENOENT);
  (void)world.kernel.send(FUSE_FORGET, directory, fuse_forget_in{.nlookup = 1});
  answer = co_await world.kernel.ask(FUSE_GETATTR, directory, fuse_getattr_in{});
  EXPECT_EQ(answer.error, ENOENT) << "nobody has it open any more";
  co_await until_ended(world);
}
TEST_F(FuseSessionTest, ShowsARemovedDirectoryToWhoHasItOpen) {
  play(shows_removed_directories);
}

Task<void> finds_no_file_under_an_old_name(World& world) {
  (void)co_await world.kernel.ask(FUSE_INIT, FileId(), init(45));
  const FileId file(co_await make_file(world, "f"));
  PlayedKernel::Answer made = co_await world.kernel.ask(FUSE_SYMLINK, kRootFile, std::string("l"), std::string("to"));
  fuse_entry_out entry{};
  std::memcpy(&entry, made.bytes.data(), std::min(sizeof entry, made.bytes.size()));
  const FileId symlink(entry.nodeid);
  // While it is open here it can be asked for, without a name too.
  Result<void> gone = co_await world.files.unlink(kRootFile, "f");
  EXPECT_TRUE(gone.ok());
  gone = co_await world.files.unlink(kRootFile, "l");
  EXPECT_TRUE(gone.ok());
  PlayedKernel::Answer answer = co_await world.kernel.ask(FUSE_GETATTR, file, fuse_getattr_in{});
  EXPECT_EQ(answer.error, 0);
  answer = co_await world.kernel.ask(FUSE_RELEASE, file, fuse_release_in{.fh = 1});
  EXPECT_EQ(answer.error, 0);
  answer = co_await world.kernel.ask(FUSE_OPEN, file, fuse_open_in{.flags = 2});
  EXPECT_EQ(answer.error, ESTALE);
  answer = co_await world.kernel.ask(FUSE_GETATTR, file, fuse_getattr_in{});
  EXPECT_EQ(answer.error, ESTALE);
  answer = co_await world.kernel.ask(FUSE_SETATTR, file, fuse_setattr_in{.valid = FATTR_MODE, .mode = 0600});
  EXPECT_EQ(answer.error, ESTALE);
  answer = co_await world.kernel.ask(FUSE_GETXATTR, file, fuse_getxattr_in{}, std::string("user.a"));
  EXPECT_EQ(answer.error, ESTALE);
  answer = co_await world.kernel.ask(FUSE_READLINK, symlink);
  EXPECT_EQ(answer.error, ESTALE);
  answer = co_await world.kernel.ask(FUSE_LOOKUP, kRootFile, std::string("f"));
  EXPECT_EQ(answer.error, ENOENT) << "the name is asked for";
  co_await until_ended(world);
}
TEST_F(FuseSessionTest, WhatANameMeantBeforeIsStaleSoThatTheKernelLooksAgain) {
  play(finds_no_file_under_an_old_name);
}

Task<void> undoes_no_chmod(World& world) {
  (void)co_await world.kernel.ask(FUSE_INIT, FileId(), init(45));
  const FileId file(co_await make_file(world, "f"));
  for (int moment = 0; moment < 30; ++moment) {
    auto set = co_await world.files.set_attributes(file, {.mask = kSetMode, .mode = 04755});
    EXPECT_TRUE(set.ok());
    const uint64_t write = world.kernel.send(
        FUSE_WRITE, file, fuse_write_in{.fh = 1, .size = 2, .write_flags = FUSE_WRITE_KILL_SUIDGID}, std::string("x"));
    for (int i = 0; i < moment; ++i) co_await yield();
    // By another mount.
    set = co_await world.files.set_attributes(file, {.mask = kSetMode, .mode = 0711});
    EXPECT_TRUE(set.ok());
    EXPECT_EQ((co_await world.kernel.answer_to(write)).error, 0);
    auto now = co_await world.files.get_attributes(file);
    EXPECT_EQ(now->mode, 0711U) << "after " << moment << " turns";
  }
  co_await until_ended(world);
}
TEST_F(FuseSessionTest, TakingPrivilegesAwayUndoesNoChmodOfAnotherMount) {
  play(undoes_no_chmod);
}

// user::rwx, user:9:rwx, group::r-x, mask::rwx, other::---
constexpr std::array<uint16_t, 22> kAcl{2, 0,      1,      7,  0xffff, 0xffff, 2,      7,  9, 0,      4,
                                        5, 0xffff, 0xffff, 16, 7,      0xffff, 0xffff, 32, 0, 0xffff, 0xffff};

Task<uint32_t> mode_of(World& world, FileId id) {
  PlayedKernel::Answer answer = co_await world.kernel.ask(FUSE_GETATTR, id, fuse_getattr_in{});
  EXPECT_EQ(answer.error, 0);
  fuse_attr_out out{};
  std::memcpy(&out, answer.bytes.data(), std::min(sizeof out, answer.bytes.size()));
  co_return out.attr.mode & 07777;
}

Task<void> sets_acls(World& world) {
  (void)co_await world.kernel.ask(FUSE_INIT, FileId(), init(45));
  FileId id(co_await make_file(world, "f"));
  (void)co_await world.kernel.ask(FUSE_SETATTR, id, fuse_setattr_in{.valid = FATTR_MODE, .mode = 02755});
  fuse_setxattr_in in{.size = sizeof kAcl};
  PlayedKernel::Answer answer = co_await world.kernel.ask(FUSE_SETXATTR, id, in, std::string(kAccessAcl), kAcl);
  EXPECT_EQ(answer.error, 0);
  uint32_t mode = co_await mode_of(world, id);
  EXPECT_EQ(mode, 02770U);
  in.setxattr_flags = FUSE_SETXATTR_ACL_KILL_SGID;
  answer = co_await world.kernel.ask(FUSE_SETXATTR, id, in, std::string(kAccessAcl), kAcl);
  mode = co_await mode_of(world, id);
  EXPECT_EQ(mode, 0770U);
  // No grant covers it: the kernel is told not to keep it before it has it.
  EXPECT_TRUE(world.kernel.notified_.empty());
  uint64_t asked = world.kernel.send(FUSE_GETXATTR, id, fuse_getxattr_in{.size = 4096}, std::string(kAccessAcl));
  while (world.kernel.notified_.empty()) {
    EXPECT_FALSE(world.kernel.answered(asked));
    co_await yield();
  }
  answer = co_await world.kernel.answer_to(asked);
  EXPECT_EQ(answer.bytes.size(), sizeof kAcl);
  co_await until_ended(world);
}
TEST_F(FuseSessionTest, SetsAclsAndLetsTheKernelKeepNoneWithoutAGrant) {
  play(sets_acls);
}

Task<void> knows_no_acls(World& world) {
  fuse_init_in old = init(45);
  old.flags &= ~uint32_t{FUSE_POSIX_ACL | FUSE_SETXATTR_EXT};
  (void)co_await world.kernel.ask(FUSE_INIT, FileId(), old);
  FileId id(co_await make_file(world, "f"));
  std::string acl(reinterpret_cast<const char*>(kAcl.data()), sizeof kAcl);
  Result<void> set = co_await world.files.set_xattr(id, std::string(kAccessAcl), std::move(acl), {});
  EXPECT_TRUE(set.ok());
  PlayedKernel::Answer answer =
      co_await world.kernel.ask(FUSE_GETXATTR, id, fuse_getxattr_in{.size = 4096}, std::string(kAccessAcl));
  EXPECT_EQ(answer.error, EOPNOTSUPP);
  const std::array<uint32_t, 2> short_head{1, 0};
  answer = co_await world.kernel.ask(FUSE_SETXATTR, id, short_head, std::string("user.x"), 'v');
  EXPECT_EQ(answer.error, 0);
  answer = co_await world.kernel.ask(FUSE_LISTXATTR, id, fuse_getxattr_in{.size = 4096});
  EXPECT_EQ(answer.bytes, std::string("user.x\0", 7));
  co_await until_ended(world);
}
TEST_F(FuseSessionTest, ShowsNoAclsToAKernelThatDoesNotEnforceThem) {
  play(knows_no_acls);
}

Task<void> counts_lookups(World& world) {
  FileId id(co_await make_file(world, "f"));
  (void)co_await world.kernel.ask(FUSE_LOOKUP, kRootFile, std::string("f"));
  uint64_t known = world.session.statistics().nodes;
  world.kernel.send(FUSE_FORGET, id, fuse_forget_in{1});
  (void)co_await world.kernel.ask(FUSE_STATFS, kRootFile);
  EXPECT_EQ(world.session.statistics().nodes, known);
  world.kernel.send(FUSE_BATCH_FORGET, FileId(), fuse_batch_forget_in{.count = 2, .dummy = 0},
                    fuse_forget_one{id.packed(), 1}, fuse_forget_one{999, 5});
  (void)co_await world.kernel.ask(FUSE_STATFS, kRootFile);
  EXPECT_EQ(world.session.statistics().nodes, known - 1);
  co_await until_ended(world);
}
TEST_F(FuseSessionTest, CountsLookupsUntilTheyAreForgotten) {
  play(counts_lookups);
}

// A kernel that is short of memory forgets by the million: whoever renews leases on this core gets its turn.
Task<void> is_flooded_by_forgets(World& world) {
  (void)co_await world.kernel.ask(FUSE_STATFS, kRootFile);
  for (int i = 0; i < 5'000; ++i) world.kernel.send(FUSE_FORGET, FileId(999), fuse_forget_in{1});
  for (int i = 0; i < 3; ++i) co_await yield();
  EXPECT_GT(world.kernel.waiting(), 4'000U);
  (void)co_await world.kernel.ask(FUSE_STATFS, kRootFile);
  co_await until_ended(world);
}
TEST_F(FuseSessionTest, ForgetsKeepNobodyElseFromItsTurn) {
  play(is_flooded_by_forgets);
}

// Each entry that is found is renamed, which puts it behind the others: it is not met again.
Task<void> renames_what_it_lists(World& world) {
  for (int i = 0; i < 20; ++i) (void)co_await make_file(world, "f" + std::to_string(i));
  PlayedKernel::Answer opened = co_await world.kernel.ask(FUSE_OPENDIR, kRootFile, fuse_open_in{});
  fuse_open_out open{};
  std::memcpy(&open, opened.bytes.data(), sizeof open);
  for (int round = 0; round < 2; ++round) {
    int found = 0;
    for (uint64_t offset = 0; found < 100;) {
      PlayedKernel::Answer page = co_await world.kernel.ask(FUSE_READDIR, kRootFile,
                                                            fuse_read_in{.fh = open.fh, .offset = offset, .size = 200});
      EXPECT_EQ(page.error, 0);
      if (page.bytes.empty()) break;
      for (size_t at = 0; at < page.bytes.size();) {
        fuse_dirent entry{};
        std::memcpy(&entry, page.bytes.data() + at, FUSE_NAME_OFFSET);
        const std::string name = page.bytes.substr(at + FUSE_NAME_OFFSET, entry.namelen);
        at += FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + entry.namelen);
        offset = entry.off;
        if (name.starts_with(".")) continue;
        ++found;
        PlayedKernel::Answer moved = co_await world.kernel.ask(
            FUSE_RENAME2, kRootFile, fuse_rename2_in{.newdir = kRootFile.packed()}, name, "moved-" + name);
        EXPECT_EQ(moved.error, 0);
      }
    }
    EXPECT_EQ(found, 20) << "round " << round;
  }
  co_await until_ended(world);
}
TEST_F(FuseSessionTest, AListingEndsWhereItsDirectoryEndedWhenItBegan) {
  play(renames_what_it_lists);
}

Task<void> moves_what_is_kept(World& world) {
  (void)co_await world.kernel.ask(FUSE_INIT, FileId(), init(45));
  (void)co_await make_file(world, "f");
  auto moved = [&world](std::string from, std::string to, uint32_t flags) -> Task<int> {
    world.kernel.bodies_.clear();
    co_return (co_await world.kernel.ask(FUSE_RENAME2, kRootFile,
                                         fuse_rename2_in{.newdir = kRootFile.packed(), .flags = flags}, std::move(from),
                                         std::move(to)))
        .error;
  };
  EXPECT_EQ(co_await moved("f", "g", 0), 0);
  EXPECT_TRUE(world.kernel.bodies_.empty()) << "it keeps no name";
  world.files.keep(seconds(5));
  (void)co_await world.kernel.ask(FUSE_LOOKUP, kRootFile, std::string("g"));
  (void)co_await make_file(world, "e");
  auto told_of = [&world](size_t i) {
    const std::string& body = world.kernel.bodies_.at(i);
    fuse_notify_inval_entry_out out{};
    std::memcpy(&out, body.data(), sizeof out);
    EXPECT_EQ(out.flags, uint32_t{FUSE_EXPIRE_ONLY});
    return body.substr(sizeof out, out.namelen);
  };
  EXPECT_EQ(co_await moved("g", "h", 0), 0);
  EXPECT_EQ(world.kernel.bodies_.size(), 1U);
  EXPECT_EQ(told_of(0), "h");
  EXPECT_EQ(co_await moved("h", "e", 2), 0);
  EXPECT_EQ(world.kernel.bodies_.size(), 2U);
  EXPECT_EQ(told_of(0) + told_of(1), "eh");
  EXPECT_EQ(co_await moved("absent", "h", 0), ENOENT);
  EXPECT_TRUE(world.kernel.bodies_.empty());
  co_await until_ended(world);
}
TEST_F(FuseSessionTest, ANewNameIsNotKeptForAsLongAsTheOldOneMayBe) {
  play(moves_what_is_kept);
}

// The kernel holds the directory for the rename, so that it drops no name of it before the answer.
Task<void> moves_what_is_recalled(World& world) {
  (void)co_await world.kernel.ask(FUSE_INIT, FileId(), init(45));
  world.files.keep(seconds(5));
  (void)co_await make_file(world, "f");
  world.files.hold_changes();
  world.files.hold_reads(true);
  const uint64_t rename = world.kernel.send(FUSE_RENAME2, kRootFile, fuse_rename2_in{.newdir = kRootFile.packed()},
                                            std::string("f"), std::string("g"));
  for (int i = 0; i < 100; ++i) co_await yield();
  co_await world.files.recall_names(kRootFile);
  world.kernel.bodies_.clear();
  world.files.hold_reads(false);
  EXPECT_EQ((co_await world.kernel.answer_to(rename)).error, 0);
  EXPECT_EQ(world.kernel.bodies_.size(), 1U);
  for (const std::string& body : world.kernel.bodies_) EXPECT_NE(body.find('g'), std::string::npos);
  co_await until_ended(world);
}
TEST_F(FuseSessionTest, ANameThatIsRecalledWhileItIsMovedIsNotKept) {
  play(moves_what_is_recalled);
}

Task<void> creates_what_comes_and_goes(World& world) {
  world.files.take_names(2);
  (void)co_await make_file(world, "f");
  auto created = [&world](std::string name, uint32_t flags) -> Task<int> {
    co_return (co_await world.kernel.ask(FUSE_CREATE, kRootFile, fuse_create_in{.flags = flags, .mode = 0100644},
                                         std::move(name)))
        .error;
  };
  EXPECT_EQ(co_await created("f", O_RDWR | O_CREAT), ESTALE) << "it is there: the kernel looks";
  world.files.take_names(1);
  EXPECT_EQ(co_await created("g", O_RDWR | O_CREAT | O_EXCL), EEXIST);
  world.files.take_names(1000);
  EXPECT_EQ(co_await created("g", O_RDWR | O_CREAT), ESTALE) << "not for ever";
  co_await until_ended(world);
}
TEST_F(FuseSessionTest, WhatIsGoneAgainIsCreated) {
  play(creates_what_comes_and_goes);
}

Task<void> takes_back(World& world) {
  world.kernel.gone_[1] = true;
  (void)co_await make_file(world, "f");
  for (int i = 0; i < 100; ++i) co_await yield();
  EXPECT_EQ(world.files.open_files(), 0U);
  EXPECT_EQ(world.session.statistics().open_files, 0U);
  EXPECT_EQ(world.session.statistics().unwanted_answers, 1U);
  (void)co_await world.kernel.ask(FUSE_STATFS, kRootFile);
  EXPECT_LE(world.session.statistics().nodes, 1U);
  co_await until_ended(world);
}
TEST_F(FuseSessionTest, TakesBackWhatNobodyReceived) {
  play(takes_back);
}

// The caller of a request that waits is killed: it is answered EINTR, the file is closed, and the request goes on.
Task<void> released_beneath(World& world) {
  (void)co_await world.kernel.ask(FUSE_INIT, FileId(), init(45));
  FileId id(co_await make_file(world, "f"));
  const fuse_write_in write{.fh = 1, .size = 1, .write_flags = FUSE_WRITE_KILL_SUIDGID};
  uint64_t first = world.kernel.send(FUSE_WRITE, id, write, 'x');  // asks for the attributes before it writes
  uint64_t second = world.kernel.send(
      FUSE_FALLOCATE, id, fuse_fallocate_in{.fh = 1, .length = 1, .mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE});
  PlayedKernel::Answer closed = co_await world.kernel.ask(FUSE_RELEASE, id, fuse_release_in{.fh = 1});
  EXPECT_EQ(closed.error, 0);
  (void)co_await world.kernel.answer_to(first);
  (void)co_await world.kernel.answer_to(second);
  EXPECT_EQ(world.files.open_files(), 0U);
  co_await until_ended(world);
}
TEST_F(FuseSessionTest, AFileMayBeClosedUnderARequestThatWasGivenUp) {
  play(released_beneath);
}

Task<void> stays_bounded(World& world) {
  (void)co_await make_file(world, "f");
  world.files.hold_reads(true);
  PlayedKernel::Answer found = co_await world.kernel.ask(FUSE_LOOKUP, kRootFile, std::string("f"));
  uint64_t node = 0;
  std::memcpy(&node, found.bytes.data(), sizeof node);
  std::vector<uint64_t> reads;
  for (int i = 0; i < 50; ++i)
    reads.push_back(world.kernel.send(FUSE_READ, FileId(node), fuse_read_in{.fh = 1, .size = 4096}));
  for (int i = 0; i < 1000; ++i) co_await yield();
  EXPECT_EQ(world.session.in_flight(), 4U);
  EXPECT_EQ(world.files.waiting_reads(), 4U);
  world.files.hold_reads(false);
  for (uint64_t unique : reads) {
    PlayedKernel::Answer answer = co_await world.kernel.answer_to(unique);
    EXPECT_EQ(answer.error, 0);
  }
  co_await until_ended(world);
}
TEST_F(FuseSessionTest, TakesNoMoreRequestsThanItsBound) {
  play(stays_bounded, {.max_requests = 4});
}
TEST_F(FuseSessionTest, TakesNoMoreBytesThanItsBound) {
  play(stays_bounded, {.max_bytes = 16384});
}

Task<void> interrupts_what_waits_for_room(World& world) {
  FileId id(co_await make_file(world, "f"));
  world.files.hold_reads(true);
  std::vector<uint64_t> reads;
  for (int i = 0; i < 10; ++i) reads.push_back(world.kernel.send(FUSE_READ, id, fuse_read_in{.fh = 1, .size = 4096}));
  for (int i = 0; i < 100; ++i) co_await yield();
  EXPECT_EQ(world.session.statistics().parked, 6U);
  world.kernel.send(FUSE_INTERRUPT, FileId(), fuse_interrupt_in{.unique = reads[9]});
  EXPECT_EQ((co_await world.kernel.answer_to(reads[9])).error, EINTR);
  EXPECT_EQ(world.session.statistics().parked, 5U);
  // Those that run are let go after their patience, and make room.
  const uint64_t other = world.kernel.send(FUSE_GETATTR, kRootFile, fuse_getattr_in{});
  for (int i = 0; i < 8; ++i) {
    world.kernel.send(FUSE_INTERRUPT, FileId(), fuse_interrupt_in{.unique = reads[static_cast<size_t>(i)]});
    EXPECT_EQ((co_await world.kernel.answer_to(reads[static_cast<size_t>(i)])).error, EINTR);
  }
  EXPECT_EQ((co_await world.kernel.answer_to(other)).error, 0);
  EXPECT_FALSE(world.kernel.answered(reads[8]));
  world.files.hold_reads(false);
  EXPECT_EQ((co_await world.kernel.answer_to(reads[8])).error, 0);
  co_await until_ended(world);
}
TEST_F(FuseSessionTest, AtTheBoundOfRequestsCallersCanStillBeKilled) {
  play(interrupts_what_waits_for_room, {.max_requests = 4, .interrupt_patience = milliseconds(5)});
}
TEST_F(FuseSessionTest, AtTheBoundOfBytesCallersCanStillBeKilled) {
  play(interrupts_what_waits_for_room, {.max_bytes = 16384, .interrupt_patience = milliseconds(5)});
}

// Its caller was let go, and the kernel has asked since for the attributes from before.
Task<void> changes_late(World& world) {
  FileId id(co_await make_file(world, "f"));
  world.files.keep(seconds(5));
  world.files.hold_changes();
  world.files.hold_reads(true);
  const uint64_t change = world.kernel.send(FUSE_SETATTR, id, fuse_setattr_in{.valid = FATTR_MODE, .mode = 0600});
  (void)co_await world.kernel.ask(FUSE_STATFS, kRootFile);
  world.kernel.send(FUSE_INTERRUPT, FileId(), fuse_interrupt_in{.unique = change});
  EXPECT_EQ((co_await world.kernel.answer_to(change)).error, EINTR);
  EXPECT_EQ(co_await mode_of(world, id), 0644U);
  EXPECT_TRUE(world.kernel.notified_.empty());
  world.files.hold_reads(false);
  for (int i = 0; i < 100; ++i) co_await yield();
  EXPECT_FALSE(world.kernel.notified_.empty());
  EXPECT_EQ(co_await mode_of(world, id), 0600U);
  co_await until_ended(world);
}
TEST_F(FuseSessionTest, AChangeThatComesAfterItsCallerWasLetGoIsToldToTheKernel) {
  play(changes_late, {.interrupt_patience = milliseconds(5)});
}

Task<void> parks_so_many_bytes(World& world) {
  FileId id(co_await make_file(world, "f"));
  world.files.hold_reads(true);
  const uint64_t read = world.kernel.send(FUSE_READ, id, fuse_read_in{.fh = 1, .size = 4096});
  std::vector<uint64_t> writes;
  for (uint64_t i = 0; i < 4; ++i)
    writes.push_back(
        world.kernel.send(FUSE_WRITE, id, fuse_write_in{.fh = 1, .offset = 4 * i, .size = 4}, uint32_t{7}));
  for (int i = 0; i < 100; ++i) co_await yield();
  EXPECT_EQ(world.session.statistics().parked, 2U);
  world.kernel.send(FUSE_INTERRUPT, FileId(), fuse_interrupt_in{.unique = writes[0]});
  for (int i = 0; i < 100; ++i) co_await yield();
  EXPECT_FALSE(world.kernel.answered(writes[0])) << "it is not read";
  world.files.hold_reads(false);
  for (uint64_t unique : writes) EXPECT_EQ((co_await world.kernel.answer_to(unique)).error, 0);
  EXPECT_EQ((co_await world.kernel.answer_to(read)).error, 0);
  EXPECT_EQ(world.session.statistics().parked, 0U);
  co_await until_ended(world);
}
TEST_F(FuseSessionTest, ParksNoMoreBytesThanItsBound) {
  play(parks_so_many_bytes, {.max_requests = 1, .max_parked = 8});
}

// The kernel has an answer in hand, and does not know the inode before it has put it in place.
Task<void> tells_again_of_what_comes_in(World& world) {
  world.files.keep(seconds(5));
  (void)co_await make_file(world, "f");
  world.kernel.unknown_ = 2;
  co_await world.files.write_elsewhere(kRootFile, "f", "y", true);
  EXPECT_EQ(world.kernel.notified_.size(), 3U);
  // SETATTR's are put in place without a look.
  world.kernel.notified_.clear();
  PlayedKernel::Answer found = co_await world.kernel.ask(FUSE_LOOKUP, kRootFile, std::string("f"));
  fuse_entry_out entry{};
  std::memcpy(&entry, found.bytes.data(), sizeof entry);
  const FileId id(entry.nodeid);
  co_await world.files.write_elsewhere(kRootFile, "f", "z", true);
  EXPECT_EQ(world.kernel.notified_.size(), 1U);
  (void)co_await world.kernel.ask(FUSE_SETATTR, id, fuse_setattr_in{.valid = FATTR_MODE, .mode = 0600});
  const Nanos begun = world.clock.now();
  co_await world.files.write_elsewhere(kRootFile, "f", "y", true);
  EXPECT_EQ(world.kernel.notified_.size(), 3U);
  EXPECT_GE(world.clock.now() - begun, milliseconds(10));
  // Later it has.
  (void)co_await world.kernel.ask(FUSE_SETATTR, id, fuse_setattr_in{.valid = FATTR_MODE, .mode = 0644});
  co_await world.clock.sleep(milliseconds(20));
  world.kernel.unknown_ = 1;
  co_await world.files.write_elsewhere(kRootFile, "f", "x", true);
  EXPECT_EQ(world.kernel.notified_.size(), 4U);
  co_await until_ended(world);
}
TEST_F(FuseSessionTest, AttributesThatTheKernelIsAboutToPutInPlaceAreDroppedToo) {
  play(tells_again_of_what_comes_in);
}

// However many the kernel is slow with, attributes go at once, and nothing is left out.
Task<void> leaves_none_out(World& world) {
  std::vector<FileId> files;
  for (int i = 0; i < 1100; ++i) files.push_back(FileId(co_await make_file(world, "f" + std::to_string(i))));
  for (size_t i = 0; i < files.size(); ++i)
    (void)co_await world.kernel.ask(FUSE_READ, files[i], fuse_read_in{.fh = i + 1, .size = 1});
  world.kernel.notify_hangs_ = true;
  Scope scope;
  for (size_t i = 0; i < files.size(); ++i)
    scope.spawn(world.files.write_elsewhere(kRootFile, "f" + std::to_string(i), "y", true));
  co_await world.clock.sleep(milliseconds(300));
  std::set<uint64_t> told;
  for (const std::string& body : world.kernel.bodies_) {
    fuse_notify_inval_inode_out out{};
    std::memcpy(&out, body.data(), sizeof out);
    told.insert(out.ino);
  }
  EXPECT_EQ(told.size(), files.size());
  world.kernel.released_.set();
  co_await scope.join();
  co_await until_ended(world);
}
TEST_F(FuseSessionTest, NoInvalidationIsLeftOut) {
  play(leaves_none_out, {.patience = milliseconds(30)});
}

Task<void> does_not_wait_for_ever(World& world) {
  FileId id(co_await make_file(world, "f"));
  (void)co_await world.kernel.ask(FUSE_WRITE, id, fuse_write_in{.fh = 1, .size = 1}, 'x');
  world.kernel.notify_hangs_ = true;
  co_await world.files.write_elsewhere(kRootFile, "f", "y", true);
  EXPECT_EQ(world.kernel.notified_, std::vector<int>{FUSE_NOTIFY_INVAL_INODE});
  EXPECT_EQ(world.session.statistics().late_invalidations, 1U);
  world.kernel.released_.set();
  co_await until_ended(world);
  EXPECT_TRUE(world.outcome.ok());
}
TEST_F(FuseSessionTest, WaitsForAStuckInvalidationOnlySoLong) {
  play(does_not_wait_for_ever, {.patience = milliseconds(30)});
}

// The source is cut to its half while its first piece is read.
Task<void> copies_what_shrinks(World& world) {
  FileId from(co_await make_file(world, "from"));
  FileId to(co_await make_file(world, "to"));
  const std::string block(kMiB - 1, 'x');  // and a NUL
  for (uint64_t i = 0; i < 2; ++i)
    (void)co_await world.kernel.ask(FUSE_WRITE, from, fuse_write_in{.fh = 1, .offset = i * kMiB, .size = kMiB}, block);
  world.files.hold_reads(true);
  const uint64_t copy =
      world.kernel.send(FUSE_COPY_FILE_RANGE, from,
                        fuse_copy_file_range_in{.fh_in = 1, .nodeid_out = to.packed(), .fh_out = 2, .len = 2 * kMiB});
  for (int i = 0; i < 1000 && world.files.waiting_reads() == 0; ++i) co_await yield();
  EXPECT_EQ(world.files.waiting_reads(), 1U);
  (void)co_await world.kernel.ask(FUSE_SETATTR, from, fuse_setattr_in{.valid = FATTR_SIZE, .size = kMiB});
  world.files.hold_reads(false);
  PlayedKernel::Answer answer = co_await world.kernel.answer_to(copy);
  fuse_write_out out{};
  std::memcpy(&out, answer.bytes.data(), std::min(sizeof out, answer.bytes.size()));
  EXPECT_EQ(out.size, kMiB);
  EXPECT_EQ(world.files.size_of(to), kMiB) << "nothing behind the source's end was touched";
  co_await until_ended(world);
}
TEST_F(FuseSessionTest, ACopyEndsWhereItsSourceEndsByThen) {
  play(copies_what_shrinks);
}

Task<void> ends_in_time(World& world) {
  FileId id(co_await make_file(world, "f"));
  world.files.hold_reads(true);
  world.kernel.send(FUSE_READ, id, fuse_read_in{.fh = 1, .size = 10});
  co_await until_ended(world);
  EXPECT_EQ(world.outcome.code(), Code::kTimeout);
}
TEST_F(FuseSessionTest, EndsEvenIfARequestIsNeverAnswered) {
  play(ends_in_time, {.drain = milliseconds(30)});
}

// --- One session after another ---

struct Successor {
  explicit Successor(World& world) : session(world.reactor.env(), world.files, world.kernel) {}
  FuseSession session;
  bool ended = false;
  Scope scope;
};
Task<void> serve_on(Successor* successor) {
  EXPECT_TRUE((co_await successor->session.run()).ok());
  successor->ended = true;
}
Task<void> until_ended(World& world, Successor& successor) {
  world.kernel.unmount();
  while (!successor.ended) co_await yield();
}
FuseHandover as_bytes(const FuseHandover& handover) {
  return *decode<FuseHandover>(encode(handover));
}
Task<void> say_hello(World& world) {
  (void)co_await world.kernel.ask(FUSE_INIT, FileId(), init(45));
}
fuse_lk_in lock_of(uint64_t fh, uint64_t owner, uint32_t type = F_WRLCK) {
  return {.fh = fh, .owner = owner, .lk = {.start = 0, .end = 99, .type = type, .pid = 1}, .lk_flags = 0};
}

Task<void> goes_on_elsewhere(World& world) {
  co_await say_hello(world);
  FileId id(co_await make_file(world, "f"));
  (void)co_await world.kernel.ask(FUSE_LOOKUP, kRootFile, std::string("f"));
  (void)co_await world.kernel.ask(FUSE_WRITE, id, fuse_write_in{.fh = 1, .size = 1}, 'x');
  EXPECT_EQ((co_await world.kernel.ask(FUSE_SETLK, id, lock_of(1, 7))).error, 0);
  const uint64_t waiter = world.kernel.send(FUSE_SETLKW, id, lock_of(1, 8));
  const uint64_t signalled = world.kernel.send(FUSE_SETLKW, id, lock_of(1, 9));
  for (int i = 0; i < 100; ++i) co_await yield();
  EXPECT_TRUE((co_await world.session.pause(seconds(1))).ok());
  const uint64_t early = world.kernel.send(FUSE_READ, id, fuse_read_in{.fh = 1, .size = 10});
  world.kernel.send(FUSE_INTERRUPT, FileId(), fuse_interrupt_in{.unique = signalled});
  co_await world.clock.sleep(milliseconds(20));
  EXPECT_FALSE(world.kernel.answered(early) || world.kernel.answered(waiter));

  Successor next(world);
  EXPECT_TRUE((co_await next.session.go_on(as_bytes(world.session.hand_over()))).ok());
  EXPECT_TRUE(next.session.initialised().is_set());
  next.scope.spawn(serve_on(&next));
  EXPECT_EQ((co_await world.kernel.answer_to(early)).bytes, "x");
  EXPECT_EQ((co_await world.kernel.answer_to(signalled)).error, EINTR);
  EXPECT_EQ((co_await world.kernel.ask(FUSE_SETLK, id, lock_of(1, 10))).error, EAGAIN);
  EXPECT_FALSE(world.kernel.answered(waiter));
  EXPECT_EQ((co_await world.kernel.ask(FUSE_SETLK, id, lock_of(1, 7, F_UNLCK))).error, 0);
  EXPECT_EQ((co_await world.kernel.answer_to(waiter)).error, 0);

  PlayedKernel::Answer opened = co_await world.kernel.ask(FUSE_OPEN, id, fuse_open_in{});
  fuse_open_out out{};
  std::memcpy(&out, opened.bytes.data(), sizeof out);
  EXPECT_EQ(out.fh, 2U) << "no name of an open file is given twice";
  EXPECT_EQ((co_await world.kernel.ask(FUSE_RELEASE, id, fuse_release_in{.fh = 1})).error, 0);
  EXPECT_EQ((co_await world.kernel.ask(FUSE_RELEASE, id, fuse_release_in{.fh = 2})).error, 0);
  (void)co_await world.kernel.ask(FUSE_STATFS, kRootFile);
  const uint64_t known = next.session.statistics().nodes;
  world.kernel.send(FUSE_FORGET, id, fuse_forget_in{2});
  (void)co_await world.kernel.ask(FUSE_STATFS, kRootFile);
  EXPECT_EQ(next.session.statistics().nodes, known - 1) << "lookups are counted on";
  co_await until_ended(world, next);
}
TEST_F(FuseSessionTest, AnotherGoesOnWithWhatIsOpenKnownAndAwaited) {
  play(goes_on_elsewhere);
}

Task<void> tells_each_of_a_loss(World& world) {
  co_await say_hello(world);
  FileId id(co_await make_file(world, "f"));
  (void)co_await world.kernel.ask(FUSE_OPEN, id, fuse_open_in{.flags = O_RDWR});
  auto synced = [&world, id](uint64_t fh) -> Task<int> {
    co_return (co_await world.kernel.ask(FUSE_FSYNC, id, fuse_fsync_in{.fh = fh})).error;
  };
  EXPECT_EQ(co_await synced(1), 0);
  world.files.lose(id);
  EXPECT_EQ(co_await synced(2), EIO);
  EXPECT_EQ(co_await synced(2), 0);
  EXPECT_EQ(co_await synced(3), EBADF);
  EXPECT_TRUE((co_await world.session.pause(seconds(1))).ok());
  Successor next(world);
  EXPECT_TRUE((co_await next.session.go_on(as_bytes(world.session.hand_over()))).ok());
  next.scope.spawn(serve_on(&next));
  EXPECT_EQ(co_await synced(2), 0);
  EXPECT_EQ(co_await synced(1), EIO) << "through the other handle it was not told";
  EXPECT_EQ(co_await synced(1), 0);
  co_await until_ended(world, next);
}
TEST_F(FuseSessionTest, EachHandleIsToldOnceOfWhatWasLostAlsoByASuccessor) {
  play(tells_each_of_a_loss);
}

Task<void> syncs_what_one_write_asks_for(World& world) {
  co_await say_hello(world);
  FileId id(co_await make_file(world, "f"));
  (void)co_await world.kernel.ask(FUSE_OPEN, id, fuse_open_in{.flags = O_WRONLY | O_APPEND});
  auto written = [&world, id](uint32_t flags) -> Task<int> {
    co_return (co_await world.kernel.ask(FUSE_WRITE, id, fuse_write_in{.fh = 2, .size = 1, .flags = flags}, 'x')).error;
  };
  EXPECT_EQ(co_await written(O_WRONLY | O_APPEND), 0);
  EXPECT_EQ(world.files.syncs(), 0U);
  EXPECT_EQ(co_await written(O_WRONLY | O_APPEND | O_DSYNC), 0);
  EXPECT_EQ(world.files.syncs(), 1U);
  world.files.lose(id);
  EXPECT_EQ(co_await written(O_WRONLY | O_APPEND | O_SYNC), EIO);
  EXPECT_EQ(co_await written(O_WRONLY | O_APPEND | O_SYNC), 0);
  EXPECT_EQ(world.files.syncs(), 3U);
  co_await until_ended(world);
}
TEST_F(FuseSessionTest, AWriteThatAsksForItIsDurableOnReturn) {
  play(syncs_what_one_write_asks_for);
}

Task<void> goes_on_itself(World& world) {
  co_await say_hello(world);
  FileId id(co_await make_file(world, "f"));
  EXPECT_EQ((co_await world.kernel.ask(FUSE_SETLK, id, lock_of(1, 7))).error, 0);
  const uint64_t waiter = world.kernel.send(FUSE_SETLKW, id, lock_of(1, 8));
  for (int round = 0; round < 3; ++round) {
    EXPECT_TRUE((co_await world.session.pause(seconds(1))).ok());
    const uint64_t early = world.kernel.send(FUSE_STATFS, kRootFile);
    co_await world.clock.sleep(milliseconds(5));
    EXPECT_FALSE(world.kernel.answered(early));
    world.session.resume();
    EXPECT_EQ((co_await world.kernel.answer_to(early)).error, 0);
  }
  world.files.hold_reads(true);
  const uint64_t slow = world.kernel.send(FUSE_READ, id, fuse_read_in{.fh = 1, .size = 10});
  (void)co_await world.kernel.ask(FUSE_STATFS, kRootFile);
  EXPECT_EQ((co_await world.session.pause(milliseconds(30))).code(), Code::kTimeout);
  EXPECT_EQ((co_await world.kernel.ask(FUSE_STATFS, kRootFile)).error, 0) << "nothing has happened";
  world.files.hold_reads(false);
  EXPECT_EQ((co_await world.kernel.answer_to(slow)).error, 0);
  EXPECT_FALSE(world.kernel.answered(waiter));
  EXPECT_EQ((co_await world.kernel.ask(FUSE_SETLK, id, lock_of(1, 7, F_UNLCK))).error, 0);
  EXPECT_EQ((co_await world.kernel.answer_to(waiter)).error, 0);
  co_await until_ended(world);
  EXPECT_TRUE(world.outcome.ok());
}
TEST_F(FuseSessionTest, WhoIsNotSucceededGoesOn) {
  play(goes_on_itself);
}

Task<void> room_is_waited_for(World& world) {
  co_await say_hello(world);
  FileId id(co_await make_file(world, "f"));
  world.files.hold_reads(true);
  std::vector<uint64_t> reads;
  for (int i = 0; i < 10; ++i) reads.push_back(world.kernel.send(FUSE_READ, id, fuse_read_in{.fh = 1, .size = 4096}));
  for (int i = 0; i < 1000; ++i) co_await yield();
  EXPECT_EQ((co_await world.session.pause(milliseconds(30))).code(), Code::kTimeout) << "one is in hand";
  world.files.hold_reads(false);
  EXPECT_TRUE((co_await world.session.pause(seconds(1))).ok());
  world.session.resume();
  for (uint64_t unique : reads) EXPECT_EQ((co_await world.kernel.answer_to(unique)).error, 0);
  co_await until_ended(world);
}
TEST_F(FuseSessionTest, ARequestThatWaitsForRoomIsNotForgottenByAPause) {
  play(room_is_waited_for, {.max_requests = 4});
}

Task<void> tells_again(World& world) {
  co_await say_hello(world);
  FileId f(co_await make_file(world, "f"));
  FileId g(co_await make_file(world, "g"));
  (void)co_await world.kernel.ask(FUSE_READ, f, fuse_read_in{.fh = 1, .size = 10});
  (void)co_await world.kernel.ask(FUSE_READ, g, fuse_read_in{.fh = 2, .size = 10});
  EXPECT_TRUE((co_await world.session.pause(seconds(1))).ok());
  world.kernel.notify_hangs_ = true;
  const Nanos begun = world.clock.now();
  co_await world.files.write_elsewhere(kRootFile, "f", "y", true);
  co_await world.files.write_elsewhere(kRootFile, "g", "y", true);
  EXPECT_LT(world.clock.now() - begun, milliseconds(500)) << "a kernel that waits for a request is not waited for";
  FuseHandover handover = as_bytes(world.session.hand_over());
  for (const FuseHandover::Node& node : handover.nodes) EXPECT_TRUE(node.outdated);
  world.kernel.notified_.clear();
  world.kernel.notify_hangs_ = false;
  Successor next(world);
  EXPECT_TRUE((co_await next.session.go_on(std::move(handover))).ok());
  next.scope.spawn(serve_on(&next));
  (void)co_await world.kernel.ask(FUSE_STATFS, kRootFile);
  EXPECT_EQ(world.kernel.notified_, (std::vector<int>{FUSE_NOTIFY_INVAL_INODE, FUSE_NOTIFY_INVAL_INODE}));
  world.kernel.released_.set();
  co_await until_ended(world, next);
}
TEST_F(FuseSessionTest, WhatTheKernelHasYetToDropIsToldAgain) {
  play(tells_again);
}

Task<void> refuses_what_it_does_not_know(World& world) {
  EXPECT_EQ((co_await world.session.pause(seconds(1))).code(), Code::kUnavailable) << "before INIT";
  co_await say_hello(world);
  EXPECT_TRUE((co_await world.session.pause(seconds(1))).ok());
  const FuseHandover handover = world.session.hand_over();
  for (int what = 0; what < 4; ++what) {
    FuseHandover wrong = handover;
    if (what == 0) wrong.agreed |= uint64_t{1} << 62;
    if (what == 1) wrong.minor = kFuseMinor + 1;
    if (what == 2) wrong.max_write = kFuseMaxWrite * 2;
    if (what == 3) wrong.open.push_back({.handle = 1, .file = FileId(4711), .mode = FuseHandover::kRead});
    Successor next(world);
    EXPECT_EQ((co_await next.session.go_on(std::move(wrong))).code(), what < 3 ? Code::kNotSupported : Code::kNotFound);
  }
  world.session.resume();
  co_await until_ended(world);
}
TEST_F(FuseSessionTest, BadInputMoreThanThisVersionKnowsIsNotTakenOver) {
  play(refuses_what_it_does_not_know);
}

Task<void> seeks_many_locks(World& world) {
  co_await say_hello(world);
  FileId id(co_await make_file(world, "f"));
  EXPECT_EQ((co_await world.kernel.ask(FUSE_SETLK, id, lock_of(1, 1))).error, 0);
  std::vector<uint64_t> seekers;
  for (uint64_t i = 0; i < 1100; ++i) seekers.push_back(world.kernel.send(FUSE_SETLKW, id, lock_of(1, 2 + i)));
  for (int i = 0; i < 1000; ++i) co_await yield();
  EXPECT_EQ(world.files.waiting_locks(), 256U);
  EXPECT_EQ((co_await world.kernel.ask(FUSE_SETLK, id, lock_of(1, 1, F_UNLCK))).error, 0);
  size_t granted = 0;
  while (granted == 0) {
    co_await world.clock.sleep(milliseconds(10));
    for (uint64_t unique : seekers) granted += world.kernel.answered(unique) ? 1 : 0;
  }
  EXPECT_EQ(granted, 1U);
  for (uint64_t unique : seekers)
    if (!world.kernel.answered(unique))
      world.kernel.send(FUSE_INTERRUPT, FileId(), fuse_interrupt_in{.unique = unique});
  for (uint64_t unique : seekers) (void)co_await world.kernel.answer_to(unique);
  co_await until_ended(world);
}
TEST_F(FuseSessionTest, HoweverManySeekALockOnlySoManyAsk) {
  play(seeks_many_locks, {.interrupt_patience = milliseconds(5)});
}

Task<void> stands_in_line(World& world) {
  co_await say_hello(world);
  FileId id(co_await make_file(world, "f"));
  FileId other(co_await make_file(world, "g"));
  EXPECT_EQ((co_await world.kernel.ask(FUSE_SETLK, id, lock_of(1, 1))).error, 0);
  std::vector<uint64_t> seekers;
  for (uint64_t i = 0; i < 2000; ++i) seekers.push_back(world.kernel.send(FUSE_SETLKW, id, lock_of(1, 2 + i)));
  for (int i = 0; i < 1000; ++i) co_await yield();
  while (world.session.statistics().parked > 0 || world.files.waiting_locks() < 256) co_await yield();
  // None of which waits for a turn to end.
  const uint64_t free = world.kernel.send(FUSE_SETLKW, other, lock_of(2, 1));
  world.kernel.send(FUSE_INTERRUPT, FileId(), fuse_interrupt_in{.unique = seekers.back()});
  for (int i = 0; i < 1000; ++i) co_await yield();
  EXPECT_TRUE(world.kernel.answered(free) && world.kernel.answered(seekers.back()));
  for (uint64_t unique : seekers)
    if (unique != seekers.back()) world.kernel.send(FUSE_INTERRUPT, FileId(), fuse_interrupt_in{.unique = unique});
  for (int i = 0; i < 1000; ++i) co_await yield();
  EXPECT_GE(std::ranges::count_if(seekers, [&](uint64_t unique) { return world.kernel.answered(unique); }), 2000 - 256);
  for (uint64_t unique : seekers) EXPECT_EQ((co_await world.kernel.answer_to(unique)).error, EINTR);
  EXPECT_EQ((co_await world.kernel.answer_to(free)).error, 0);
  co_await until_ended(world);
}
TEST_F(FuseSessionTest, AFreeLockIsNotBehindWhoWaitsForAnotherAndWhoIsInLineCanBeKilled) {
  play(stands_in_line);
}

// --- The record ---

MountHandover some_handover() {
  MountHandover out{.directory = "/mnt", .dirty_limit = 1, .read_cache = 2};
  out.client.client = ClientId(3);
  out.client.sessions.push_back({PartitionId(1), SessionId(4), 5, {SegmentId(6, 7)}});
  out.client.open = {FileId(8)};
  out.client.lockers.push_back({FileId(8), 9, true});
  out.client.lost.push_back({FileId(8), Code::kStale, "lost"});
  out.session.next_handle = 3;
  out.session.nodes.push_back({FileId(8), 2, true, false});
  out.session.open.push_back({2, FileId(8), FuseHandover::kRead});
  out.session.waiters.push_back({.unique = 10, .file = FileId(8)});
  out.session.told = {2};
  return out;
}

TEST(MountHandover, IsWhatItWas) {
  const std::string bytes = encode_mount_handover(some_handover());
  Result<MountHandover> read = decode_mount_handover(bytes);
  ASSERT_TRUE(read.ok()) << read.error().text();
  EXPECT_EQ(encode_mount_handover(*read), bytes);
  EXPECT_EQ(read->client.sessions[0].next_sequence, 5U);
  EXPECT_EQ(read->session.nodes[0].lookups, 2U);
}

TEST(MountHandover, BadInputANewerOrDamagedOneIsRefused) {
  std::string bytes = encode_mount_handover(some_handover());
  for (size_t size = 0; size < bytes.size(); ++size)
    EXPECT_EQ(decode_mount_handover(std::string_view(bytes).substr(0, size)).code(), Code::kCorrupt) << size;
  bytes[0] = static_cast<char>(MountHandover::kFormat + 1);
  Result<MountHandover> newer = decode_mount_handover(bytes);
  EXPECT_EQ(newer.code(), Code::kUnsupportedFormat);
  EXPECT_NE(newer.error().message().find("newer"), std::string::npos);
  MountHandover twice = some_handover();
  twice.session.open.push_back(twice.session.open[0]);
  EXPECT_EQ(decode_mount_handover(encode_mount_handover(twice)).code(), Code::kCorrupt);
  MountHandover unnamed = some_handover();
  unnamed.session.open[0].handle = 3;  // not yet given
  EXPECT_EQ(decode_mount_handover(encode_mount_handover(unnamed)).code(), Code::kCorrupt);
}

}  // namespace
}  // namespace headrace
