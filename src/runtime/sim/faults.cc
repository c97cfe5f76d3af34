#include "runtime/sim/faults.h"

namespace headrace {

FaultPoint& FaultPlan::point(std::string_view name) {
  auto found = points_.find(name);
  if (found != points_.end()) return found->second;
  FaultPoint& made = points_[std::string(name)];
  made.name = name;
  return made;
}

bool FaultPlan::hit(FaultPoint& point, double extra) {
  if (paused_) return false;
  ++point.asked;
  double probability = point.probability + extra;
  if (probability <= 0) return false;
  // 53 random bits: the same double on every machine.
  double draw = static_cast<double>(random_.next() >> 11) * 0x1.0p-53;
  if (draw >= probability) return false;
  ++point.fired;
  return true;
}

uint64_t FaultPlan::fired(std::string_view name) const {
  auto found = points_.find(name);
  return found == points_.end() ? 0 : found->second.fired;
}

std::vector<FaultPoint> FaultPlan::all() const {
  std::vector<FaultPoint> out;
  out.reserve(points_.size());
  for (const auto& [name, point] : points_) out.push_back(point);
  return out;
}

std::string FaultPlan::summary() const {
  std::string out;
  for (const auto& [name, point] : points_)
    out += name + " " + std::to_string(point.fired) + "/" + std::to_string(point.asked) + "\n";
  return out;
}

void Probes::hit(std::string_view name) {
  auto found = counts_.find(name);
  if (found == counts_.end()) found = counts_.emplace(std::string(name), 0).first;
  ++found->second;
}

uint64_t Probes::count(std::string_view name) const {
  auto found = counts_.find(name);
  return found == counts_.end() ? 0 : found->second;
}

}  // namespace headrace
