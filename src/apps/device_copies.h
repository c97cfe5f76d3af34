// Copies of the embedded coordinator's file on the devices of targets, behind each superblock: the whole state
// directory may be lost, `headrace recover` finds them. docs/formats/coordinator.md.
//
// Both are written, one after the other: a power loss leaves one of them whole. Only a device whose superblock says
// that it is a target of this cluster is written to.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "coord/embedded/embedded_coordinator.h"
#include "hot/target_format.h"
#include "proto/cluster.h"

namespace headrace {

class TargetDeviceCopies final : public DeviceCopies {
 public:
  explicit TargetDeviceCopies(Env env) : env_(env) {}
  Task<std::vector<Copy>> read(std::string directory) override;
  Task<Result<void>> write(std::string directory, std::string bytes) override;

 private:
  Env env_;
};

// The copies on a device, or in a target's file.
[[nodiscard]] Task<std::vector<DeviceCopies::Copy>> read_device_copies(File& file, std::string path);
// The cluster that the records are of; of one that is just coming back from its bucket, as it was before. nullopt:
// none.
[[nodiscard]] std::optional<ClusterMap> cluster_of(const CoordTable& table);

}  // namespace headrace
