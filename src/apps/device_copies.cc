#include "apps/device_copies.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "apps/node.h"
#include "coord/embedded/coord_file.h"
#include "hot/target_place.h"

namespace headrace {

std::optional<ClusterMap> cluster_of(const CoordTable& table) {
  for (const char* key : {kMapKey, kResumeKey}) {
    Result<ClusterMap> map = decode_durable<ClusterMap>(table.get(key).value);
    if (map.ok()) return *std::move(map);
  }
  return std::nullopt;
}

Task<std::vector<DeviceCopies::Copy>> read_device_copies(File& file, std::string path) {
  std::vector<DeviceCopies::Copy> out;
  for (uint64_t offset : kCoordinatorCopyOffsets) {
    Buffer bytes = Buffer::zeroed(kCoordinatorCopyBytes);
    Result<size_t> got = co_await file.read(offset, bytes);
    if (!got.ok()) continue;
    Result<CoordTable> table = decode_coord_file(coord_file_at(bytes.view().first(std::min(*got, bytes.size()))));
    out.push_back({path, std::move(table)});
  }
  co_return out;
}

Task<std::vector<DeviceCopies::Copy>> TargetDeviceCopies::read(std::string directory) {
  Result<TargetPlace> place = co_await target_place(env_, directory);
  if (!place.ok() || !place->in_place) co_return std::vector<Copy>();
  Result<std::unique_ptr<File>> file = co_await env_.disk.open(place->path, {.direct = true});
  if (!file.ok()) co_return std::vector<Copy>();
  co_return co_await read_device_copies(**file, place->path);
}

Task<Result<void>> TargetDeviceCopies::write(std::string directory, std::string bytes) {
  HR_CO_TRY(TargetPlace place, co_await target_place(env_, directory));
  if (!place.in_place) co_return Error(Code::kNotFound, directory + " names no device");
  HR_CO_TRY(std::unique_ptr<File> file, co_await env_.disk.open(place.path, {.direct = true}));
  Result<Superblock> found = co_await read_superblock(*file);
  HR_CO_TRY(CoordTable table, decode_coord_file(bytes_of(bytes)));
  const std::optional<ClusterMap> map = cluster_of(table);
  const TargetInfo* target = found.ok() && map && found->cluster == map->cluster ? map->target(found->target) : nullptr;
  if (target == nullptr) co_return Error(Code::kNotFound, place.path + " is no target of this cluster");
  if (bytes.size() > kCoordinatorCopyBytes)
    co_return Error(Code::kTooLarge, "the coordinator's records have " + std::to_string(bytes.size()) +
                                         " bytes: a device keeps no copy of more than " +
                                         std::to_string(kCoordinatorCopyBytes));
  Buffer copy = Buffer::zeroed(round_up(bytes.size(), kBlock));
  std::memcpy(copy.data(), bytes.data(), bytes.size());
  for (uint64_t offset : kCoordinatorCopyOffsets) {
    HR_CO_TRY(co_await file->write(offset, std::vector<Buffer>(1, copy)));
    HR_CO_TRY(co_await file->flush());
  }
  co_return Result<void>();
}

}  // namespace headrace
