#include "tier/head.h"

#include <algorithm>

#include "base/fault_point.h"
#include "tier/bucket_io.h"
#include "tier/put_back.h"

namespace headrace {
namespace {

constexpr int kAttempts = 10;
constexpr Nanos kWatch = seconds(10);

struct KeptNonces {
  NonceRecord record;
  uint64_t version = 0;
  bool any = false;
};

Task<Result<KeptNonces>> kept_nonces(Coordinator& coordinator) {
  HR_CO_TRY(CoordRecord found, co_await coordinator.get(kNoncesKey));
  KeptNonces out;
  out.version = found.version;
  out.any = !found.value.empty();
  if (out.any) {
    HR_CO_TRY(out.record, decode_durable<NonceRecord>(found.value));
  }
  co_return out;
}

// `current` is head's, which the write is to replace (0: there is none). It is kept however many writes fail, for it
// stays ours until one of them takes effect.
Task<Result<void>> keep_nonce(Coordinator& coordinator, uint64_t nonce, uint64_t current) {
  Error last(Code::kUnavailable, "the nonce was not recorded");
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    HR_CO_TRY(KeptNonces kept, co_await kept_nonces(coordinator));
    std::vector<uint64_t>& nonces = kept.record.nonces;
    if (std::find(nonces.begin(), nonces.end(), nonce) != nonces.end()) co_return {};  // an answer was lost
    nonces.push_back(nonce);
    if (nonces.size() > kKeptNonces) nonces.erase(nonces.begin() + (nonces.front() == current ? 1 : 0));
    Result<uint64_t> put = co_await coordinator.put(kNoncesKey, encode_durable(kept.record), kept.version);
    if (put.ok()) co_return {};
    last = std::move(put).error();
    if (last.code() != Code::kConflict && last.code() != Code::kTimeout) co_return last;
  }
  co_return Error(Code::kUnavailable, last.message());
}

}  // namespace

Task<Result<bool>> wrote_head(Coordinator& coordinator, uint64_t nonce) {
  HR_CO_TRY(KeptNonces kept, co_await kept_nonces(coordinator));
  const std::vector<uint64_t>& nonces = kept.record.nonces;
  if (kept.any) co_return std::find(nonces.begin(), nonces.end(), nonce) != nonces.end();
  HR_CO_TRY(co_await keep_nonce(coordinator, nonce, 0));
  co_return true;
}

std::string written_by_a_copy(const HeadRecord& head, const std::string& url) {
  return "a copy of this state directory runs elsewhere, or this one is an old copy (a disk image, a backup): head was "
         "written there since (" +
         describe(head) +
         "). Go on there, and delete this copy; or take the namespace from there, into a new directory: " +
         "headrace rehydrate '" + url + "' --take-over --state DIR (what was not published there is lost)";
}

Task<Result<HeadVersion>> BucketHead::read() {
  for (int attempt = 0;; ++attempt) {
    Result<Got> got = co_await store_.get_with_etag(kHeadKey);
    if (got.ok()) {
      Result<HeadRecord> record = decode_bucket_head(got->body.view());
      if (record.ok()) co_return HeadVersion{*std::move(record), got->etag};
      got = std::move(record).error();
    }
    if (!may_pass(got.code()) || attempt + 1 == kAttempts ||
        (got.code() == Code::kCorrupt && attempt + 1 >= kCorruptAttempts)) {
      Error error = std::move(got).error();
      if (error.code() == Code::kCorrupt) error = Error(error.code(), error.message() + put_back_hint(error.code()));
      co_return std::move(error).within(store_.url() + ": head");
    }
    co_await env_.clock.sleep(retry_pause(env_.random, attempt));
  }
}

Task<Result<HeadVersion>> BucketHead::create(HeadRecord record) {
  return write(std::move(record), std::nullopt);
}
Task<Result<HeadVersion>> BucketHead::swap(HeadVersion expected, HeadRecord next) {
  return write(std::move(next), std::move(expected));
}

Task<Result<HeadVersion>> BucketHead::write(HeadRecord record, std::optional<HeadVersion> expected) {
  record.nonce = env_.random.nonzero();
  record.changed_s = wall_seconds(env_.clock);
  Buffer body = encode_bucket_head(record);
  if (coordinator_ != nullptr) {
    Result<void> kept = co_await keep_nonce(*coordinator_, record.nonce, expected ? expected->record.nonce : 0);
    if (!kept.ok()) co_return std::move(kept).error().within("before head is written");
  }
  Error last(Code::kUnavailable, "head was not written");
  std::optional<std::string> replaces;  // the ETag
  if (expected) replaces = expected->etag;
  std::vector<std::string> acknowledged;  // of puts of ours that are not what was read back
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    PutCondition condition = replaces ? PutCondition::if_match(*replaces) : PutCondition::if_absent();
    Result<ObjectInfo> put = co_await store_.put(kHeadKey, body, condition);
    if (put.ok() && put->verified) co_return HeadVersion{std::move(record), put->etag};
    last = put.ok() ? Error(Code::kCorrupt, "head is not what was written") : std::move(put).error();
    if (last.code() != Code::kConflict && !may_pass(last.code()))
      co_return std::move(last).within(store_.url() + ": head");
    // Unconfirmed, refused or unknown: what is there decides. An answer of ours may have been lost, so that even
    // a refusal can be success.
    if (last.code() != Code::kUnavailable) {
      Result<HeadVersion> there = co_await read();
      if (there.ok()) {
        if (there->record.nonce == record.nonce) co_return there;
        bool same = expected && there->etag == expected->etag;
        if (!same && !expected)
          co_return Error(Code::kExists, store_.url() + " holds a namespace: " + describe(there->record));
        if (!same)
          co_return Error(Code::kDeposed,
                          store_.url() + ": the namespace has another owner: " + describe(there->record));
      } else if (there.code() == Code::kNotFound && expected) {
        co_return Error(Code::kIo, store_.url() + ": head is gone: someone deleted it");
      } else if (there.code() == Code::kCorrupt) {
        if (put.ok()) acknowledged.push_back(std::move(put->etag));
        Result<ObjectInfo> damaged = co_await store_.head(kHeadKey);
        if (damaged.ok() && std::ranges::find(acknowledged, damaged->etag) != acknowledged.end())
          replaces = std::move(damaged->etag);  // it is what we put, and nobody else's
      }
    }
    if (attempt + 1 < kAttempts) co_await env_.clock.sleep(retry_pause(env_.random, attempt));
  }
  co_return std::move(last).within(store_.url() + ": head");
}

Ownership::Ownership(Env env, ObjectStore& store, Coordinator& coordinator, HeadVersion current, Lost lost)
    : env_(env),
      store_(store),
      coordinator_(coordinator),
      head_(env, store, &coordinator),
      current_(std::move(current)),
      lost_(std::move(lost)) {}

void Ownership::start() {
  scope_.spawn(watch());
}

Task<void> Ownership::stop() {
  scope_.cancel();
  co_await scope_.join();
}

Error Ownership::deposed(std::string winner) {
  if (winner_.empty()) {
    winner_ = std::move(winner);
    if (lost_) lost_(winner_);
  }
  return Error(Code::kDeposed, "the namespace has another owner: " + winner_);
}

Task<Result<void>> Ownership::check() {
  Mutex::Guard guard = co_await mutex_.lock();
  co_return co_await check_locked();
}

Task<Result<void>> Ownership::check_locked() {
  if (!held()) co_return deposed({});
  Result<HeadVersion> there = co_await head_.read();
  if (!there.ok()) co_return std::move(there).error();
  const HeadRecord& record = there->record;
  if (record.owner == current_.record.owner && record.epoch == current_.record.epoch) {
    bool ours = record.nonce == current_.record.nonce;
    if (!ours) {
      HR_CO_TRY(ours, co_await wrote_head(coordinator_, record.nonce));
    }
    // A very old answer: a copy of this state could only write behind what is ours.
    if (!ours && record.cut < current_.record.cut)
      co_return Error(Code::kUnavailable, "the bucket answered with an old head");
    if (!ours) co_return deposed(written_by_a_copy(record, store_.url()));
    current_ = *std::move(there);
    unsure_ = false;
    co_return {};
  }
  if (mutant("ignore_other_owner")) co_return {};
  // An old answer of the service is no reason to give up what is ours; it is none to trust it
  // either.
  if (record.epoch < current_.record.epoch) co_return Error(Code::kUnavailable, "the bucket answered with an old head");
  co_return deposed(describe(record));
}

Task<Result<void>> Ownership::update(std::function<void(HeadRecord&)> change, GoOn go_on) {
  Mutex::Guard guard = co_await mutex_.lock();
  if (!held()) co_return deposed({});
  if (unsure_) HR_CO_TRY(co_await check_locked());
  HeadRecord next = current_.record;
  change(next);
  HR_CO_TRY(may_go_on(go_on));
  unsure_ = true;
  Result<HeadVersion> swapped = co_await head_.swap(current_, std::move(next));
  if (swapped.ok()) {
    current_ = *std::move(swapped);
    unsure_ = false;
    co_return {};
  }
  if (swapped.code() != Code::kDeposed) co_return std::move(swapped).error();
  // Perhaps an earlier write of ours, of unknown outcome, came late: whose it is decides.
  HR_CO_TRY(co_await check_locked());
  co_return Error(Code::kUnavailable, "head changed under our hands: try again");
}

Task<void> Ownership::watch() {
  while (held()) {
    bool slept = co_await scope_.token().sleep(env_.clock, kWatch);
    if (!slept) co_return;
    Result<void> seen = co_await check();
    (void)seen.ok();  // a bucket that does not answer takes nothing away: only another owner's head does
  }
}

}  // namespace headrace
