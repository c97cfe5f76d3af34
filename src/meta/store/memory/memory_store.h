// MemoryStoreFactory: stores in the memory of the process, for the simulator and tests.
//
// Like every store, one does not outlive its process: DESIGN §10's "after a crash it is back at one
// flush" follows from the partition, which starts from a checkpoint. A checkpoint's files are cut
// where a hash of the key says so and named by their content, so that ranges that did not change
// keep their name. Deterministic: a function of the calls and of the Random given.
#pragma once

#include "meta/store/store.h"
#include "runtime/random.h"
#include "runtime/timers.h"

namespace headrace {

// Applies that fail and change nothing, as on a disk that is full or broken. May be changed at any time.
struct MemoryStoreFaults {
  uint64_t next_applies = 0;         // so many fail from now on
  uint32_t applies_per_million = 0;  // of the others; wants a Random
  uint64_t failed_applies = 0;       // so many have
};

// Makes reads miss, so that gather-then-run restarts are exercised.
struct MemoryStoreLatency {
  Clock* clock = nullptr;  // null: nothing ever misses; both outlive the stores
  Random* random = nullptr;
  uint32_t miss_percent = 0;  // of get_now() of keys that were not lately fetched by get()
  Nanos min = microseconds(50);
  Nanos max = milliseconds(2);
  const Nanos* checkpoint = nullptr;    // how long one takes; outlives the stores. Null: as long as a read
  MemoryStoreFaults* faults = nullptr;  // outlives the stores. Null: nothing ever fails
};

class MemoryStoreFactory final : public StoreFactory {
 public:
  explicit MemoryStoreFactory(MemoryStoreLatency latency = {}) : latency_(latency) {}
  Task<Result<std::unique_ptr<Store>>> create(std::string name) override;
  Task<Result<std::unique_ptr<Store>>> import(std::string name, StoreFiles files, FetchFile fetch) override;

 private:
  MemoryStoreLatency latency_;
};

using StoreRows = std::vector<std::pair<Key, RowValue>>;

// One file: rows ascending. Format in docs/formats/store.md.
[[nodiscard]] std::string encode_memory_store_file(const StoreRows& rows);
// kCorrupt unless every byte is as written.
// DECODER: memory_store_file
[[nodiscard]] Result<StoreRows> decode_memory_store_file(ByteView bytes);

}  // namespace headrace
