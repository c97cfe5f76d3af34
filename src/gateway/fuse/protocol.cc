#include "gateway/fuse/protocol.h"

#include <cstring>

namespace headrace {

namespace {

// Takes structures and terminated strings off the front; after a failure everything is empty.
class RequestReader {
 public:
  explicit RequestReader(ByteView bytes) : rest_(bytes) {}

  template <class T>
  T take() {
    T value{};
    if (rest_.size() < sizeof(T)) {
      fail();
      return value;
    }
    std::memcpy(&value, rest_.data(), sizeof(T));
    rest_ = rest_.subspan(sizeof(T));
    return value;
  }
  // Up to the terminating zero, which must be there.
  std::string text() {
    const void* end = rest_.empty() ? nullptr : std::memchr(rest_.data(), 0, rest_.size());
    if (end == nullptr) {
      fail();
      return {};
    }
    size_t length = static_cast<size_t>(static_cast<const std::byte*>(end) - rest_.data());
    std::string out(text_of(rest_.first(length)));
    rest_ = rest_.subspan(length + 1);
    return out;
  }
  // Of a directory entry.
  std::string name() {
    std::string out = text();
    if (out.empty() || out.find('/') != std::string::npos) {
      fail();
      return {};
    }
    return out;
  }
  std::string bytes(size_t size) {
    if (rest_.size() < size) {
      fail();
      return {};
    }
    std::string out(text_of(rest_.first(size)));
    rest_ = rest_.subspan(size);
    return out;
  }
  void fail() {
    ok_ = false;
    rest_ = {};
  }
  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] size_t left() const { return rest_.size(); }

 private:
  ByteView rest_;
  bool ok_ = true;
};

FuseInit take_init(RequestReader& in) {
  // Kernels before 7.36 send the first four words only.
  FuseInit init;
  init.major = in.take<uint32_t>();
  init.minor = in.take<uint32_t>();
  init.max_readahead = in.take<uint32_t>();
  init.flags = in.take<uint32_t>();
  if ((init.flags & FUSE_INIT_EXT) != 0 && in.left() >= sizeof(uint32_t))
    init.flags |= uint64_t{in.take<uint32_t>()} << 32;
  return init;
}

FuseForget take_batch_forget(RequestReader& in) {
  FuseForget forget;
  auto batch = in.take<fuse_batch_forget_in>();
  if (batch.count > in.left() / sizeof(fuse_forget_one)) {
    in.fail();
    return forget;
  }
  forget.nodes.reserve(batch.count);
  for (uint32_t i = 0; i < batch.count; ++i) {
    auto one = in.take<fuse_forget_one>();
    forget.nodes.emplace_back(FileId(one.nodeid), one.nlookup);
  }
  return forget;
}

FuseRename take_rename(RequestReader& in, bool with_flags) {
  FuseRename rename;
  if (with_flags) {
    auto head = in.take<fuse_rename2_in>();
    rename.to_parent = FileId(head.newdir);
    rename.flags = head.flags;
  } else {
    rename.to_parent = FileId(in.take<fuse_rename_in>().newdir);
  }
  rename.from_name = in.name();
  rename.to_name = in.name();
  return rename;
}

FuseWrite take_write(RequestReader& in, const Buffer& bytes) {
  auto head = in.take<fuse_write_in>();
  FuseWrite write{
      .fh = head.fh, .offset = head.offset, .write_flags = head.write_flags, .flags = head.flags, .data = {}};
  if (!in.ok() || in.left() != head.size) {
    in.fail();
    return write;
  }
  write.data = bytes.slice(bytes.size() - head.size, head.size);
  return write;
}

FuseBody take_body(RequestReader& in, const FuseHeader& header, const Buffer& bytes, bool setxattr_extended) {
  switch (header.opcode) {
    case FUSE_INIT:
      return take_init(in);
    case FUSE_LOOKUP:
      return FuseLookup{in.name()};
    case FUSE_FORGET:
      return FuseForget{{{header.node, in.take<fuse_forget_in>().nlookup}}};
    case FUSE_BATCH_FORGET:
      return take_batch_forget(in);
    case FUSE_GETATTR:
      return FuseGetAttributes{};
    case kFuseStatx:
      return FuseStatx{};
    case FUSE_SETATTR:
      return FuseSetAttributes{in.take<fuse_setattr_in>()};
    case FUSE_READLINK:
      return FuseReadLink{};
    case FUSE_SYMLINK: {
      std::string name = in.name();
      return FuseSymlink{std::move(name), in.text()};
    }
    case FUSE_MKNOD: {
      auto head = in.take<fuse_mknod_in>();
      return FuseMakeNode{in.name(), head.mode, head.rdev, head.umask};
    }
    case FUSE_MKDIR: {
      auto head = in.take<fuse_mkdir_in>();
      return FuseMakeDirectory{in.name(), head.mode, head.umask};
    }
    case FUSE_UNLINK:
      return FuseUnlink{in.name()};
    case FUSE_RMDIR:
      return FuseRemoveDirectory{in.name()};
    case FUSE_RENAME:
      return take_rename(in, false);
    case FUSE_RENAME2:
      return take_rename(in, true);
    case FUSE_LINK: {
      auto head = in.take<fuse_link_in>();
      return FuseLink{FileId(head.oldnodeid), in.name()};
    }
    case FUSE_OPEN: {
      auto head = in.take<fuse_open_in>();
      return FuseOpen{head.flags, head.open_flags};
    }
    case FUSE_OPENDIR:
      return FuseOpenDirectory{};
    case FUSE_CREATE: {
      auto head = in.take<fuse_create_in>();
      return FuseCreate{in.name(), head.flags, head.mode, head.umask};
    }
    case FUSE_TMPFILE: {
      auto head = in.take<fuse_create_in>();
      (void)in.text();  // the kernel's own name for it, no name of ours
      return FuseCreateUnnamed{head.flags, head.mode, head.umask};
    }
    case FUSE_READ: {
      auto head = in.take<fuse_read_in>();
      return FuseRead{head.fh, head.offset, head.size, head.flags};
    }
    case FUSE_WRITE:
      return take_write(in, bytes);
    case FUSE_READDIR:
    case FUSE_READDIRPLUS: {
      auto head = in.take<fuse_read_in>();
      return FuseReadDirectory{head.fh, head.offset, head.size, header.opcode == FUSE_READDIRPLUS};
    }
    case FUSE_FLUSH: {
      auto head = in.take<fuse_flush_in>();
      return FuseFlush{head.fh, head.lock_owner};
    }
    case FUSE_RELEASE: {
      auto head = in.take<fuse_release_in>();
      return FuseRelease{head.fh, head.release_flags, head.lock_owner};
    }
    case FUSE_RELEASEDIR:
      return FuseReleaseDirectory{in.take<fuse_release_in>().fh};
    case FUSE_FSYNC:
    case FUSE_FSYNCDIR:
      return FuseSync{in.take<fuse_fsync_in>().fh};
    case FUSE_SYNCFS:
      return FuseSyncFileSystem{};
    case FUSE_STATFS:
      return FuseStatFileSystem{};
    case FUSE_SETXATTR: {
      auto head = setxattr_extended ? in.take<fuse_setxattr_in>()
                                    : fuse_setxattr_in{.size = in.take<uint32_t>(), .flags = in.take<uint32_t>()};
      std::string name = in.text();
      return FuseSetXattr{std::move(name), in.bytes(head.size), head.flags, head.setxattr_flags};
    }
    case FUSE_GETXATTR: {
      auto head = in.take<fuse_getxattr_in>();
      return FuseGetXattr{in.text(), head.size};
    }
    case FUSE_LISTXATTR:
      return FuseListXattr{in.take<fuse_getxattr_in>().size};
    case FUSE_REMOVEXATTR:
      return FuseRemoveXattr{in.text()};
    case FUSE_FALLOCATE: {
      auto head = in.take<fuse_fallocate_in>();
      return FuseAllocate{head.fh, head.offset, head.length, head.mode};
    }
    case FUSE_LSEEK: {
      auto head = in.take<fuse_lseek_in>();
      return FuseSeek{head.fh, head.offset, head.whence};
    }
    case FUSE_COPY_FILE_RANGE: {
      auto head = in.take<fuse_copy_file_range_in>();
      return FuseCopyRange{head.fh_in, head.off_in, FileId(head.nodeid_out), head.fh_out, head.off_out, head.len};
    }
    case FUSE_GETLK:
    case FUSE_SETLK:
    case FUSE_SETLKW: {
      auto head = in.take<fuse_lk_in>();
      return FuseLock{head.fh, head.owner, head.lk, head.lk_flags};
    }
    case FUSE_INTERRUPT:
      return FuseInterrupt{in.take<fuse_interrupt_in>().unique};
    case FUSE_DESTROY:
      return FuseDestroy{};
    default:
      return FuseUnsupported{};
  }
}

}  // namespace

Result<FuseHeader> decode_fuse_header(ByteView bytes) {
  RequestReader in(bytes);
  auto header = in.take<fuse_in_header>();
  if (!in.ok() || header.len != bytes.size()) return Error(Code::kInvalid, "fuse: a request without a whole header");
  return FuseHeader{header.opcode, header.unique, FileId(header.nodeid), header.uid, header.gid};
}

Result<FuseRequest> decode_fuse_request(const Buffer& bytes, bool setxattr_extended) {
  HR_TRY(FuseHeader header, decode_fuse_header(bytes.view()));
  RequestReader in(bytes.view().subspan(sizeof(fuse_in_header)));
  FuseRequest request{header, take_body(in, header, bytes, setxattr_extended)};
  if (!in.ok()) return Error(Code::kInvalid, "fuse: a malformed request, operation " + std::to_string(header.opcode));
  return request;
}

}  // namespace headrace
