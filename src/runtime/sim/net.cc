#include "runtime/sim/net.h"

#include <algorithm>

#include "base/checksum.h"
#include "runtime/sync.h"

namespace headrace {

namespace {

// The machine of "sim:<machine>[:<service>]"; empty when it is no such address.
std::string machine_of(const Address& address) {
  if (!address.starts_with("sim:")) return "";
  std::string rest = address.substr(4);
  return rest.substr(0, rest.find(':'));
}

uint64_t bytes_of_frame(const Frame& frame) {
  return frame.head.size() + frame.payload.size();
}

}  // namespace

// Both directions of one connection. Side 0 connected, side 1 accepted; direction d carries what
// side d sends. Shared by its two ends; the network knows it weakly.
class SimLink : public std::enable_shared_from_this<SimLink> {
 public:
  SimLink(SimNetwork& network, uint64_t number, std::string from, std::string to)
      : network_(network),
        number_(number),
        machines_{std::move(from), std::move(to)},
        directions_{{*this, 0}, {*this, 1}} {}

  [[nodiscard]] const std::string& machine(int side) const { return machines_[side]; }
  [[nodiscard]] bool touches(const std::string& machine) const {
    return machines_[0] == machine || machines_[1] == machine;
  }
  [[nodiscard]] bool live() const { return !directions_[0].severed && !directions_[1].severed && open_[0] && open_[1]; }

  static Task<Result<void>> send(std::shared_ptr<SimLink> link, int side, Frame frame);
  static Task<Result<Frame>> receive(std::shared_ptr<SimLink> link, int side);

  // This side neither sends nor receives any more; what it sent before still arrives, then the end.
  void close(int side) {
    if (!open_[side]) return;
    open_[side] = false;
    wake(side);
    Direction& incoming = directions_[1 - side];
    incoming.discard();
    incoming.severed = true;
    Direction& outgoing = directions_[side];
    if (!outgoing.severed) outgoing.push_end(network_.delay());
    outgoing.severed = true;
  }
  // Its process is gone: of what it sent a prefix arrives, and the peer learns after `notice`.
  void crash(int side, Nanos notice) {
    if (open_[side]) {
      open_[side] = false;
      wake(side);
      directions_[1 - side].discard();
    }
    directions_[1 - side].severed = true;
    directions_[side].keep_prefix(notice);
  }
  void cut() {
    for (Direction& direction : directions_) direction.keep_prefix(network_.delay());
  }

 private:
  struct Flying {
    Nanos arrival;
    Frame frame;
    bool end = false;
  };
  struct Direction final : public TimerNode {
    Direction(SimLink& owner, int side) : link(owner), from(side) {}

    SimLink& link;
    int from;
    std::deque<Flying> flying;
    std::deque<Frame> arrived;
    bool ended = false;    // the receiver has reached the end, once arrived is empty
    bool severed = false;  // what is sent now goes nowhere
    uint64_t bytes = 0;    // flying and arrived
    Nanos last_arrival{};
    Nanos blocked_since{-1};
    WaitList senders;
    WaitList receivers;
    bool receiving = false;

    [[nodiscard]] bool full() const {
      const NetOptions& options = link.network_.options;
      return bytes >= options.window_bytes || flying.size() + arrived.size() >= options.window_frames;
    }
    void push(Frame frame, Nanos delay, bool overtakes) {
      Nanos arrival = link.network_.core_.now + delay;
      if (!overtakes) arrival = last_arrival = std::max(arrival, last_arrival);
      bytes += bytes_of_frame(frame);
      auto after = std::ranges::upper_bound(flying, arrival, {}, &Flying::arrival);
      flying.insert(after, Flying{arrival, std::move(frame)});
      rearm();
    }
    void push_end(Nanos delay) {
      last_arrival = std::max(last_arrival, link.network_.core_.now + delay);
      if (!flying.empty()) last_arrival = std::max(last_arrival, flying.back().arrival);
      flying.push_back(Flying{last_arrival, {}, true});
      rearm();
    }
    void keep_prefix(Nanos notice) {
      if (severed && (ended || (!flying.empty() && flying.back().end))) return;  // its end is on the way already
      uint64_t kept = flying.empty() ? 0 : link.network_.core_.net.below(flying.size() + 1);
      while (flying.size() > kept) {
        bytes -= bytes_of_frame(flying.back().frame);
        flying.pop_back();
      }
      severed = true;
      push_end(notice);
      if (!senders.empty()) Scheduler::current().wake_all(senders);
    }
    void discard() {
      disarm();
      flying.clear();
      arrived.clear();
      bytes = 0;
      if (!senders.empty()) Scheduler::current().wake_all(senders);
    }
    void rearm() {
      if (!flying.empty()) link.network_.core_.clock.arm(*this, std::max(flying.front().arrival, wait_until));
    }
    void fire() override {
      SimNetwork& network = link.network_;
      Nanos now = network.core_.now;
      Nanos free = network.blocked_until(link.machines_[from], link.machines_[1 - from]);
      if (free > now) {
        if (blocked_since < Nanos{}) blocked_since = now;
        Nanos give_up = blocked_since + network.options.break_after;
        if (now >= give_up) return break_off();
        wait_until = std::min(free, give_up);
        return rearm();
      }
      blocked_since = {-1};
      wait_until = {};
      deliver(now);
      rearm();
    }
    void deliver(Nanos now) {
      while (!flying.empty() && flying.front().arrival <= now) {
        Flying next = std::move(flying.front());
        flying.pop_front();
        network_record(next);
        if (next.end) {
          ended = true;
          // Both directions end together: TCP's half-closed state is not modelled.
          link.directions_[1 - from].severed = true;
          link.wake(1 - from);
        } else {
          arrived.push_back(std::move(next.frame));
        }
        if (!receivers.empty()) Scheduler::current().wake_all(receivers);
      }
    }
    // Neither side gets through: each notices by itself, and nothing more arrives either way.
    void break_off() {
      for (Direction& direction : link.directions_) {
        direction.disarm();
        direction.severed = direction.ended = true;
        for (const Flying& lost : direction.flying) direction.bytes -= bytes_of_frame(lost.frame);
        direction.flying.clear();
      }
      link.wake(0);
      link.wake(1);
    }
    void network_record(const Flying& flight) {
      link.network_.core_.record(SimEvent::kNet, link.number_ * 2 + static_cast<uint64_t>(from),
                                 bytes_of_frame(flight.frame) << 32 | crc32c(flight.frame.head.view()),
                                 flight.end ? "end" : "frame");
    }
    Nanos wait_until{};
  };

  // Everyone of that side looks again.
  void wake(int side) {
    if (!directions_[side].senders.empty()) Scheduler::current().wake_all(directions_[side].senders);
    if (!directions_[1 - side].receivers.empty()) Scheduler::current().wake_all(directions_[1 - side].receivers);
  }
  [[nodiscard]] Error broken(int side) const {
    return {Code::kDisconnected, "connection to " + machines_[1 - side] + " is broken"};
  }

  SimNetwork& network_;
  uint64_t number_;
  std::string machines_[2];
  bool open_[2] = {true, true};
  Direction directions_[2];
};

Task<Result<void>> SimLink::send(std::shared_ptr<SimLink> link, int side, Frame frame) {
  if (frame.head.size() > kMaxHead || frame.payload.size() > kMaxPayload)
    co_return Error(Code::kTooLarge, "a frame's head or payload is over its limit");
  Direction& out = link->directions_[side];
  while (link->open_[side] && !out.severed && out.full()) co_await ListWait(out.senders);
  if (!link->open_[side] || link->directions_[1 - side].ended) co_return link->broken(side);
  SimNetwork& network = link->network_;
  SimCore& core = network.core_;
  if (!out.severed && core.faults.hit(network.cut_)) {
    core.record(SimEvent::kFault, link->number_, 0, network.cut_.name);
    link->cut();
  }
  if (out.severed) co_return Result<void>();  // the kernel takes it; nobody will read it
  Nanos delay = network.delay() + Nanos{network.options.per_mib.count * static_cast<int64_t>(bytes_of_frame(frame)) /
                                        static_cast<int64_t>(kMiB)};
  if (core.faults.hit(network.delay_burst_))
    delay =
        delay + Nanos{static_cast<int64_t>(core.net.below(static_cast<uint64_t>(network.options.max_burst.count) + 1))};
  Frame copy{Buffer::copy_of(frame.head.view()), Buffer::copy_of(frame.payload.view())};
  bool overtakes = false;
  if (network.options.unordered) {
    auto late = [&] {
      return Nanos{static_cast<int64_t>(core.net.below(static_cast<uint64_t>(network.options.max_burst.count) + 1))};
    };
    if (core.faults.hit(network.duplicate_)) out.push(copy, delay + late(), true);
    overtakes = core.faults.hit(network.reorder_);
    if (overtakes) delay = delay + late();
  }
  out.push(std::move(copy), delay, overtakes);
  co_return Result<void>();
}

Task<Result<Frame>> SimLink::receive(std::shared_ptr<SimLink> link, int side) {
  Direction& in = link->directions_[1 - side];
  struct OneReceiver {
    explicit OneReceiver(bool& flag) : receiving(flag) {
      HR_ASSERT(!receiving);
      receiving = true;
    }
    ~OneReceiver() { receiving = false; }
    bool& receiving;
  } one(in.receiving);
  while (link->open_[side] && in.arrived.empty() && !in.ended) co_await ListWait(in.receivers);
  if (!link->open_[side] || in.arrived.empty()) co_return link->broken(side);
  Frame frame = std::move(in.arrived.front());
  in.arrived.pop_front();
  in.bytes -= bytes_of_frame(frame);
  if (!in.senders.empty()) Scheduler::current().wake_all(in.senders);
  co_return frame;
}

class SimConnection final : public Connection {
 public:
  SimConnection(std::shared_ptr<SimLink> link, int side) : link_(std::move(link)), side_(side) {}
  ~SimConnection() override { link_->close(side_); }
  [[nodiscard]] Task<Result<void>> send(Frame frame) override { return SimLink::send(link_, side_, std::move(frame)); }
  [[nodiscard]] Task<Result<Frame>> receive() override { return SimLink::receive(link_, side_); }
  void close() override { link_->close(side_); }
  [[nodiscard]] std::string peer() const override { return "sim:" + link_->machine(1 - side_); }

 private:
  std::shared_ptr<SimLink> link_;
  int side_;
};

// Shared by the listener and by who waits in accept(): either may go first.
class SimListenState {
 public:
  SimListenState(SimNetwork& network, Address address) : network_(network), address_(std::move(address)) {
    network_.listeners_[address_] = this;
  }
  static Task<Result<std::unique_ptr<Connection>>> accept(std::shared_ptr<SimListenState> state) {
    while (!state->closed_ && state->backlog_.empty()) co_await ListWait(state->waiting_);
    if (state->closed_) co_return Error(Code::kCancelled, state->address_ + ": the listener is closed");
    std::unique_ptr<Connection> next = std::move(state->backlog_.front());
    state->backlog_.pop_front();
    co_return next;
  }
  void close() {
    if (closed_) return;
    closed_ = true;
    network_.listeners_.erase(address_);
    backlog_.clear();
    if (!waiting_.empty()) Scheduler::current().wake_all(waiting_);
  }
  [[nodiscard]] const Address& address() const { return address_; }
  // False: too many wait already.
  bool offer(std::unique_ptr<Connection> connection) {
    if (backlog_.size() >= network_.options.backlog) return false;
    backlog_.push_back(std::move(connection));
    if (!waiting_.empty()) Scheduler::current().wake_one(waiting_);
    return true;
  }

 private:
  SimNetwork& network_;
  Address address_;
  bool closed_ = false;
  std::deque<std::unique_ptr<Connection>> backlog_;
  WaitList waiting_;
};

class SimListener final : public Listener {
 public:
  explicit SimListener(std::shared_ptr<SimListenState> state) : state_(std::move(state)) {}
  ~SimListener() override { state_->close(); }
  [[nodiscard]] Task<Result<std::unique_ptr<Connection>>> accept() override { return SimListenState::accept(state_); }
  void close() override { state_->close(); }
  [[nodiscard]] Address address() const override { return state_->address(); }

 private:
  std::shared_ptr<SimListenState> state_;
};

SimNetwork::SimNetwork(SimCore& core, NetOptions opts)
    : options(opts),
      core_(core),
      refuse_(core.faults.point("net.refuse")),
      cut_(core.faults.point("net.cut")),
      delay_burst_(core.faults.point("net.delay_burst")),
      duplicate_(core.faults.point("net.duplicate")),
      reorder_(core.faults.point("net.reorder")) {
  (void)core.faults.point("net.partition");
}

SimNetwork::~SimNetwork() = default;

Nanos SimNetwork::delay() {
  return Nanos{static_cast<int64_t>(core_.net.between(static_cast<uint64_t>(options.min_delay.count),
                                                      static_cast<uint64_t>(options.max_delay.count)))};
}

void SimNetwork::partition(const std::string& a, const std::string& b, Nanos duration, bool one_way) {
  core_.faults.note("net.partition");
  core_.record(SimEvent::kFault, static_cast<uint64_t>(duration.count), one_way ? 1 : 0, "net.partition");
  auto block = [&](const std::string& from, const std::string& to) {
    Nanos& until = partitions_[{from, to}];
    until = std::max(until, core_.now + duration);
  };
  block(a, b);
  if (!one_way) block(b, a);
}

void SimNetwork::isolate(const std::string& machine, Nanos duration) {
  for (const std::string& other : machines_)
    if (other != machine) partition(machine, other, duration);
}

void SimNetwork::heal() {
  partitions_.clear();
}

Nanos SimNetwork::blocked_until(const std::string& from, const std::string& to) const {
  if (partitions_.empty()) return {};
  auto found = partitions_.find({from, to});
  return found == partitions_.end() ? Nanos{} : found->second;
}

bool SimNetwork::blocked(const std::string& from, const std::string& to) const {
  return blocked_until(from, to) > core_.now;
}

std::vector<std::shared_ptr<SimLink>> SimNetwork::live() {
  std::erase_if(links_, [](const auto& link) { return link.expired(); });
  std::vector<std::shared_ptr<SimLink>> out;
  for (const auto& weak : links_)
    if (auto link = weak.lock(); link != nullptr && link->live()) out.push_back(std::move(link));
  return out;
}

size_t SimNetwork::connections() const {
  return static_cast<size_t>(std::ranges::count_if(links_, [](const auto& weak) {
    auto link = weak.lock();
    return link != nullptr && link->live();
  }));
}

bool SimNetwork::cut_one_of(std::vector<std::shared_ptr<SimLink>> links) {
  if (links.empty()) return false;
  ++cut_.fired;
  core_.record(SimEvent::kFault, links.size(), 0, "net.cut");
  links[core_.net.below(links.size())]->cut();
  return true;
}

bool SimNetwork::cut(const std::string& a, const std::string& b) {
  auto links = live();
  std::erase_if(links, [&](const auto& link) {
    return !((link->machine(0) == a && link->machine(1) == b) || (link->machine(0) == b && link->machine(1) == a));
  });
  return cut_one_of(std::move(links));
}

bool SimNetwork::cut_any() {
  return cut_one_of(live());
}

void SimNetwork::crash(const std::string& machine, bool power) {
  std::vector<SimListenState*> listening;
  for (const auto& [address, listener] : listeners_)
    if (machine_of(address) == machine) listening.push_back(listener);
  for (SimListenState* listener : listening) listener->close();
  std::erase_if(links_, [](const auto& link) { return link.expired(); });
  std::vector<std::shared_ptr<SimLink>> links;
  for (const auto& weak : links_)
    if (auto link = weak.lock(); link != nullptr && link->touches(machine)) links.push_back(std::move(link));
  for (const auto& link : links) {
    Nanos notice = delay();
    if (power)
      notice = notice +
               Nanos{static_cast<int64_t>(core_.net.below(static_cast<uint64_t>(options.power_loss_notice.count) + 1))};
    for (int side : {0, 1})
      if (link->machine(side) == machine) link->crash(side, notice);
  }
}

Task<Result<std::unique_ptr<Connection>>> SimNet::connect(Address address) {
  SimNetwork& network = network_;
  SimCore& core = network.core_;
  std::string to = machine_of(address);
  if (to.empty())
    co_return Error(Code::kInvalid, "'" + address + "' is not an address of the simulator (sim:<machine>)");
  std::string from = machine_;
  co_await core.clock.sleep(network.delay());
  if (network.blocked(from, to) || network.blocked(to, from)) {
    co_await core.clock.sleep(network.options.connect_timeout);
    co_return Error(Code::kUnavailable, address + ": no answer");
  }
  if (core.faults.hit(network.refuse_))
    co_return Error(Code::kUnavailable, address + ": connection refused (injected)");
  auto listener = network.listeners_.find(address);
  if (listener == network.listeners_.end()) co_return Error(Code::kUnavailable, address + ": connection refused");
  auto link = std::make_shared<SimLink>(network, network.next_link_++, from, to);
  if (!listener->second->offer(std::make_unique<SimConnection>(link, 1)))
    co_return Error(Code::kUnavailable, address + ": too many connections wait to be accepted");
  if (network.links_.size() % 64 == 63)
    std::erase_if(network.links_, [](const auto& known) { return known.expired(); });
  network.links_.push_back(link);
  std::unique_ptr<Connection> ours = std::make_unique<SimConnection>(link, 0);
  co_await core.clock.sleep(network.delay());
  co_return ours;
}

Task<Result<std::unique_ptr<Listener>>> SimNet::listen(Address address) {
  if (machine_of(address) != machine_)
    co_return Error(Code::kInvalid, "'" + address + "' is not this machine's: sim:" + machine_ + "[:<service>]");
  if (network_.listeners_.contains(address)) co_return Error(Code::kBusy, address + ": address already in use");
  co_return std::unique_ptr<Listener>(
      std::make_unique<SimListener>(std::make_shared<SimListenState>(network_, address)));
}

}  // namespace headrace
