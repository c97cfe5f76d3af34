#include "meta/ops/name_changes.h"

#include <gtest/gtest.h>

#include "meta/partition_test_support.h"

namespace headrace {
namespace {

using User = OnePartition::User;

// A client that writes the root directory.
struct Writer1 : OnePartition {
  explicit Writer1(uint64_t seed, uint32_t miss_percent = 0) : OnePartition(seed, miss_percent), me(user()) {
    grant(me, kRootFile);
    next_id = must(ask(ReserveFiles{me.session, 100})).first;
  }
  NameChange change(NameChangeKind kind, const std::string& name, FileId file) {
    NameChange c;
    c.kind = kind;
    c.directory = kRootFile;
    c.directory_grant = me.grants[kRootFile].id;
    c.name = name;
    c.file = file;
    c.file_grant = me.grants[file].id;
    c.time = ++time;
    return c;
  }
  NameChange make(const std::string& name) {
    FileId file(Slot(0), next_id++);
    me.grants[file] = {file, GrantKind::kWrite, GrantId(1000 + file.local())};
    NameChange c = change(NameChangeKind::kMake, name, file);
    c.type = FileType::kFile;
    c.mode = 0640;
    c.uid = 7;
    c.atime = c.mtime = c.ctime = c.time;
    return c;
  }
  std::vector<Code> send(std::vector<NameChange> changes) {
    last = ChangeNames{me.next(), std::move(changes)};
    std::vector<Code> codes;
    Result<ChangeNamesReply> reply = ask(last);
    if (!reply.ok()) return {reply.code(), reply.code()};  // never what a change alone says
    for (uint16_t code : reply->codes) codes.push_back(static_cast<Code>(code));
    return codes;
  }
  Result<Attributes> look(const std::string& name) {
    Result<EntryReply> reply = ask(Lookup{me.session, kRootFile, name});
    if (!reply.ok()) return std::move(reply).error();
    return reply->attributes;
  }
  std::string names() {
    std::string out;
    for (const DirectoryEntry& entry : must(ask(ReadDirectory{me.session, kRootFile})).entries) out += entry.name + " ";
    return out;
  }
  User me;
  uint64_t next_id = 0;
  int64_t time = 5'000'000'000'000'000'000;
  ChangeNames last;
};

constexpr Code kRefused[] = {Code::kStale, Code::kStale};
const std::vector<Code> kAllStale(std::begin(kRefused), std::end(kRefused));

TEST(NameChanges, ManyAreOneRecordInTheirOrder) {
  Writer1 p(1);
  const uint64_t entries = p.must(p.ask(GrantAcquire{p.me.session, kRootFile, GrantKind::kWrite})).entries;
  EXPECT_EQ(entries, 0u);
  const uint64_t appends = p.targets.appends;
  NameChange b = p.make("b");
  NameChange a = p.make("a");
  NameChange c = p.make("c");
  NameChange chmod = p.change(NameChangeKind::kSetAttributes, "", a.file);
  chmod.mask = kSetMode | kSetMtime;
  chmod.mode = 0600;
  chmod.mtime = 12345;
  EXPECT_EQ(p.send({b, a, c, chmod, p.change(NameChangeKind::kUnlink, "c", c.file)}), std::vector<Code>(5, Code::kOk));
  EXPECT_EQ(p.targets.appends, appends + 1);
  EXPECT_EQ(p.names(), "b a ");
  Attributes seen = p.must(p.look("a"));
  EXPECT_EQ(seen.id, a.file);
  EXPECT_EQ(seen.mode, 0600u);
  EXPECT_EQ(seen.uid, 7u);
  EXPECT_EQ(seen.links, 1u);
  EXPECT_EQ(seen.mtime, 12345);
  EXPECT_EQ(seen.ctime, chmod.time);
  EXPECT_EQ(seen.btime, a.time);
  EXPECT_EQ(p.stat(p.me, kRootFile).mtime, p.time);
  EXPECT_EQ(p.must(p.ask(GrantAcquire{p.me.session, kRootFile, GrantKind::kWrite})).entries, 2u);
  p.settle();  // what was unlinked goes, with its inode
  p.check_rows();
}

TEST(NameChanges, WhatWasMadeCanBeWrittenUnderTheGrantThatTheClientChose) {
  Writer1 p(2);
  NameChange made = p.make("a");
  ASSERT_EQ(p.send({made}), std::vector<Code>{Code::kOk});
  EXPECT_EQ(p.write(p.me, made.file, 0, 10'000), Code::kOk);
  EXPECT_EQ(p.must(p.look("a")).size, 10'000u);
  p.check_rows();
}

TEST(NameChanges, TheSameTicketTakesEffectOnceAlsoUnderTheNextLeader) {
  Writer1 p(3);
  NameChange made = p.make("a");
  ASSERT_EQ(p.send({made}), std::vector<Code>{Code::kOk});
  EXPECT_EQ(p.must(p.ask(p.last)).codes, std::vector<uint16_t>{0});
  p.fail_over();
  EXPECT_EQ(p.must(p.ask(p.last)).codes, std::vector<uint16_t>{0});
  p.claim(p.me);
  EXPECT_EQ(p.must(p.ask(p.last)).codes, std::vector<uint16_t>{0});
  EXPECT_EQ(p.names(), "a ");
  p.check_rows();
}

TEST(NameChanges, ANewLeaderTakesThemOnlyWhenTheGrantsWereClaimed) {
  Writer1 p(4);
  ASSERT_EQ(p.send({p.make("a")}), std::vector<Code>{Code::kOk});
  p.fail_over();
  NameChange made = p.make("b");
  EXPECT_EQ(p.send({made}), kAllStale);
  // The claims name the new file too: it is there, as far as its client knows.
  p.claim(p.me);
  EXPECT_EQ(p.must(p.ask(p.last)).codes, std::vector<uint16_t>{0});
  EXPECT_EQ(p.names(), "a b ");
  // Ids that were reserved before are still nobody else's.
  EXPECT_GE(p.must(p.ask(ReserveFiles{p.me.session, 1})).first, p.next_id);
  EXPECT_EQ(p.write(p.me, made.file, 0, 5000), Code::kOk);
  p.check_rows();
}

TEST(NoteAccess, MovesTheAtimeOnceAfterAChangeAndNeverBehindWhoSetIt) {
  Writer1 p(1);
  ASSERT_EQ(p.send({p.make("f")}), std::vector{Code::kOk});
  const FileId file = OnePartition::must(p.look("f")).id;
  auto note = [&](int64_t time) {
    OnePartition::must(p.ask(NoteAccess{p.me.next(), {{file, time}, {FileId(Slot(0), 999'999), time}}}));
    return OnePartition::must(p.look("f")).atime;
  };
  const int64_t made = OnePartition::must(p.look("f")).mtime;
  constexpr int64_t kDay = 86'400'000'000'000;
  EXPECT_EQ(note(made - 5), made) << "read before it was changed";
  EXPECT_EQ(note(made + 10), made + 10);
  EXPECT_EQ(note(made + 20), made + 10) << "another client read it too";
  EXPECT_EQ(note(made + 10 + kDay), made + 10 + kDay);
  EXPECT_EQ(p.ask(NoteAccess{p.me.next(), {}}).code(), Code::kInvalid);
}

TEST(NameChanges, OneGrantThatEndedRefusesAll) {
  Writer1 p(5);
  NameChange a = p.make("a");
  ASSERT_EQ(p.send({a}), std::vector<Code>{Code::kOk});
  NameChange b = p.make("b");
  NameChange chmod = p.change(NameChangeKind::kSetAttributes, "", a.file);
  chmod.mask = kSetMode;
  chmod.file_grant = GrantId(1);
  EXPECT_EQ(p.send({b, chmod}), kAllStale);
  EXPECT_EQ(p.names(), "a ");
  p.must(p.ask(GrantRelease{p.me.session, {p.me.grants[kRootFile].id}}));
  EXPECT_EQ(p.send({b}), kAllStale);
  // A read grant is not enough.
  p.me.grants[kRootFile] = p.must(p.ask(GrantAcquire{p.me.session, kRootFile, GrantKind::kRead})).grant;
  b.directory_grant = p.me.grants[kRootFile].id;
  EXPECT_EQ(p.send({b}), kAllStale);
  EXPECT_EQ(p.names(), "a ");
  p.check_rows();
}

TEST(NameChanges, WhatDoesNotFitIsRefusedAlone) {
  Writer1 p(6);
  NameChange a = p.make("a");
  NameChange again = p.make("a");
  NameChange never_reserved = p.make("x");
  never_reserved.file = FileId(Slot(0), 1'000'000);
  NameChange in_use = p.make("y");
  in_use.file = a.file;
  in_use.file_grant = a.file_grant;
  NameChange elsewhere = p.make("z");
  elsewhere.file = FileId(Slot(9), elsewhere.file.local());
  NameChange directory = p.make("d");
  directory.type = FileType::kDirectory;
  NameChange no_name = p.make("..");
  NameChange size = p.change(NameChangeKind::kSetAttributes, "", a.file);
  size.mask = kSetSize;
  NameChange b = p.make("b");
  EXPECT_EQ(p.send({a, again, never_reserved, in_use, elsewhere, directory, no_name, size, b,
                    p.change(NameChangeKind::kUnlink, "b", a.file), p.change(NameChangeKind::kNone, "b", a.file)}),
            (std::vector<Code>{Code::kOk, Code::kExists, Code::kInvalid, Code::kInvalid, Code::kInvalid, Code::kInvalid,
                               Code::kInvalid, Code::kInvalid, Code::kOk, Code::kNotFound, Code::kNotSupported}));
  EXPECT_EQ(p.names(), "a b ");
  EXPECT_EQ(p.ask(ChangeNames{p.me.next(), {}}).code(), Code::kInvalid);
  p.check_rows();
}

TEST(NameChanges, RenamesAndLinksWithinADirectory) {
  Writer1 p(7, 30);
  NameChange a = p.make("a");
  NameChange b = p.make("b");
  NameChange link = p.change(NameChangeKind::kLink, "a2", a.file);
  NameChange over = p.change(NameChangeKind::kRename, "a", a.file);
  over.to_name = "b";
  over.replaced = b.file;
  over.replaced_grant = b.file_grant;
  NameChange wrong = over;
  wrong.replaced = FileId();
  EXPECT_EQ(p.send({a, b, link, wrong, over}),
            (std::vector<Code>{Code::kOk, Code::kOk, Code::kOk, Code::kExists, Code::kOk}));
  EXPECT_EQ(p.names(), "b a2 ") << "a name that is given to another file stays where it is";
  EXPECT_EQ(p.must(p.look("b")).id, a.file);
  EXPECT_EQ(p.must(p.look("b")).links, 2u);
  NameChange on = p.change(NameChangeKind::kRename, "b", a.file);
  on.to_name = "c";
  EXPECT_EQ(p.send({on, p.change(NameChangeKind::kUnlink, "a2", a.file)}), std::vector<Code>(2, Code::kOk));
  EXPECT_EQ(p.names(), "c ");
  EXPECT_EQ(p.must(p.look("c")).links, 1u);
  p.settle();
  EXPECT_EQ(p.ask(GetAttributes{p.me.session, b.file, GrantKind::kNone}).code(), Code::kNotFound);
  p.check_rows();
}

TEST(NameChanges, AnUnlinkedFileThatItsMakerHasOpenStays) {
  Writer1 p(8);
  NameChange a = p.make("a");
  a.keep_open = true;
  ASSERT_EQ(p.send({a, p.change(NameChangeKind::kUnlink, "a", a.file)}), std::vector<Code>(2, Code::kOk));
  p.settle();
  EXPECT_EQ(p.stat(p.me, a.file).links, 0u);
  p.must(p.ask(Forget{p.me.next(), {a.file}}));
  p.settle();
  EXPECT_EQ(p.ask(GetAttributes{p.me.session, a.file, GrantKind::kNone}).code(), Code::kNotFound);
  p.check_rows();
}

}  // namespace
}  // namespace headrace
