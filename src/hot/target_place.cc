#include "hot/target_place.h"

#include "hot/target.h"

namespace headrace {
namespace {

constexpr const char* kFileName = "/target.dat";
constexpr const char* kDeviceName = "/device";
constexpr uint64_t kMostName = 4 * kKiB;

}  // namespace

Task<Result<TargetPlace>> target_place(Env env, std::string directory) {
  Result<std::unique_ptr<File>> file = co_await env.disk.open(directory + kDeviceName, {});
  if (file.code() == Code::kNotFound) co_return TargetPlace{directory + kFileName, false};
  if (!file) co_return std::move(file).error().within(directory + kDeviceName);
  HR_CO_TRY(uint64_t size, co_await (*file)->size());
  Buffer bytes = Buffer::zeroed(std::min(size, kMostName));
  if (!bytes.empty()) HR_CO_TRY(co_await (*file)->read(0, bytes));
  std::string path(bytes.text());
  while (path.ends_with('\n')) path.pop_back();
  if (!path.starts_with('/'))
    co_return Error(Code::kInvalid, directory + kDeviceName +
                                        " names no device: write the device's path into it, as in /dev/disk/by-id/…");
  co_return TargetPlace{std::move(path), true};
}

Task<Result<void>> set_target_place(Env env, std::string directory, std::string path) {
  const std::string fresh = directory + kDeviceName + ".new";
  {
    HR_CO_TRY(std::unique_ptr<File> file, co_await env.disk.open(fresh, {.create = true}));
    HR_CO_TRY(co_await file->resize(0));
    HR_CO_TRY(co_await file->write(0, std::vector<Buffer>(1, Buffer::copy_of(bytes_of(path + "\n")))));
    HR_CO_TRY(co_await file->flush());
  }
  HR_CO_TRY(co_await env.disk.rename(fresh, directory + kDeviceName));
  co_return co_await env.disk.sync_directory(directory);
}

Task<Result<Superblock>> read_superblock(File& file) {
  std::optional<Superblock> best;
  std::string why;
  std::optional<Error> newer;
  for (uint64_t offset : kSuperblockOffsets) {
    Buffer bytes = Buffer::zeroed(kSuperblockBytes);
    Result<size_t> got = co_await file.read(offset, bytes);
    Result<Superblock> one = got ? decode_superblock(bytes.view().first(std::min(*got, bytes.size())))
                                 : Result<Superblock>(std::move(got).error());
    if (one) {
      if (!best || one->generation > best->generation) best = *one;
    } else {
      if (one.code() == Code::kUnsupportedFormat) newer = one.error();
      why += (why.empty() ? "" : "; ") + one.error().message();
    }
  }
  if (newer) co_return Error(Code::kUnsupportedFormat, newer->message());
  if (best) co_return *best;
  co_return Error(Code::kCorrupt, why);
}

Task<Result<void>> erase_superblocks(Env env, std::string path) {
  HR_CO_TRY(std::unique_ptr<File> file, co_await env.disk.open(path, {.direct = true}));
  HR_CO_TRY(co_await file->write(0, std::vector<Buffer>(1, Buffer::zeroed(kLogOffset))));
  co_return co_await file->flush();
}

uint64_t capacity_of_device(uint64_t bytes) {
  uint64_t capacity = round_down(bytes, kMiB);
  while (capacity >= kMinTargetCapacity) {
    const uint64_t needed = lay_out(capacity).file_bytes();
    if (needed <= bytes) return capacity;
    const uint64_t over = round_up(needed - bytes, kMiB);
    if (over >= capacity) break;
    capacity -= over;
  }
  return 0;
}

}  // namespace headrace
