#include "base/result.h"

#include <cerrno>

namespace headrace {

void assertion_failed(const char* expression, const char* file, int line) {
  std::fprintf(stderr, "headrace: assertion failed: %s at %s:%d\n", expression, file, line);
  std::fflush(stderr);
  std::abort();
}

Retry retry_class(Code code) {
  switch (code) {
    case Code::kNotLeader:
    case Code::kUnavailable:
    case Code::kNoFragment:
    case Code::kBusy:
      return Retry::kRetryable;
    case Code::kTimeout:
    case Code::kDisconnected:
      return Retry::kOutcomeUnknown;
    default:
      return Retry::kFinal;
  }
}

std::string_view code_name(Code code) {
  switch (code) {
    case Code::kOk:
      return "ok";
    case Code::kNotFound:
      return "not_found";
    case Code::kExists:
      return "exists";
    case Code::kNotDirectory:
      return "not_directory";
    case Code::kIsDirectory:
      return "is_directory";
    case Code::kNotEmpty:
      return "not_empty";
    case Code::kNoSpace:
      return "no_space";
    case Code::kAccess:
      return "access";
    case Code::kNotPermitted:
      return "not_permitted";
    case Code::kInvalid:
      return "invalid";
    case Code::kNameTooLong:
      return "name_too_long";
    case Code::kReadOnly:
      return "read_only";
    case Code::kBusy:
      return "busy";
    case Code::kCrossNamespace:
      return "cross_namespace";
    case Code::kNoAttribute:
      return "no_attribute";
    case Code::kRange:
      return "range";
    case Code::kTooLarge:
      return "too_large";
    case Code::kLoop:
      return "loop";
    case Code::kTooManyLinks:
      return "too_many_links";
    case Code::kNotSupported:
      return "not_supported";
    case Code::kStale:
      return "stale";
    case Code::kIo:
      return "io";
    case Code::kDeadlock:
      return "deadlock";
    case Code::kCorrupt:
      return "corrupt";
    case Code::kNoFragment:
      return "no_fragment";
    case Code::kNotLeader:
      return "not_leader";
    case Code::kDeposed:
      return "deposed";
    case Code::kUnavailable:
      return "unavailable";
    case Code::kTimeout:
      return "timeout";
    case Code::kDisconnected:
      return "disconnected";
    case Code::kConflict:
      return "conflict";
    case Code::kUnsupportedFormat:
      return "unsupported_format";
    case Code::kCancelled:
      return "cancelled";
    case Code::kDenied:
      return "denied";
  }
  return "unknown";
}

int to_errno(Code code) {
  switch (code) {
    case Code::kOk:
      return 0;
    case Code::kNotFound:
      return ENOENT;
    case Code::kExists:
      return EEXIST;
    case Code::kNotDirectory:
      return ENOTDIR;
    case Code::kIsDirectory:
      return EISDIR;
    case Code::kNotEmpty:
      return ENOTEMPTY;
    case Code::kNoSpace:
      return ENOSPC;
    case Code::kAccess:
      return EACCES;
    case Code::kNotPermitted:
      return EPERM;
    case Code::kInvalid:
      return EINVAL;
    case Code::kNameTooLong:
      return ENAMETOOLONG;
    case Code::kReadOnly:
      return EROFS;
    case Code::kBusy:
      return EBUSY;
    case Code::kCrossNamespace:
      return EXDEV;
    case Code::kNoAttribute:
      return ENODATA;
    case Code::kRange:
      return ERANGE;
    case Code::kTooLarge:
      return EFBIG;
    case Code::kLoop:
      return ELOOP;
    case Code::kTooManyLinks:
      return EMLINK;
    case Code::kNotSupported:
      return EOPNOTSUPP;
    case Code::kStale:
      return ESTALE;
    case Code::kDeadlock:
      return EDEADLK;
    case Code::kCancelled:
      return EINTR;
    default:
      return EIO;
  }
}

std::string Error::text() const {
  std::string out(code_name(code_));
  out += ": ";
  out += message_;
  return out;
}

}  // namespace headrace
