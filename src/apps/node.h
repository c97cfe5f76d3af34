// Node: one server process: targets, partitions, and the messages of both, over whatever Env, coordinator and store it
// is given.
//
// headraced gives it the real ones, the simulator simulated ones. Order of life: bootstrap() once for a new cluster,
// then construct → start() → stop() (or destruction: a crash). The Env, coordinator and stores outlive it.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "apps/target_keeper.h"
#include "coord/fragment_calls.h"
#include "coord/map_follower.h"
#include "hot/piece_cache.h"
#include "hot/target_service.h"
#include "meta/service.h"
#include "runtime/scope.h"
#include "tier/tier_service.h"

namespace headrace {

struct NodeOptions {
  NodeId self{1};
  std::string state;  // directory: targets are under STATE/targets/tN
  Address listen;
  PartitionOptions partitions;
  TargetOptions targets;
  TierOptions tier;
  uint64_t cache_bytes = 512 * kMiB;  // of pieces of cold segments, in memory
  TargetKeeperOptions keeper;
  Nanos unconfirmed_patience = seconds(60);  // until writes are refused where the bucket does not say who owns it
  // Bytes that the file systems under the targets still have for them, each counted once: less than the targets may
  // grow by, and they are smaller than they say. Empty: there is always enough. Cheap: asked whenever segments are
  // reserved.
  std::function<uint64_t()> disk_room;
  OnNodeEvent on_event;  // for the log; may be empty
  // A partition serves no more, since its journal or its store failed, and why: only a start anew brings it back.
  // Called from then on every few seconds; may be empty.
  std::function<void(const std::string&)> on_partition_failed;
  TargetGuards* guards = nullptr;  // hold those of the targets that there are; of ones put in place later too
};

// Where a cluster keeps that it began on a bucket's manifest: encode_durable(HeadRecord). There until every partition
// has a checkpoint of its own.
inline constexpr const char* kOriginKey = "origin";

// Where a cluster keeps the highest generation that it has seen of each target: encode_durable(GenerationsRecord). A
// file of a lower one is an older copy that was put back.
inline constexpr const char* kGenerationsKey = "generations";

// How far scrub is: encode_durable(ScrubRecord).
inline constexpr const char* kScrubKey = "scrub";

struct TargetGeneration {
  TargetId target;
  uint64_t generation = 0;
  void fields(this auto& self, auto& v) { v(self.target, self.generation); }
};
struct GenerationsRecord {
  static constexpr uint8_t kFormat = 1;
  std::vector<TargetGeneration> targets;
  void fields(this auto& self, auto& v) { v(self.targets); }
};

// Where a cluster keeps that it is taking its namespace from its bucket again, in place: encode_durable(ClusterMap), as
// it was. There until the node can start on it.
inline constexpr const char* kResumeKey = "resume";

struct ResumeFromBucket {
  NodeId self{1};
  std::string state;
  Address address;
  std::string description;  // of this owner, for people
  TargetOptions target_options;
  bool force = false;  // whatever lies where the targets are to be
  OnNodeEvent on_event;
  TargetGuards* guards = nullptr;
};

// A new, empty namespace on this node's new targets.
struct BootstrapOptions {
  NodeId self{1};
  std::string state;
  Address address;
  Protection protection{4, 2};
  uint32_t targets = 6;
  uint64_t target_capacity = 0;  // bytes of data space, each
  // Where target i is made, if not in a file under STATE/targets/ti of target_capacity. As many as targets, or none.
  struct Device {
    std::string path;       // a block device, overwritten; empty: a file as usual
    uint64_t capacity = 0;  // 0: target_capacity
  };
  std::vector<Device> devices;
  std::vector<uint32_t> numbers;  // 'tN' of each; empty: 0, 1, …
  uint32_t partitions = 4;
  TargetOptions target_options;
  bool force = false;  // whatever lies where the targets are to be
  // Of a cluster that was there before: what is wrong with those of its targets, by number, that are not made. They
  // are lost from the beginning, and so is one that turns out to be broken, as long as enough are left.
  std::optional<std::map<uint32_t, std::string>> without;
  OnNodeEvent on_event;
  // The namespace of a bucket, which attach() has just taken, instead of a new one. Its partitions are the manifest's.
  std::optional<Attached> attached;
};

class Node {
 public:
  // What is wrong with them before anything is touched: too few targets, too small ones.
  [[nodiscard]] static Result<void> check(const BootstrapOptions& options);
  // That no cluster is at `state` which this coordinator does not know of.
  [[nodiscard]] static Task<Result<void>> check_unused(Env env, Coordinator& coordinator, std::string state);
  // Formats the targets, then writes the coordinator's records, the map last: interrupted, it can be run again.
  // kExists when there is a cluster, or something else where a target is to be (hot/target_place.h); kInvalid when
  // targets are there and the coordinator knows nothing of them.
  [[nodiscard]] static Task<Result<void>> bootstrap(Env env, Coordinator& coordinator, BootstrapOptions options);

  // When the cluster here was spun down, takes its namespace into the next epoch: swaps head, formats the targets anew
  // (what they hold is void) and bootstraps on the manifest. One that was lost, or cannot be used, stays lost where
  // enough others are left for the protection. Nothing: it was not spun down (or there is no cluster).
  // Interrupted, it can be run again. kBusy: another cluster has the namespace; kUnavailable: the bucket does not tell;
  // kExists: something else lies where a target is to be, and head was not touched.
  [[nodiscard]] static Task<Result<std::optional<HeadVersion>>> resume(Env env, Coordinator& coordinator,
                                                                       ObjectStore& bucket, ResumeFromBucket options);

  Node(Env env, Coordinator& coordinator, StoreFactory& stores, ObjectStore& bucket, NodeOptions options);
  ~Node();

  // Serves when it returns. A target that cannot be opened is marked lost, and the rest goes on; a partition that
  // cannot recover is an error that says what is missing. A bucket that does not answer is no error: what is hot is
  // served, and nothing is changed until the bucket has confirmed who owns the namespace (why_read_only() says so). A
  // bucket that was released, or holds something else, is one. `held`: what attach() returned in this process.
  [[nodiscard]] Task<Result<void>> start(std::optional<HeadVersion> held = std::nullopt);
  [[nodiscard]] Task<void> stop();

  // Everything that clients wrote before the call, into the bucket, and a manifest of it.
  [[nodiscard]] Task<Result<Cut>> push();

  [[nodiscard]] const ClusterMap& map() const { return view_.map(); }
  [[nodiscard]] PartitionService& partitions() { return service_; }
  [[nodiscard]] TargetService& targets() { return targets_; }
  [[nodiscard]] TierService& tier() { return tier_; }
  [[nodiscard]] uint64_t cache_bytes() const { return pieces_.bytes(); }
  [[nodiscard]] std::string bucket_url() const { return bucket_.url(); }
  [[nodiscard]] std::string bucket_trouble() const { return bucket_.trouble(); }
  // This node's own and what clients reported, those that ended included.
  [[nodiscard]] Report reported() const;
  [[nodiscard]] PartitionPort& partition_port() { return partition_port_; }
  [[nodiscard]] const std::string& why_read_only() const { return why_read_only_; }
  // The cluster that owns the namespace instead of this one; empty while there is none.
  [[nodiscard]] const std::string& winner() const { return winner_; }
  [[nodiscard]] TargetKeeper& keeper() { return keeper_; }
  [[nodiscard]] const SegmentIoCounters& own_segment_io() const { return segments_.counters(); }
  struct Times {  // of the last start, seconds
    double targets = 0;
    double partitions = 0;
    double bucket = 0;
  };
  [[nodiscard]] const Times& start_times() const { return times_; }
  // Live segments that are in no object yet. Walks every partition's list of them.
  struct Pending {
    uint64_t segments = 0;
    uint64_t bytes = 0;
  };
  [[nodiscard]] Task<Result<Pending>> pending_upload();
  [[nodiscard]] Hub& hub() { return hub_; }
  [[nodiscard]] Address address() const { return address_; }

 private:
  [[nodiscard]] Task<Result<ClusterMap>> load_map();
  [[nodiscard]] Task<Result<void>> put_map(ClusterMap map);
  [[nodiscard]] Task<Result<void>> change_map(std::function<bool(ClusterMap&)> change);
  [[nodiscard]] Task<Result<void>> begin_tiering(std::optional<HeadVersion> held);
  Task<void> confirm_ownership(std::shared_ptr<Once<Result<void>>> first);
  Task<void> lose_patience();
  void refuse_changes(std::string why, Code code);
  void watch_partitions();
  Task<void> watch_loop();
  // Above the evictor's high watermark, and short of where targets keep space for journals and rebuild.
  [[nodiscard]] static uint64_t full_at(const HotUsage& now);
  bool look_if_full(const HotUsage& now);
  void relieve_journals();
  [[nodiscard]] Task<void> forget_origin();
  void tell(NodeEvent event) const {
    if (options_.on_event) options_.on_event(event);
  }
  [[nodiscard]] Task<Result<void>> open_targets(ClusterMap& map);
  [[nodiscard]] Task<Result<void>> note_generations();
  [[nodiscard]] Task<Result<std::string>> load_scrub();
  [[nodiscard]] Task<Result<void>> save_scrub(std::string record);
  [[nodiscard]] Task<Result<void>> lead_partitions();
  [[nodiscard]] Task<Result<std::map<PartitionId, Partition::Origin>>> origins();
  [[nodiscard]] HotUsage usage() const;
  [[nodiscard]] Result<uint32_t> admit(bool crowded);
  [[nodiscard]] uint64_t on_targets(uint64_t length) const;
  void lost(const std::string& winner);
  [[nodiscard]] Task<Result<GetMapReply>> get_map(GetMap request);
  [[nodiscard]] Task<Result<Empty>> take_report(Report report, CallInfo info);

  Env env_;
  Coordinator& coordinator_;
  StoreFactory& stores_;
  NodeOptions options_;
  Identity identity_;
  Handlers handlers_;
  ClusterView view_;
  uint64_t map_version_ = 0;                  // of the coordinator's record
  std::map<TargetId, uint64_t> generations_;  // as the coordinator has them
  NamespaceSecret secret_{};
  TargetService targets_;
  PartitionService service_;
  Hub hub_;
  CoordinatorMapFollower follower_;
  TargetPort target_port_;
  PartitionPort partition_port_;
  RpcFragmentPort fragments_;
  SegmentIo segments_;
  ObjectStore& bucket_;
  MemoryPieceCache pieces_;
  TierService tier_;
  Address address_;
  std::map<ClientId, Report> reports_;  // last of each client; the oldest are added up in ended_
  Report ended_;
  std::string why_read_only_;
  std::string winner_;
  bool full_ = false;        // the hot tier, when last looked at
  bool only_waits_ = false;  // whoever wants to change something; why_read_only_ says for what
  Times times_;
  Mutex map_changes_;
  std::map<PartitionId, std::string> told_;  // what was last said of each partition's trouble
  TargetKeeper keeper_;
  std::unique_ptr<Scope> confirming_;
  Scope scope_;  // last
};

}  // namespace headrace
