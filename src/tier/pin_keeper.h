// PinKeeper: keeps what users pinned hot: knows which segments are under a pin, so that they are not evicted, and
// fetches those that are cold.
//
// A pin is a row at a file or directory (SetPin, durable in its partition) and holds for all that is below. What is
// under it is found by walking, again and again: what was added since the last walk is hot anyhow, and is known by the
// next. Until the first walk after a start is over nothing may be evicted. Owner: TierService. One core.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "tier/fetcher.h"
#include "tier/tree_walk.h"

namespace headrace {

struct PinKeeperOptions {
  Nanos interval = seconds(30);  // between two walks; at least ten times what one takes, once known()
};

struct PinState {
  PinItem pin;
  bool walked = false;
  bool complete = false;  // everything at or below was hot at the last walk, or is now
  uint64_t files = 0;
  FetchProgress progress;  // of the last round
};

class PinKeeper {
 public:
  PinKeeper(Env env, PartitionPort& partitions, Fetcher& fetcher, PinKeeperOptions options = {});
  void start();
  [[nodiscard]] Task<void> stop();
  void cancel();

  // Journaled on return; then a walk begins.
  [[nodiscard]] Task<Result<FileId>> pin(std::string path);
  // kNotFound when neither the path nor a pin of that name is there.
  [[nodiscard]] Task<Result<void>> release(std::string path);
  // Whether covers() can be relied on: false until the pins of before the start were walked. (One that will never be
  // does not count.)
  [[nodiscard]] bool known() const { return known_; }
  [[nodiscard]] bool covers(const SegmentId& segment) const { return segments_.contains(segment); }
  [[nodiscard]] std::vector<PinState> states() const;
  [[nodiscard]] const std::string& last_error() const { return last_error_; }

 private:
  struct Held {
    PinItem pin;
    bool walked = false;
    uint64_t files = 0;
    std::vector<SegmentId> covers;  // at the last walk that succeeded
    std::shared_ptr<FetchProgress> progress = std::make_shared<FetchProgress>();
  };
  struct Wish {
    std::shared_ptr<FetchProgress> progress;
    std::vector<Location> segments;
  };
  Task<void> loop();
  [[nodiscard]] Task<Result<void>> walk(std::vector<Wish>* wishes);
  [[nodiscard]] Task<Result<void>> fetch(std::vector<Wish> wishes);
  [[nodiscard]] Task<Result<std::vector<PinItem>>> list();

  Env env_;
  PartitionPort& partitions_;
  Fetcher& fetcher_;
  PinKeeperOptions options_;
  std::map<FileId, Held> pins_;
  std::unordered_set<SegmentId> segments_;
  bool known_ = false;
  std::string last_error_;
  Event wanted_;
  Scope scope_;  // last
};

}  // namespace headrace
