// DirectoryStore: a bucket that is a directory of this machine; objects are plain files under their
// keys' names.
//
// A put writes a file under .headrace/tmp, flushes it, renames it into place and syncs the
// directory: readers see the old object or the new one, never a mixture. Where that sync fails, the
// object is shown by this store, and a put finds it in its way, only after one that succeeds. Deciding a condition and
// renaming is one step under flock of one of 64 lock files, so that any number of processes of one
// machine may swap; a dead process holds no lock. ETag: up to 64 KiB a hash of the content; above,
// inode + modification time (set by us, in ns) + size. Keys are escaped (object_path) and cannot
// leave the directory. A key cannot be an object and a folder at once.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "object/object_store.h"
#include "runtime/env.h"

namespace headrace {

class DirectoryStore final : public ObjectStore {
 public:
  // `root` absolute, made at the first write when absent. The Env's parts outlive the store.
  DirectoryStore(std::string root, Env env);
  Task<Result<ObjectInfo>> put(std::string key, Buffer body, PutCondition condition = {}) override;
  Task<Result<Got>> get_with_etag(std::string key) override;
  Task<Result<Buffer>> get_range(std::string key, uint64_t offset, uint64_t size,
                                 std::string if_match_etag = "") override;
  Task<Result<ObjectInfo>> head(std::string key) override;
  Task<Result<std::vector<RemoveFailure>>> remove_batch(std::vector<std::string> keys) override;
  Task<Result<Listing>> list(std::string prefix, std::string continuation, size_t limit) override;
  Task<Result<std::unique_ptr<Upload>>> begin_upload(std::string key) override;
  [[nodiscard]] std::string url() const override { return "file://" + root_; }

 private:
  friend class DirectoryUpload;
  struct Place;  // where one key's object lies

  [[nodiscard]] Result<Place> place_of(const std::string& key) const;
  [[nodiscard]] std::string temporary_path();
  // Makes .headrace/ and clears what crashed processes left there; once.
  [[nodiscard]] Task<Result<void>> prepare();
  // Makes the directory with its ancestors, durably; remembers those that are there.
  [[nodiscard]] Task<Result<void>> ensure_directory(std::string directory);
  // Condition, rename, directory sync. Removes the temporary file on failure.
  [[nodiscard]] Task<Result<ObjectInfo>> commit(Place place, std::string temporary, PutCondition condition,
                                                std::string etag);
  // Before anything is said of an object that a put left visible and perhaps not durable: makes it durable.
  [[nodiscard]] Task<Result<void>> settle(Place place);
  // One attempt to read [offset, offset + size) (the whole when size is 0) of one and the same
  // version.
  [[nodiscard]] Task<Result<std::optional<Got>>> read_version(Place place, uint64_t offset, uint64_t size,
                                                              bool need_etag);
  [[nodiscard]] Task<Result<Got>> read(Place place, uint64_t offset, uint64_t size, bool need_etag);

  std::string root_;
  Env env_;
  bool prepared_ = false;
  std::set<std::string> durable_directories_;
  std::map<std::string, uint64_t> unsettled_;  // paths of such objects; by how many failures they came
  uint64_t failed_syncs_ = 0;
};

// The key's path relative to the root: '%' is %25; the empty part is "%"; ".", ".." and names that
// begin with
// ".headrace" have their first '.' as %2E. kNameTooLong when a part does not fit a file name.
[[nodiscard]] Result<std::string> object_path(const std::string& key);
// The key of a relative path; nothing when no key has that path.
// DECODER: object_key
[[nodiscard]] std::optional<std::string> object_key(std::string_view path);

}  // namespace headrace
