// CoordTable and Leases: the rules of a Coordinator, in memory and without I/O; what its back ends share.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/codec.h"
#include "coord/coordinator.h"

namespace headrace {

struct CoordEntry {
  std::string key;
  std::string value;
  uint64_t version = 0;
  void fields(this auto& self, auto& v) { v(self.key, self.value, self.version); }
};

// All records at one revision. Durable (embedded/): format 1.
struct CoordTable {
  static constexpr uint8_t kFormat = 1;
  uint64_t revision = 0;            // +1 with each put of any key
  std::vector<CoordEntry> entries;  // ascending by key: a few dozen at most
  uint64_t id = 0;                  // random, of this coordinator: tells its copies from another cluster's; 0: none yet
  void fields(this auto& self, auto& v) {
    v(self.revision, self.entries);
    v.tail(self.id);
  }

  [[nodiscard]] CoordRecord get(std::string_view key) const;
  // kConflict as Coordinator::put.
  [[nodiscard]] Result<uint64_t> put(std::string_view key, std::string value, uint64_t expected);
  [[nodiscard]] std::vector<std::pair<std::string, CoordRecord>> list(std::string_view prefix) const;
};

class Leases {
 public:
  [[nodiscard]] Result<void> renew(const std::string& holder, uint64_t incarnation, Nanos now);
  [[nodiscard]] bool alive(const std::string& holder, Nanos now) const;

 private:
  struct Lease {
    uint64_t incarnation = 0;
    Nanos end{};
    std::vector<uint64_t> replaced;  // the last few
  };
  std::map<std::string, Lease> leases_;
};

}  // namespace headrace
