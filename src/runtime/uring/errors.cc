#include "runtime/uring/errors.h"

#include <cerrno>
#include <system_error>

namespace headrace {

Code code_of_errno(int error) {
  switch (error) {
    case ENOENT:
      return Code::kNotFound;
    case EEXIST:
      return Code::kExists;
    case ENOTDIR:
      return Code::kNotDirectory;
    case EISDIR:
      return Code::kIsDirectory;
    case ENOTEMPTY:
      return Code::kNotEmpty;
    case ENOSPC:
    case EDQUOT:
      return Code::kNoSpace;
    case EACCES:
      return Code::kAccess;
    case EPERM:
      return Code::kNotPermitted;
    case EINVAL:
      return Code::kInvalid;
    case ENAMETOOLONG:
      return Code::kNameTooLong;
    case EROFS:
      return Code::kReadOnly;
    case EBUSY:
    case ETXTBSY:
    case EADDRINUSE:
      return Code::kBusy;
    case EXDEV:
      return Code::kCrossNamespace;
    case ENODATA:
      return Code::kNoAttribute;
    case ERANGE:
      return Code::kRange;
    case EFBIG:
    case E2BIG:
      return Code::kTooLarge;
    case ELOOP:
      return Code::kLoop;
    case EMLINK:
      return Code::kTooManyLinks;
    case EOPNOTSUPP:
    case ENOSYS:
      return Code::kNotSupported;
    case ESTALE:
      return Code::kStale;
    case ECANCELED:
      return Code::kCancelled;
    // Nothing was sent, or the machine is short of something that comes back.
    case ECONNREFUSED:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EADDRNOTAVAIL:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOBUFS:
    case EAGAIN:
      return Code::kUnavailable;
    case ECONNRESET:
    case ECONNABORTED:
    case ENOTCONN:
    case ESHUTDOWN:
    case ETIMEDOUT:  // of an established connection: what was sent may have arrived
    case EPIPE:
      return Code::kDisconnected;
    default:
      return Code::kIo;
  }
}

Error errno_error(int error, std::string what) {
  return {code_of_errno(error), std::move(what) + ": " + std::generic_category().message(error)};
}

}  // namespace headrace
