// The native half of headrace bench: one client of a node, in this process, measured from its first request to durable.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace headrace {

struct Measured {
  double per_s = 0;         // operations; of streams: bytes
  uint64_t operations = 0;  // how many there were (of streams: of 4 KiB)
};

// `name` is used once for what it makes. Each starts a client of its own.
[[nodiscard]] Result<Measured> measure_creates(const std::string& node, const std::string& name, int in_flight,
                                               uint64_t files);
// Files of 4 KiB, 64 in flight, until all are durable.
[[nodiscard]] Result<Measured> measure_ingest(const std::string& node, const std::string& name, uint64_t files);
// One file of kBenchStream bytes that nothing can be saved on, until it is durable; in order; anywhere, 32 in flight.
inline constexpr uint64_t kBenchStream = uint64_t{1} << 30;
[[nodiscard]] Result<Measured> measure_write(const std::string& node, const std::string& name);
[[nodiscard]] Result<Measured> measure_read(const std::string& node, const std::string& name);
[[nodiscard]] Result<Measured> measure_random_read(const std::string& node, const std::string& name, uint64_t reads);
// Empty files, 1,000 in a directory NAME-N.
[[nodiscard]] Result<void> make_many_files(const std::string& node, const std::string& name, uint64_t files);

}  // namespace headrace
