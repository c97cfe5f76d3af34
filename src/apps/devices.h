// Where the targets of a new namespace are to be, as `--targets` has it: a number of them below the state directory, or
// a list of directories and block devices. What is on a device is looked at before anything is written: one that is in
// use, that holds a file system or another cluster's target is refused unless forced.
#pragma once

#include <string>
#include <vector>

#include "apps/node.h"

namespace headrace {

struct TargetPlaces {
  uint32_t count = 6;
  std::vector<std::string> paths;  // absolute; as many as count, or none
};
[[nodiscard]] Result<TargetPlaces> parse_target_places(const std::string& text);

struct PlacesOptions {
  std::string state;
  uint64_t capacity_mib = 0;  // of each target in a directory; 0: from the free space there
  bool force = false;
};
// Checks each, makes STATE/targets/tN point to directories, and says what bootstrap needs to know of devices.
[[nodiscard]] Result<void> prepare_target_places(const TargetPlaces& places, const PlacesOptions& options,
                                                 BootstrapOptions& bootstrap);

}  // namespace headrace
