// FaultyStore: a bucket that misbehaves by dice, for tests and the simulator.
//
// Every fault is one that a real service shows: refusals, time-outs before and after the effect,
// cut and flipped bodies, old versions, slowness, puts that are acknowledged and stored otherwise.
// Bodies are changed without an error, as a lying service would: whoever decodes them must find out
// (get_range keeps its promise of the length).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "object/object_store.h"
#include "runtime/random.h"
#include "runtime/timers.h"

namespace headrace {

// Chances per million calls.
struct FaultRates {
  uint32_t unavailable = 0;     // 503: nothing happened
  uint32_t timeout_before = 0;  // kTimeout, nothing happened
  uint32_t timeout_after = 0;   // kTimeout, but it happened (writes)
  uint32_t truncated = 0;       // get: a shorter body; get_range: kDisconnected
  uint32_t corrupt = 0;         // one bit of the body is flipped
  uint32_t stale = 0;           // a read of an overwritten object sees the version before
  uint32_t slow = 0;            // takes slow_for longer
  Nanos slow_for = seconds(2);
  Nanos timeout = seconds(5);  // how long a time-out takes
  uint32_t wrong_etag = 0;     // a read or a write says another ETag than the object has
  uint32_t expired = 0;        // kDenied: the credentials ran out just now
  // An acknowledged put that stored nothing (what was there stays), a shorter body, or one with one bit flipped. One
  // rate for puts under kIfMatch (head), one for all others and uploads in parts. While a rate is not 0, none of its
  // puts is `verified`, the honest ones neither: such a service confirms no checksum.
  uint32_t stored_other = 0;
  uint32_t swapped_other = 0;

  [[nodiscard]] static FaultRates all(uint32_t per_million) {
    return {per_million, per_million, per_million, per_million, per_million, per_million, per_million};
  }
};

enum class StoredAs : uint8_t { kGiven, kNothing, kCut, kFlipped };

// How often each fault fired, by name; shared, so that it survives the machines that caused them.
using FaultCounts = std::map<std::string, uint64_t>;

class FaultyStore final : public ObjectStore {
 public:
  // `counts` may be null. rates() may be changed at any time; down(true) answers every call with
  // kUnavailable.
  FaultyStore(std::unique_ptr<ObjectStore> inner, Clock& clock, Random& random, FaultRates rates,
              std::shared_ptr<FaultCounts> counts = nullptr);
  Task<Result<ObjectInfo>> put(std::string key, Buffer body, PutCondition condition = {}) override;
  Task<Result<Got>> get_with_etag(std::string key) override;
  Task<Result<Buffer>> get_range(std::string key, uint64_t offset, uint64_t size,
                                 std::string if_match_etag = "") override;
  Task<Result<ObjectInfo>> head(std::string key) override;
  Task<Result<std::vector<RemoveFailure>>> remove_batch(std::vector<std::string> keys) override;
  Task<Result<Listing>> list(std::string prefix, std::string continuation, size_t limit) override;
  Task<Result<std::unique_ptr<Upload>>> begin_upload(std::string key) override;
  void cancel() override { inner_->cancel(); }
  [[nodiscard]] std::string trouble() const override { return inner_->trouble(); }
  [[nodiscard]] std::string url() const override { return inner_->url(); }
  [[nodiscard]] FaultRates& rates() { return rates_; }
  void down(bool down) { down_ = down; }

 private:
  [[nodiscard]] bool roll(uint32_t per_million, const char* name);
  // The faults that come before the effect.
  [[nodiscard]] Task<Result<void>> before();
  [[nodiscard]] Task<Result<void>> after();
  [[nodiscard]] Buffer flipped(const Buffer& body);
  [[nodiscard]] StoredAs stored_as(PutCondition::Kind kind);

  std::unique_ptr<ObjectStore> inner_;
  Clock& clock_;
  Random& random_;
  FaultRates rates_;
  std::shared_ptr<FaultCounts> counts_;
  std::map<std::string, Got> former_;  // the version before the last put of a key; at most kFormer small ones
  bool down_ = false;
};

}  // namespace headrace
