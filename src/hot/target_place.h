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
// What is there is no target any more, nor a copy of the coordinator's file: durable on return. Fragments and journals
// are left; a new target's id makes them void.
[[nodiscard]] Task<Result<void>> erase_superblocks(Env env, std::string path);
// The largest data space whose target fits so many bytes; 0: none does.
[[nodiscard]] uint64_t capacity_of_device(uint64_t bytes);

}  // namespace headrace
