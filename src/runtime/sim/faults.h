// FaultPlan: which named faults a simulated world injects, how likely each is, and how often each
// fired. Probes: counts of rare paths reached, so that a run can prove that it went there.
//
// Invariants: a point whose probability is 0 draws nothing from the seed; a paused plan fires
// nothing. Points are created on first use and never go: references stay valid as long as the plan.
// One plan per World, no globals.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/random.h"

namespace headrace {

struct FaultPoint {
  std::string name;
  double probability = 0;  // world-wide; a disk may add its own
  uint64_t asked = 0;
  uint64_t fired = 0;
};

class FaultPlan {
 public:
  explicit FaultPlan(uint64_t seed) : random_(seed) {}

  // The point of that name; make points known early, so that a summary lists those that never
  // fired.
  [[nodiscard]] FaultPoint& point(std::string_view name);
  void set(std::string_view name, double probability) { point(name).probability = probability; }
  // Draws: does the fault happen now? `extra` is added to the point's own probability.
  [[nodiscard]] bool hit(FaultPoint& point, double extra = 0);
  [[nodiscard]] bool hit(std::string_view name, double extra = 0) { return hit(point(name), extra); }
  // Counts a fault that a test injected by hand (a crash, a partition, a clock jump).
  void note(std::string_view name) { ++point(name).fired; }

  // While paused nothing is drawn: for the quiet end of a run, when everything must come right.
  void pause(bool paused) { paused_ = paused; }
  [[nodiscard]] bool paused() const { return paused_; }

  [[nodiscard]] uint64_t fired(std::string_view name) const;
  [[nodiscard]] std::vector<FaultPoint> all() const;  // by name
  [[nodiscard]] std::string summary() const;          // "disk.flush_lies 3/120\n…": fired/asked

 private:
  std::map<std::string, FaultPoint, std::less<>> points_;
  SeededRandom random_;
  bool paused_ = false;
};

class Probes {
 public:
  void hit(std::string_view name);
  [[nodiscard]] uint64_t count(std::string_view name) const;
  [[nodiscard]] const std::map<std::string, uint64_t, std::less<>>& all() const { return counts_; }

 private:
  std::map<std::string, uint64_t, std::less<>> counts_;
};

}  // namespace headrace
