// MemoryFileSystem: a FileSystem in memory, for tests and benchmarks of gateways. Complete enough
// to run real programs.
//
// Nothing in it is durable; sync() counts. Every call suspends at least once, so that requests
// overlap as they would.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "client/file_system.h"

namespace headrace {

class MemoryFileSystem final : public FileSystem {
 public:
  explicit MemoryFileSystem(Clock& clock);

  Task<Result<Attributes>> lookup(FileId parent, std::string name) override;
  Task<Result<Attributes>> get_attributes(FileId file) override;
  Task<Result<Attributes>> set_attributes(FileId file, AttributeChange change) override;
  Task<Result<Attributes>> make(FileId parent, std::string name, MakeOptions options, Credentials who) override;
  Task<Result<Created>> create(FileId parent, std::string name, uint32_t mode, OpenMode open, Credentials who) override;
  Task<Result<Created>> create_unnamed(FileId parent, uint32_t mode, OpenMode open, Credentials who) override;
  Task<Result<void>> unlink(FileId parent, std::string name) override;
  Task<Result<void>> remove_directory(FileId parent, std::string name) override;
  Task<Result<void>> rename(RenameOptions options) override;
  Task<Result<Attributes>> link(FileId file, FileId parent, std::string name) override;
  Task<Result<std::string>> read_link(FileId file) override;
  Task<Result<ReadDirectoryReply>> read_directory(FileId directory, uint64_t after, uint32_t limit, bool plus) override;
  Task<Result<std::string>> get_xattr(FileId file, std::string name) override;
  Task<Result<void>> set_xattr(FileId file, std::string name, std::string value, XattrOptions options) override;
  Task<Result<std::vector<std::string>>> list_xattr(FileId file) override;
  Task<Result<void>> remove_xattr(FileId file, std::string name) override;
  Task<Result<OpenFileRef>> open(FileId file, OpenMode mode) override;
  Task<Result<std::vector<Buffer>>> read(OpenFileRef file, uint64_t offset, uint64_t length) override;
  Task<Result<uint64_t>> write(OpenFileRef file, uint64_t offset, Buffer data) override;
  Task<Result<void>> sync(OpenFileRef file) override;
  Task<Result<void>> sync(FileId file) override;
  Task<Result<void>> punch(OpenFileRef file, uint64_t offset, uint64_t length) override;
  Task<Result<uint64_t>> copy(OpenFileRef, uint64_t, OpenFileRef, uint64_t, uint64_t) override {
    co_return Error(Code::kNotSupported, "no bytes are shared here");
  }
  Task<Result<void>> grow(OpenFileRef file, uint64_t size) override;
  Task<Result<uint64_t>> seek(OpenFileRef file, uint64_t offset, bool hole) override;
  Task<Result<void>> close(OpenFileRef file) override;
  Task<Result<bool>> lock(FileId file, FileLock lock, Nanos wait) override;
  Task<Result<std::optional<FileLock>>> find_lock(FileId file, FileLock lock) override;
  Task<Result<void>> unlock_all(FileId file, uint64_t owner, bool whole) override;
  Task<Result<FileSystemStatistics>> statistics() override;
  Task<Result<void>> sync_all() override;
  [[nodiscard]] Nanos name_valid(FileId, const std::string&, FileId) const override { return kept_; }
  [[nodiscard]] Nanos attributes_valid(FileId) const override { return kept_; }
  void on_invalidate(Invalidate invalidate) override { invalidate_ = std::move(invalidate); }
  Event& closing() override { return closing_; }
  Task<Result<void>> shut_down() override;

  // For tests.
  void keep(Nanos kept) { kept_ = kept; }  // names and attributes, by the kernel
  [[nodiscard]] uint64_t syncs() const { return syncs_; }
  [[nodiscard]] uint64_t inodes() const { return inodes_.size(); }
  [[nodiscard]] uint64_t open_files() const { return open_files_; }
  [[nodiscard]] uint64_t waiting_locks() const { return waiting_locks_; }
  [[nodiscard]] uint64_t size_of(FileId file) const { return inodes_.at(file)->attributes.size; }
  // As if another client had written it: the kernel is told by an invalidation, or not at all.
  // mtime_moves: as it must.
  Task<void> write_elsewhere(FileId parent, std::string name, std::string bytes, bool mtime_moves);
  // Who has it open is told by the next sync, once.
  void lose(FileId file) { ++inodes_.at(file)->lost; }
  // So many creates find the name taken, by what is gone a moment later.
  void take_names(uint64_t count) { found_taken_ = count; }
  // As if another client had made, removed or moved a name in it.
  Task<void> recall_names(FileId directory);
  // While set, reads wait: for tests of what happens meanwhile. Changes of attributes and renames as well, where those
  // are held too.
  void hold_reads(bool hold);
  void hold_changes() { hold_changes_ = true; }
  [[nodiscard]] uint64_t waiting_reads() const { return waiting_reads_; }

 private:
  static constexpr uint64_t kPiece = 64 * kKiB;
  struct Dentry {
    FileId id;
    uint64_t cookie;
  };
  struct Inode {
    Attributes attributes;
    std::string target;
    std::map<std::string, std::string> xattrs;
    std::map<std::string, Dentry> names;
    std::map<uint64_t, std::string> cookies;
    std::map<uint64_t, Buffer> pieces;
    std::vector<FileLock> locks;
    uint32_t opened = 0;
    uint64_t lost = 0;
  };
  class Opened;
  using InodeRef = std::shared_ptr<Inode>;

  [[nodiscard]] Result<InodeRef> inode(FileId id);
  [[nodiscard]] Result<InodeRef> directory(FileId id);
  [[nodiscard]] Result<InodeRef> child(const Inode& parent, const std::string& name);
  [[nodiscard]] InodeRef new_inode(const Inode& parent, const MakeOptions& options, Credentials who);
  [[nodiscard]] Result<InodeRef> add(FileId parent, const std::string& name, const MakeOptions& options,
                                     Credentials who);
  void insert(Inode& parent, const std::string& name, FileId id);
  void erase(Inode& parent, const std::string& name);
  void drop_link(Inode& inode);
  void reclaim(Inode& inode);
  [[nodiscard]] OpenFileRef opened(InodeRef inode, OpenMode mode);
  void resize(Inode& inode, uint64_t size);
  void clear(Inode& inode, uint64_t offset, uint64_t length);
  void put(Inode& inode, uint64_t offset, ByteView bytes);
  void touch(Inode& inode, bool data);
  [[nodiscard]] int64_t now();

  Clock& clock_;
  std::unordered_map<FileId, InodeRef> inodes_;
  uint64_t next_local_ = 2;
  uint64_t next_cookie_ = 3;
  int64_t last_time_ = 0;
  uint64_t syncs_ = 0;
  uint64_t open_files_ = 0;
  Nanos kept_{};
  Event reads_may_go_;
  uint64_t waiting_reads_ = 0;
  uint64_t waiting_locks_ = 0;
  uint64_t found_taken_ = 0;
  bool hold_changes_ = false;
  Invalidate invalidate_;
  Event closing_;
};

}  // namespace headrace
