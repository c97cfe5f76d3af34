// FakePartitions: a node of a simulated cluster whose partitions are maps in memory: what tier asks
// of partitions and targets, strict where tier could cheat: a segment may be recorded only when its
// object decodes to the segment's bytes.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/checksum.h"
#include "coord/ports.h"
#include "coord/sim/shared_coordinator.h"
#include "object/memory_store.h"
#include "proto/messages.h"
#include "runtime/sim/world.h"
#include "stripe/fragment.h"
#include "stripe/segment_io.h"
#include "tier/packed_object.h"

namespace headrace {

inline Buffer random_bytes(size_t size, uint64_t seed, bool compressible = false) {
  SeededRandom random(seed);
  Buffer out = Buffer::allocate(size);
  for (size_t i = 0; i < size; i += 8) {
    uint64_t word = compressible ? random.below(3) * 0x0101'0101'0101'0101 : random.next();
    std::memcpy(out.data() + i, &word, std::min<size_t>(8, size - i));
  }
  return out;
}

class FakePartitions {
 public:
  static constexpr NamespaceId kNamespace{7};
  struct Segment {
    Location location;
    Buffer data;
    Cut birth;  // alive from here on
  };
  struct Partition {
    std::map<SegmentId, Segment> segments;
    std::map<std::string, Buffer> files;  // of the store, now
    std::map<Cut, std::map<std::string, Buffer>> kept;
    std::map<Cut, std::map<SegmentId, Location>> changed;
    std::map<ObjectId, Cut> dead;  // since which cut
    Cut cut;
    Cut published;
    std::vector<CloseStep> closes;
    uint32_t sessions = 0;
  };

  FakePartitions(World& world, std::shared_ptr<MemoryBucket> bucket, std::string machine = "node", uint16_t epoch = 1,
                 uint16_t count = 2)
      : machine(world.add_machine(std::move(machine))),
        env(this->machine.env()),
        bucket_(std::move(bucket)),
        hub(env, identity, handlers),
        targets(hub, view),
        ports(env, hub, view),
        shared(env.clock, env.random),
        coordinator(shared, this->machine.name()) {
    identity.name_space = kNamespace;
    identity.namespace_epoch = NamespaceEpoch(epoch);
    handlers.on<Uploadable>([this](Uploadable r, CallInfo i) { return uploadable(r, std::move(i)); });
    handlers.on<Uploaded>([this](Uploaded r, CallInfo i) { return uploaded(std::move(r), std::move(i)); });
    handlers.on<Droppable>([this](Droppable r, CallInfo i) { return droppable(r, std::move(i)); });
    handlers.on<Drop>([this](Drop r, CallInfo i) { return drop(std::move(r), std::move(i)); });
    handlers.on<TakeCut>([this](TakeCut r, CallInfo i) { return take_cut(r, std::move(i)); });
    handlers.on<ReadCheckpoint>(
        [this](ReadCheckpoint r, CallInfo i) { return read_checkpoint(std::move(r), std::move(i)); });
    handlers.on<CutLocations>([this](CutLocations r, CallInfo i) { return cut_locations(r, std::move(i)); });
    handlers.on<ReleaseCut>([this](ReleaseCut r, CallInfo i) { return release_cut(r, std::move(i)); });
    handlers.on<DeadObjects>([this](DeadObjects r, CallInfo i) { return dead_objects(r, std::move(i)); });
    handlers.on<ForgetObjects>([this](ForgetObjects r, CallInfo i) { return forget(std::move(r), std::move(i)); });
    handlers.on<Close>([this](Close r, CallInfo i) { return close(r, std::move(i)); });
    handlers.on<PartitionStatus>([this](PartitionStatus, CallInfo i) { return status(std::move(i)); });
    handlers.on<Pins>([this](Pins, CallInfo i) { return pins_of(std::move(i)); });
    handlers.on<SparseObjects>([this](SparseObjects, CallInfo) { return sparse_objects(); });
    handlers.on<Locate>([this](Locate r, CallInfo) { return locate(r); });
    handlers.on<KnownObjects>([this](KnownObjects r, CallInfo i) { return known_objects(std::move(r), std::move(i)); });
    handlers.on<FragmentRead>([this](FragmentRead r, CallInfo i) { return fragment_read(r, std::move(i)); });
    for (uint16_t p = 0; p < count; ++p) partitions[PartitionId(p)];
    uploads_go.set();
    releases_go.set();
    auto address = world.run(hub.serve(this->machine.address()));
    HR_ASSERT(address.ok());
    ClusterMap map;
    map.version = 1;
    map.cluster = ClusterId(epoch);
    map.name_space = kNamespace;
    map.namespace_epoch = NamespaceEpoch(epoch);
    map.protection = {2, 1};
    map.nodes.push_back({NodeId(1), *address, true});
    for (uint64_t t = 1; t <= 3; ++t) map.targets.push_back({.id = TargetId(t), .node = NodeId(1), .capacity = kGiB});
    for (uint16_t p = 0; p < count; ++p) {
      uint32_t width = 65'536u / count;
      map.partitions.push_back({PartitionId(p), static_cast<uint16_t>(p * width),
                                static_cast<uint16_t>((p + 1) * width - 1), NodeId(1), PartitionEpoch(5)});
    }
    view.update(std::move(map));
  }

  SegmentId add_segment(PartitionId partition, Buffer data) {
    SegmentId id(kNamespace, Slot(static_cast<uint16_t>(partition.value() * 1000)), identity.namespace_epoch,
                 next_segment_++);
    Segment segment;
    segment.location.segment = id;
    segment.location.length = data.size();
    segment.location.bucket = kNamespace;
    segment.location.placement.protection = {1, 0};  // one copy on one target
    segment.location.placement.targets = {TargetId(1)};
    segment.data = std::move(data);
    segment.birth = partitions[partition].cut.next();
    partitions[partition].segments[id] = std::move(segment);
    return id;
  }
  // As after a restart: every partition has a leader of that epoch.
  void lead_in(PartitionEpoch epoch) {
    ClusterMap map = view.map();
    ++map.version;
    for (PartitionInfo& partition : map.partitions) partition.epoch = epoch;
    view.update(std::move(map));
  }
  [[nodiscard]] Partition& operator[](uint16_t p) { return partitions[PartitionId(p)]; }
  [[nodiscard]] size_t unplaced() const {
    size_t n = 0;
    for (const auto& [id, p] : partitions)
      for (const auto& [s, segment] : p.segments) n += segment.location.object.object ? 0 : 1;
    return n;
  }

  Machine& machine;
  Env& env;
  std::shared_ptr<MemoryBucket> bucket_;
  Identity identity;
  Handlers handlers;
  ClusterView view;
  Hub hub;
  TargetPort targets;
  PartitionPort ports;
  SharedCoordinator shared;
  SharedCoordinatorHandle coordinator;
  std::map<PartitionId, Partition> partitions;
  uint64_t fail_fragment_reads = 0;
  std::set<SegmentId> lost;
  std::string lost_file;               // of the stores: cannot be read
  std::vector<PinItem> pins;           // the first partition's
  SparseObjectsReply sparse;           // what every partition says
  Event uploads_go;                    // reset: whoever asks what is to be uploaded waits
  Event releases_go;                   // reset: whoever gives back a cut waits
  std::function<void(Cut)> after_cut;  // once, when a cut was taken by the last partition

 private:
  Partition& of(const CallInfo& info) { return partitions[info.header.partition]; }

  Task<Result<PinsReply>> pins_of(CallInfo info) {
    co_return info.header.partition == PartitionId(0) ? PinsReply{pins} : PinsReply{};
  }
  Task<Result<SparseObjectsReply>> sparse_objects() { co_return sparse; }
  Task<Result<LocateReply>> locate(Locate r) {
    for (const auto& [id, partition] : partitions) {
      auto at = partition.segments.find(r.segment);
      if (at != partition.segments.end()) co_return LocateReply{at->second.location, {}};
    }
    co_return Error(Code::kNotFound, "dead");
  }
  // What no segment names, and is not dead and remembered, is nobody's.
  Task<Result<KnownObjectsReply>> known_objects(KnownObjects r, CallInfo info) {
    KnownObjectsReply reply;
    for (ObjectId object : r.objects) {
      bool known = of(info).dead.contains(object);
      for (const auto& [id, segment] : of(info).segments) known |= segment.location.object.object == object;
      reply.known.push_back(known ? 1 : 0);
    }
    co_return reply;
  }
  Task<Result<SegmentsReply>> uploadable(Uploadable r, CallInfo info) {
    co_await uploads_go.wait();
    SegmentsReply reply;
    for (const auto& [id, segment] : of(info).segments) {
      if (segment.location.object.object || (r.after && id <= r.after)) continue;
      if (reply.segments.size() == r.limit) {
        reply.more = true;
        break;
      }
      reply.segments.push_back(segment.location);
    }
    co_return reply;
  }
  Task<Result<UploadedReply>> uploaded(Uploaded r, CallInfo info) {
    Partition& partition = of(info);
    auto object = bucket_->get(object_key(r.object.object));
    HR_ASSERT(object.ok() && object->body.size() == r.object_bytes);
    auto index = decode_object_index(object->body.view().subspan(r.object.index_offset, r.object.index_length),
                                     kNamespace, r.object);
    HR_ASSERT(index.ok());
    UploadedReply reply;
    for (SegmentId id : r.segments) {
      auto at = partition.segments.find(id);
      if (at == partition.segments.end()) continue;
      const PackedSegment* packed = index->find(id);
      HR_ASSERT(packed != nullptr && packed->length == at->second.data.size());
      for (size_t f = 0; f < packed->frames.size(); ++f) {
        std::string raw(packed->raw_size(f), '\0');
        HR_ASSERT(decode_frame(*packed, f,
                               object->body.view().subspan(packed->frame_offset(f), packed->frames[f].stored),
                               std::as_writable_bytes(std::span(raw)))
                      .ok());
        HR_ASSERT(raw == at->second.data.text().substr(f * kFrameBytes, raw.size()));
      }
      at->second.location.object = r.object;
      for (auto& [cut, changed] : partition.changed) changed[id] = at->second.location;
      ++reply.recorded;
    }
    co_return reply;
  }
  Task<Result<SegmentsReply>> droppable(Droppable r, CallInfo info) {
    SegmentsReply reply;
    for (const auto& [id, segment] : of(info).segments) {
      if (!segment.location.object.object || !segment.location.placement.hot() || (r.after && id <= r.after)) continue;
      if (reply.segments.size() == r.limit) {
        reply.more = true;
        break;
      }
      reply.segments.push_back(segment.location);
    }
    co_return reply;
  }
  Task<Result<Empty>> drop(Drop r, CallInfo info) {
    for (SegmentId id : r.segments) {
      Segment& segment = of(info).segments.at(id);
      HR_ASSERT(segment.location.object.object);
      segment.location.placement = {};
    }
    co_return Empty{};
  }
  Task<Result<TakeCutReply>> take_cut(TakeCut r, CallInfo info) {
    Partition& partition = of(info);
    if (r.cut < partition.cut) co_return Error(Code::kConflict, "passed");
    partition.cut = r.cut;
    if (!partition.kept.contains(r.cut)) {
      partition.kept[r.cut] = partition.files;
      partition.changed[r.cut];
      if (after_cut && info.header.partition == partitions.rbegin()->first) std::exchange(after_cut, nullptr)(r.cut);
    }
    TakeCutReply reply;
    reply.at = Position(9);
    reply.store_import = "set";
    for (const auto& [name, bytes] : partition.kept[r.cut])
      reply.files.push_back({name, bytes.size(), crc32c(bytes.view()), "import"});
    for (const auto& [id, segment] : partition.segments)
      if (!segment.location.object.object && segment.birth <= r.cut) ++reply.unplaced;
    co_return reply;
  }
  Task<Result<ReadCheckpointReply>> read_checkpoint(ReadCheckpoint r, CallInfo info) {
    if (r.name == lost_file) co_return Error(Code::kIo, "injected");
    auto kept = of(info).kept.find(r.cut);
    if (kept == of(info).kept.end() || !kept->second.contains(r.name)) co_return Error(Code::kNotFound, "no such file");
    ReadCheckpointReply reply;
    reply.payload = kept->second[r.name].slice(r.offset, r.length);
    co_return reply;
  }
  Task<Result<SegmentsReply>> cut_locations(CutLocations r, CallInfo info) {
    SegmentsReply reply;
    for (const auto& [id, location] : of(info).changed[r.cut]) reply.segments.push_back(location);
    co_return reply;
  }
  Task<Result<Empty>> release_cut(ReleaseCut r, CallInfo info) {
    co_await releases_go.wait();
    of(info).kept.erase(r.cut);
    of(info).changed.erase(r.cut);
    if (r.published) of(info).published = r.cut;
    co_return Empty{};
  }
  Task<Result<ObjectsReply>> dead_objects(DeadObjects r, CallInfo info) {
    ObjectsReply reply;
    const std::map<ObjectId, Cut>& dead = of(info).dead;
    for (auto it = dead.upper_bound(r.after); it != dead.end(); ++it) {
      if (it->second <= r.published) reply.objects.push_back(it->first);
      if (reply.objects.size() == 10) {
        reply.last = it->first;
        break;
      }
    }
    co_return reply;
  }
  Task<Result<Empty>> forget(ForgetObjects r, CallInfo info) {
    for (ObjectId id : r.objects) of(info).dead.erase(id);
    co_return Empty{};
  }
  Task<Result<CloseReply>> close(Close r, CallInfo info) {
    Partition& partition = of(info);
    if (partition.closes.empty() || partition.closes.back() != r.step) partition.closes.push_back(r.step);
    CloseReply reply;
    if (partition.sessions > 0) --partition.sessions;
    reply.sessions = partition.sessions;
    co_return reply;
  }
  Task<Result<PartitionStatusReply>> status(CallInfo info) {
    PartitionStatusReply reply;
    const std::vector<CloseStep>& closes = of(info).closes;
    reply.serving = true;
    reply.state = closes.empty() || closes.back() == CloseStep::kUndo ? "serving"
                  : closes.back() == CloseStep::kClosed               ? "closed"
                                                                      : "closing";
    co_return reply;
  }
  Task<Result<FragmentReadReply>> fragment_read(FragmentRead r, CallInfo) {
    for (auto& [id, partition] : partitions) {
      auto at = partition.segments.find(r.segment);
      if (at == partition.segments.end() || !at->second.location.placement.hot() || lost.contains(r.segment)) continue;
      if (fail_fragment_reads > 0) {
        --fail_fragment_reads;
        co_return Error(Code::kUnavailable, "injected");
      }
      Buffer padded = Buffer::zeroed(round_up(at->second.data.size(), kBlock));
      std::memcpy(padded.data(), at->second.data.data(), at->second.data.size());
      FragmentReadReply reply;
      reply.segment_length = at->second.data.size();
      reply.payload = padded.slice(r.offset, r.length);
      reply.crcs = block_crcs(r.segment, r.index, static_cast<uint32_t>(r.offset / kBlock), reply.payload.view());
      co_return reply;
    }
    co_return Error(Code::kNoFragment, "not here");
  }

  uint64_t next_segment_ = 1;
};

}  // namespace headrace
