#include "tier/head.h"

#include "base/fault_point.h"
#include "tier/bucket_io.h"
#include "tier/put_back.h"

namespace headrace {
namespace {

constexpr int kAttempts = 10;
constexpr Nanos kWatch = seconds(10);

}  // namespace

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
  Error last(Code::kUnavailable, "head was not written");
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    PutCondition condition = expected ? PutCondition::if_match(expected->etag) : PutCondition::if_absent();
    Result<ObjectInfo> put = co_await store_.put(kHeadKey, body, condition);
    if (put.ok()) co_return HeadVersion{std::move(record), put->etag};
    last = std::move(put).error();
    if (last.code() != Code::kConflict && !may_pass(last.code()))
      co_return std::move(last).within(store_.url() + ": head");
    // Refused or unknown: what is there decides. An answer of ours may have been lost, so that even
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
      }
    }
    if (attempt + 1 < kAttempts) co_await env_.clock.sleep(retry_pause(env_.random, attempt));
  }
  co_return std::move(last).within(store_.url() + ": head");
}

Ownership::Ownership(Env env, ObjectStore& store, HeadVersion current, Lost lost)
    : env_(env), head_(env, store), current_(std::move(current)), lost_(std::move(lost)) {}

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
