#include "object/probe.h"

#include <optional>

#include <fmt/core.h>

#include "base/ids.h"
#include "runtime/scope.h"

namespace headrace {

namespace {

constexpr const char* kMend =
    "this service has no working conditional writes, so two clusters could both own one namespace; "
    "use one that has "
    "them (AWS S3, MinIO, versitygw, Ceph 19 or newer) or a file:// bucket";

using Outcome = std::optional<Result<ObjectInfo>>;

Task<void> put_one(ObjectStore* store, std::string key, std::string text, PutCondition condition, Outcome* outcome) {
  Result<ObjectInfo> done = co_await store->put(std::move(key), Buffer::copy_of(bytes_of(text)), std::move(condition));
  outcome->emplace(std::move(done));
}

struct Race {
  int winner = -1;  // -1: nobody is known to have won
  bool unknown = false;
  std::string etag;
};

Task<Result<Race>> race(ObjectStore* store, std::string key, std::string tag, PutCondition condition) {
  Outcome outcomes[2];
  {
    Scope both;
    both.spawn(put_one(store, key, tag + "0", condition, &outcomes[0]));
    both.spawn(put_one(store, key, tag + "1", condition, &outcomes[1]));
    co_await both.join();
  }
  Race result;
  int wins = 0;
  for (int i = 0; i < 2; ++i) {
    Result<ObjectInfo>& outcome = *outcomes[i];
    if (outcome.ok()) {
      ++wins;
      result.winner = i;
      result.etag = outcome->etag;
    } else if (outcome.code() == Code::kNotSupported) {
      co_return Error(Code::kNotSupported, fmt::format("{} ({})", kMend, outcome.error().message()));
    } else if (outcome.code() != Code::kConflict) {
      if (outcome.error().retry() == Retry::kFinal) co_return std::move(outcome).error();
      result.unknown = true;
    }
  }
  if (wins == 2) co_return Error(Code::kNotSupported, fmt::format("both of two racing writes won: {}", kMend));
  co_return result;
}

// Whether the round had a winner at all: with lost replies, or with a service that refuses both, it
// shows nothing.
Task<Result<bool>> one_round(ObjectStore* store, std::string key, int round) {
  HR_CO_TRY(Race created, co_await race(store, key, fmt::format("create {} ", round), PutCondition::if_absent()));
  Race now = created;
  if (!created.unknown && created.winner >= 0) {
    HR_CO_TRY(Race swapped,
              co_await race(store, key, fmt::format("swap {} ", round), PutCondition::if_match(created.etag)));
    // The old ETag is stale now, and the object exists: both conditions must be refused.
    for (const PutCondition& condition : {PutCondition::if_match(created.etag), PutCondition::if_absent()}) {
      if (swapped.unknown || swapped.winner < 0) break;
      Outcome late;
      co_await put_one(store, key, "late", condition, &late);
      if (late->ok())
        co_return Error(Code::kNotSupported, fmt::format("a write with a stale condition was accepted: {}", kMend));
    }
    now = swapped;
  }
  if (now.unknown || now.winner < 0) co_return false;
  HR_CO_TRY(Got got, co_await store->get_with_etag(key));
  if (got.body.empty() || got.body.text().back() != static_cast<char>('0' + now.winner))
    co_return Error(Code::kNotSupported, fmt::format("the winner's bytes are not what is there: {}", kMend));
  if (got.etag != now.etag)
    co_return Error(Code::kNotSupported, fmt::format("a read names another ETag than the write before it: {}", kMend));
  co_return true;
}

}  // namespace

Task<Result<void>> probe_conditional_writes(ObjectStore& store, Random& random, int rounds) {
  const std::string name = "probe-" + hex(random.next());
  std::vector<std::string> keys;
  Result<bool> verdict(true);
  int decided = 0;
  for (int round = 0; round < rounds && verdict.ok(); ++round) {
    keys.push_back(fmt::format("{}-{}", name, round));
    verdict = co_await one_round(&store, keys.back(), round);
    if (verdict.ok() && *verdict) ++decided;
  }
  Result<std::vector<RemoveFailure>> removed = co_await store.remove_batch(std::move(keys));
  if (!verdict.ok()) co_return std::move(verdict).error().within(fmt::format("probing {}", store.url()));
  if (!removed.ok()) co_return std::move(removed).error().within(fmt::format("probing {}: removing", store.url()));
  if (!removed->empty())
    co_return Error(removed->front().error).within(fmt::format("probing {}: removing", store.url()));
  if (decided * 2 < rounds)
    co_return Error(Code::kUnavailable,
                    fmt::format("probing {}: only {} of {} races had a winner, so its conditional writes are unproven: "
                                "try again when the service is healthy",
                                store.url(), decided, rounds));
  co_return {};
}

}  // namespace headrace
