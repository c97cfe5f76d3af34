#include "runtime/disk.h"

#include <sys/stat.h>

#include "runtime/uring/uring_test.h"
#include "runtime/write_through.h"

namespace headrace {
namespace {

class DiskTest : public UringTest {};

Task<std::unique_ptr<File>> open_or_abort(Disk* disk, std::string path, OpenOptions options) {
  Result<std::unique_ptr<File>> file = co_await disk->open(path, options);
  if (!file.ok()) {
    ADD_FAILURE() << file.error().text();
    std::abort();
  }
  co_return *std::move(file);
}

void expect_ok(const Result<void>& result) {
  EXPECT_TRUE(result.ok()) << (result.ok() ? "" : result.error().text());
}

Task<void> round_trip(Disk* disk, std::string path, bool direct) {
  std::unique_ptr<File> file = co_await open_or_abort(disk, path, {.create = true, .direct = direct});
  std::vector<Buffer> pieces;
  for (uint64_t i = 0; i < 9; ++i) pieces.push_back(patterned(kBlock * (i % 3 + 1), i));
  Result<void> written = co_await file->write(kBlock, pieces);
  expect_ok(written);
  Result<void> flushed = co_await file->flush();
  expect_ok(flushed);
  uint64_t at = kBlock;
  for (const Buffer& piece : pieces) {
    Buffer into = Buffer::allocate(piece.size());
    Result<size_t> got = co_await file->read(at, into);
    EXPECT_TRUE(got.ok());
    EXPECT_TRUE(same(into, piece)) << at;
    at += piece.size();
  }
  Result<uint64_t> size = co_await file->size();
  EXPECT_TRUE(size.ok());
  if (size.ok()) EXPECT_EQ(*size, at);
  // The hole before the first write, and what lies beyond the end.
  Buffer hole = patterned(kBlock, 1);
  Result<size_t> got = co_await file->read(0, hole);
  EXPECT_TRUE(got.ok());
  EXPECT_TRUE(same(hole, Buffer::zeroed(kBlock)));
  Buffer beyond = Buffer::allocate(4 * kBlock);
  Result<size_t> tail = co_await file->read(at - kBlock, beyond);
  EXPECT_TRUE(tail.ok());
  if (tail.ok()) EXPECT_EQ(*tail, kBlock);
  WriteThrough* through = WriteThrough::of(*file);
  EXPECT_NE(through, nullptr);
  if (through == nullptr) co_return;
  Result<void> reserved = co_await through->reserve(at, 64 * kBlock);
  expect_ok(reserved);
  Result<uint64_t> longer = co_await file->size();
  EXPECT_TRUE(longer.ok());
  if (longer.ok()) EXPECT_EQ(*longer, at + 64 * kBlock);
  std::vector<Buffer> two{patterned(kBlock, 7), patterned(2 * kBlock, 8)};
  Result<void> durable = co_await through->write_through(at + kBlock, two);
  expect_ok(durable);
  Buffer all = Buffer::allocate(5 * kBlock);
  Result<size_t> again = co_await file->read(at, all);
  EXPECT_TRUE(again.ok());
  EXPECT_TRUE(same(all.slice(0, kBlock), Buffer::zeroed(kBlock)));
  EXPECT_TRUE(same(all.slice(kBlock, kBlock), two[0]));
  EXPECT_TRUE(same(all.slice(2 * kBlock, 2 * kBlock), two[1]));
}

TEST_F(DiskTest, ReadsWhatItWroteDirectly) {
  run(round_trip(&env().disk, directory_.path("f"), true));
}

TEST_F(DiskTest, ReadsWhatItWroteBuffered) {
  run(round_trip(&env().disk, directory_.path("f"), false));
}

TEST_F(DiskTest, FallsBackToBufferedWhereTheFileSystemHasNoDirectAccess) {
  TempDirectory memory("/dev/shm");
  run(round_trip(&env().disk, memory.path("f"), true));
}

Task<void> ragged_end(Disk* disk, std::string path) {
  std::unique_ptr<File> plain = co_await open_or_abort(disk, path, {.create = true});
  Result<void> written = co_await plain->write(0, {patterned(kBlock + 700, 5)});
  expect_ok(written);
  std::unique_ptr<File> direct = co_await open_or_abort(disk, path, {.direct = true});
  Buffer into = Buffer::allocate(3 * kBlock);
  Result<size_t> got = co_await direct->read(0, into);
  EXPECT_TRUE(got.ok());
  if (got.ok()) EXPECT_EQ(*got, kBlock + 700);
  EXPECT_TRUE(same(into.slice(0, kBlock + 700), patterned(kBlock + 700, 5)));
}

TEST_F(DiskTest, DirectReadStopsAtAnEndThatIsNoMultipleOfABlock) {
  run(ragged_end(&env().disk, directory_.path("f")));
}

Task<void> many_pieces(Disk* disk, std::string path) {
  std::unique_ptr<File> file = co_await open_or_abort(disk, path, {.create = true});
  std::vector<Buffer> pieces;
  Buffer all = patterned(10 * 3000, 3);
  for (size_t i = 0; i < 3000; ++i) pieces.push_back(all.slice(i * 10, 10));
  pieces.insert(pieces.begin() + 7, Buffer());
  Result<void> written = co_await file->write(3, pieces);
  expect_ok(written);
  Buffer into = Buffer::allocate(all.size());
  Result<size_t> got = co_await file->read(3, into);
  EXPECT_TRUE(got.ok());
  EXPECT_TRUE(same(into, all));
  Result<void> cut = co_await file->resize(100);
  expect_ok(cut);
  Result<size_t> after = co_await file->read(3, into);
  EXPECT_TRUE(after.ok());
  if (after.ok()) EXPECT_EQ(*after, 97u);
}

TEST_F(DiskTest, WritesMorePiecesThanOneRequestTakes) {
  run(many_pieces(&env().disk, directory_.path("f")));
}

Task<void> misaligned(Disk* disk, std::string path) {
  std::unique_ptr<File> file = co_await open_or_abort(disk, path, {.create = true, .direct = true});
  Result<void> written = co_await file->write(512, {Buffer::zeroed(kBlock)});
  EXPECT_EQ(written.code(), Code::kInvalid);
  Result<void> piece = co_await file->write(0, {Buffer::zeroed(100), Buffer::zeroed(kBlock - 100)});
  EXPECT_EQ(piece.code(), Code::kInvalid);
  Result<size_t> got = co_await file->read(0, Buffer::allocate(100));
  EXPECT_EQ(got.code(), Code::kInvalid);
}

TEST_F(DiskTest, RefusesMisalignedAccessToADirectFile) {
  run(misaligned(&env().disk, directory_.path("f")));
}

Task<void> names(Disk* disk, std::string root) {
  Result<std::unique_ptr<File>> absent = co_await disk->open(root + "/absent", {});
  EXPECT_EQ(absent.code(), Code::kNotFound);
  if (!absent.ok()) EXPECT_NE(absent.error().message().find(root + "/absent"), std::string::npos);
  Result<void> made = co_await disk->make_directories(root + "/a/b/c");
  expect_ok(made);
  Result<void> again = co_await disk->make_directories(root + "/a/b/c");
  expect_ok(again);
  for (std::string name : {"z", "y", "x"}) {
    Result<std::unique_ptr<File>> file =
        co_await disk->open(root + "/a/" + name, {.create = true, .exclusive = true, .direct = true});
    EXPECT_TRUE(file.ok());
  }
  Result<std::unique_ptr<File>> taken = co_await disk->open(root + "/a/x", {.create = true, .exclusive = true});
  EXPECT_EQ(taken.code(), Code::kExists);
  Result<void> renamed = co_await disk->rename(root + "/a/z", root + "/a/y");
  expect_ok(renamed);
  Result<void> synced = co_await disk->sync_directory(root + "/a");
  expect_ok(synced);
  Result<std::vector<std::string>> list = co_await disk->list(root + "/a");
  EXPECT_TRUE(list.ok());
  if (list.ok()) EXPECT_EQ(*list, (std::vector<std::string>{"b", "x", "y"}));
  Result<void> removed = co_await disk->remove(root + "/a/x");
  expect_ok(removed);
  Result<void> gone = co_await disk->remove(root + "/a/x");
  EXPECT_EQ(gone.code(), Code::kNotFound);
  Result<void> full = co_await disk->remove(root + "/a/b");
  EXPECT_EQ(full.code(), Code::kNotEmpty);
  Result<std::vector<std::string>> nothing = co_await disk->list(root + "/nothing");
  EXPECT_EQ(nothing.code(), Code::kNotFound);
  Result<uint64_t> space = co_await disk->free_bytes(root);
  EXPECT_TRUE(space.ok());
  if (space.ok()) EXPECT_GT(*space, 0u);
}

TEST_F(DiskTest, MakesListsRenamesAndRemovesNames) {
  run(names(&env().disk, directory_.path()));
}

Task<void> write_full(Disk* disk) {
  std::unique_ptr<File> file = co_await open_or_abort(disk, "/dev/full", {});
  Result<void> written = co_await file->write(0, {Buffer::zeroed(kBlock)});
  EXPECT_EQ(written.code(), Code::kNoSpace);
  if (!written.ok()) EXPECT_NE(written.error().message().find("/dev/full"), std::string::npos);
}

TEST_F(DiskTest, BadInputAFullDeviceIsNoSpaceAndNamesTheFile) {
  run(write_full(&env().disk));
}

Task<void> write_once(File* file, uint64_t offset) {
  Result<void> written = co_await file->write(offset, {patterned(64 * kBlock, offset)});
  expect_ok(written);
}

Task<void> destroy_while_writing(Disk* disk, Reactor* reactor, std::string path) {
  std::unique_ptr<File> file = co_await open_or_abort(disk, path, {.create = true, .direct = true});
  {
    Scope scope;
    for (uint64_t i = 0; i < 32; ++i) scope.spawn(write_once(file.get(), i * 64 * kBlock));
    file.reset();  // requests keep the descriptor
    co_await yield();
  }
  // A descriptor number that is taken again must not receive what the old file was owed.
  std::unique_ptr<File> other = co_await open_or_abort(disk, path + ".other", {.create = true, .direct = true});
  while (reactor->in_flight() > 0) co_await yield();
  Result<uint64_t> size = co_await other->size();
  EXPECT_TRUE(size.ok());
  if (size.ok()) EXPECT_EQ(*size, 0u);
}

TEST_F(DiskTest, DestroyedWritersNeverTouchMemoryOrFilesThatAreNotTheirs) {
  run(destroy_while_writing(&env().disk, reactor_.get(), directory_.path("f")));
}

}  // namespace
}  // namespace headrace
