#include "tier/bucket_io.h"

#include <algorithm>
#include <memory>
#include <optional>

#include "base/checksum.h"
#include "base/fault_point.h"
#include "tier/put_back.h"

namespace headrace {
namespace {
constexpr int kAttempts = 8;
constexpr uint64_t kPiece = 8 * kMiB;
}  // namespace

Nanos retry_pause(Random& random, int attempt) {
  Nanos most = std::min(seconds(5), milliseconds(100) * (int64_t{1} << std::min(attempt, 8)));
  return most / 2 + Nanos{static_cast<int64_t>(random.below(static_cast<uint64_t>(most.count / 2) + 1))};
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
      if (last.code() != Code::kConflict && !may_pass(last.code())) co_return std::move(last).within(key);
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

namespace {

// Whether the object is there with these bytes; read piece by piece.
Task<Result<bool>> has_bytes(ObjectStore* store, std::string key, uint64_t size, uint32_t crc) {
  Result<ObjectInfo> info = co_await store->head(key);
  if (info.code() == Code::kNotFound) co_return false;
  if (!info.ok()) co_return std::move(info).error();
  if (info->size != size) co_return Error(Code::kExists, key + " holds other bytes than were put");
  uint32_t found = 0;
  for (uint64_t offset = 0; offset < size; offset += kPiece) {
    HR_CO_TRY(Buffer piece, co_await store->get_range(key, offset, std::min(kPiece, size - offset)));
    found = crc32c(piece.view(), found);
  }
  if (found != crc) co_return Error(Code::kCorrupt, "what was read back is not what was written");
  co_return true;
}

Task<Result<ObjectInfo>> send_pieces(ObjectStore* store, std::string key, uint64_t size, uint32_t crc, ReadPiece read) {
  HR_CO_TRY(std::unique_ptr<Upload> upload, co_await store->begin_upload(key));
  uint32_t sent = 0;
  std::optional<Error> failed;
  for (uint64_t offset = 0; offset < size && !failed; offset += kPiece) {
    Result<Buffer> piece = co_await read(offset, std::min(kPiece, size - offset));
    if (!piece.ok()) {
      failed = std::move(piece).error();
      break;
    }
    sent = crc32c(piece->view(), sent);
    Result<void> part = co_await upload->part(*std::move(piece));
    if (!part.ok()) failed = std::move(part).error();
  }
  if (!failed && sent != crc) failed = Error(Code::kCorrupt, "does not verify before it is sent");
  if (failed) {
    co_await upload->abort();
    co_return *std::move(failed);
  }
  co_return co_await upload->finish(PutCondition::if_absent());
}

}  // namespace

Task<Result<void>> put_verified_pieces(Env env, ObjectStore& store, std::string key, uint64_t size, uint32_t crc,
                                       ReadPiece read) {
  Error last(Code::kUnavailable, "not written");
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    if (attempt > 0) co_await env.clock.sleep(retry_pause(env.random, attempt - 1));
    Result<ObjectInfo> put = co_await send_pieces(&store, key, size, crc, read);
    if (put.ok() && put->verified) co_return {};
    if (!put.ok()) {
      last = std::move(put).error();
      if (last.code() == Code::kUnavailable) continue;  // surely nothing happened
      if (last.code() != Code::kConflict && !may_pass(last.code())) co_return std::move(last).within(key);
    }
    const bool surely_there = put.ok() || last.code() == Code::kConflict;
    Result<bool> there = co_await has_bytes(&store, key, size, crc);
    if (there.code() == Code::kCorrupt && surely_there) {  // a service that lies once may tell the truth the next time
      there = co_await has_bytes(&store, key, size, crc);
      if (there.code() == Code::kCorrupt) co_return Error(Code::kExists, key + " holds other bytes than were put");
    }
    if (there.ok() && *there) co_return {};
    if (there.code() == Code::kExists) co_return std::move(there).error();
    if (!there.ok()) last = std::move(there).error();
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
