#include "apps/target_guards.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace headrace {

namespace {
constexpr Nanos kPatience = seconds(2);
}  // namespace

std::string device_named_in(const std::string& directory) {
  const int fd = ::open((directory + "/device").c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return "";
  std::string text(4096, '\0');
  const ssize_t got = ::read(fd, text.data(), text.size());
  ::close(fd);
  text.resize(got > 0 ? static_cast<size_t>(got) : 0);
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

void TargetGuards::Descriptor::close() {
  if (fd >= 0) ::close(std::exchange(fd, -1));
}

TargetGuards::~TargetGuards() = default;

Result<void> TargetGuards::take_device(const std::string& path) {
  struct stat info{};
  if (devices_.contains(path) || ::stat(path.c_str(), &info) != 0 || !S_ISBLK(info.st_mode)) return {};
  Descriptor fresh;
  fresh.fd = ::open(path.c_str(), O_RDONLY | O_EXCL | O_CLOEXEC);
  if (fresh.fd < 0 && errno == EBUSY)
    return Error(Code::kBusy, path +
                                  " is in use: a target of another node (or of this one under another name), mounted, "
                                  "swap, or part of a RAID or a volume group. `lsblk " +
                                  path + "` and `fuser -v " + path +
                                  "` show whose it is: end that first, a target is of one node only");
  if (fresh.fd >= 0) std::swap(devices_[path].fd, fresh.fd);
  return {};
}

Result<void> TargetGuards::take_directory(const std::string& path) {
  if (!directories_.contains(path)) {
    Descriptor fresh;
    fresh.fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fresh.fd >= 0 && ::flock(fresh.fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
      return Error(Code::kBusy, path +
                                    " is in use by another node, or by this one for another target: stop the other one "
                                    "(`headrace stop --state DIR`, where DIR/targets leads there), a target is of one "
                                    "node only");
    std::swap(directories_[path].lock.fd, fresh.fd);  // some file systems have no such locks
  }
  const std::string device = device_named_in(path);
  if (!device.empty()) HR_TRY(take_device(device));
  const std::string before = std::exchange(directories_[path].device, device);
  if (before != device) let_go_of(before);
  return {};
}

// Unless another directory names it.
void TargetGuards::let_go_of(const std::string& device) {
  for (const auto& [path, directory] : directories_)
    if (directory.device == device) return;
  devices_.erase(device);
}

Result<void> TargetGuards::hold(const std::string& place) {
  struct stat info{};
  if (::stat(place.c_str(), &info) != 0) return {};
  return S_ISDIR(info.st_mode) ? take_directory(place) : take_device(place);
}

Task<Result<void>> TargetGuards::hold_soon(Env env, std::string place) {
  const Nanos until = env.clock.now() + kPatience;
  for (;;) {
    Result<void> held = hold(place);
    if (held.code() != Code::kBusy || env.clock.now() >= until) co_return held;
    co_await env.clock.sleep(milliseconds(50));
  }
}

void TargetGuards::release(const std::string& directory) {
  auto at = directories_.find(directory);
  if (at == directories_.end()) return;
  const std::string device = at->second.device;
  directories_.erase(at);
  let_go_of(device);
}

}  // namespace headrace
