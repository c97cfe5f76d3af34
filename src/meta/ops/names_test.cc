#include "meta/ops/names.h"

#include <gtest/gtest.h>

#include "meta/ops/steps.h"
#include "meta/partition_test_support.h"

namespace headrace {
namespace {

using User = OnePartition::User;

Result<UnlinkReply> rename(OnePartition& p, User& user, std::string from, std::string to, bool exchange = false) {
  Rename request;
  request.ticket = user.next();
  request.from_parent = request.to_parent = kRootFile;
  request.from_name = std::move(from);
  request.to_name = std::move(to);
  request.exchange = exchange;
  return p.ask(request);
}

std::vector<std::string> names_after(OnePartition& p, const User& user, uint64_t cookie) {
  ReadDirectory request;
  request.session = user.session;
  request.directory = kRootFile;
  request.after = cookie;
  request.limit = 100;
  std::vector<std::string> out;
  for (const DirectoryEntry& entry : p.must(p.ask(request)).entries) out.push_back(entry.name);
  return out;
}

TEST(NameOps, ANameThatIsGivenToAnotherFileStaysWhereItIsInAListing) {
  OnePartition p(1);
  User user = p.user();
  for (const char* name : {"a", "b", "c", "new"}) p.create(user, name);
  ReadDirectory first{.session = user.session, .directory = kRootFile, .limit = 1};
  const ReadDirectoryReply page = p.must(p.ask(first));
  ASSERT_EQ(page.entries.size(), 1u);
  const uint64_t listed = page.entries[0].cookie;
  p.must(rename(p, user, "new", "b"));
  EXPECT_EQ(names_after(p, user, listed), (std::vector<std::string>{"b", "c"}));
  p.must(rename(p, user, "a", "c", true));
  EXPECT_EQ(names_after(p, user, 0), (std::vector<std::string>{"a", "b", "c"}));
  p.must(rename(p, user, "a", "d"));
  EXPECT_EQ(names_after(p, user, listed), (std::vector<std::string>{"b", "c", "d"})) << "a new name comes last";
  p.check_rows();
}

// The root has as many subdirectories as a directory can have.
struct FillOp {
  using Reply = Empty;
  Ticket by;
  [[nodiscard]] Ticket ticket() const { return by; }
  static Task<Result<Empty>> run(Transaction& txn) {
    HR_CO_TRY(InodeRow root, co_await inode_of(txn, kRootFile));
    root.attributes.links = kMaxLinks;
    txn.put_row(inode_key(kRootFile), root);
    co_return Empty{};
  }
};

TEST(NameOps, InAFullDirectoryItsSubdirectoriesCanBeRenamed) {
  OnePartition p(2);
  User user = p.user();
  Make make;
  make.parent = kRootFile;
  make.type = FileType::kDirectory;
  make.mode = 0755;
  auto made = [&](const char* name) {
    make.ticket = user.next();
    make.name = name;
    return p.ask(make).code();
  };
  EXPECT_EQ(made("d"), Code::kOk);
  EXPECT_EQ(made("e"), Code::kOk);
  p.create(user, "f");
  p.must(p.world.run(p.partition->mutate(FillOp{user.next()})));
  EXPECT_EQ(made("g"), Code::kTooManyLinks);
  p.must(rename(p, user, "d", "g"));
  p.must(rename(p, user, "g", "f", true));
  p.must(rename(p, user, "g", "f", true));
  p.must(rename(p, user, "g", "e"));
  EXPECT_EQ(p.stat(user, kRootFile).links, kMaxLinks - 1);
  EXPECT_EQ(names_after(p, user, 0).size(), 2u);
}

}  // namespace
}  // namespace headrace
