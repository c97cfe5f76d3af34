// Result<T> and Error: how every operating error travels. A programmer's error asserts instead.
//
// A Code exists only where some caller acts differently on it. Each has one Retry class:
//   kRetryable       nothing happened; asking again (perhaps elsewhere) may succeed
//   kOutcomeUnknown  it may or may not have happened; only an idempotent repeat is safe
//   kFinal           asking again gives the same answer
// The message says what failed and, where a person can act, the mend. Context is added, outermost
// first, where a room is crossed: "mount: open /x: target t3: short read".
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace headrace {

enum class Code : uint16_t {
  kOk = 0,
  // POSIX answers: the gateway turns each into the errno of the same name.
  kNotFound = 1,         // ENOENT
  kExists = 2,           // EEXIST
  kNotDirectory = 3,     // ENOTDIR
  kIsDirectory = 4,      // EISDIR
  kNotEmpty = 5,         // ENOTEMPTY
  kNoSpace = 6,          // ENOSPC
  kAccess = 7,           // EACCES
  kNotPermitted = 8,     // EPERM
  kInvalid = 9,          // EINVAL: bad argument, bad config value
  kNameTooLong = 10,     // ENAMETOOLONG
  kReadOnly = 11,        // EROFS: not the owner of the namespace (any more), or a read-only mount
  kBusy = 12,            // EBUSY
  kCrossNamespace = 13,  // EXDEV
  kNoAttribute = 14,     // ENODATA
  kRange = 15,           // ERANGE
  kTooLarge = 16,        // EFBIG / E2BIG
  kLoop = 17,            // ELOOP / a rename of a directory into itself is kInvalid
  kTooManyLinks = 18,    // EMLINK
  kNotSupported = 19,    // EOPNOTSUPP
  kStale = 20,           // ESTALE: the session, the grant, or the namespace epoch has ended
  kIo = 21,              // EIO: bytes are lost or cannot be verified
  kDeadlock = 22,        // EDEADLK: to wait for this lock would be to wait for oneself
  // Inside the system.
  kCorrupt = 40,            // a checksum or a format check failed; another copy may serve
  kNoFragment = 41,         // this target does not hold it: ask the home for the current placement
  kNotLeader = 42,          // ask the cluster map again
  kDeposed = 43,            // a higher epoch exists: stop acting as leader / owner
  kUnavailable = 44,        // not now (starting, overloaded, closing, unreachable before sending)
  kTimeout = 45,            // deadline passed; outcome unknown
  kDisconnected = 46,       // connection broke after sending; outcome unknown
  kConflict = 47,           // a compare-and-swap lost
  kUnsupportedFormat = 48,  // written by a newer version
  kCancelled = 49,          // the asker is shutting down
  kDenied = 50,             // credentials or capability refused (bucket 403, bad MAC)
};

enum class Retry : uint8_t { kRetryable, kOutcomeUnknown, kFinal };

[[nodiscard]] Retry retry_class(Code code);
[[nodiscard]] std::string_view code_name(Code code);
[[nodiscard]] int to_errno(Code code);  // positive errno; EIO for codes that are inside the system

class [[nodiscard]] Error {
 public:
  Error(Code code, std::string message) : code_(code), message_(std::move(message)) {}

  [[nodiscard]] Code code() const { return code_; }
  [[nodiscard]] const std::string& message() const { return message_; }
  [[nodiscard]] Retry retry() const { return retry_class(code_); }
  // "not_found: lookup x: no such file"
  [[nodiscard]] std::string text() const;

  // Prefixes `where: `; returns itself so that it can be chained on return.
  [[nodiscard]] Error&& within(std::string_view where) && {
    message_.insert(0, ": ");
    message_.insert(0, where);
    return std::move(*this);
  }

 private:
  Code code_;
  std::string message_;
};

[[noreturn]] void assertion_failed(const char* expression, const char* file, int line);

#define HR_ASSERT(expression)                                        \
  do {                                                               \
    if (!(expression)) [[unlikely]]                                  \
      ::headrace::assertion_failed(#expression, __FILE__, __LINE__); \
  } while (false)

template <class T = void>
class [[nodiscard]] Result {
 public:
  using Value = T;
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT: implicit by intent
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT
  Result(Code code, std::string message) : Result(Error(code, std::move(message))) {}

  [[nodiscard]] bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }
  [[nodiscard]] Code code() const { return ok() ? Code::kOk : std::get<1>(state_).code(); }

  T& operator*() & {
    HR_ASSERT(ok());
    return *std::get_if<0>(&state_);
  }
  const T& operator*() const& {
    HR_ASSERT(ok());
    return *std::get_if<0>(&state_);
  }
  T&& operator*() && {
    HR_ASSERT(ok());
    return std::move(*std::get_if<0>(&state_));
  }
  T* operator->() {
    HR_ASSERT(ok());
    return std::get_if<0>(&state_);
  }
  const T* operator->() const {
    HR_ASSERT(ok());
    return std::get_if<0>(&state_);
  }

  const Error& error() const& {
    HR_ASSERT(!ok());
    return *std::get_if<1>(&state_);
  }
  Error&& error() && {
    HR_ASSERT(!ok());
    return std::move(*std::get_if<1>(&state_));
  }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  using Value = void;
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT
  Result(Code code, std::string message) : error_(Error(code, std::move(message))) {}

  [[nodiscard]] bool ok() const { return !error_.has_value(); }
  explicit operator bool() const { return ok(); }
  [[nodiscard]] Code code() const { return ok() ? Code::kOk : error_->code(); }
  void operator*() const { HR_ASSERT(ok()); }
  const Error& error() const& {
    HR_ASSERT(!ok());
    return *error_;
  }
  Error&& error() && {
    HR_ASSERT(!ok());
    return std::move(*error_);
  }

 private:
  std::optional<Error> error_;
};

// The two control macros. HR_TRY(expr) returns the error of a Result; HR_TRY(declaration, expr)
// also binds the value: HR_TRY(auto x, f()). HR_CO_TRY is the same inside a coroutine:
// HR_CO_TRY(auto x, co_await f()).
#define HR_TRY(...) HR_PICK_(__VA_ARGS__, HR_TRY2_, HR_TRY1_)(return, __COUNTER__, __VA_ARGS__)
#define HR_CO_TRY(...) HR_PICK_(__VA_ARGS__, HR_TRY2_, HR_TRY1_)(co_return, __COUNTER__, __VA_ARGS__)
#define HR_PICK_(a, b, c, ...) c
#define HR_TRY1_(ret, n, expr) HR_TRY1X_(ret, n, expr)
#define HR_TRY1X_(ret, n, expr)          \
  do {                                   \
    auto hr_try_##n = (expr);            \
    if (!hr_try_##n.ok()) [[unlikely]]   \
      ret std::move(hr_try_##n).error(); \
  } while (false)
#define HR_TRY2_(ret, n, decl, expr) HR_TRY2X_(ret, n, decl, expr)
#define HR_TRY2X_(ret, n, decl, expr)  \
  auto hr_try_##n = (expr);            \
  if (!hr_try_##n.ok()) [[unlikely]]   \
    ret std::move(hr_try_##n).error(); \
  decl = *std::move(hr_try_##n)

}  // namespace headrace
