// DataPath: reads and writes of open files, truncation, holes.
//
// A read is planned in one step without awaiting (own dirty bytes over committed extents, both of
// one moment) and then fetched: what it returns was the file's content at a moment within the call.
// A dead segment (the packer moved its bytes) sends it back to plan again. Sequential readers get a
// window ahead, from 1 MiB doubling to 16 MiB. Truncation and holes wait until nothing of the file
// is dirty, writers wait meanwhile: no commit and no change of size are ever under way together,
// and a recall never has to wait for the change of size. Owner: Client.
#pragma once

#include <memory>
#include <vector>

#include "client/files.h"
#include "client/segment_reader.h"
#include "client/sessions.h"
#include "client/write_back.h"

namespace headrace {

// Files whose last handle was closed, until Forget told the partition.
using ClosedFiles = std::shared_ptr<std::vector<FileRef>>;

class FileHandle final : public OpenFile {
 public:
  FileHandle(FileRef file, OpenMode mode, ClosedFiles closed)
      : file(std::move(file)), mode(mode), told(this->file->lost.opened()), closed_(std::move(closed)) {}
  ~FileHandle() override { release(); }
  [[nodiscard]] FileId id() const override { return file->id; }
  [[nodiscard]] bool told_of_loss() const override { return told != 0 && told == file->lost.count(); }
  void forgive() override;
  void release();
  [[nodiscard]] bool released() const { return closed_ == nullptr; }

  const FileRef file;
  const OpenMode mode;
  uint64_t told;  // of what was lost of the file
  // read-ahead
  uint64_t next = 0;  // where a sequential reader goes on
  uint32_t in_order = 0;
  uint64_t window = 0;
  uint64_t ahead_until = 0;

 private:
  ClosedFiles closed_;
};
using HandleRef = std::shared_ptr<FileHandle>;

class DataPath {
 public:
  static constexpr uint64_t kExtentWindow = 64 * kMiB;
  static constexpr uint64_t kFirstWindow = kMiB;
  static constexpr uint64_t kLastWindow = 32 * kMiB;
  static constexpr uint64_t kMaxAhead = 128 * kMiB;  // being fetched ahead, all files
  static constexpr size_t kMaxExtents = 1'000'000;   // cached, all files

  DataPath(ClientSessions& sessions, FileTable& files, ChangeLog& changes, WriteBack& write_back, SegmentReader& reader,
           Scope& scope)
      : sessions_(sessions),
        files_(files),
        changes_(changes),
        write_back_(write_back),
        reader_(reader),
        scope_(scope) {}

  [[nodiscard]] Task<Result<std::vector<Buffer>>> read(HandleRef handle, uint64_t offset, uint64_t length);
  [[nodiscard]] Task<Result<uint64_t>> write(HandleRef handle, uint64_t offset, Buffer data);
  // Durable, with name, size and attributes; a directory: its names. Reports once what was lost: to each handle, and to
  // whoever syncs by id.
  [[nodiscard]] Task<Result<void>> sync(FileRef file);
  [[nodiscard]] Task<Result<void>> sync(HandleRef handle);
  // SetAttributes with kSetSize.
  [[nodiscard]] Task<Result<Attributes>> resize(FileRef file, SetAttributes request);
  [[nodiscard]] Task<Result<void>> punch(FileRef file, uint64_t offset, uint64_t length);
  [[nodiscard]] Task<Result<uint64_t>> copy(FileRef from, uint64_t from_offset, FileRef to, uint64_t to_offset,
                                            uint64_t length);
  [[nodiscard]] Task<Result<void>> grow(FileRef file, uint64_t size);
  [[nodiscard]] Task<Result<uint64_t>> seek(FileRef file, uint64_t offset, bool hole);

 private:
  [[nodiscard]] Task<Result<void>> flush(FileRef file);
  struct Source {
    uint64_t offset = 0;
    uint64_t length = 0;
    Buffer bytes;  // own, staged; empty with a zero segment: zeros
    SegmentId segment;
    uint64_t segment_offset = 0;
  };
  struct Plan {
    std::vector<Source> sources;
    uint64_t size = 0;  // of the file
  };
  [[nodiscard]] Task<Result<Plan>> plan(FileRef file, uint64_t offset, uint64_t length);
  [[nodiscard]] Task<Result<Plan>> plan_uncached(FileRef file, uint64_t offset, uint64_t length);
  // How far a hole at `at` is known to reach; `at` where none is known of.
  [[nodiscard]] uint64_t hole_end(const FileState& file, uint64_t at) const;
  [[nodiscard]] static Result<Source> source_of(const Extent& extent, const ExtentCache& extents);
  [[nodiscard]] Task<Result<GetExtentsReply>> get_extents(FileRef file, uint64_t offset, uint64_t length);
  void learn(ExtentCache& cache, GetExtentsReply& reply);
  [[nodiscard]] Task<Result<std::vector<Buffer>>> fetch(Source source, bool whole_chunks);
  void read_ahead(FileHandle& handle, uint64_t offset, uint64_t length, uint64_t size);
  [[nodiscard]] Task<void> prefetch(FileRef file, uint64_t offset, uint64_t length);
  void forget_old_extents();

  ClientSessions& sessions_;
  FileTable& files_;
  ChangeLog& changes_;
  WriteBack& write_back_;
  SegmentReader& reader_;
  Scope& scope_;
  uint64_t ahead_ = 0;
  uint64_t windows_ = 0;
};

}  // namespace headrace
