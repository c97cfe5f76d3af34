// Six targets of one node on simulated disks, segments on them, and homes in a map of rows: for the
// tests of the workers.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <set>

#include "hot/target_service.h"
#include "hot/work_port.h"
#include "runtime/sim/world.h"
#include "stripe/fragment.h"
#include "stripe/placement_policy.h"
#include "stripe/segment_io.h"

namespace headrace {

inline constexpr uint64_t kNamespace = 0x77;

inline Buffer random_bytes(size_t size, uint64_t seed) {
  SeededRandom random(seed);
  Buffer out = Buffer::allocate(size);
  for (size_t i = 0; i < size; i += 8) {
    uint64_t word = random.next();
    std::memcpy(out.data() + i, &word, std::min<size_t>(8, size - i));
  }
  return out;
}

inline SegmentId segment(uint64_t sequence, uint64_t ns = kNamespace) {
  return SegmentId(NamespaceId(ns), Slot(static_cast<uint16_t>(sequence * 20'000)), NamespaceEpoch(1), sequence);
}

struct DirectFragments final : public FragmentPort {
  explicit DirectFragments(TargetService& s) : service(s) {}
  Task<Result<void>> write(FragmentWrite request, Capability) override {
    std::shared_ptr<Target> target = service.find(request.target);
    if (!target) co_return Error(Code::kUnavailable, "lost");
    co_return co_await target->write(std::move(request));
  }
  Task<Result<FragmentReadReply>> read(FragmentRead request, Capability) override {
    std::shared_ptr<Target> target = service.find(request.target);
    if (!target) co_return Error(Code::kUnavailable, "lost");
    co_return co_await target->read(std::move(request));
  }
  TargetService& service;
};

// Two partitions in a map of rows.
struct FakeWork final : public WorkPort {
  explicit FakeWork(TargetService& s) : service(s) {}
  const ClusterMap& map() const override { return cluster; }
  Task<Result<SegmentsReply>> fragments_on(PartitionId partition, FragmentsOn request) override {
    SegmentsReply reply;
    if (homes_fail > 0) {
      --homes_fail;
      co_return Error(Code::kUnavailable, "the home does not answer");
    }
    for (const auto& [id, location] : request.checkpoint ? checkpoint : rows) {
      if (id <= request.after || cluster.partition_of(id.home())->id != partition) continue;
      if (std::ranges::find(location.placement.targets, request.on) == location.placement.targets.end()) continue;
      if (reply.segments.size() == request.limit) {
        reply.more = true;
        break;
      }
      reply.segments.push_back(location);
    }
    co_return reply;
  }
  Task<Result<void>> placed(Placed request) override {
    auto at = rows.find(request.segment);
    if (at == rows.end()) co_return Error(Code::kNotFound, "dead");
    TargetId& target = at->second.placement.targets[request.index];
    if (target != request.was) co_return Error(Code::kConflict, "moved");
    target = request.target;
    co_return Result<void>();
  }
  Task<Result<Location>> locate(SegmentId id) override {
    auto at = rows.find(id);
    if (at == rows.end()) co_return Error(Code::kNotFound, "dead");
    co_return at->second;
  }
  Task<Result<ClaimsReply>> claims(PartitionId, Claims request) override {
    ClaimsReply reply;
    for (size_t i = 0; i < request.segments.size(); ++i) {
      auto at = rows.find(request.segments[i]);
      const bool named = at != rows.end() && at->second.placement.targets[request.indexes[i]] == request.on;
      reply.claimed.push_back(named || claims_all ? 1 : 0);
    }
    co_return reply;
  }
  Task<Result<InventoryReply>> inventory(Inventory request) override {
    co_return service.find(request.target)->inventory(request);
  }
  Task<Result<void>> free(PartitionId partition, FragmentFree request) override {
    std::shared_ptr<Target> target = service.find(request.target);
    co_return co_await target->free(std::move(request), partition, PartitionEpoch(1));
  }
  TargetService& service;
  size_t homes_fail = 0;    // of the next questions after fragments
  bool claims_all = false;  // as of what is reserved
  ClusterMap cluster;
  std::map<SegmentId, Location> rows;
  std::map<SegmentId, Location> checkpoint;  // of store files
};

struct WorkersTest : public testing::Test {
  WorkersTest() {
    work.cluster.name_space = NamespaceId(kNamespace);
    work.cluster.nodes.push_back({NodeId(1), "self", true});
    work.cluster.partitions.push_back({PartitionId(0), 0, 32'767, NodeId(1), PartitionEpoch(1)});
    work.cluster.partitions.push_back({PartitionId(1), 32'768, 65'535, NodeId(1), PartitionEpoch(1)});
    for (uint32_t i = 0; i < 6; ++i) add_target(i);
  }
  void add_target(uint32_t number) {
    TargetFormat format{TargetId(100 + number), ClusterId(1), NamespaceId(kNamespace), 32 * kMiB, number};
    auto made = world.run(Target::format(machine.env(), "/t" + std::to_string(number), format,
                                         {.prewrite_ahead = kMiB, .prewrite_chunk = kMiB}));
    HR_ASSERT(made.ok());
    HR_ASSERT(service.add(*std::move(made)).ok());
    work.cluster.targets.push_back(
        {format.id, NodeId(1), number, "z/r/h/t" + std::to_string(number), TargetState::kLive, format.capacity, 0});
  }
  void lose(uint32_t number) {
    service.remove(TargetId(100 + number));
    for (TargetInfo& target : work.cluster.targets)
      if (target.id == TargetId(100 + number)) target.state = TargetState::kLost;
  }
  void write_segments(uint64_t count, Protection protection) {
    for (uint64_t i = 1; i <= count; ++i) {
      Buffer data = random_bytes(100'000 + i * 1000, i);
      auto choice = choose_targets(work.cluster, protection, machine.env().random);
      auto written = world.run(io.write(segment(i), data, choice->placement, choice->spares, {}));
      ASSERT_TRUE(written.ok()) << written.error().text();
      work.rows[segment(i)] = Location{segment(i), data.size(), NamespaceId(kNamespace), *written, {}};
    }
  }
  void expect_all_readable() {
    for (const auto& [id, location] : work.rows) {
      auto got = world.run(io.read(id, location.length, location.placement, 0, location.length, {}));
      ASSERT_TRUE(got.ok()) << got.error().text();
      EXPECT_TRUE(got->text() == random_bytes(location.length, id.sequence()).text());
    }
  }
  World world{1};
  Machine& machine = world.add_machine("m");
  TargetService service{machine.env()};
  FakeWork work{service};
  DirectFragments fragments{service};
  SegmentIo io{machine.env(), fragments};
};

}  // namespace headrace
