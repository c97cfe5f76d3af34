// Disk and File: durable bytes.
//
// A write is durable only after a later flush() of the same File has returned ok; until then a power loss may keep
// any subset of its 512-byte sectors, in any order. After a failed flush nothing written since the last good
// one may be trusted: the owner fences the file. Operations on one File may overlap; overlapping ranges race.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "runtime/task.h"

namespace headrace {

class File {
 public:
  virtual ~File() = default;
  // Fills `into` from offset; returns how many bytes there were (fewer only at the end of the file).
  // A direct file needs offset, size and address aligned to kBlock (Buffer::allocate gives such).
  [[nodiscard]] virtual Task<Result<size_t>> read(uint64_t offset, Buffer into) = 0;
  // Writes all pieces back to back, or fails (then any part may have been written). Extends the file.
  [[nodiscard]] virtual Task<Result<void>> write(uint64_t offset, std::vector<Buffer> pieces) = 0;
  [[nodiscard]] virtual Task<Result<void>> flush() = 0;  // fdatasync
  [[nodiscard]] virtual Task<Result<uint64_t>> size() = 0;
  [[nodiscard]] virtual Task<Result<void>> resize(uint64_t size) = 0;
};

struct OpenOptions {
  bool create = false;     // make it when absent
  bool exclusive = false;  // with create: kExists when present
  bool direct = false;     // O_DIRECT where the file system has it
};

class Disk {
 public:
  virtual ~Disk() = default;
  [[nodiscard]] virtual Task<Result<std::unique_ptr<File>>> open(std::string path, OpenOptions options) = 0;
  [[nodiscard]] virtual Task<Result<void>> remove(std::string path) = 0;                  // kNotFound when absent
  [[nodiscard]] virtual Task<Result<void>> rename(std::string from, std::string to) = 0;  // atomic, replaces
  // Durable on return: the names made, removed and renamed in this directory.
  [[nodiscard]] virtual Task<Result<void>> sync_directory(std::string path) = 0;
  [[nodiscard]] virtual Task<Result<void>> make_directories(std::string path) = 0;
  [[nodiscard]] virtual Task<Result<std::vector<std::string>>> list(std::string path) = 0;  // names, sorted
  [[nodiscard]] virtual Task<Result<uint64_t>> free_bytes(std::string path) = 0;
};

}  // namespace headrace
