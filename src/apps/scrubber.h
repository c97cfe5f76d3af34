// Scrubber: when a node's targets are scrubbed: a pass over all of them in a stated time, at a low rate, and at once
// where somebody asks.
//
// A pass goes on where it was after a restart: how far it is lies in the coordinator, stored every minute. Its rate is
// what is left divided by the time that is left, and never below `at_least`: small nodes are through in hours and then
// wait. An asked run interrupts the pass, which goes on afterwards; one over all targets counts as a pass. Owner:
// TargetKeeper, which repairs what is found. One core.
#pragma once

#include <algorithm>
#include <functional>
#include <optional>
#include <set>

#include "base/codec.h"
#include "hot/scrub.h"
#include "hot/target_service.h"
#include "proto/cluster.h"

namespace headrace {

struct ScrubberOptions {
  Nanos pass = seconds(7 * 86'400);  // a pass over all targets, and from begin to begin
  uint64_t at_least = 8 * kMiB;      // bytes per second
  uint64_t asked = 256 * kMiB;       // bytes per second of a run that somebody asked for
  Nanos first = seconds(900);        // after start
  Nanos save = seconds(60);
  ScrubOptions work{.page = 2048};
};

// How far the pass is. Wall clock, ns.
struct ScrubRecord {
  static constexpr uint8_t kFormat = 2;  // an older one is too short to be read: a pass begins anew
  uint64_t began = 0;                    // of the last or the present pass; 0: none yet
  uint64_t ended = 0;                    // below began: it goes on
  std::vector<TargetId> done;
  TargetId target;  // where it is, and behind which fragment
  FragmentName at;
  bool unasked = false;  // a home has yet to say what should be on it
  void fields(this auto& self, auto& v) { v(self.began, self.ended, self.done, self.target, self.at, self.unasked); }
};

struct ScrubTotals {
  uint64_t fragments = 0;
  uint64_t bytes = 0;
  uint64_t damaged = 0;
  uint64_t missing = 0;
  uint64_t stripes = 0;
  uint64_t parity_wrong = 0;
  uint64_t failed = 0;  // targets that could not be judged to the end
  [[nodiscard]] bool trouble() const { return damaged + missing + parity_wrong + failed > 0; }
  void add(const ScrubProgress& p);
};

struct ScrubStatus {
  bool running = false;
  bool asked = false;         // what runs was asked for
  TargetId target;            // the one that it is at
  uint64_t targets_done = 0;  // of the pass or run
  uint64_t targets = 0;
  ScrubTotals here;          // of the pass or run, since the start of the node
  ScrubTotals ever;          // since the start of the node
  uint64_t bytes_total = 0;  // of the pass or run, to be read
  double bytes_per_s = 0;
  double eta_s = 0;      // 0: not known
  uint64_t passes = 0;   // since the start of the node
  uint64_t began_s = 0;  // Unix time; 0: none yet
  uint64_t ended_s = 0;  // of the last whole pass
  uint64_t next_s = 0;   // when the next one begins
  uint64_t run = 0;      // the number of the newest asked run, and of the newest that has ended
  uint64_t run_ended = 0;
  std::string last_error;
};

class Scrubber {
 public:
  // All outlive the scrubber.
  struct Context {
    Env env;
    TargetService& targets;
    WorkPort& work;
    FragmentPort& fragments;
    NodeId self;
    ScrubWorker::Found found;
    std::function<Task<Result<std::string>>()> load;  // the record, encoded; empty: none
    std::function<Task<Result<void>>(std::string record)> save;
    std::function<void(std::string name, bool trouble, const ScrubTotals& of)> tell;
  };
  explicit Scrubber(Context context, ScrubberOptions options = {});

  void start();
  [[nodiscard]] Task<void> stop();
  // Scrubs tN, or all targets, at once. Returns the number of the run: it has ended when status().run_ended has reached
  // it.
  [[nodiscard]] Result<uint64_t> ask(std::optional<uint32_t> number);
  [[nodiscard]] ScrubStatus status() const;

 private:
  Task<void> run();
  Task<void> save_loop();
  Task<void> save();
  Task<void> run_asked();
  // False when there is nothing left to do in the pass.
  [[nodiscard]] Task<bool> step();
  [[nodiscard]] Task<Result<void>> scrub(TargetId id, FragmentName after, bool unasked);
  void note_place();
  void begin_of(uint64_t bytes_total, uint64_t targets);
  [[nodiscard]] std::vector<TargetInfo> mine() const;
  [[nodiscard]] uint64_t used(TargetId id) const;
  // Which of the stripes have their parity recomputed by what began then: others in each pass.
  [[nodiscard]] uint64_t turn(uint64_t began) const {
    return began / std::max<uint64_t>(1, static_cast<uint64_t>(options_.pass.count));
  }
  [[nodiscard]] uint64_t wall() const { return static_cast<uint64_t>(context_.env.clock.wall().count); }

  Context context_;
  ScrubberOptions options_;
  ScrubWorker worker_;
  ScrubRecord record_;
  bool loaded_ = false;
  std::set<TargetId> asked_;
  bool asked_all_ = false;
  bool at_asked_ = false;  // the worker does an asked run
  bool busy_ = false;      // the worker is at a target
  uint64_t run_ = 0;
  uint64_t run_ended_ = 0;
  uint64_t passes_ = 0;
  uint64_t targets_done_ = 0;
  uint64_t targets_ = 0;
  uint64_t bytes_total_ = 0;
  Nanos began_{};
  ScrubTotals here_;
  ScrubTotals ever_;
  std::string last_error_;
  Event wanted_;
  Scope scope_;  // last
};

}  // namespace headrace
