// What feeds a process's ClusterView: on a node from the coordinator, in a client from any node.
//
// Both refresh when the map changed (or may have), and at once when somebody wants it, but never more often than
// every 20 ms. start() begins that; stop() ends it where it stands (it waits for memory and calls only).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "coord/coordinator.h"
#include "coord/ports.h"
#include "runtime/env.h"
#include "runtime/scope.h"

namespace headrace {

class CoordinatorMapFollower {
 public:
  // All outlive the follower.
  CoordinatorMapFollower(Env env, Coordinator& coordinator, ClusterView& view)
      : env_(env), coordinator_(coordinator), view_(view) {}

  void start();
  void stop() { scope_.reset(); }
  // Once, now. An absent map is no error; kCorrupt and kUnsupportedFormat are.
  [[nodiscard]] Task<Result<void>> refresh();

 private:
  [[nodiscard]] Task<void> follow_changes();
  [[nodiscard]] Task<void> follow_wishes();

  Env env_;
  Coordinator& coordinator_;
  ClusterView& view_;
  std::unique_ptr<Scope> scope_;
};

class NodeMapFollower {
 public:
  // `nodes`: where to ask first; those in the map are asked too.
  NodeMapFollower(Env env, Hub& hub, ClusterView& view, std::vector<Address> nodes)
      : env_(env), hub_(hub), view_(view), nodes_(std::move(nodes)) {}

  void start();
  void stop() { scope_.reset(); }
  // Asks one node after the other, the last good one first. kUnavailable, naming what each said, when none answered.
  [[nodiscard]] Task<Result<void>> refresh();

  // As the last answer had it: another cluster owns the namespace now.
  [[nodiscard]] bool read_only() const { return read_only_; }
  [[nodiscard]] const std::string& why_read_only() const { return why_; }

 private:
  static constexpr Nanos kPeriod = seconds(1);

  [[nodiscard]] Task<void> follow();
  [[nodiscard]] std::vector<Address> candidates() const;

  Env env_;
  Hub& hub_;
  ClusterView& view_;
  std::vector<Address> nodes_;
  Address last_good_;
  bool read_only_ = false;
  std::string why_;
  std::unique_ptr<Scope> scope_;
};

}  // namespace headrace
