// Whole objects into and out of the bucket with nothing taken on trust: what is put is confirmed by
// the service's checksum or read back; what is got is compared with the crc that the one who names
// it remembers.
#pragma once

#include <functional>
#include <string>

#include "object/object_store.h"
#include "runtime/env.h"

namespace headrace {

// Creates an immutable object. Durable and verified on return. Ok also when the very same bytes are
// there already; kExists when others are. Unknown outcomes are settled by reading. `store` outlives
// the task.
[[nodiscard]] Task<Result<void>> put_verified(Env env, ObjectStore& store, std::string key, Buffer body);

// The same for one that is not held in memory: `read` gives any piece of it, again when asked again. kCorrupt when what
// it gives is not what `crc` says.
using ReadPiece = std::function<Task<Result<Buffer>>(uint64_t offset, uint64_t length)>;
[[nodiscard]] Task<Result<void>> put_verified_pieces(Env env, ObjectStore& store, std::string key, uint64_t size,
                                                     uint32_t crc, ReadPiece read);

// Whole. kCorrupt when it stays other than its crc says; asked again a few times.
[[nodiscard]] Task<Result<Buffer>> get_verified(Env env, ObjectStore& store, std::string key, uint32_t crc);

// ---- for loops that wait for a bucket: attempt 0 → 100 ms, doubling up to 5 s, half of it random
// ----
[[nodiscard]] Nanos retry_pause(Random& random, int attempt);
// Whether the same request may fare better later. kCorrupt counts: another answer may be whole.
[[nodiscard]] bool may_pass(Code code);
[[nodiscard]] inline uint64_t wall_seconds(Clock& clock) {
  return static_cast<uint64_t>(clock.wall().count / 1'000'000'000);
}

}  // namespace headrace
