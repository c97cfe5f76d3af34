#include "hot/target_place.h"

#include <algorithm>

#include "hot/target.h"

namespace headrace {
namespace {

constexpr const char* kFileName = "/target.dat";
constexpr const char* kDeviceName = "/device";
constexpr uint64_t kMostName = 4 * kKiB;
constexpr const char* kUnknownData = "data of an unknown kind";

Result<Superblock> superblock_in(ByteView begin, size_t which) {
  const uint64_t offset = kSuperblockOffsets.at(which);
  if (begin.size() < offset + kSuperblockBytes) return Error(Code::kCorrupt, "too short");
  return decode_superblock(begin.subspan(offset, kSuperblockBytes));
}

std::string describe(const Result<Superblock>& found) {
  if (!found.ok()) return "a target of a newer Headrace";
  return "target t" + std::to_string(found->number) + " of Headrace cluster " + hex(found->cluster.value());
}

bool zeros(ByteView bytes) {
  return std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; });
}

// What others than us write at the beginning of a device; empty: none of it.
std::string file_system_of(ByteView begin) {
  const std::string_view text = text_of(begin);
  auto at = [&text](size_t offset, std::string_view magic) {
    return text.size() >= offset + magic.size() && text.substr(offset, magic.size()) == magic;
  };
  if (at(1080, "\x53\xef")) return "an ext file system";
  if (at(0, "XFSB")) return "an XFS file system";
  if (at(65'600, "_BHRfS_M")) return "a btrfs file system";
  if (at(3, "NTFS    ")) return "an NTFS file system";
  if (at(512, "LABELONE") || at(0, "LABELONE")) return "an LVM physical volume";
  if (at(4096, "\xfc\x4e\x2b\xa9")) return "a member of a RAID";
  if (at(4086, "SWAPSPACE2")) return "swap space";
  if (at(0, "LUKS\xba\xbe")) return "an encrypted volume (LUKS)";
  if (at(512, "EFI PART")) return "a partition table (GPT)";
  if (at(510, "\x55\xaa")) return "a partition table or a boot sector";
  return "";
}

// No superblock, and what is left begins with a batch of a log or a table: nobody can open that any more.
bool remains_of_target(ByteView begin) {
  for (uint64_t at = 0; at + kBlock <= begin.size(); at += kBlock)
    if (!zeros(begin.subspan(at, kBlock))) return at >= kLogOffset && is_batch(begin.subspan(at));
  return false;
}

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

std::string signature_of(ByteView begin) {
  // A file system that was made over a target may have left its second superblock.
  Result<Superblock> first = superblock_in(begin, 0);
  if (first.ok() || first.code() == Code::kUnsupportedFormat) return describe(first);
  if (std::string found = file_system_of(begin); !found.empty()) return found;
  Result<Superblock> second = superblock_in(begin, 1);
  if (second.ok() || second.code() == Code::kUnsupportedFormat) return describe(second);
  return zeros(begin) ? std::string() : kUnknownData;
}

std::string somebody_elses(ByteView begin, const PlaceClaim& claim) {
  if (claim.force || zeros(begin)) return "";
  if (std::string found = file_system_of(begin); !found.empty()) return found;
  bool itself = false;
  for (size_t i = 0; i < kSuperblockOffsets.size(); ++i) {
    Result<Superblock> found = superblock_in(begin, i);
    if (found.code() == Code::kCorrupt) {
      // The first goes with the second, unless something else was written over it.
      if (i == 0 && !zeros(begin.first(std::min<size_t>(begin.size(), kSuperblockBytes)))) return kUnknownData;
      continue;
    }
    if (!found.ok() || found->cluster != claim.cluster || found->number != claim.number) return describe(found);
    itself = true;
  }
  return itself || remains_of_target(begin) ? std::string() : kUnknownData;
}

Task<Result<void>> check_place(Env env, std::string directory, TargetPlace place, PlaceClaim claim) {
  Result<std::unique_ptr<File>> file = co_await env.disk.open(place.path, {.direct = place.in_place});
  if (!place.in_place && file.code() == Code::kNotFound) co_return Result<void>();
  if (!file.ok()) co_return std::move(file).error().within(place.path);
  const std::string name = "t" + std::to_string(claim.number);
  if (!place.in_place) {
    Result<Superblock> found = co_await read_superblock(**file);
    if (claim.force || found.code() == Code::kCorrupt ||
        (found.ok() && found->cluster == claim.cluster && found->number == claim.number))
      co_return Result<void>();
    co_return Error(Code::kExists, place.path + " holds " + describe(found) + ", not target " + name +
                                       " of this cluster: put the right disk or directory back, or move that file away "
                                       "(or add --force if it is not needed any more)");
  }
  Buffer begin = Buffer::zeroed(kSignatureBytes);
  Result<size_t> got = co_await (*file)->read(0, begin);
  if (!got.ok()) co_return std::move(got).error().within(place.path);
  const std::string there = somebody_elses(begin.view().first(std::min(*got, begin.size())), claim);
  if (there.empty()) co_return Result<void>();
  co_return Error(Code::kExists,
                  place.path + " holds " + there + ", not target " + name +
                      " of this cluster: nothing there was changed. Names of devices may change when a machine starts: "
                      "write the path of " +
                      name + "'s device into " + directory + kDeviceName +
                      ", as in /dev/disk/by-id/…; or add --force if nothing on it is needed any more");
}

Task<Result<void>> erase_place(Env env, std::string directory, TargetPlace place, PlaceClaim claim) {
  HR_ASSERT(place.in_place);
  HR_CO_TRY(co_await check_place(env, std::move(directory), place, claim));
  HR_CO_TRY(std::unique_ptr<File> file, co_await env.disk.open(place.path, {.direct = true}));
  HR_CO_TRY(uint64_t size, co_await file->size());
  // The superblocks last: until they are gone it is known whose it is.
  const uint64_t end = std::min<uint64_t>(round_down(size, kBlock), kSignatureBytes);
  for (uint64_t offset : kSuperblockOffsets) {
    const uint64_t from = offset + kSuperblockBytes;
    const uint64_t to = offset == kSuperblockOffsets.back() ? end : kSuperblockOffsets.back();
    if (from < to) HR_CO_TRY(co_await file->write(from, std::vector<Buffer>(1, Buffer::zeroed(to - from))));
  }
  HR_CO_TRY(co_await file->flush());
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
