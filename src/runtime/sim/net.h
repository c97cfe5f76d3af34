// SimNetwork: the wires between the machines of one world. SimNet: one machine's end of them.
//
// Addresses are "sim:<machine>" or "sim:<machine>:<service>"; a machine listens on its own name
// only. Frames are copied when sent. A connection delivers in order and each frame once, or breaks:
// then a prefix of what was on its way arrives and receive() ends with kDisconnected. What is on
// its way to one receiver is bounded; send() waits beyond that.
//   partition   frames and connects wait; a connection blocked for longer than break_after breaks
//   crash       kProcess: peers see the end soon; kPower: only after up to power_loss_notice
// Fault points: net.refuse (connect), net.cut (per frame sent: its connection breaks),
// net.delay_burst (per frame: it and all behind it are late), and with NetOptions::unordered only:
// net.duplicate (a second copy, perhaps much later), net.reorder (a late frame, others pass it). net.partition is
// counted. Owner: World. Concurrency: the world's thread.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/net.h"
#include "runtime/sim/core.h"

namespace headrace {

struct NetOptions {
  Nanos min_delay = microseconds(20);  // one way
  Nanos max_delay = microseconds(300);
  Nanos per_mib = microseconds(800);   // 10 Gbit/s
  Nanos connect_timeout = seconds(3);  // to a machine that does not answer
  Nanos break_after = seconds(8);      // of a connection whose frames do not get through
  Nanos power_loss_notice = seconds(5);
  Nanos max_burst = milliseconds(800);
  uint64_t window_bytes = 8 * kMiB;  // in flight or not yet received, per direction; one frame may exceed it
  uint64_t window_frames = 1024;
  uint64_t backlog = 128;  // connections not yet accepted
  bool unordered = false;  // frames may come twice and pass each other, as calls that are repeated over several
                           // connections do: the RPC above must stand it
};

class SimLink;
class SimListenState;

class SimNetwork {
 public:
  SimNetwork(SimCore& core, NetOptions options);
  ~SimNetwork();

  NetOptions options;

  // For that long nothing gets through from a to b (or back, unless one_way).
  void partition(const std::string& a, const std::string& b, Nanos duration, bool one_way = false);
  void isolate(const std::string& machine,
               Nanos duration);  // from every other machine known to the world
  void heal();
  [[nodiscard]] bool blocked(const std::string& from, const std::string& to) const;
  // Breaks one live connection between the two that the seed chooses; false where there is none.
  bool cut(const std::string& a, const std::string& b);
  bool cut_any();
  [[nodiscard]] size_t connections() const;

  void add_machine(const std::string& name) { machines_.push_back(name); }
  void crash(const std::string& machine, bool power);

 private:
  friend class SimNet;
  friend class SimLink;
  friend class SimListenState;
  [[nodiscard]] Nanos delay();
  [[nodiscard]] Nanos blocked_until(const std::string& from,
                                    const std::string& to) const;  // ≤ now: is not
  [[nodiscard]] std::vector<std::shared_ptr<SimLink>> live();
  bool cut_one_of(std::vector<std::shared_ptr<SimLink>> links);

  SimCore& core_;
  FaultPoint &refuse_, &cut_, &delay_burst_, &duplicate_, &reorder_;
  std::vector<std::string> machines_;
  std::map<std::pair<std::string, std::string>, Nanos> partitions_;
  std::map<Address, SimListenState*> listeners_;
  std::vector<std::weak_ptr<SimLink>> links_;
  uint64_t next_link_ = 1;
};

class SimNet final : public Net {
 public:
  SimNet(SimNetwork& network, std::string machine) : network_(network), machine_(std::move(machine)) {}
  [[nodiscard]] Task<Result<std::unique_ptr<Connection>>> connect(Address address) override;
  [[nodiscard]] Task<Result<std::unique_ptr<Listener>>> listen(Address address) override;

 private:
  SimNetwork& network_;
  std::string machine_;
};

}  // namespace headrace
