// TargetGuards: no two nodes on the same targets, and no mount of a device that is a target: either would overwrite
// what the other has acknowledged.
//
// A guard is a descriptor that the kernel gives to one holder only: of a directory with a target an flock(2), of a
// block device its exclusive use (O_EXCL), which a mount, a RAID or a volume group takes as well. Neither is in the way
// of reads and writes. Guards end with the process, however it ends. Owner: the process; one thread. Only real files
// have them: a node in the simulator has none.
#pragma once

#include <map>
#include <string>

#include "base/result.h"
#include "runtime/env.h"

namespace headrace {

class TargetGuards {
 public:
  TargetGuards() = default;
  ~TargetGuards();
  TargetGuards(const TargetGuards&) = delete;
  TargetGuards& operator=(const TargetGuards&) = delete;

  // Of a block device, or of a directory with a target and the device that it names. One that is held already, and one
  // of a place that is missing or cannot have one, is no error: opening the target says what is wrong with it. kBusy:
  // somebody else has it, and the mend. A directory that names another device since lets go of the one before.
  [[nodiscard]] Result<void> hold(const std::string& place);
  // As hold(), but waits two seconds for a process that is just ending.
  [[nodiscard]] Task<Result<void>> hold_soon(Env env, std::string place);
  // Of a directory, and of the device that it names.
  void release(const std::string& directory);

 private:
  struct Descriptor {
    int fd = -1;
    Descriptor() = default;
    ~Descriptor() { close(); }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    void close();
  };
  struct Directory {
    Descriptor lock;
    std::string device;  // that it named when its guard was taken
  };
  [[nodiscard]] Result<void> take_device(const std::string& path);
  [[nodiscard]] Result<void> take_directory(const std::string& path);
  void let_go_of(const std::string& device);

  std::map<std::string, Directory> directories_;
  std::map<std::string, Descriptor> devices_;  // those that directories name, and those of hold() by themselves
};

// The device that the target of this directory is on, as DIR/device names it; empty: it is in a file.
[[nodiscard]] std::string device_named_in(const std::string& directory);

}  // namespace headrace
