#include "runtime/sim/core.h"

#include <bit>

namespace headrace {

namespace {
uint64_t mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15;
  return hash ^ (hash >> 29);
}
uint64_t mix_text(uint64_t hash, std::string_view text) {
  for (char c : text) hash = mix(hash, static_cast<unsigned char>(c));
  return mix(hash, text.size());
}
}  // namespace

uint64_t derive_seed(uint64_t seed, std::string_view purpose) {
  return mix(mix_text(mix(0x68656164, seed), purpose), seed);
}

SimCore::SimCore(uint64_t from)
    : seed(from),
      clock(now),
      schedule(derive_seed(from, "schedule")),
      disk(derive_seed(from, "disk")),
      net(derive_seed(from, "net")),
      faults(derive_seed(from, "faults")),
      trace_(derive_seed(from, "trace")) {}

void SimCore::record(SimEvent event, uint64_t a, uint64_t b, std::string_view what) {
  trace_ = mix(mix(mix(trace_, static_cast<uint64_t>(event)), a), b);
  trace_ = mix(trace_, static_cast<uint64_t>(now.count));
  if (!what.empty()) trace_ = mix_text(trace_, what);
  if (trace_file_ != nullptr)
    std::fprintf(trace_file_, "%lld %d %llu %llu %.*s\n", static_cast<long long>(now.count), static_cast<int>(event),
                 static_cast<unsigned long long>(a), static_cast<unsigned long long>(b), static_cast<int>(what.size()),
                 what.data());
}

}  // namespace headrace
