// TierService: everything of a node that has to do with its bucket, behind one entry.
//
// Life: construct → register_handlers() before the hub serves → start() once the partitions serve →
// stop(). start() takes up the ownership of the bucket's head (or makes it); with an owner
// elsewhere it fails, and the node should go on read-only. In a cluster exactly one node may have
// run_owner set; every node serves cold reads. Durable: push() on return means recorded objects;
// publish() means that head names the manifest; spin_down() means that head says released, and
// nothing of this cluster's disks is needed any more.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "coord/fragment_calls.h"
#include "rpc/handlers.h"
#include "tier/cold_reader.h"
#include "tier/evictor.h"
#include "tier/fetcher.h"
#include "tier/packer.h"
#include "tier/pin_keeper.h"
#include "tier/publisher.h"
#include "tier/rehydrate.h"
#include "tier/uploader.h"

namespace headrace {

struct TierOptions {
  std::string description;  // of this owner, for people: "host:STATE"
  bool run_owner = true;
  Nanos publish_interval = seconds(300);  // as upload-after: a manifest sends everything
  UploaderOptions upload;
  PublisherOptions publish;
  EvictorOptions evict;
  PinKeeperOptions pins;
  ColdReaderOptions cold;
};

// All outlive the service.
struct TierContext {
  Env env;
  ObjectStore& store;
  Coordinator& coordinator;
  PartitionPort& partitions;
  TargetPort& targets;
  PieceCache& pieces;
  const Identity& identity;
  std::function<void(std::string winner)> on_lost;  // another owner: go read-only at once
  std::function<HotUsage()> usage;                  // empty: no eviction
};

struct TierStatus {
  bool owned = false;
  std::string owner;  // who head says it is; the winner once it was lost
  HeadState state = HeadState::kReleased;
  Cut published;
  uint64_t published_s = 0;
  UploadProgress upload;
  PublishProgress publish;
  EvictProgress evict;
  ColdReadCounters cold;
  std::string rewrite_error;
};

enum class SpinDownStep : uint8_t { kNone, kClosing, kPushing, kClosed, kReleased };
struct SpinDownProgress {
  SpinDownStep step = SpinDownStep::kNone;
  uint64_t grants = 0;  // still out
  uint64_t sessions = 0;
  uint64_t pending_segments = 0;     // not yet in the bucket, of the cut in work
  std::vector<std::string> evicted;  // clients that did not answer
};

class TierService {
 public:
  TierService(TierContext context, TierOptions options = {});

  void register_handlers(Handlers& handlers);
  // `held`: what attach() returned, when the node has just taken the namespace; otherwise ownership
  // is resumed.
  [[nodiscard]] Task<Result<void>> start(std::optional<HeadVersion> held = std::nullopt);
  [[nodiscard]] Task<void> stop();

  // Everything that is hot only, into the bucket; recorded on return.
  [[nodiscard]] Task<Result<void>> push();
  // A manifest of now.
  [[nodiscard]] Task<Result<Cut>> publish();
  // No new grants, everything into the bucket, last manifest, head released. Clients have
  // `patience` to leave; then it fails with kBusy and what they hold, and may be called again or
  // undone. After ok the process should stop. kUnavailable, and nothing is changed: the bucket does
  // not answer. One at a time: another waits for the one that runs, and begins where that ended.
  [[nodiscard]] Task<Result<void>> spin_down(Nanos patience = seconds(120));
  // Serves again. A spin-down that runs ends first, with kCancelled; kInvalid when its head was
  // released before it could.
  [[nodiscard]] Task<Result<void>> undo_spin_down();
  // Whoever starts a node wants it to serve: what a spin-down had closed when the node ended is
  // opened again, but for what this process was asked for. After start(), when the partitions take
  // changes.
  [[nodiscard]] Task<Result<void>> undo_interrupted_spin_down();
  [[nodiscard]] const SpinDownProgress& spin_down_progress() const { return spin_down_; }
  // Frees hot copies of what is in the bucket: `bytes` of fragments at least, where there are so
  // many.
  [[nodiscard]] Task<Result<uint64_t>> drop(uint64_t bytes) { return evictor_.drop(bytes); }

  // For a partition that is asked for room when the hot tier is full: wakes the evictor. kBusy: space will be made;
  // kNoSpace: it cannot be, and why.
  [[nodiscard]] Error make_room();
  // Brings what is at or below a path of the namespace into the hot tier. Ok also where some stayed cold: the progress
  // says so. One at a time (kBusy).
  [[nodiscard]] Task<Result<FetchProgress>> fetch(std::string path);
  [[nodiscard]] const FetchProgress& fetch_progress() const { return *fetching_; }
  // How much of what is at or below a path is where; bytes are of whole segments.
  struct Where {
    uint64_t files = 0, directories = 0, segments = 0, bytes = 0;
    uint64_t hot = 0;            // bytes in the hot tier, whether in the bucket too or not
    uint64_t not_in_bucket = 0;  // of those
    uint64_t cached = 0;         // bytes of the rest that this node's cache has
    bool pinned = false;
  };
  [[nodiscard]] Task<Result<Where>> where(std::string path);
  [[nodiscard]] PinKeeper& pins() { return pins_; }

  [[nodiscard]] TierStatus status() const;
  // What its reads found damaged since the last call, bounded.
  [[nodiscard]] std::vector<Damage> take_damage() { return segments_.take_damage(); }
  [[nodiscard]] Uploader& uploader() { return uploader_; }

 private:
  [[nodiscard]] Task<Result<void>> spin_down_alone(Nanos patience);
  [[nodiscard]] Task<Result<void>> undo_alone();
  [[nodiscard]] Result<void> still_wanted() const;  // the spin-down that runs
  [[nodiscard]] Task<bool> closed_somewhere();
  // Soon, whatever the bucket does.
  [[nodiscard]] Task<Result<void>> bucket_answers();
  Task<void> look_at_head(std::shared_ptr<Once<Result<ObjectInfo>>> seen);
  [[nodiscard]] Task<Result<CloseReply>> close_one(PartitionId partition, CloseStep step);
  [[nodiscard]] Task<Result<CloseReply>> close_all(CloseStep step);
  Task<void> publish_loop();
  [[nodiscard]] Task<Result<ColdReadReply>> cold_read(ColdRead request);
  [[nodiscard]] Error not_owner() const;

  TierContext context_;
  Env env_;
  TierOptions options_;
  RpcFragmentPort fragments_;  // at background level
  SegmentIo segments_;
  ColdReader cold_;
  Uploader uploader_;
  Evictor evictor_;
  Fetcher fetcher_;
  PinKeeper pins_;
  std::shared_ptr<FetchProgress> fetching_ = std::make_shared<FetchProgress>();  // of the last one
  Packer packer_;
  std::unique_ptr<Ownership> ownership_;
  std::unique_ptr<Publisher> publisher_;
  SpinDownProgress spin_down_;
  Mutex spinning_;        // one spin-down or undo at a time
  uint32_t undoing_ = 0;  // undos that wait for it or have it
  std::string why_not_;   // owner, when start() failed
  std::string rewrite_error_;
  Scope scope_;  // last
};

}  // namespace headrace
