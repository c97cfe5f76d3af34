#include "tier/bucket_io.h"

#include <algorithm>

#include "base/checksum.h"
#include "base/fault_point.h"
#include "tier/put_back.h"

namespace headrace {
namespace {
constexpr int kAttempts = 8;
}

Nanos retry_pause(Random& random, int attempt) {
  Nanos most = std::min(seconds(5), milliseconds(100) * (int64_t{1} << std::min(attempt, 8)));
  return most / 2 +
         Nanos{static_cast<int64_t>(random.below(static_cast<uint64_t>(most.count / 2) + 1))};
}

bool may_pass(Code code) {
  return retry_class(code) != Retry::kFinal || code == Code::kCorrupt;
}

Task<Result<void>> put_verified(Env env, ObjectStore& store, std::string key, Buffer body) {
  Error last(Code::kUnavailable, "not written");
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    if (attempt > 0) co_await env.clock.sleep(retry_pause(env.random, attempt - 1));
    Result<ObjectInfo> put = co_await store.put(key, body, PutCondition::if_absent());
    if (put.ok() && put->verified) co_return {};
    if (mutant("drop_unverified")) co_return {};
    if (!put.ok()) {
      last = std::move(put).error();
      if (last.code() == Code::kUnavailable) continue;  // surely nothing happened
      if (last.code() != Code::kConflict && !may_pass(last.code()))
        co_return std::move(last).within(key);
    }
    bool there = put.ok() || last.code() == Code::kConflict;
    Result<Buffer> back = co_await store.get(key);
    if (back.ok() && back->text() == body.text()) co_return {};
    if (!back.ok()) {
      last = std::move(back).error();
      continue;
    }
    last = Error(Code::kCorrupt, "what was read back is not what was written");
    if (!there) continue;
    // A service that lies once may tell the truth the next time; one that keeps lying holds other
    // bytes.
    back = co_await store.get(key);
    if (back.ok() && back->text() == body.text()) co_return {};
    if (back.ok()) co_return Error(Code::kExists, key + " holds other bytes than were put");
  }
  co_return std::move(last).within(store.url() + ": " + key);
}

Task<Result<Buffer>> get_verified(Env env, ObjectStore& store, std::string key, uint32_t crc) {
  Error last(Code::kUnavailable, "not read");
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    if (attempt > 0) co_await env.clock.sleep(retry_pause(env.random, attempt - 1));
    Result<Buffer> got = co_await store.get(key);
    if (got.ok() && crc32c(got->view()) == crc) co_return got;
    last = got.ok() ? Error(Code::kCorrupt, "does not verify") : std::move(got).error();
    if (!may_pass(last.code()) || (last.code() == Code::kCorrupt && attempt + 1 >= kCorruptAttempts)) break;
  }
  last = Error(last.code(), last.message() + put_back_hint(last.code()));
  co_return std::move(last).within(store.url() + ": " + key);
}

}  // namespace headrace
