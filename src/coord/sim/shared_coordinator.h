// SharedCoordinator: a coordinator for simulated clusters, in memory, as reliable as etcd: it never loses a record.
// SharedCoordinatorHandle: what one machine's process sees of it, with delays and injected unavailability.
//
// An operation takes effect once, between its two delays; a process that is crashed meanwhile does not know whether.
// Owner: the test or sim/, which makes it before the machines' processes and with a clock and randomness of its own.
#pragma once

#include <map>
#include <string>

#include "coord/coordinator.h"
#include "coord/table.h"
#include "runtime/random.h"
#include "runtime/sync.h"

namespace headrace {

struct SharedCoordinatorOptions {
  Nanos min_delay = microseconds(100);  // one way
  Nanos max_delay = milliseconds(2);
  uint32_t lost_request_per_mille = 0;  // puts: kTimeout after 1 s, without effect
  uint32_t lost_reply_per_mille = 0;    // puts: kTimeout after 1 s, with effect
};

class SharedCoordinator {
 public:
  // The clock is the world's, not a machine's: leases are measured on it.
  SharedCoordinator(Clock& clock, Random& random, SharedCoordinatorOptions options = {})
      : options(options), clock_(clock), random_(random) {}

  SharedCoordinatorOptions options;  // may be changed at any time

  // For that long the machine's operations fail with kUnavailable (without effect). "" is every machine.
  void make_unavailable(const std::string& machine, Nanos duration) {
    unavailable_until_[machine] = clock_.now() + duration;
  }
  void heal() { unavailable_until_.clear(); }
  [[nodiscard]] const CoordTable& table() const { return table_; }  // for checkers
  [[nodiscard]] uint64_t refused() const { return refused_; }       // operations that an injection failed
  [[nodiscard]] uint64_t lost() const { return lost_; }

 private:
  friend class SharedCoordinatorHandle;
  [[nodiscard]] bool unavailable(const std::string& machine) const;
  [[nodiscard]] Clock::Sleep delay();
  [[nodiscard]] bool lose(uint32_t per_mille);

  Clock& clock_;
  Random& random_;
  CoordTable table_;
  Leases leases_;
  WaitList changed_;
  std::map<std::string, Nanos> unavailable_until_;
  uint64_t refused_ = 0;
  uint64_t lost_ = 0;
};

class SharedCoordinatorHandle final : public Coordinator {
 public:
  SharedCoordinatorHandle(SharedCoordinator& shared, std::string machine)
      : shared_(shared), machine_(std::move(machine)) {}

  [[nodiscard]] Task<Result<CoordRecord>> get(std::string key) override;
  [[nodiscard]] Task<Result<uint64_t>> put(std::string key, std::string value, uint64_t expected) override;
  [[nodiscard]] Task<Result<std::vector<std::pair<std::string, CoordRecord>>>> list(std::string prefix) override;
  [[nodiscard]] Task<Result<uint64_t>> changed_since(uint64_t revision) override;
  [[nodiscard]] Task<Result<void>> renew_lease(std::string holder, uint64_t incarnation) override;
  [[nodiscard]] Task<Result<bool>> lease_alive(std::string holder) override;

 private:
  [[nodiscard]] Task<Result<void>> there();  // the way to it

  SharedCoordinator& shared_;
  std::string machine_;
};

}  // namespace headrace
