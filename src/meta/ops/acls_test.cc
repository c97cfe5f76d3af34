#include "meta/ops/acls.h"

#include <gtest/gtest.h>

#include <cstring>
#include <sstream>

#include "meta/ops/name_changes.h"
#include "meta/ops/two_phase.h"
#include "meta/partition_test_support.h"

namespace headrace {
namespace {

using User = OnePartition::User;

// "w7 u6:1000 g5 n4:50 m7 o0": the owner, a named user, the group, a named group, the mask, the others.
std::string acl(const std::string& text) {
  auto entry = [](uint16_t tag, uint16_t permissions, uint32_t id) {
    std::string out(8, '\0');
    std::memcpy(out.data(), &tag, 2);
    std::memcpy(out.data() + 2, &permissions, 2);
    std::memcpy(out.data() + 4, &id, 4);
    return out;
  };
  std::string out("\2\0\0\0", 4);
  std::istringstream words(text);
  std::string word;
  while (words >> word) {
    const auto permissions = static_cast<uint16_t>(word[1] - '0');
    const uint32_t id = word.size() > 3 ? static_cast<uint32_t>(std::stoul(word.substr(3))) : ~0U;
    const uint16_t tag = word[0] == 'w'   ? 1
                         : word[0] == 'u' ? 2
                         : word[0] == 'g' ? 4
                         : word[0] == 'n' ? 8
                         : word[0] == 'm' ? 16
                                          : 32;
    out += entry(tag, permissions, id);
  }
  return out;
}
const std::string kUser9 = "w7 u6:9 g5 m7 o0";
const std::string kAccess(kAccessAcl);
const std::string kDefault(kDefaultAcl);

struct WithAcls : OnePartition {
  using OnePartition::OnePartition;
  Result<EntryReply> make(User& u, const std::string& name, FileType type, uint32_t mode, FileId parent = kRootFile,
                          uint32_t masked = 0) {
    Make request;
    request.ticket = u.next();
    request.parent = parent;
    request.name = name;
    request.type = type;
    request.mode = mode & ~masked;
    request.masked = masked;
    if (type == FileType::kSymlink) request.target = "to";
    Result<EntryReply> made = ask(request);
    if (made.ok() && made->directory_grant) must(ask(GrantRelease{u.session, {made->directory_grant->id}}));
    return made;
  }
  Code set(User& u, FileId file, const std::string& name, const std::string& value, bool clear_setgid = false) {
    return ask(SetXattr{u.next(), file, name, value, false, false, clear_setgid}).code();
  }
  Code chmod(User& u, FileId file, uint32_t mode) {
    SetAttributes request;
    request.ticket = u.next();
    request.file = file;
    request.mask = kSetMode;
    request.mode = mode;
    return ask(request).code();
  }
  // "" where there is none.
  std::string get(FileId file, const std::string& name) {
    Result<TextReply> reply = ask(GetXattr{file, name});
    EXPECT_TRUE(reply.ok() || reply.code() == Code::kNoAttribute);
    return reply.ok() ? reply->text : "";
  }
  std::vector<std::string> list(FileId file) { return must(ask(ListXattr{file})).names; }
};

TEST(Acls, TheModeFollowsTheAccessAclAndItTheMode) {
  WithAcls p(1);
  User u = p.user();
  FileId file = p.create(u, "a");
  EXPECT_EQ(p.set(u, file, kAccess, acl(kUser9)), Code::kOk);
  EXPECT_EQ(p.stat(u, file).mode, 0770u);
  EXPECT_EQ(p.get(file, kAccess), acl(kUser9));
  p.check_rows();
  EXPECT_EQ(p.chmod(u, file, 0641), Code::kOk);
  EXPECT_EQ(p.get(file, kAccess), acl("w6 u6:9 g5 m4 o1"));
  p.check_rows();
  EXPECT_EQ(p.set(u, file, kAccess, acl("w7 u1:3 n1:4 g1 m5 o4").substr(0, 12)), Code::kInvalid);
  EXPECT_EQ(p.stat(u, file).mode, 0641u);
  // Without entries it goes, and the mode stays.
  EXPECT_EQ(p.set(u, file, kAccess, acl("")), Code::kOk);
  EXPECT_EQ(p.stat(u, file).mode, 0641u);
  EXPECT_TRUE(p.list(file).empty());
  EXPECT_EQ(p.ask(RemoveXattr{u.next(), file, kAccess}).code(), Code::kOk);
  p.check_rows();
}

TEST(Acls, OneThatIsButAModeIsNotKept) {
  WithAcls p(2);
  User u = p.user();
  FileId file = p.create(u, "a");
  EXPECT_EQ(p.set(u, file, kAccess, acl(kUser9)), Code::kOk);
  EXPECT_EQ(p.set(u, file, "user.x", "1"), Code::kOk);
  EXPECT_EQ(p.set(u, file, kAccess, acl("w6 g4 o0")), Code::kOk);
  EXPECT_EQ(p.stat(u, file).mode, 0640u);
  EXPECT_EQ(p.list(file), std::vector<std::string>{"user.x"});
  EXPECT_EQ(p.set(u, file, kAccess, acl("w4 g4 o4")), Code::kOk);
  EXPECT_EQ(p.stat(u, file).mode, 0444u);
  p.check_rows();
}

TEST(Acls, ClearTheSetGroupIdOfWhoeverIsNotOfTheGroup) {
  WithAcls p(3);
  User u = p.user();
  FileId file = p.create(u, "a");
  EXPECT_EQ(p.chmod(u, file, 06755), Code::kOk);
  EXPECT_EQ(p.set(u, file, kAccess, acl(kUser9)), Code::kOk);
  EXPECT_EQ(p.stat(u, file).mode, 06770u);
  EXPECT_EQ(p.set(u, file, kAccess, acl("w7 g5 o5"), true), Code::kOk);
  EXPECT_EQ(p.stat(u, file).mode, 04755u);
}

TEST(Acls, AreOfWhatCanHaveThem) {
  WithAcls p(4);
  User u = p.user();
  FileId file = p.create(u, "a");
  FileId link = p.must(p.make(u, "l", FileType::kSymlink, 0777)).attributes.id;
  EXPECT_EQ(p.set(u, file, kDefault, acl(kUser9)), Code::kAccess);
  EXPECT_EQ(p.set(u, file, kDefault, ""), Code::kOk);
  EXPECT_EQ(p.set(u, link, kAccess, acl(kUser9)), Code::kNotSupported);
  EXPECT_EQ(p.set(u, file, kAccess, std::string("\1\0\0\0", 4)), Code::kNotSupported);
  EXPECT_EQ(p.set(u, file, kAccess, std::string(5000, 'x')), Code::kNotSupported);
  std::string large = acl("w7");
  for (int i = 0; i < 600; ++i) large += acl("u7:1").substr(4);
  EXPECT_EQ(p.set(u, file, kAccess, large + acl("g7 m7 o7").substr(4)), Code::kTooLarge);
  EXPECT_TRUE(p.list(file).empty());
  p.check_rows();
}

TEST(Acls, ADefaultAclIsInherited) {
  WithAcls p(5, 30);
  User u = p.user();
  FileId d = p.must(p.make(u, "d", FileType::kDirectory, 0755)).attributes.id;
  EXPECT_EQ(p.set(u, d, kDefault, acl(kUser9)), Code::kOk);
  EXPECT_EQ(p.stat(u, d).mode, 0755u);
  EntryReply f = p.must(p.make(u, "f", FileType::kFile, 0666, d, 0022));
  EXPECT_EQ(f.attributes.mode, 0660u) << "no umask where a default ACL is";
  EXPECT_FALSE(f.no_xattrs);
  EXPECT_EQ(p.get(f.attributes.id, kAccess), acl("w6 u6:9 g5 m6 o0"));
  EXPECT_EQ(p.get(f.attributes.id, kDefault), "");
  EntryReply e = p.must(p.make(u, "e", FileType::kDirectory, 01777, d, 0022));
  EXPECT_EQ(e.attributes.mode, 01770u);
  EXPECT_EQ(p.get(e.attributes.id, kAccess), acl(kUser9));
  EXPECT_EQ(p.get(e.attributes.id, kDefault), acl(kUser9));
  EntryReply fifo = p.must(p.make(u, "p", FileType::kFifo, 0640, e.attributes.id));
  EXPECT_EQ(p.get(fifo.attributes.id, kAccess), acl("w6 u6:9 g5 m4 o0"));
  EntryReply link = p.must(p.make(u, "l", FileType::kSymlink, 0777, e.attributes.id));
  EXPECT_EQ(link.attributes.mode, 0777u);
  EXPECT_TRUE(link.no_xattrs);
  Make unnamed;
  unnamed.ticket = u.next();
  unnamed.parent = d;
  unnamed.mode = 0600;
  unnamed.masked = 0066;
  unnamed.unnamed = unnamed.keep_open = true;
  Attributes made = p.must(p.ask(unnamed)).attributes;
  EXPECT_EQ(made.mode, 0660u);
  EXPECT_EQ(p.get(made.id, kAccess), acl("w6 u6:9 g5 m6 o0"));
  p.check_rows();
  // One that is but a mode: nothing but the mode comes of it.
  EXPECT_EQ(p.set(u, e.attributes.id, kDefault, acl("w7 g5 o0")), Code::kOk);
  EntryReply plain = p.must(p.make(u, "g", FileType::kFile, 0666, e.attributes.id));
  EXPECT_EQ(plain.attributes.mode, 0640u);
  EXPECT_TRUE(plain.no_xattrs);
  EntryReply below = p.must(p.make(u, "h", FileType::kDirectory, 0777, e.attributes.id));
  EXPECT_EQ(p.list(below.attributes.id), std::vector<std::string>{kDefault});
  p.check_rows();
  p.fail_over();
  p.claim(u);
  EXPECT_EQ(p.get(f.attributes.id, kAccess), acl("w6 u6:9 g5 m6 o0"));
  p.check_rows();
  EXPECT_EQ(p.ask(RemoveXattr{u.next(), d, kDefault}).code(), Code::kOk);
  EXPECT_EQ(p.must(p.make(u, "after", FileType::kFile, 0666, d, 0022)).attributes.mode, 0644u);
  p.check_rows();
}

TEST(Acls, ADirectoryThatAnotherPartitionMakesInherits) {
  OnePartition p(6);
  User u = p.user();
  Step make;
  make.kind = StepKind::kMakeDirectory;
  make.slot = Slot(5);
  make.attributes.mode = 0750;
  make.attributes.parent = kRootFile;
  make.name = acl(kUser9);
  Prepare request{{PartitionId(9), PartitionEpoch(1), 1}, {make}};
  StepsReply done = p.must(p.world.run(prepare(*p.partition, request)));
  EXPECT_EQ(done.attributes.at(0).mode, 0750u);
  const FileId made = done.attributes.at(0).id;
  p.must(p.world.run(finish(*p.partition, {request.transaction, true})));
  EXPECT_EQ(p.must(p.ask(GetXattr{made, kAccess})).text, acl("w7 u6:9 g5 m5 o0"));
  EXPECT_EQ(p.must(p.ask(GetXattr{made, kDefault})).text, acl(kUser9));
  p.check_rows();
  make.name = "no ACL";
  request = {{PartitionId(9), PartitionEpoch(1), 2}, {make}};
  EXPECT_FALSE(p.world.run(prepare(*p.partition, request)).ok());
}

TEST(Acls, FollowAModeThatWasSetUnderAWriteGrant) {
  WithAcls p(7);
  User u = p.user();
  FileId file = p.create(u, "a");
  EXPECT_EQ(p.set(u, file, kAccess, acl(kUser9)), Code::kOk);
  NameChange change;
  change.kind = NameChangeKind::kSetAttributes;
  change.file = file;
  change.file_grant = u.grants[file].id;
  change.mask = kSetMode;
  change.mode = 0604;
  change.time = 1;
  EXPECT_EQ(p.must(p.ask(ChangeNames{u.next(), {change}})).codes, std::vector<uint16_t>{0});
  EXPECT_EQ(p.get(file, kAccess), acl("w6 u6:9 g5 m0 o4"));
  p.check_rows();
}

TEST(Acls, RepliesSayWhereNoneAre) {
  WithAcls p(8);
  User u = p.user();
  FileId d = p.must(p.make(u, "d", FileType::kDirectory, 0755)).attributes.id;
  EXPECT_TRUE(p.must(p.ask(GetAttributes{u.session, d, GrantKind::kNone})).no_xattrs);
  EXPECT_TRUE(p.must(p.ask(GrantAcquire{u.session, d, GrantKind::kRead})).no_xattrs);
  EXPECT_EQ(p.set(u, d, kDefault, acl(kUser9)), Code::kOk);
  EXPECT_FALSE(p.must(p.ask(GetAttributes{u.session, d, GrantKind::kNone})).no_xattrs);
  EXPECT_FALSE(p.must(p.ask(GrantAcquire{u.session, d, GrantKind::kRead})).no_xattrs);
  EXPECT_FALSE(p.must(p.ask(Lookup{u.session, kRootFile, "d"})).no_xattrs);
  Make request;
  request.ticket = u.next();
  request.parent = d;
  request.name = "f";
  request.want_directory_write = true;
  EXPECT_FALSE(p.must(p.ask(request)).directory_no_xattrs);
  request.ticket = u.next();
  request.parent = kRootFile;
  EXPECT_TRUE(p.must(p.ask(request)).directory_no_xattrs);
}

TEST(Acls, GoWithTheirFile) {
  WithAcls p(9);
  User u = p.user();
  FileId d = p.must(p.make(u, "d", FileType::kDirectory, 0755)).attributes.id;
  EXPECT_EQ(p.set(u, d, kDefault, acl(kUser9)), Code::kOk);
  FileId f = p.must(p.make(u, "f", FileType::kFile, 0644, d)).attributes.id;
  p.must(p.ask(Unlink{u.next(), d, "f", false, 0}));
  p.must(p.ask(Unlink{u.next(), kRootFile, "d", true, 0}));
  p.settle();
  EXPECT_EQ(p.ask(GetXattr{f, kAccess}).code(), Code::kNotFound);
  EXPECT_EQ(p.must(p.world.run(leftover_rows(*p.partition))), std::vector<std::string>());
  p.check_rows();
}

}  // namespace
}  // namespace headrace
