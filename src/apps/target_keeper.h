// TargetKeeper: keeps a node's data at full protection: it notices lost targets, rebuilds what they held, repairs
// damaged fragments (those that reads meet and those that scrub finds), sweeps orphans, and puts a fresh target in a
// lost one's place.
//
// A target is lost when it fences itself (a write or flush failed), when it could not be opened, or when neither of its
// superblocks is on the device any more (somebody emptied the file: what is still acknowledged there would not
// survive a restart). Lost is a state of the cluster map: new data goes elsewhere at once, journals and checkpoints get
// full copies again, and fragments are rebuilt wherever a target is left that the segment is not on. Where none is,
// rebuild waits for replace(). A replaced target stays in the map as retired until nothing names it. A target that is
// to be removed is draining: the same work empties it while it serves, and then it leaves the map. Nothing is
// remembered but the map: an interrupted rebuild starts over and finds less to do. Owner: Node. One core. Bounded:
// kMaxDamage reports, one rebuild at a time.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "apps/scrubber.h"
#include "apps/target_guards.h"
#include "coord/fragment_calls.h"
#include "hot/orphans.h"
#include "hot/rebuild.h"
#include "hot/target_service.h"
#include "meta/service.h"

namespace headrace {

// Something that an operator wants to find in the log. Names and values without secrets.
struct NodeEvent {
  bool trouble = false;
  std::string name;  // "target_lost"
  std::vector<std::pair<std::string, std::string>> fields;
};
using OnNodeEvent = std::function<void(const NodeEvent&)>;

struct TargetKeeperOptions {
  Nanos look = seconds(1);           // at the targets' state and at reported damage
  Nanos superblocks = seconds(10);   // at the device; at once where damage was met
  Nanos answers = seconds(5);        // a device that takes longer is judged another time
  Nanos again = seconds(60);         // until a lost target is gone through once more
  Nanos first_sweep = seconds(900);  // of orphans, after start
  Nanos sweep = seconds(3600);
  RebuildOptions rebuild;
  OrphanOptions orphans;
  ScrubberOptions scrub;
};

struct TargetRebuild {
  enum class Step : uint8_t { kNone, kWaiting, kRunning, kDone };
  Step step = Step::kNone;
  RebuildProgress progress;  // of the last or the running pass
  std::string last_error;    // why it waits
};
[[nodiscard]] std::string_view to_string(TargetRebuild::Step step);

struct KeeperCounters {
  uint64_t targets_lost = 0;  // while running
  uint64_t repaired = 0;      // fragments, in place
  uint64_t repair_failed = 0;
  uint64_t damage_waiting = 0;  // to be repaired, or being repaired
  uint64_t segments_rebuilt = 0;
  uint64_t bytes_rebuilt = 0;
  uint64_t rescued = 0;  // targets whose log or table was lost
  uint64_t sweeps = 0;   // of one target each
  uint64_t orphans_freed = 0;
  uint64_t orphan_bytes = 0;
  std::string last_error;
};

class TargetKeeper {
 public:
  // All outlive the keeper.
  struct Context {
    Env env;
    TargetService& targets;
    TargetPort& target_port;
    PartitionPort& partition_port;
    PartitionService& partitions;
    NodeId self;
    std::string state;  // targets are under STATE/targets/tN
    TargetOptions target_options;
    // Applies `change` to the newest map and stores it, unless it returns false.
    std::function<Task<Result<void>>(std::function<bool(ClusterMap&)> change)> change_map;
    std::function<std::vector<Damage>()> found;  // by this node's own reads
    OnNodeEvent event;
    // How far scrub is, kept by the cluster: a record, encoded; empty: none yet.
    std::function<Task<Result<std::string>>()> load_scrub;
    std::function<Task<Result<void>>(std::string record)> save_scrub;
    TargetGuards* guards = nullptr;  // of the places of targets, where such a thing is
  };
  explicit TargetKeeper(Context context, TargetKeeperOptions options = {});

  void start();
  [[nodiscard]] Task<void> stop();
  // What a client's reads met. Taken on trust only so far as to look at it here.
  void report(const std::vector<Damage>& damage);
  // Formats a fresh target in the place of the lost tN, of the same size, and begins to rebuild. On return it is in the
  // map and serves; status() tells how far rebuilding is. kInvalid: there is no such target, or it is not lost.
  // kExists: something else lies there, which only `force` overwrites.
  [[nodiscard]] Task<Result<TargetId>> replace(uint32_t number, bool force = false);
  // Begins to empty tN: it takes nothing new, what it holds is moved to the others (a lost one's is rebuilt there), and
  // when nothing names it any more it leaves the map. Durable on return: goes on after a restart. kInvalid: there is no
  // such target, or too few would be left; kNoSpace: what it holds does not fit on the others.
  [[nodiscard]] Task<Result<void>> remove(uint32_t number);

  [[nodiscard]] Scrubber& scrubber() { return scrubber_; }
  [[nodiscard]] TargetRebuild rebuild_of(TargetId target) const;
  [[nodiscard]] KeeperCounters counters() const;

 private:
  static constexpr size_t kMaxDamage = 4096;
  static constexpr size_t kRepairsAtOnce = 64;

  struct Known {
    TargetRebuild about;
    Nanos empty_since{};  // when a whole pass first found nothing left on it; zero: not yet
  };
  Task<void> tend();
  void note_used();
  // Which of the targets that were asked for are not on their devices any more.
  struct Looked {
    std::set<TargetId> waiting;
    std::set<TargetId> gone;
    Event all;
  };
  Task<void> look(bool at_devices);
  // Those that are surely gone; one that does not answer in time is not among them.
  [[nodiscard]] Task<std::vector<TargetInfo>> gone_from_devices(std::vector<TargetInfo> targets);
  Task<void> look_at_device(TargetInfo info, std::shared_ptr<Looked> looked);
  [[nodiscard]] Task<bool> on_device(TargetInfo info);
  static Task<void> close_one(std::shared_ptr<Target> target);
  Task<void> lose(TargetInfo info, std::string why);
  Task<void> repair_some();
  [[nodiscard]] Task<bool> verifies(Damage damage);
  Task<void> rebuild_loop();
  Task<void> rebuild_one(TargetInfo info);
  Task<void> forget(TargetInfo info);
  // True when the target serves again: its log or table was lost, its fragments were not.
  [[nodiscard]] Task<bool> rescue_one(TargetInfo info);
  [[nodiscard]] Task<bool> serves_again(TargetInfo info);
  bool not_rescued(const TargetInfo& info, const Error& why);
  [[nodiscard]] Task<Result<void>> protect();
  Task<void> sweep_loop();
  Task<void> found_by_scrub(Damage damage, bool misfit);
  [[nodiscard]] bool named_by_partitions(TargetId target) const;
  [[nodiscard]] std::string directory(uint32_t number) const;
  [[nodiscard]] const ClusterMap& map() const { return context_.partition_port.view().map(); }
  void tell(NodeEvent event) const {
    if (context_.event) context_.event(event);
  }

  Context context_;
  Env env_;
  TargetKeeperOptions options_;
  RpcFragmentPort fragments_;  // at background level
  SegmentIo io_;
  RpcWorkPort work_;
  RebuildWorker rebuild_;
  OrphanWorker orphans_;
  Scrubber scrubber_;
  std::set<Damage> damage_;
  std::set<Damage> misfits_;  // those of them whose own checksums hold
  bool repairing_ = false;    // one that is not among them any more
  std::map<TargetId, Known> known_;
  KeeperCounters counters_;
  Nanos looked_at_devices_{};
  std::set<TargetId> looking_;  // whose device has yet to answer
  std::set<TargetId> adopted_;  // rescued, and the map does not say so yet
  std::set<RunId> short_runs_;  // a copy of theirs went with a rescued target's log
  bool protect_wanted_ = true;  // after a start too: the last life may have ended before it was done
  Event rebuild_wanted_;
  Mutex replacing_;
  Scope looks_;  // at devices: one that hangs is not waited for
  Scope scope_;  // last
};

}  // namespace headrace
