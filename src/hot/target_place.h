// Where a target's bytes are: DIR/target.dat, or the path that the file DIR/device names: a block device, formatted in
// place.
#pragma once

#include <string>

#include "base/result.h"
#include "hot/target_format.h"
#include "runtime/env.h"

namespace headrace {

struct TargetPlace {
  std::string path;
  bool in_place = false;  // it is there already, and is not ours to rename or remove
};
[[nodiscard]] Task<Result<TargetPlace>> target_place(Env env, std::string directory);
// From now on the target of this directory is at `path`: durable on return.
[[nodiscard]] Task<Result<void>> set_target_place(Env env, std::string directory, std::string path);
// The newer of a target's two superblocks. kCorrupt: neither is one, and why; kUnsupportedFormat: a newer writer's.
[[nodiscard]] Task<Result<Superblock>> read_superblock(File& file);

// What the first MiB of a device says it is: "an ext file system", "a partition table"; empty: nothing but zeros.
[[nodiscard]] std::string signature_of(ByteView begin);
inline constexpr size_t kSignatureBytes = kMiB;

// A target that is about to be made at a place. Names of devices change from one start of a machine to the next, and
// disks are swapped: what lies there may be somebody's.
struct PlaceClaim {
  ClusterId cluster;
  uint32_t number = 0;  // 'tN'
  bool force = false;   // whatever lies there
};
// What lies at a device that is not for the claimant to overwrite, as signature_of has it. Empty: nothing, the target
// itself (one of that number and cluster), or what is left of a target that has no superblock any more.
[[nodiscard]] std::string somebody_elses(ByteView begin, const PlaceClaim& claim);
// kExists when the target may not be made there: what lies there, and the mend. Of a file only another target counts.
// Changes nothing; a file that is not there yet is none.
[[nodiscard]] Task<Result<void>> check_place(Env env, std::string directory, TargetPlace place, PlaceClaim claim);
// After check_place(), of a device: what is there is no target any more, nor a copy of the coordinator's file: durable
// on return. Cut off half-way, it is the claimant's target still, or nothing. Fragments and journals are left; a new
// target's id makes them void.
[[nodiscard]] Task<Result<void>> erase_place(Env env, std::string directory, TargetPlace place, PlaceClaim claim);
// The largest data space whose target fits so many bytes; 0: none does.
[[nodiscard]] uint64_t capacity_of_device(uint64_t bytes);

}  // namespace headrace
