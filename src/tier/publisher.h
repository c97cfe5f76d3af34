// Publisher: makes a cut of all partitions the bucket's current manifest, then deletes what no
// manifest needs any more.
//
// Order: segments, store files and locations, manifest, head. A cut whose head swap did not surely
// succeed is given up towards the partitions, and nothing that it wrote is deleted before a later
// manifest is current without it. Deletion: a key that the current manifest does not name is
// written into the next one as garbage, and deleted when this process has seen it there for a horizon (by the boot
// clock); objects when partitions call them dead at a cut that was published a horizon ago. What a process left that
// did not finish its upload or its publish is found by listing: it is deleted when nothing knows of it in two looks a
// horizon apart, and no publish can make such a key any more. Only the holder of the head deletes, and only after head
// named it as owner. Owner: TierService. One core; one publish at a time.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "coord/coordinator.h"
#include "coord/ports.h"
#include "tier/first_seen.h"
#include "tier/head.h"
#include "tier/uploader.h"

namespace headrace {

struct PublisherOptions {
  Nanos horizon = seconds(3600);         // readers elsewhere may still use what was replaced
  Nanos stray_interval = seconds(3600);  // looks for what nobody recorded
  uint32_t files = 4;                    // store files copied at once
  uint32_t cut_attempts = 3;
};

struct PublishProgress {
  Cut published;  // 0: none by this process
  uint64_t manifests = 0;
  uint64_t files_copied = 0;
  uint64_t files_kept = 0;  // already in the bucket
  uint64_t bytes_copied = 0;
  uint64_t objects_deleted = 0;
  uint64_t keys_deleted = 0;
  uint64_t strays_deleted = 0;  // what interrupted uploads and publishes had left
  uint64_t unplaced = 0;        // segments that the cut in work still waits for
  std::string last_error;
};

class Publisher {
 public:
  // All outlive this. `identity`: the process's (its highest cut seen).
  Publisher(Env env, PartitionPort& partitions, Coordinator& coordinator, ObjectStore& store, Uploader& uploader,
            Ownership& ownership, const Identity& identity, PublisherOptions options = {});

  // On ok, head names a manifest of a cut that was taken after the call began; `state` is set in
  // the same swap, where given. kDeposed: another owner. kBusy: to be released, and a partition is
  // not closed. What `go_on` says ends it until head is swapped, and not from then on.
  [[nodiscard]] Task<Result<Cut>> publish(std::optional<HeadState> state = std::nullopt, GoOn go_on = {});
  [[nodiscard]] const PublishProgress& progress() const { return progress_; }

 private:
  struct Taken {
    PartitionInfo partition;
    TakeCutReply reply;
  };
  struct Published {
    Cut cut;
    Nanos at;  // by the boot clock
  };
  [[nodiscard]] Task<Result<Cut>> next_cut();
  [[nodiscard]] Task<Result<void>> load_previous();
  [[nodiscard]] Task<Result<std::vector<Taken>>> take(Cut cut);
  [[nodiscard]] Task<Result<Taken>> take_one(PartitionInfo partition, Cut cut);
  [[nodiscard]] Task<Result<ManifestRecord>> build(Cut cut, GoOn go_on);
  [[nodiscard]] Task<Result<PartitionManifest>> copy_partition(Taken taken, Cut cut);
  [[nodiscard]] Task<Result<Buffer>> read_piece(PartitionId partition, Cut cut, std::string name, uint64_t offset,
                                                uint64_t length);
  [[nodiscard]] Task<Result<ManifestFile>> copy_file(PartitionInfo partition, Cut cut, StoreFile file);
  [[nodiscard]] Task<Result<void>> try_publish(Cut cut, std::optional<HeadState> state, GoOn go_on);
  [[nodiscard]] Task<Result<void>> all_closed();
  [[nodiscard]] Task<void> release(Cut cut, bool published);
  [[nodiscard]] Task<Result<Empty>> release_one(PartitionId partition, Cut cut, bool published);
  // Deletes what is due. Within publish(): no other is under way.
  [[nodiscard]] Task<Result<void>> collect();
  [[nodiscard]] Task<Result<void>> collect_objects();
  [[nodiscard]] Task<Result<void>> collect_objects(PartitionId partition, Cut dead_at, Nanos until);
  [[nodiscard]] Task<Result<void>> collect_keys();
  [[nodiscard]] Task<Result<void>> collect_strays();
  [[nodiscard]] Task<Result<void>> collect_stray_objects();
  [[nodiscard]] Task<Result<void>> collect_stray_keys();
  [[nodiscard]] bool surely_over(const std::string& key) const;

  Env env_;
  PartitionPort& partitions_;
  Coordinator& coordinator_;
  ObjectStore& store_;
  Uploader& uploader_;
  Ownership& ownership_;
  const Identity& identity_;
  PublisherOptions options_;
  PublishProgress progress_;
  std::string previous_key_;  // manifest that previous_ is
  std::optional<ManifestRecord> previous_;
  std::set<std::string> strays_;               // keys put for manifests that did not become current (perhaps did)
  std::set<std::string> deleted_;              // garbage of previous_ that is gone already
  FirstSeen<std::string> garbage_seen_;        // all of it
  std::deque<Published> published_;            // oldest first; of those past the horizon the newest alone
  std::map<PartitionId, ObjectId> looked_to_;  // where the collection of its dead objects goes on
  FirstSeen<ObjectId> stray_objects_;          // that no partition knows
  FirstSeen<std::string> stray_keys_;          // that nothing names
  Nanos next_stray_look_{};
  Semaphore copying_;
  Mutex mutex_;
};

// Every key that it names, its own excepted.
[[nodiscard]] std::set<std::string> keys_of(const ManifestRecord& manifest);
// The manifest that head names, verified; kNotFound when there is none yet.
[[nodiscard]] Task<Result<ManifestRecord>> read_manifest(Env env, ObjectStore& store, HeadRecord head);

}  // namespace headrace
