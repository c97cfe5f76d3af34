#include "apps/devices.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "apps/target_guards.h"
#include "hot/target_format.h"
#include "hot/target_place.h"

namespace headrace {

namespace {

namespace fs = std::filesystem;

constexpr const char* kForce = "choose another device, or add --force if nothing on it is needed any more";

struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

// The device's bytes; refuses what somebody may miss. `ours`: it was given to this state before (an interrupted `up`),
// and bootstrap knows whose target lies there.
Result<uint64_t> check_device(const std::string& path, bool force, bool ours) {
  Descriptor device{::open(path.c_str(), O_RDWR | O_EXCL | O_CLOEXEC)};
  if (device.fd < 0) {
    if (errno == EBUSY)
      return Error(Code::kBusy, path +
                                    " is in use (a target of a running node, mounted, swap, or part of a RAID or a "
                                    "volume group): choose another device");
    if (errno == EACCES || errno == EPERM)
      return Error(Code::kAccess, path + " cannot be opened: run as root, or as a user who may write to it");
    return Error(Code::kInvalid, path + " cannot be opened: " + std::strerror(errno));
  }
  const off_t end = ::lseek(device.fd, 0, SEEK_END);
  if (end <= 0) return Error(Code::kInvalid, path + " has no size: is it a device with a medium?");
  Buffer begin = Buffer::zeroed(kSignatureBytes);
  const size_t want = std::min<size_t>(kSignatureBytes, static_cast<size_t>(end));
  size_t have = 0;
  while (have < want) {
    const ssize_t got = ::pread(device.fd, begin.data() + have, want - have, static_cast<off_t>(have));
    if (got <= 0)
      return Error(Code::kIo, path + " cannot be read: " + (got < 0 ? std::strerror(errno) : "it ends early"));
    have += static_cast<size_t>(got);
  }
  const std::string there = signature_of(begin.view());
  if (!there.empty() && !force && !ours) return Error(Code::kInvalid, path + " holds " + there + ": " + kForce);
  return static_cast<uint64_t>(end);
}

// STATE/targets/tN as a symbolic link to DIR/headrace-tN.
Result<void> place_in_directory(const std::string& directory, const std::string& place) {
  std::error_code error;
  const fs::path inside = fs::path(directory) / ("headrace-" + fs::path(place).filename().string());
  if (fs::is_symlink(place, error) && fs::read_symlink(place, error) == inside) return {};  // an interrupted `up`
  if (fs::exists(inside / "target.dat", error))
    return Error(Code::kInvalid, inside.string() +
                                     " holds a target of another cluster: choose another directory, or remove that one "
                                     "if it is not needed any more");
  fs::create_directories(inside, error);
  if (error) return Error(Code::kInvalid, inside.string() + " cannot be made: " + error.message());
  if (fs::exists(fs::symlink_status(place, error)))
    return Error(Code::kInvalid, place + " is there already: choose an empty --state");
  fs::create_directory_symlink(inside, place, error);
  if (error) return Error(Code::kInvalid, place + " cannot be made: " + error.message());
  return {};
}

}  // namespace

Result<TargetPlaces> parse_target_places(const std::string& text) {
  TargetPlaces places;
  if (text.empty()) return places;
  if (text.find_first_not_of("0123456789") == std::string::npos) {
    if (text.size() > 4) return Error(Code::kInvalid, "--targets " + text + " is too many");
    places.count = static_cast<uint32_t>(std::stoul(text));
    return places;
  }
  for (size_t from = 0; from <= text.size();) {
    const size_t end = std::min(text.find(',', from), text.size());
    const std::string path = text.substr(from, end - from);
    from = end + 1;
    std::error_code error;
    if (path.empty() || path.find('\n') != std::string::npos)
      return Error(Code::kInvalid, "--targets " + text + ": write a number, or paths with commas between them");
    places.paths.push_back(fs::absolute(path, error).lexically_normal().string());
  }
  std::vector<std::string> sorted = places.paths;
  std::ranges::sort(sorted);
  for (size_t i = 1; i < sorted.size(); ++i)
    if (sorted[i] == sorted[i - 1] && !fs::is_directory(sorted[i]))
      return Error(Code::kInvalid, "--targets names " + sorted[i] + " twice: one target for each device");
  places.count = static_cast<uint32_t>(places.paths.size());
  return places;
}

Result<void> prepare_target_places(const TargetPlaces& places, const PlacesOptions& options,
                                   BootstrapOptions& bootstrap) {
  bootstrap.targets = places.count;
  if (places.paths.empty()) return {};
  std::error_code error;
  fs::create_directories(options.state + "/targets", error);
  if (error) return Error(Code::kInvalid, options.state + "/targets cannot be made: " + error.message());
  bootstrap.devices.resize(places.count);
  // All are looked at before any is changed.
  for (uint32_t i = 0; i < places.count; ++i) {
    const std::string& path = places.paths[i];
    struct stat info{};
    if (::stat(path.c_str(), &info) != 0)
      return Error(Code::kInvalid,
                   "--targets " + path + ": " + std::strerror(errno) + "; name a directory or a block device");
    if (S_ISDIR(info.st_mode)) continue;
    if (!S_ISBLK(info.st_mode))
      return Error(Code::kInvalid, "--targets " + path + " is neither a directory nor a block device");
    const bool ours = device_named_in(options.state + "/targets/t" + std::to_string(i)) == path;
    HR_TRY(uint64_t bytes, check_device(path, options.force, ours));
    BootstrapOptions::Device& device = bootstrap.devices[i];
    device.path = path;
    device.capacity = capacity_of_device(bytes);
    if (options.capacity_mib > 0) device.capacity = std::min(device.capacity, options.capacity_mib * kMiB);
    if (device.capacity < kMinTargetCapacity)
      return Error(Code::kNoSpace,
                   path + " is too small for a target: it has " + std::to_string(bytes / kMiB) + " MiB");
  }
  for (uint32_t i = 0; i < places.count; ++i) {
    if (!bootstrap.devices[i].path.empty()) continue;
    HR_TRY(place_in_directory(places.paths[i], options.state + "/targets/t" + std::to_string(i)));
    if (options.capacity_mib > 0) continue;
    // Equal shares of the file system for the targets that are on it.
    const uint64_t sharing = static_cast<uint64_t>(std::ranges::count_if(places.paths, [&](const std::string& other) {
      struct stat mine{};
      struct stat its{};
      return ::stat(places.paths[i].c_str(), &mine) == 0 && ::stat(other.c_str(), &its) == 0 && S_ISDIR(its.st_mode) &&
             mine.st_dev == its.st_dev;
    }));
    const uint64_t free = fs::space(places.paths[i], error).available;
    const uint64_t share =
        std::min<uint64_t>(round_down(free * 6 / 10 / std::max<uint64_t>(1, sharing), kMiB), 256 * kGiB);
    if (share < kMinTargetCapacity)
      return Error(Code::kNoSpace, places.paths[i] + " has too little free space for a target");
    bootstrap.devices[i].capacity = share;
  }
  return {};
}

}  // namespace headrace
