// Coordinator: the few small records that a whole cluster agrees on. etcd in a cluster, a file on one machine.
//
// Linearizable: get() sees every put() that was acknowledged before it began. A put is durable on return.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "runtime/task.h"
#include "runtime/timers.h"

namespace headrace {

struct CoordRecord {
  std::string value;
  uint64_t version = 0;  // grows with each put of this key; 0: absent
};

class Coordinator {
 public:
  virtual ~Coordinator() = default;
  [[nodiscard]] virtual Task<Result<CoordRecord>> get(std::string key) = 0;  // absent: version 0, not an error
  // kConflict unless the key's version is still `expected` (0: absent). Returns the new version.
  // kTimeout: unknown; get() tells.
  [[nodiscard]] virtual Task<Result<uint64_t>> put(std::string key, std::string value, uint64_t expected) = 0;
  [[nodiscard]] virtual Task<Result<std::vector<std::pair<std::string, CoordRecord>>>> list(std::string prefix) = 0;
  // Returns when anything changed since `revision` (or at once when it has), with the present revision; at most after
  // ~5 s.
  [[nodiscard]] virtual Task<Result<uint64_t>> changed_since(uint64_t revision) = 0;
  // A node's life: alive while it was renewed within kLease. Renewing is kStale while another incarnation's lease lives
  // (a restarted node waits for that of its previous life), and for ever for one that another has replaced.
  [[nodiscard]] virtual Task<Result<void>> renew_lease(std::string holder, uint64_t incarnation) = 0;
  [[nodiscard]] virtual Task<Result<bool>> lease_alive(std::string holder) = 0;
};

inline constexpr Nanos kLease = seconds(5);  // of a node, from its last renewal

// Keys.
inline constexpr const char* kMapKey = "map";        // encode_durable(ClusterMap)
inline constexpr const char* kSecretKey = "secret";  // NamespaceSecret, 32 bytes
inline constexpr const char* kCutKey = "cut";        // highest cut given out, u64
inline constexpr const char* kOwnerKey = "owner";    // bucket ownership: encode_durable (tier/head)
[[nodiscard]] inline std::string partition_key(unsigned number) {
  return "partition/" + std::to_string(number);
}

}  // namespace headrace
