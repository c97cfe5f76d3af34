#include "runtime/uring/disk.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "runtime/uring/errors.h"
#include "runtime/uring/reactor.h"
#include "runtime/write_through.h"

namespace headrace {

namespace {

constexpr size_t kMaxPieces = 1024;        // IOV_MAX
constexpr size_t kMaxBytes = 1024 * kMiB;  // of one request; the kernel's own bound is just under 2 GiB

using DescriptorRef = std::shared_ptr<const Descriptor>;

class UringFile final : public File, public WriteThrough {
 public:
  UringFile(Reactor& reactor, Blocking& blocking, DescriptorRef descriptor, std::string path, bool aligned)
      : reactor_(reactor),
        blocking_(blocking),
        descriptor_(std::move(descriptor)),
        path_(std::move(path)),
        aligned_(aligned) {}

  Task<Result<size_t>> read(uint64_t offset, Buffer into) override {
    if (aligned_ && !is_aligned(offset, into)) co_return misaligned("read", offset, into.size());
    size_t done = 0;
    while (done < into.size()) {
      size_t want = std::min(into.size() - done, kMaxBytes);
      int got = co_await reactor_.submit([&](io_uring_sqe* sqe, Operation& operation) {
        io_uring_prep_read(sqe, descriptor_->fd(), into.data() + done, static_cast<unsigned>(want), offset + done);
        operation.buffers.push_back(into);
        operation.owner = descriptor_;
      });
      if (got == -EINTR || got == -EAGAIN) continue;
      if (got < 0) co_return errno_error(-got, "read " + path_);
      if (got == 0) break;
      done += static_cast<size_t>(got);
      // The end of a file that is no multiple of a block: going on from here would be misaligned.
      if (aligned_ && done % kBlock != 0) break;
    }
    co_return done;
  }

  Task<Result<void>> write(uint64_t offset, std::vector<Buffer> pieces) override {
    return put(offset, std::move(pieces), 0);
  }

  Task<Result<void>> write_through(uint64_t offset, std::vector<Buffer> pieces) override {
    return put(offset, std::move(pieces), RWF_DSYNC);
  }

  Task<Result<void>> reserve(uint64_t offset, uint64_t size) override {
    co_return co_await blocking_.run([descriptor = descriptor_, path = path_, offset, size]() -> Result<void> {
      int result = -1;
      do {
        result = fallocate(descriptor->fd(), 0, static_cast<off_t>(offset), static_cast<off_t>(size));
      } while (result != 0 && errno == EINTR);
      if (result != 0) return errno_error(errno, "reserve space in " + path);
      return {};
    });
  }

  Task<Result<void>> flush() override {
    int result = -EINTR;
    while (result == -EINTR) {
      result = co_await reactor_.submit([&](io_uring_sqe* sqe, Operation& operation) {
        io_uring_prep_fsync(sqe, descriptor_->fd(), IORING_FSYNC_DATASYNC);
        operation.owner = descriptor_;
      });
    }
    if (result < 0) co_return errno_error(-result, "flush " + path_);
    co_return Result<void>();
  }

  Task<Result<uint64_t>> size() override {
    struct stat info{};
    if (fstat(descriptor_->fd(), &info) != 0) co_return errno_error(errno, "stat " + path_);
    if (S_ISBLK(info.st_mode)) {  // st_size is of files only
      const off_t end = lseek(descriptor_->fd(), 0, SEEK_END);
      if (end < 0) co_return errno_error(errno, "size of " + path_);
      co_return static_cast<uint64_t>(end);
    }
    co_return static_cast<uint64_t>(info.st_size);
  }

  Task<Result<void>> resize(uint64_t size) override {
    co_return co_await blocking_.run([descriptor = descriptor_, path = path_, size]() -> Result<void> {
      if (ftruncate(descriptor->fd(), static_cast<off_t>(size)) != 0)
        return errno_error(errno, "resize " + path + " to " + std::to_string(size));
      return {};
    });
  }

 private:
  Task<Result<void>> put(uint64_t offset, std::vector<Buffer> pieces, int flags) {
    if (aligned_) {
      uint64_t at = offset;
      for (const Buffer& piece : pieces) {
        if (!is_aligned(at, piece)) co_return misaligned("write", at, piece.size());
        at += piece.size();
      }
    }
    size_t first = 0;  // the first piece that is not written in full
    size_t skip = 0;   // and how much of it is
    while (first < pieces.size()) {
      if (pieces[first].size() == skip) {
        ++first;
        skip = 0;
        continue;
      }
      int put = co_await reactor_.submit([&](io_uring_sqe* sqe, Operation& operation) {
        size_t total = 0;
        for (size_t i = first; i < pieces.size() && operation.pieces.size() < kMaxPieces; ++i) {
          size_t from = i == first ? skip : 0;
          size_t size = std::min(pieces[i].size() - from, kMaxBytes - total);
          if (size == 0) continue;
          operation.pieces.push_back({pieces[i].data() + from, size});
          operation.buffers.push_back(pieces[i]);
          total += size;
          if (total == kMaxBytes) break;
        }
        if (operation.pieces.size() == 1) {
          io_uring_prep_write(sqe, descriptor_->fd(), operation.pieces[0].iov_base,
                              static_cast<unsigned>(operation.pieces[0].iov_len), offset);
        } else {
          io_uring_prep_writev(sqe, descriptor_->fd(), operation.pieces.data(),
                               static_cast<unsigned>(operation.pieces.size()), offset);
        }
        sqe->rw_flags = flags;
        operation.owner = descriptor_;
      });
      if (put == -EINTR || put == -EAGAIN) continue;
      if (put < 0) co_return errno_error(-put, "write " + path_);
      if (put == 0) co_return Error(Code::kIo, "write " + path_ + ": the device took nothing");
      offset += static_cast<uint64_t>(put);
      auto left = static_cast<size_t>(put);
      while (left > 0) {
        size_t step = std::min(left, pieces[first].size() - skip);
        left -= step;
        skip += step;
        if (skip == pieces[first].size()) {
          ++first;
          skip = 0;
        }
      }
    }
    co_return Result<void>();
  }

  [[nodiscard]] static bool is_aligned(uint64_t offset, const Buffer& buffer) {
    return (offset | reinterpret_cast<uintptr_t>(buffer.data()) | buffer.size()) % kBlock == 0;
  }
  [[nodiscard]] Error misaligned(const char* what, uint64_t offset, size_t size) const {
    return {Code::kInvalid, std::string(what) + " " + path_ + ": offset " + std::to_string(offset) + ", size " +
                                std::to_string(size) +
                                " or the address is no multiple of 4096, as a direct file needs"};
  }

  Reactor& reactor_;
  Blocking& blocking_;
  DescriptorRef descriptor_;
  std::string path_;
  bool aligned_;
};

Result<DescriptorRef> open_file(const std::string& path, int flags) {
  for (;;) {
    int fd = ::open(path.c_str(), flags | O_CLOEXEC, 0600);
    if (fd >= 0) return DescriptorRef(std::make_shared<Descriptor>(fd));
    if (errno != EINTR) return errno_error(errno, "open " + path);
  }
}

class UringDisk final : public Disk {
 public:
  UringDisk(Reactor& reactor, Blocking& blocking) : reactor_(reactor), blocking_(blocking) {}

  Task<Result<std::unique_ptr<File>>> open(std::string path, OpenOptions options) override {
    HR_CO_TRY(DescriptorRef descriptor, co_await blocking_.run([path, options]() -> Result<DescriptorRef> {
      int flags = O_RDWR;
      if (options.create) flags |= O_CREAT;
      if (options.create && options.exclusive) flags |= O_EXCL;
      if (!options.direct) return open_file(path, flags);
      Result<DescriptorRef> direct = open_file(path, flags | O_DIRECT);
      if (direct.code() != Code::kInvalid) return direct;
      // Refused after the name was made: the second attempt finds it.
      return open_file(path, flags & ~O_EXCL);
    }));
    co_return std::unique_ptr<File>(
        std::make_unique<UringFile>(reactor_, blocking_, std::move(descriptor), std::move(path), options.direct));
  }

  Task<Result<void>> remove(std::string path) override {
    co_return co_await blocking_.run([path]() -> Result<void> {
      if (::remove(path.c_str()) != 0) return errno_error(errno, "remove " + path);
      return {};
    });
  }

  Task<Result<void>> rename(std::string from, std::string to) override {
    co_return co_await blocking_.run([from, to]() -> Result<void> {
      if (::rename(from.c_str(), to.c_str()) != 0) return errno_error(errno, "rename " + from + " to " + to);
      return {};
    });
  }

  Task<Result<void>> sync_directory(std::string path) override {
    co_return co_await blocking_.run([path]() -> Result<void> {
      HR_TRY(DescriptorRef directory, open_file(path, O_RDONLY | O_DIRECTORY));
      if (fsync(directory->fd()) != 0) return errno_error(errno, "sync directory " + path);
      return {};
    });
  }

  Task<Result<void>> make_directories(std::string path) override {
    co_return co_await blocking_.run([path]() -> Result<void> {
      std::error_code failure;
      std::filesystem::create_directories(path, failure);
      if (failure) return errno_error(failure.value(), "make directories " + path);
      return {};
    });
  }

  Task<Result<std::vector<std::string>>> list(std::string path) override {
    co_return co_await blocking_.run([path]() -> Result<std::vector<std::string>> {
      std::vector<std::string> names;
      std::error_code failure;
      std::filesystem::directory_iterator at(path, failure);
      for (; !failure && at != std::filesystem::directory_iterator(); at.increment(failure))
        names.push_back(at->path().filename().string());
      if (failure) return errno_error(failure.value(), "list " + path);
      std::sort(names.begin(), names.end());
      return names;
    });
  }

  Task<Result<uint64_t>> free_bytes(std::string path) override {
    co_return co_await blocking_.run([path]() -> Result<uint64_t> {
      struct statvfs info{};
      if (statvfs(path.c_str(), &info) != 0) return errno_error(errno, "free space of " + path);
      return uint64_t{info.f_bavail} * info.f_frsize;
    });
  }

 private:
  Reactor& reactor_;
  Blocking& blocking_;
};

}  // namespace

std::unique_ptr<Disk> make_disk(Reactor& reactor, Blocking& blocking) {
  return std::make_unique<UringDisk>(reactor, blocking);
}

}  // namespace headrace
