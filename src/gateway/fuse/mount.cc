#include "gateway/fuse/mount.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <utility>

#include "gateway/fuse/protocol.h"

namespace headrace {

namespace {

constexpr const char* kType = "fuse.headrace";

// mountinfo writes space, tab, newline and backslash as \ooo.
std::string unescape(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    bool octal = text[i] == '\\' && i + 3 < text.size();
    for (size_t k = 1; octal && k <= 3; ++k) octal = text[i + k] >= '0' && text[i + k] <= '7';
    if (!octal) {
      out += text[i];
      continue;
    }
    out += static_cast<char>((text[i + 1] - '0') << 6 | (text[i + 2] - '0') << 3 | (text[i + 3] - '0'));
    i += 3;
  }
  return out;
}

// Absolute, '.' and '..' and links of the parents resolved; the last name is not looked at, for
// what is mounted there may be dead or hung.
Result<std::string> resolve(const std::string& directory) {
  std::string path = directory;
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  if (path.empty()) return Error(Code::kInvalid, "mount: no directory given");
  size_t slash = path.rfind('/');
  std::string parent = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  if (name.empty() || name == "." || name == "..") {
    parent = path;
    name.clear();
  }
  char resolved[PATH_MAX];
  if (::realpath(parent.c_str(), resolved) == nullptr)
    return Error(errno == ENOENT ? Code::kNotFound : Code::kInvalid,
                 "mount: " + parent + ": " + std::strerror(errno) + "; make it first: mkdir -p " + directory);
  std::string out = resolved;
  if (name.empty()) return out;
  return out == "/" ? "/" + name : out + "/" + name;
}

// As resolve(), and follows a link at the end when nothing is mounted there.
Result<std::string> resolve_whole(const std::string& directory) {
  HR_TRY(std::string path, resolve(directory));
  if (!mounted_at(path).type.empty()) return path;
  char resolved[PATH_MAX];
  if (::realpath(path.c_str(), resolved) == nullptr)
    return Error(errno == ENOENT ? Code::kNotFound : Code::kInvalid,
                 "mount: " + directory + ": " + std::strerror(errno) + "; make it first: mkdir -p " + directory);
  return std::string(resolved);
}

void force_unmount(const std::string& directory) {
  (void)::umount2(directory.c_str(),
                  MNT_FORCE | UMOUNT_NOFOLLOW);  // ends the connection even where it says EBUSY
  (void)::umount2(directory.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
}

Result<void> check_mount_point(const std::string& directory) {
  struct stat status{};
  MountedAt mounted = mounted_at(directory);
  if (mounted.type == kType) {
    // statfs is never answered from the kernel's caches.
    struct statfs statistics{};
    int fd = ::open(directory.c_str(), O_PATH | O_CLOEXEC | O_NOFOLLOW);
    int error = fd < 0 ? errno : 0;
    if (fd >= 0 && ::fstatfs(fd, &statistics) != 0) error = errno;
    if (fd >= 0) ::close(fd);
    if (error != ENOTCONN && error != ECONNABORTED)
      return Error(Code::kBusy, "mount: " + directory + " is mounted already (" + mounted.source +
                                    "); unmount it first: umount " + directory);
    force_unmount(directory);
  }
  if (::stat(directory.c_str(), &status) != 0)
    return Error(errno == ENOENT ? Code::kNotFound : Code::kInvalid,
                 "mount: " + directory + ": " + std::strerror(errno));
  if (!S_ISDIR(status.st_mode))
    return Error(Code::kNotDirectory, "mount: " + directory + " is not a directory; give one");
  return {};
}

Result<int> open_device() {
  int fd = ::open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (fd >= 0) return fd;
  if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
    return Error(Code::kNotSupported,
                 "mount: this machine has no /dev/fuse; load it with 'modprobe fuse', or give the container "
                 "'--device /dev/fuse --cap-add SYS_ADMIN'");
  if (errno == EACCES || errno == EPERM)
    return Error(Code::kNotPermitted,
                 "mount: /dev/fuse may not be opened; run as root, or allow the device in the container");
  return Error(Code::kIo, std::string("mount: /dev/fuse: ") + std::strerror(errno));
}

}  // namespace

Result<Mount> Mount::at(std::string directory, MountOptions options) {
  HR_TRY(std::string path, resolve_whole(directory));
  HR_TRY(check_mount_point(path));
  HR_TRY(int fd, open_device());
  std::string data = "fd=" + std::to_string(fd) + ",rootmode=40000,user_id=" + std::to_string(::geteuid()) +
                     ",group_id=" + std::to_string(::getegid()) +
                     ",default_permissions,max_read=" + std::to_string(kFuseMaxWrite);
  if (options.allow_other) data += ",allow_other";
  unsigned long flags = 0;
  if (options.read_only) flags |= MS_RDONLY;
  if (!options.allow_suid) flags |= MS_NOSUID;
  if (!options.allow_devices) flags |= MS_NODEV;
  if (!options.access_times) flags |= MS_NOATIME;
  if (::mount(options.source.c_str(), path.c_str(), kType, flags, data.c_str()) == 0) return Mount(path, fd);
  int error = errno;
  ::close(fd);
  switch (error) {
    case EPERM:
      return Error(Code::kNotPermitted,
                   "mount: only root may mount; run as root (in a container: --cap-add SYS_ADMIN)");
    case ENODEV:
      return Error(Code::kNotSupported, "mount: this kernel has no FUSE; load it with 'modprobe fuse'");
    case EBUSY:
      return Error(Code::kBusy, "mount: " + path + " is in use; unmount it first: umount " + path);
    default:
      return Error(Code::kIo, "mount: " + path + ": " + std::strerror(error));
  }
}

Result<Mount> Mount::of(std::string directory, int fd) {
  constexpr unsigned kMisc = 10;
  constexpr unsigned kFuse = 229;
  struct stat status{};
  if (::fstat(fd, &status) != 0 || !S_ISCHR(status.st_mode) || status.st_rdev != makedev(kMisc, kFuse)) {
    ::close(fd);
    return Error(Code::kInvalid, "mount: what was handed over for " + directory + " is no descriptor of /dev/fuse");
  }
  return Mount(std::move(directory), fd);
}

Mount::Mount(Mount&& other) noexcept
    : directory_(std::move(other.directory_)),
      fd_(std::exchange(other.fd_, -1)),
      mounted_(other.mounted_.exchange(false)) {}

Mount::~Mount() {
  if (mounted_) abort();
  if (fd_ >= 0) ::close(fd_);
}

Result<void> Mount::unmount() {
  if (!mounted_) return {};
  if (::umount2(directory_.c_str(), UMOUNT_NOFOLLOW) == 0 || errno == EINVAL || errno == ENOENT) {
    mounted_ = false;  // EINVAL: somebody else has unmounted it
    return {};
  }
  if (errno == EBUSY) return Error(Code::kBusy, "unmount: " + directory_ + " is in use");
  return Error(Code::kIo, "unmount: " + directory_ + ": " + std::strerror(errno));
}

Result<void> Mount::flush_pages() {
  int fd = ::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return Error(Code::kIo, "unmount: " + directory_ + ": " + std::strerror(errno));
  int synced = ::syncfs(fd);
  int error = errno;
  ::close(fd);
  if (synced != 0) return Error(Code::kIo, "unmount: " + directory_ + ": " + std::strerror(error));
  return {};
}

void Mount::abort() {
  if (!mounted_.exchange(false)) return;
  // Somebody else may have unmounted it: what is there then is not ours.
  if (mounted_at(directory_).type == kType) force_unmount(directory_);
}

Result<void> Mount::set_read_ahead(uint32_t kib) {
  MountedAt mounted = mounted_at(directory_);
  std::ofstream file("/sys/class/bdi/" + mounted.device + "/read_ahead_kb");
  file << kib << std::flush;
  if (mounted.type != kType || !file)
    return Error(Code::kNotSupported, "mount: the kernel's read-ahead cannot be set here");
  return {};
}

Result<void> unmount_directory(const std::string& directory, bool force) {
  HR_TRY(std::string path, resolve(directory));
  MountedAt mounted = mounted_at(path);
  if (mounted.type != kType) return Error(Code::kNotFound, "unmount: nothing of headrace is mounted at " + path);
  if (force) {
    force_unmount(path);
    return {};
  }
  if (::umount2(path.c_str(), UMOUNT_NOFOLLOW) == 0) return {};
  if (errno == EBUSY)
    return Error(Code::kBusy,
                 "unmount: " + path + " is in use; end what uses it (fuser -vm " + path + "), or unmount by force");
  if (errno == EPERM) return Error(Code::kNotPermitted, "unmount: only root may unmount; run as root");
  return Error(Code::kIo, "unmount: " + path + ": " + std::strerror(errno));
}

MountedAt mounted_at(const std::string& directory) {
  // 36 35 98:0 /root /mount/point rw,noatime shared:1 - type source options
  MountedAt found;
  std::ifstream table("/proc/self/mountinfo");
  std::string line;
  while (std::getline(table, line)) {
    std::istringstream words(line);
    std::string id, parent, device, root, point, word;
    words >> id >> parent >> device >> root >> point;
    if (unescape(point) != directory) continue;
    while (words >> word && word != "-") {
    }
    std::string type, source;
    words >> type >> source;
    found = {.type = type, .source = unescape(source), .device = device};  // later lines lie on top
  }
  return found;
}

}  // namespace headrace
