// The whole of tier against fake partitions: upload, publish, collect, cold reads, spin-down,
// attach.
#include <gtest/gtest.h>

#include "object/faulty_store.h"
#include "runtime/when_all.h"
#include "tier/bucket_io.h"
#include "tier/fake_partitions_test_support.h"
#include "tier/tier_service.h"

namespace headrace {
namespace {

constexpr PartitionId kP0{0}, kP1{1};

struct Rig {
  Rig(World& world, const std::shared_ptr<MemoryBucket>& bucket, std::string name = "node", uint16_t epoch = 1,
      TierOptions options = quiet(), FaultRates rates = {})
      : world(world),
        node(world, bucket, name, epoch),
        store(std::make_unique<MemoryStore>(bucket), node.env.clock, node.env.random, rates),
        tier(context(), (options.description = name, options)) {}
  TierContext context() {
    return {node.env,
            store,
            node.coordinator,
            node.ports,
            node.targets,
            pieces,
            node.identity,
            [this](std::string who) { winner = std::move(who); },
            {}};
  }
  static TierOptions quiet() {  // nothing happens by itself
    TierOptions options;
    options.publish_interval = seconds(1'000'000);
    options.upload.interval = seconds(1'000'000);
    options.publish.horizon = seconds(100);
    return options;
  }
  void start() {
    auto started = world.run(tier.start());
    ASSERT_TRUE(started.ok()) << started.error().text();
  }
  Result<std::string> cold(PartitionId partition, SegmentId id, uint64_t offset, uint64_t length) {
    ColdRead request{node.partitions[partition].segments.at(id).location, offset, length};
    auto reply = world.run(cold_reader().read(std::move(request)));
    if (!reply.ok()) return std::move(reply).error();
    EXPECT_EQ(crc32c(reply->payload.view()), reply->crc);
    return std::string(reply->payload.text());
  }
  ColdReader& cold_reader() {
    if (!cold_) {
      cold_ = std::make_unique<ColdReader>(node.env, store, pieces);
      cold_->set_namespace(FakePartitions::kNamespace);
    }
    return *cold_;
  }

  World& world;
  FakePartitions node;
  FaultyStore store;
  MemoryPieceCache pieces{64 * kMiB};
  std::string winner;
  TierService tier;
  std::unique_ptr<ColdReader> cold_;
};

struct TierTest : public testing::Test {
  World world{1};
  std::shared_ptr<MemoryBucket> bucket = std::make_shared<MemoryBucket>();
  size_t keys(const std::string& prefix) {
    size_t n = 0;
    for (const auto& [key, object] : bucket->contents()) n += key.starts_with(prefix) ? 1 : 0;
    return n;
  }
};

TEST_F(TierTest, PushPacksEverySegmentIntoFewVerifiedObjects) {
  Rig rig(world, bucket);
  for (uint64_t i = 0; i < 40; ++i)
    rig.node.add_segment(i % 2 ? kP0 : kP1, random_bytes(1 + i * 50'000, i, i % 3 == 0));
  for (uint64_t i = 0; i < 5; ++i) rig.node.add_segment(kP0, random_bytes(16 * kMiB, 100 + i));
  rig.start();
  auto pushed = world.run(rig.tier.push());
  ASSERT_TRUE(pushed.ok()) << pushed.error().text();
  EXPECT_EQ(rig.node.unplaced(), 0u);
  EXPECT_EQ(rig.tier.status().upload.segments, 45u);
  EXPECT_EQ(keys("d/"), rig.tier.status().upload.objects);
  EXPECT_LE(keys("d/"), 4u);
  uint64_t objects = keys("d/");
  ASSERT_TRUE(world.run(rig.tier.push()).ok());
  EXPECT_EQ(keys("d/"), objects);  // nothing twice
}

TEST_F(TierTest, OneLostSegmentDoesNotKeepTheOthersFromTheBucket) {
  Rig rig(world, bucket);
  rig.node.add_segment(kP0, random_bytes(5000, 1));
  SegmentId lost = rig.node.add_segment(kP0, random_bytes(5000, 2));
  rig.node.add_segment(kP0, random_bytes(5000, 3));
  rig.node.lost.insert(lost);
  rig.start();
  auto pushed = world.run(rig.tier.push());
  ASSERT_FALSE(pushed.ok());
  EXPECT_NE(pushed.error().message().find(to_string(lost)), std::string::npos) << pushed.error().text();
  EXPECT_EQ(rig.node.unplaced(), 1u);
  rig.node.lost.clear();
  EXPECT_TRUE(world.run(rig.tier.push()).ok());
  EXPECT_EQ(rig.node.unplaced(), 0u);
}

// What partitions are asked on the way into the hot tier; no target takes anything.
struct GivingBack {
  explicit GivingBack(FakePartitions& node) {
    node.handlers.on<PlaceAgain>([this](PlaceAgain r, CallInfo) { return place(r); });
    node.handlers.on<Reserve>([this](Reserve r, CallInfo) { return reserve(std::move(r)); });
    node.handlers.on<Packable>([](Packable, CallInfo) { return packable(); });
  }
  Task<Result<PlaceAgainReply>> place(PlaceAgain request) {
    shared |= !reserved.insert(request.segment).second;
    PlaceAgainReply reply;
    reply.location.segment = request.segment;
    reply.location.length = 1000;
    reply.location.bucket = FakePartitions::kNamespace;
    reply.location.object = object;
    co_return reply;
  }
  Task<Result<ReserveReply>> reserve(Reserve request) {
    ReserveReply reply;
    for (const SegmentId& segment : request.abandoned) reserved.erase(segment);
    if (request.count == 0) co_return reply;
    Reservation& made = reply.reservations.emplace_back();
    made.segment = SegmentId(FakePartitions::kNamespace, Slot(0), NamespaceEpoch(1), 9);
    made.placement = {Protection{1, 0}, {TargetId(1)}};
    reserved.insert(made.segment);
    ++packs;
    co_return reply;
  }
  static Task<Result<PackableReply>> packable() {
    PackableReply reply;
    PackItem& item = reply.items.emplace_back();
    item.file = FileId(Slot(0), 5);
    item.bytes = random_bytes(100, 1);
    item.extent.length = 100;
    co_return reply;
  }
  std::set<SegmentId> reserved;
  bool shared = false;  // one that was reserved was asked for again
  ObjectRef object;     // none: what is placed again is in no object
  int packs = 0;
};

// One cold segment, and what fetches it, so many times at once.
struct ColdFetch {
  explicit ColdFetch(Rig& rig)
      : fragments(rig.node.targets, ServiceLevel::kBackground),
        segments(rig.node.env, fragments),
        fetcher(rig.node.env, rig.node.ports, segments, rig.cold_reader(), [] { return true; }) {
    cold.segment = SegmentId(FakePartitions::kNamespace, Slot(0), NamespaceEpoch(1), 3);
    cold.length = 1000;
  }
  Task<void> run(int times) {
    std::vector<Task<Result<void>>> calls;
    for (int i = 0; i < times; ++i) calls.push_back(fetcher.fetch(std::vector(1, cold), progress, &stop));
    for (const Result<void>& done : co_await when_all(std::move(calls))) EXPECT_TRUE(done.ok());
  }
  RpcFragmentPort fragments;
  SegmentIo segments;
  Fetcher fetcher;
  Location cold;
  std::shared_ptr<FetchProgress> progress = std::make_shared<FetchProgress>();
  CancelToken stop;
};

TEST_F(TierTest, WhatCannotBeFetchedOrPackedIsGivenBack) {
  Rig rig(world, bucket);
  GivingBack partition(rig.node);
  ColdFetch fetch(rig);
  ASSERT_TRUE(world.run_until(fetch.run(1)));
  EXPECT_EQ(fetch.progress->failed, 1u);
  EXPECT_TRUE(partition.reserved.empty());

  Packer packer(rig.node.env, rig.node.ports, fetch.segments);
  EXPECT_FALSE(world.run(packer.pack(rig.node.view.map().partitions.front(), true)).ok());
  EXPECT_EQ(partition.packs, 1);
  EXPECT_TRUE(partition.reserved.empty());
}

TEST_F(TierTest, ASegmentIsPlacedOnceAtATime) {
  Rig rig(world, bucket);
  GivingBack partition(rig.node);
  ColdFetch fetch(rig);
  partition.object = {ObjectId(NamespaceEpoch(1), kP0, 1), 100, 100};  // which is gone
  rig.store.rates().slow = 1'000'000;
  rig.store.rates().slow_for = seconds(1);
  ASSERT_TRUE(world.run_until(fetch.run(2)));
  EXPECT_EQ(fetch.progress->failed, 2u);
  EXPECT_FALSE(partition.shared);
  EXPECT_TRUE(partition.reserved.empty());
}

TEST_F(TierTest, AColdReadEndsWhenTheBucketDoesNot) {
  Rig rig(world, bucket);
  rig.tier.register_handlers(rig.node.handlers);
  const SegmentId id = rig.node.add_segment(kP0, random_bytes(1000, 1));
  rig.start();
  ASSERT_TRUE(world.run(rig.tier.push()).ok());
  rig.store.rates().slow = 1'000'000;
  rig.store.rates().slow_for = seconds(100);
  const Address node = rig.node.view.map().nodes.front().address;
  const ColdRead request{rig.node[0].segments.at(id).location, 0, 1000};
  const Nanos asked = rig.node.env.clock.now();
  EXPECT_EQ(world.run(rig.node.hub.call(node, request, {.timeout = seconds(1000)})).code(), Code::kUnavailable);
  EXPECT_LE(rig.node.env.clock.now() - asked, seconds(35));
  // What was asked for the first reader is there for a later one.
  world.run_for(seconds(300));
  rig.store.rates().slow = 0;
  EXPECT_TRUE(world.run(rig.node.hub.call(node, request, {.timeout = seconds(1000)})).ok());
  EXPECT_EQ(rig.tier.status().cold.gets, 2u) << "the index once, and the piece";
}

struct ColdReading {
  static Task<void> run(ColdReader& reader, ColdRead request, Nanos deadline, std::optional<Code>& code) {
    Result<ColdReadReply> reply = co_await reader.read(std::move(request), deadline);
    code = reply.code();
  }
};

TEST_F(TierTest, WhatNobodyWaitsForAnyMoreIsNotAskedOfTheBucket) {
  Rig rig(world, bucket);
  const SegmentId id = rig.node.add_segment(kP0, random_bytes(5 * kMiB, 1));
  rig.start();
  ASSERT_TRUE(world.run(rig.tier.push()).ok());
  ColdReader reader(rig.node.env, rig.store, rig.pieces, {.gets = 1});
  reader.set_namespace(FakePartitions::kNamespace);
  const Location location = rig.node[0].segments.at(id).location;
  ASSERT_TRUE(world.run(reader.read({location, 0, 1000})).ok());
  const uint64_t before = reader.counters().gets;
  rig.store.rates().slow = 1'000'000;
  rig.store.rates().slow_for = seconds(100);
  std::vector<std::optional<Code>> codes(4);
  const Nanos asked = rig.node.env.clock.now();
  for (size_t i = 0; i < codes.size(); ++i)
    world.spawn(ColdReading::run(reader, {location, (i + 1) * kMiB, 1000}, asked + seconds(30), codes[i]));
  world.run_for(seconds(50));
  for (const auto& code : codes) EXPECT_EQ(code, Code::kUnavailable);
  // One is asked for, the others wait for it: a new reader makes one of them wanted again.
  std::optional<Code> late;
  world.spawn(ColdReading::run(reader, {location, 3 * kMiB, 1000}, asked + seconds(300), late));
  world.run_for(seconds(350));
  EXPECT_EQ(late, Code::kOk);
  EXPECT_EQ(reader.counters().gets, before + 2);
  EXPECT_TRUE(world.run(reader.read({location, 2 * kMiB, 1000})).ok());
  world.run_until(reader.stop());
}

TEST_F(TierTest, BadInputAReadBesideDamageEndsWhenTheBucketDoesNot) {
  Rig rig(world, bucket);
  const SegmentId id = rig.node.add_segment(kP0, random_bytes(kMiB, 1));
  rig.start();
  ASSERT_TRUE(world.run(rig.tier.push()).ok());
  const Location location = rig.node[0].segments.at(id).location;
  const std::string key = object_key(location.object.object);
  std::string bytes(bucket->get(key)->body.text());
  bytes[3 * kFrameBytes + 1000] ^= 1;  // the last of four frames
  ASSERT_TRUE(bucket->put(key, Buffer::copy_of(bytes_of(bytes)), {}).ok());
  const ColdRead request{location, 0, 3 * kFrameBytes};
  ColdReader& reader = rig.cold_reader();
  ASSERT_TRUE(world.run(reader.read(request)).ok()) << "its own frames are whole";
  rig.store.rates().slow = 1'000'000;
  rig.store.rates().slow_for = seconds(5);
  const uint64_t gets = reader.counters().gets;
  const Nanos deadline = rig.node.env.clock.now() + seconds(28);
  EXPECT_EQ(world.run(reader.read(request, deadline)).code(), Code::kUnavailable);
  EXPECT_LE(rig.node.env.clock.now(), deadline + seconds(1));
  EXPECT_GT(reader.counters().gets, gets + 4) << "it had begun to read them one by one";
  world.run_until(reader.stop());
}

struct Pinned {
  Pinned(FakePartitions& node, SegmentId segment) {
    location.segment = segment;
    location.placement = {Protection{1, 0}, {TargetId(1)}};
    node.pins = {{kDamaged, "/damaged", 1}, {kWhole, "/whole", 1}};
    node.handlers.on<GetAttributes>([this](GetAttributes r, CallInfo) { return attributes(r.file); });
    node.handlers.on<SegmentsOf>([this](SegmentsOf, CallInfo) { return segments(); });
  }
  Task<Result<EntryReply>> attributes(FileId file) {
    if (file == kDamaged && how != Code::kOk) co_return Error(how, "injected");
    EntryReply reply;
    reply.attributes.id = file;
    reply.attributes.type = FileType::kFile;
    co_return reply;
  }
  Task<Result<SegmentsReply>> segments() {
    SegmentsReply reply;
    reply.segments.push_back(location);
    co_return reply;
  }
  static constexpr FileId kDamaged{Slot(0), 5};
  static constexpr FileId kWhole{Slot(0), 6};
  Location location;
  Code how = Code::kBusy;
};

TEST_F(TierTest, OnePinThatCannotBeWalkedKeepsNoOtherFromBeingKnown) {
  Rig rig(world, bucket);
  const SegmentId segment(FakePartitions::kNamespace, Slot(0), NamespaceEpoch(1), 3);
  Pinned pinned(rig.node, segment);
  rig.start();
  world.run_for(seconds(60));
  EXPECT_TRUE(rig.tier.pins().covers(segment));
  EXPECT_FALSE(rig.tier.pins().known()) << "what the other one covers may be seen yet";
  EXPECT_NE(rig.tier.pins().last_error().find("/damaged"), std::string::npos) << rig.tier.pins().last_error();
  pinned.how = Code::kCorrupt;
  world.run_for(seconds(60));
  EXPECT_TRUE(rig.tier.pins().known());
  EXPECT_TRUE(rig.tier.pins().covers(segment));
  std::erase_if(rig.node.pins, [](const PinItem& pin) { return pin.path == "/whole"; });
  world.run_for(seconds(60));
  EXPECT_FALSE(rig.tier.pins().covers(segment)) << "it was released";
}

TEST_F(TierTest, ASlowFetchDoesNotPutOffTheWalkThatTellsWhatIsPinned) {
  Rig rig(world, bucket);
  const SegmentId segment = rig.node.add_segment(kP0, random_bytes(1000, 1));
  Pinned pinned(rig.node, segment);
  GivingBack partition(rig.node);
  rig.start();
  ASSERT_TRUE(world.run(rig.tier.push()).ok());
  pinned.location = rig.node[0].segments.at(segment).location;
  pinned.location.placement = {};  // it is in the bucket only, which is slow
  partition.object = pinned.location.object;
  rig.store.rates().slow = 1'000'000;
  rig.store.rates().slow_for = seconds(100);
  world.run_for(seconds(10));
  EXPECT_FALSE(rig.tier.pins().known());
  for (const PinState& pin : rig.tier.pins().states()) EXPECT_FALSE(pin.complete) << pin.pin.path;
  pinned.how = Code::kOk;
  world.run_for(seconds(50));
  EXPECT_TRUE(rig.tier.pins().known());
  world.run_for(seconds(300));
  EXPECT_FALSE(partition.reserved.contains(segment));
  EXPECT_GT(rig.tier.status().cold.gets, 0u) << "then it is fetched";
}

TEST(Tier, BadInputFaultyBucketLosesNothingThatWasRecorded) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    World world(seed);
    auto bucket = std::make_shared<MemoryBucket>();
    FaultRates rates = FaultRates::all(60'000);
    rates.timeout = milliseconds(300);
    rates.slow_for = milliseconds(200);
    Rig rig(world, bucket, "node", 1, Rig::quiet());
    rig.start();
    rig.store.rates() = rates;
    for (uint64_t i = 0; i < 20; ++i) rig.node.add_segment(i % 2 ? kP0 : kP1, random_bytes(1 + i * 10'000, i, true));
    rig.node[0].files["a.sst"] = random_bytes(50'000, 1);
    Result<Cut> cut(Code::kUnavailable, "");
    for (int i = 0; i < 10 && !cut.ok(); ++i) cut = world.run(rig.tier.publish());
    ASSERT_TRUE(cut.ok()) << cut.error().text();
    EXPECT_EQ(rig.node.unplaced(), 0u);  // FakePartitions decodes each object that is recorded
    for (auto& [p, partition] : rig.node.partitions)
      for (auto& [id, segment] : partition.segments) {
        auto back = rig.cold(p, id, 0, segment.data.size());
        for (int i = 0; i < 5 && !back.ok(); ++i) back = rig.cold(p, id, 0, segment.data.size());
        ASSERT_TRUE(back.ok()) << back.error().text();
        EXPECT_TRUE(*back == segment.data.text());
      }
  }
}

// Invariant 5: an acknowledgement that confirms no checksum is not trusted, of data and of what names it.
TEST(Tier, BadInputWhatTheBucketAcknowledgesAndDoesNotStoreIsNotRecorded) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    World world(seed);
    auto bucket = std::make_shared<MemoryBucket>();
    Rig rig(world, bucket);
    rig.start();
    rig.store.rates().stored_other = rig.store.rates().swapped_other = 300'000;
    for (uint64_t i = 0; i < 20; ++i) rig.node.add_segment(i % 2 ? kP0 : kP1, random_bytes(1 + i * 10'000, i, true));
    rig.node[0].files["large.sst"] = random_bytes(kMultipartAbove + 1000, 1);
    for (int i = 0; i < 10; ++i) rig.node[1].files[std::to_string(i) + ".sst"] = random_bytes(1000, 10 + i);
    for (int round = 0; round < 3; ++round) {
      auto cut = world.run(rig.tier.publish());
      ASSERT_TRUE(cut.ok()) << "seed " << seed << ": " << cut.error().text();
      MemoryStore honest(bucket);
      auto head = world.run(BucketHead(rig.node.env, honest).read());
      ASSERT_TRUE(head.ok()) << "seed " << seed << ": " << head.error().text();
      EXPECT_EQ(head->record.cut, *cut);
      auto manifest = world.run(read_manifest(rig.node.env, honest, head->record));
      ASSERT_TRUE(manifest.ok()) << "seed " << seed << ": " << manifest.error().text();
      for (const PartitionManifest& partition : manifest->partitions) {
        for (const ManifestFile& file : partition.files) {
          Result<MemoryBucket::Object> there = bucket->get(file.key);
          ASSERT_TRUE(there.ok()) << "seed " << seed << ": " << file.key;
          EXPECT_EQ(crc32c(there->body.view()), file.file.crc) << "seed " << seed << ": " << file.key;
          EXPECT_TRUE(parse_published_key(file.key)) << file.key;
        }
        if (partition.locations.empty()) continue;
        Result<MemoryBucket::Object> there = bucket->get(partition.locations);
        ASSERT_TRUE(there.ok()) << "seed " << seed << ": " << partition.locations;
        EXPECT_EQ(crc32c(there->body.view()), partition.locations_crc) << "seed " << seed;
      }
      EXPECT_EQ(rig.node.unplaced(), 0u);
      for (auto& [p, partition] : rig.node.partitions)
        for (auto& [id, segment] : partition.segments) {
          auto back = rig.cold(p, id, 0, segment.data.size());
          ASSERT_TRUE(back.ok()) << "seed " << seed << ": " << back.error().text();
          EXPECT_TRUE(*back == segment.data.text());
        }
      rig.node.add_segment(kP0, random_bytes(5'000, 100 + round));
      rig.node[0].files["more" + std::to_string(round)] = random_bytes(1000, 200 + round);
    }
    EXPECT_TRUE(rig.winner.empty()) << rig.winner;
  }
}

TEST_F(TierTest, BadInputAPutInPiecesThatIsAcknowledgedAndNotStoredIsFound) {
  Env& env = world.add_machine("m").env();
  FaultyStore store(std::make_unique<MemoryStore>(bucket), env.clock, env.random, {.stored_other = 700'000});
  const Buffer body = random_bytes(8 * kMiB + 100, 1);  // two parts
  int stored = 0, refused = 0;
  for (int i = 0; i < 40; ++i) {
    ReadPiece read = [&body](uint64_t offset, uint64_t length) -> Task<Result<Buffer>> {
      return [](Buffer piece) -> Task<Result<Buffer>> { co_return piece; }(body.slice(offset, length));
    };
    const std::string key = std::to_string(i);
    Result<void> put =
        world.run(put_verified_pieces(env, store, key, body.size(), crc32c(body.view()), std::move(read)));
    if (!put.ok()) EXPECT_EQ(put.code(), Code::kExists) << put.error().text();
    if (put.ok()) EXPECT_TRUE(bucket->get(key).ok() && bucket->get(key)->body.text() == body.text()) << key;
    ++(put.ok() ? stored : refused);
    bucket->clear();
  }
  EXPECT_GT(stored, 10);
  EXPECT_GT(refused, 10);
}

TEST_F(TierTest, BadInputWhatTheBucketNeverStoresStaysHot) {
  Rig rig(world, bucket);
  rig.node.add_segment(kP0, random_bytes(5000, 1));
  rig.start();
  rig.store.rates().stored_other = 1'000'000;
  auto pushed = world.run(rig.tier.push());
  ASSERT_FALSE(pushed.ok());
  EXPECT_EQ(rig.node.unplaced(), 1u);
  rig.store.rates().stored_other = 0;
  EXPECT_TRUE(world.run(rig.tier.push()).ok());
  EXPECT_EQ(rig.node.unplaced(), 0u);
}

TEST_F(TierTest, PublishedManifestNamesFilesAndLocationsOfTheCut) {
  Rig rig(world, bucket);
  rig.start();
  rig.node.add_segment(kP0, random_bytes(70'000, 1));
  rig.node[0].files["000001.sst"] = random_bytes(9 * kMiB, 2);
  rig.node[1].files["000002.sst"] = random_bytes(10, 3);
  // Born before the cut, uploaded after it: the manifest waits, and adds its location to the cut's
  // files.
  SegmentId late{};
  rig.node.after_cut = [&](Cut cut) {
    late = rig.node.add_segment(kP1, random_bytes(1000, 4));
    rig.node[1].segments[late].birth = cut;
  };
  auto cut = world.run(rig.tier.publish());
  ASSERT_TRUE(cut.ok()) << cut.error().text();
  EXPECT_EQ(*cut, Cut(NamespaceEpoch(1), 1));
  EXPECT_EQ(rig.node[0].published, *cut);
  EXPECT_TRUE(rig.node[0].kept.empty());

  Env& env = rig.node.env;
  auto head = world.run(BucketHead(env, rig.store).read());
  ASSERT_TRUE(head.ok());
  auto manifest = world.run(read_manifest(env, rig.store, head->record));
  ASSERT_TRUE(manifest.ok()) << manifest.error().text();
  ASSERT_EQ(manifest->partitions.size(), 2u);
  ASSERT_EQ(manifest->partitions[0].files.size(), 1u);
  auto fetch = fetch_from_bucket(env, rig.store, manifest->partitions[0]);
  auto part = world.run(fetch(manifest->partitions[0].files[0].file, 8 * kMiB, 1000));
  ASSERT_TRUE(part.ok()) << part.error().text();
  EXPECT_TRUE(part->text() == rig.node[0].files["000001.sst"].slice(8 * kMiB, 1000).text());
  auto locations = world.run(read_locations(env, rig.store, *manifest, kP1));
  ASSERT_TRUE(locations.ok());
  ASSERT_EQ(locations->size(), 1u);
  EXPECT_EQ((*locations)[0].segment, late);
  EXPECT_TRUE((*locations)[0].object.object);
  EXPECT_FALSE((*locations)[0].placement.hot());
}

TEST_F(TierTest, UnchangedFilesAreNotCopiedAgainAndReplacedOnesGoAfterTheHorizon) {
  Rig rig(world, bucket);
  rig.start();
  rig.node[0].files["1.sst"] = random_bytes(1000, 1);
  rig.node[0].files["2.sst"] = random_bytes(1000, 2);
  ASSERT_TRUE(world.run(rig.tier.publish()).ok());
  EXPECT_EQ(rig.tier.status().publish.files_copied, 2u);
  rig.node[0].files.erase("1.sst");
  ASSERT_TRUE(world.run(rig.tier.publish()).ok());
  EXPECT_EQ(rig.tier.status().publish.files_copied, 2u);
  EXPECT_EQ(rig.tier.status().publish.files_kept, 1u);
  EXPECT_EQ(keys("m/"), 2u);  // not yet
  world.run_for(seconds(110));
  ASSERT_TRUE(world.run(rig.tier.publish()).ok());
  world.run_for(seconds(110));
  ASSERT_TRUE(world.run(rig.tier.publish()).ok());
  EXPECT_EQ(keys("m/"), 1u);
  EXPECT_LE(keys("manifest/"), 3u);
  auto head = world.run(BucketHead(rig.node.env, rig.store).read());
  EXPECT_TRUE(world.run(read_manifest(rig.node.env, rig.store, head->record)).ok());
}

TEST_F(TierTest, WhatIsReplacedDoesNotGoEarlierWhereTheWallClockJumps) {
  Rig rig(world, bucket);
  rig.start();
  rig.node[0].files["1.sst"] = random_bytes(1000, 1);
  ASSERT_TRUE(world.run(rig.tier.publish()).ok());
  rig.node[0].files.erase("1.sst");
  ASSERT_TRUE(world.run(rig.tier.publish()).ok());
  rig.node.machine.jump_wall(seconds(7200));
  ASSERT_TRUE(world.run(rig.tier.publish()).ok());
  EXPECT_EQ(keys("m/"), 1u) << "readers elsewhere may still use it";
  rig.node.machine.jump_wall(Nanos{} - seconds(14'400));
  world.run_for(seconds(110));
  ASSERT_TRUE(world.run(rig.tier.publish()).ok());
  EXPECT_EQ(keys("m/"), 0u);
}

TEST_F(TierTest, DeadObjectsAreDeletedOnlyAfterTheHorizonAndThenForgotten) {
  Rig rig(world, bucket);
  rig.start();
  SegmentId id = rig.node.add_segment(kP0, random_bytes(1000, 1));
  ASSERT_TRUE(world.run(rig.tier.publish()).ok());
  ObjectId object = rig.node[0].segments[id].location.object.object;
  rig.node[0].segments.erase(id);
  rig.node[0].dead[object] = rig.tier.status().published.next();
  // The manifest of before is older than the horizon, but it was the current one until now.
  world.run_for(seconds(101));
  ASSERT_TRUE(world.run(rig.tier.publish()).ok());
  EXPECT_EQ(keys("d/"), 1u);
  world.run_for(seconds(90));
  ASSERT_TRUE(world.run(rig.tier.publish()).ok());
  EXPECT_EQ(keys("d/"), 1u);
  world.run_for(seconds(11));
  ASSERT_TRUE(world.run(rig.tier.publish()).ok());
  EXPECT_EQ(keys("d/"), 0u);
  EXPECT_TRUE(rig.node[0].dead.empty());
}

// As many as a removed data set leaves: all that are due go in one pass, those that cannot in a later one.
TEST_F(TierTest, AllObjectsThatAreDueAreDeletedAtOnce) {
  Rig rig(world, bucket);
  rig.start();
  ASSERT_TRUE(world.run(rig.tier.publish()).ok());
  for (uint32_t i = 1; i <= 95; ++i) {
    const ObjectId object(NamespaceEpoch(1), i % 2 ? kP0 : kP1, i);
    ASSERT_TRUE(bucket->put(object_key(object), random_bytes(10, i), {}).ok());
    rig.node.partitions[i % 2 ? kP0 : kP1].dead[object] = rig.tier.status().published;
  }
  world.run_for(seconds(101));
  ASSERT_TRUE(world.run(rig.tier.publish()).ok());
  EXPECT_EQ(keys("d/"), 0u);
  EXPECT_TRUE(rig.node[0].dead.empty());
  EXPECT_TRUE(rig.node[1].dead.empty());
  EXPECT_EQ(rig.tier.status().publish.objects_deleted, 95u);
}

TEST_F(TierTest, ColdReadsMergeAndComeFromTheCacheTheSecondTime) {
  Rig rig(world, bucket);
  rig.start();
  Buffer data = random_bytes(5 * kMiB + 321, 1, true);
  SegmentId id = rig.node.add_segment(kP0, data);
  ASSERT_TRUE(world.run(rig.tier.push()).ok());
  ColdReader& cold = rig.cold_reader();
  SeededRandom random(3);
  for (int i = 0; i < 100; ++i) {
    uint64_t offset = random.below(data.size());
    uint64_t length = 1 + random.below(data.size() - offset);
    auto back = rig.cold(kP0, id, offset, length);
    ASSERT_TRUE(back.ok()) << back.error().text();
    EXPECT_TRUE(*back == data.slice(offset, length).text());
  }
  EXPECT_LE(cold.counters().gets, 7u);
  rig.pieces.set_budget(0);
  rig.pieces.set_budget(64 * kMiB);
  uint64_t gets = cold.counters().gets;
  int done = 0;
  struct Reader {
    static Task<void> run(ColdReader* cold, ColdRead request, int* done) {
      Result<ColdReadReply> reply = co_await cold->read(std::move(request));
      if (reply.ok()) ++*done;
    }
  };
  for (int i = 0; i < 20; ++i)
    world.spawn(Reader::run(&cold, ColdRead{rig.node[0].segments[id].location, 0, data.size()}, &done));
  ASSERT_TRUE(world.run_until([&] { return done == 20; }));
  EXPECT_EQ(cold.counters().gets, gets + 1);
}

TEST_F(TierTest, BadInputDamagedObjectIsAnErrorAndNeverWrongBytes) {
  Rig rig(world, bucket);
  rig.start();
  SegmentId id = rig.node.add_segment(kP0, random_bytes(300'000, 1));
  ASSERT_TRUE(world.run(rig.tier.push()).ok());
  Location location = rig.node[0].segments[id].location;
  std::string key = object_key(location.object.object);
  std::string bytes(bucket->get(key)->body.text());
  bytes[1000] = static_cast<char>(bytes[1000] ^ 1);
  ASSERT_TRUE(bucket->put(key, Buffer::copy_of(bytes_of(bytes)), {}).ok());
  EXPECT_EQ(rig.cold(kP0, id, 0, 10).code(), Code::kCorrupt);
  bucket->remove(key);
  EXPECT_EQ(rig.cold(kP0, id, 0, 10).code(), Code::kNoFragment);
  EXPECT_EQ(rig.cold(kP0, id, 300'000, 1).code(), Code::kInvalid);
}

// The write of a process that ended may reach head after the next process has looked at it.
TEST_F(TierTest, AReleaseThatComesLateIsASpinDownThatIsDone) {
  Rig rig(world, bucket);
  rig.start();
  ASSERT_TRUE(world.run(rig.tier.spin_down()).ok());
  world.run_until(rig.tier.stop());
  TierService next(rig.context(), Rig::quiet());
  EXPECT_EQ(world.run(next.start()).code(), Code::kStale);
  EXPECT_EQ(world.run(next.push()).code(), Code::kReadOnly);
  Result<void> down = world.run(next.spin_down());
  EXPECT_TRUE(down.ok()) << down.error().text();
  EXPECT_EQ(next.spin_down_progress().step, SpinDownStep::kReleased);
  world.run_until(next.stop());
}

// Two requests of the admin API go on side by side, whoever asked for them; both end in the end.
struct SpinDownTest : public TierTest {
  using Answer = std::optional<Result<void>>;
  static Task<void> down(TierService* tier, Answer* into) {
    Result<void> done = co_await tier->spin_down();
    into->emplace(std::move(done));
  }
  static Task<void> undo(TierService* tier, Answer* into) {
    Result<void> done = co_await tier->undo_spin_down();
    into->emplace(std::move(done));
  }
  void SetUp() override {
    rig.start();
    rig.node.add_segment(kP0, random_bytes(1000, 1));
  }
  void reach(SpinDownStep step) {
    world.spawn(down(&rig.tier, &downed));
    ASSERT_TRUE(world.run_until([&] { return rig.tier.spin_down_progress().step == step; }));
    world.run_for(seconds(1));
    ASSERT_FALSE(downed);
  }
  void undo_it() {
    world.spawn(undo(&rig.tier, &undone));
    world.run_for(seconds(1));
    rig.node.uploads_go.set();
    rig.node.releases_go.set();
    ASSERT_TRUE(world.run_until([&] { return downed && undone; }));
  }
  HeadState in_bucket() { return world.run(BucketHead(rig.node.env, rig.store).read())->record.state; }
  CloseStep last_step(uint16_t partition) { return rig.node[partition].closes.back(); }
  void expect_undone() {
    EXPECT_TRUE(undone->ok()) << undone->error().text();
    EXPECT_EQ(downed->code(), Code::kCancelled);
    EXPECT_EQ(rig.tier.spin_down_progress().step, SpinDownStep::kNone);
    EXPECT_EQ(in_bucket(), HeadState::kOwned);
    EXPECT_EQ(last_step(0), CloseStep::kUndo);
    EXPECT_EQ(last_step(1), CloseStep::kUndo);
  }

  Rig rig{world, bucket};
  Answer downed, undone;
};

TEST_F(SpinDownTest, UndoneWhileItWaitsForClientsItEndsAtOnceAndStaysUndone) {
  rig.node[1].sessions = 1'000'000;
  reach(SpinDownStep::kClosing);
  undo_it();
  expect_undone();
  world.run_for(seconds(300));
  expect_undone();
}

// What is written after the undo is in no manifest: head must not say released.
TEST_F(SpinDownTest, UndoneWhileItUploadsItReleasesNothing) {
  rig.node.uploads_go.reset();
  reach(SpinDownStep::kPushing);
  undo_it();
  expect_undone();
  world.run_for(seconds(300));
  expect_undone();
  auto again = world.run(rig.tier.spin_down());
  EXPECT_TRUE(again.ok()) << again.error().text();
  EXPECT_EQ(in_bucket(), HeadState::kReleased);
}

TEST_F(SpinDownTest, UndoneWhileItPublishesItReleasesNothing) {
  bool held = false;
  rig.node.after_cut = [&](Cut cut) {
    SegmentId late = rig.node.add_segment(kP1, random_bytes(1000, 2));
    rig.node[1].segments[late].birth = cut;  // the manifest waits for it
    rig.node.uploads_go.reset();
    held = true;
  };
  world.spawn(down(&rig.tier, &downed));
  ASSERT_TRUE(world.run_until([&] { return held; }));
  world.run_for(seconds(1));
  EXPECT_EQ(rig.tier.spin_down_progress().step, SpinDownStep::kClosed);
  undo_it();
  expect_undone();
  EXPECT_TRUE(rig.node[0].kept.empty());
}

TEST_F(SpinDownTest, AnUndoThatComesBehindTheReleaseSaysSoAndReopensNothing) {
  rig.node.releases_go.reset();
  reach(SpinDownStep::kClosed);
  ASSERT_EQ(in_bucket(), HeadState::kReleased);
  undo_it();
  EXPECT_TRUE(downed->ok()) << downed->error().text();
  EXPECT_EQ(undone->code(), Code::kInvalid);
  EXPECT_EQ(in_bucket(), HeadState::kReleased);
  EXPECT_EQ(last_step(0), CloseStep::kClosed);
  EXPECT_EQ(last_step(1), CloseStep::kClosed);
}

TEST_F(SpinDownTest, AskedForTwiceItIsDoneOnce) {
  rig.node.uploads_go.reset();
  reach(SpinDownStep::kPushing);
  Answer second;
  world.spawn(down(&rig.tier, &second));
  world.run_for(seconds(1));
  rig.node.uploads_go.set();
  ASSERT_TRUE(world.run_until([&] { return downed && second; }));
  EXPECT_TRUE(downed->ok()) << downed->error().text();
  EXPECT_TRUE(second->ok()) << second->error().text();
  EXPECT_EQ(in_bucket(), HeadState::kReleased);
  EXPECT_EQ(rig.tier.status().publish.manifests, 1u);
}

TEST_F(SpinDownTest, BadInputAPartitionThatIsOpenKeepsHeadFromBeingReleased) {
  rig.node.uploads_go.reset();
  reach(SpinDownStep::kPushing);
  rig.node[1].closes.push_back(CloseStep::kUndo);  // whoever did that
  rig.node.uploads_go.set();
  ASSERT_TRUE(world.run_until([&] { return downed.has_value(); }));
  EXPECT_EQ(downed->code(), Code::kBusy);
  EXPECT_NE(downed->error().message().find("partition 1 is open"), std::string::npos) << downed->error().text();
  EXPECT_EQ(in_bucket(), HeadState::kClosing);
}

// With it, no start would do without the bucket.
TEST_F(SpinDownTest, WhatAnInterruptedUndoLeftInTheCoordinatorIsCleared) {
  Coordinator& coordinator = rig.node.coordinator;
  ASSERT_TRUE(world.run(put_release_record(coordinator, ReleaseRecord{})).ok());
  ASSERT_TRUE(world.run(rig.tier.undo_interrupted_spin_down()).ok());
  auto left = world.run(release_record(coordinator));
  ASSERT_TRUE(left.ok());
  EXPECT_FALSE(left->has_value());
  EXPECT_TRUE(rig.node[0].closes.empty());
  EXPECT_EQ(in_bucket(), HeadState::kOwned);
}

TEST_F(TierTest, SpunDownNamespaceIsAttachedByAnotherClusterInTheNextEpoch) {
  SegmentId id;
  Buffer data = random_bytes(100'000, 1);
  Buffer sst = random_bytes(5000, 2);
  {
    Rig rig(world, bucket, "old");
    rig.start();
    id = rig.node.add_segment(kP0, data);
    rig.node[0].files["1.sst"] = sst;
    rig.node[1].sessions = 5;  // leave one by one
    auto down = world.run(rig.tier.spin_down());
    ASSERT_TRUE(down.ok()) << down.error().text();
    EXPECT_EQ(rig.tier.spin_down_progress().step, SpinDownStep::kReleased);
    EXPECT_EQ(rig.node[0].closes, (std::vector<CloseStep>{CloseStep::kClosing, CloseStep::kClosed}));
    EXPECT_EQ(rig.node.unplaced(), 0u);
    EXPECT_EQ(rig.tier.status().state, HeadState::kReleased);
    EXPECT_EQ(world.run(rig.tier.start()).code(),
              Code::kStale);  // a spun down namespace is not resumed by accident
    world.run_until(rig.tier.stop());
  }
  Rig rig(world, bucket, "new", 2);
  AttachOptions options{ClusterId(2), "new", false, true};
  auto attached = world.run(attach(rig.node.env, rig.node.coordinator, rig.store, options));
  ASSERT_TRUE(attached.ok()) << attached.error().text();
  EXPECT_EQ(attached->head.record.epoch, NamespaceEpoch(2));
  EXPECT_EQ(attached->before.state, HeadState::kReleased);
  auto again = world.run(attach(rig.node.env, rig.node.coordinator, rig.store, options));
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->head.record.epoch, NamespaceEpoch(2));  // an interrupted attach goes on
  auto fetch = fetch_from_bucket(rig.node.env, rig.store, attached->manifest.partitions[0]);
  auto file = world.run(fetch(attached->manifest.partitions[0].files[0].file, 0, sst.size()));
  ASSERT_TRUE(file.ok());
  EXPECT_TRUE(file->text() == sst.text());
  // The partitions have taken over the files: the first manifest of the new epoch copies nothing.
  rig.node[0].files["1.sst"] = sst;
  auto started = world.run(rig.tier.start(attached->head));
  ASSERT_TRUE(started.ok()) << started.error().text();
  auto cut = world.run(rig.tier.publish());
  ASSERT_TRUE(cut.ok()) << cut.error().text();
  EXPECT_EQ(cut->epoch(), NamespaceEpoch(2));
  EXPECT_EQ(rig.tier.status().publish.files_copied, 0u);
}

TEST_F(TierTest, LiveOwnerIsTakenOverOnlyExplicitlyAndThenStopsAtOnce) {
  Rig old(world, bucket, "old");
  old.start();
  old.node.add_segment(kP0, random_bytes(1000, 1));
  ASSERT_TRUE(world.run(old.tier.publish()).ok());
  Rig young(world, bucket, "young", 2);
  AttachOptions options{ClusterId(2), "young", false, true};
  auto refused = world.run(attach(young.node.env, young.node.coordinator, young.store, options));
  EXPECT_EQ(refused.code(), Code::kBusy);
  EXPECT_NE(refused.error().message().find("old"), std::string::npos) << refused.error().text();
  EXPECT_NE(refused.error().message().find("--take-over"), std::string::npos);
  options.take_over = true;
  auto taken = world.run(attach(young.node.env, young.node.coordinator, young.store, options));
  ASSERT_TRUE(taken.ok()) << taken.error().text();
  // The old one publishes before its watch tells it: it must lose, and must not spoil what the
  // other started from.
  EXPECT_FALSE(world.run(old.tier.publish()).ok());
  EXPECT_NE(old.winner.find("young"), std::string::npos) << old.winner;
  EXPECT_EQ(world.run(old.tier.publish()).code(), Code::kReadOnly);
  EXPECT_EQ(old.tier.status().owner, old.winner);
  auto head = world.run(BucketHead(young.node.env, young.store).read());
  EXPECT_EQ(head->record.epoch, NamespaceEpoch(2));
  EXPECT_TRUE(world.run(read_manifest(young.node.env, young.store, head->record)).ok());
}

// A disk image or a backup of a state directory that is started elsewhere: its coordinator knows what it knew then.
struct CopiedStateTest : public TierTest {
  CopiedStateTest() { rig.start(); }
  void copy() {
    auto records = world.run(rig.node.coordinator.list(""));
    ASSERT_TRUE(records.ok());
    for (auto& [key, record] : *records)
      ASSERT_TRUE(world.run(other.node.coordinator.put(key, record.value, 0)).ok()) << key;
  }
  static void expect_told(const std::string& text) {
    EXPECT_NE(text.find("copy of this state directory"), std::string::npos) << text;
    EXPECT_NE(text.find("--take-over"), std::string::npos) << text;
    EXPECT_NE(text.find("delete"), std::string::npos) << text;
  }
  Rig rig{world, bucket, "node"};
  Rig other{world, bucket, "other"};
};

TEST_F(CopiedStateTest, BadInputACopyIsRefusedWhereTheOtherHasWrittenSince) {
  copy();
  ASSERT_TRUE(world.run(rig.tier.publish()).ok());
  Result<void> started = world.run(other.tier.start());
  EXPECT_EQ(started.code(), Code::kDeposed);
  expect_told(started.error().message());
  expect_told(other.winner);
  AttachOptions options{ClusterId(1), "other", false, true};
  auto attached = world.run(attach(other.node.env, other.node.coordinator, other.store, options));
  EXPECT_EQ(attached.code(), Code::kBusy);
  expect_told(attached.error().message());
  EXPECT_TRUE(world.run(rig.tier.publish()).ok()) << "the other goes on";
  options.take_over = true;
  attached = world.run(attach(other.node.env, other.node.coordinator, other.store, options));
  ASSERT_TRUE(attached.ok()) << attached.error().text();
  EXPECT_EQ(attached->head.record.epoch, NamespaceEpoch(2));
  EXPECT_FALSE(world.run(rig.tier.publish()).ok());
}

TEST_F(CopiedStateTest, BadInputOfTwoThatRunTheFirstToWriteGoesOnAlone) {
  copy();
  ASSERT_TRUE(world.run(other.tier.start()).ok());  // nobody can know yet
  rig.node.add_segment(kP0, random_bytes(1000, 1));
  ASSERT_TRUE(world.run(rig.tier.publish()).ok());
  const size_t objects = keys("d/");
  EXPECT_FALSE(world.run(other.tier.publish()).ok());
  world.run_for(seconds(20));
  expect_told(other.winner);
  EXPECT_EQ(world.run(other.tier.publish()).code(), Code::kReadOnly);
  EXPECT_TRUE(rig.winner.empty());
  EXPECT_TRUE(world.run(rig.tier.publish()).ok());
  EXPECT_EQ(keys("d/"), objects);
}

TEST_F(CopiedStateTest, BadInputACopyOfASpunDownStateDoesNotTakeItFromThere) {
  ASSERT_TRUE(world.run(rig.tier.publish()).ok());
  copy();
  ASSERT_TRUE(world.run(rig.tier.spin_down()).ok());
  AttachOptions options{ClusterId(1), "other", false, true};
  auto attached = world.run(attach(other.node.env, other.node.coordinator, other.store, options));
  EXPECT_EQ(attached.code(), Code::kBusy);  // it would format the targets here
  expect_told(attached.error().message());
  EXPECT_EQ(world.run(other.tier.start()).code(), Code::kDeposed);
  options.description = "node";
  attached = world.run(attach(rig.node.env, rig.node.coordinator, rig.store, options));
  EXPECT_TRUE(attached.ok()) << attached.error().text();
}

TEST_F(CopiedStateTest, AStateOfAnEarlierVersionIsTakenAsItIsOnce) {
  ASSERT_TRUE(world.run(rig.tier.publish()).ok());
  world.run_until(rig.tier.stop());
  auto known = world.run(rig.node.coordinator.get(kNoncesKey));
  ASSERT_TRUE(known.ok() && known->version > 0);
  ASSERT_TRUE(world.run(rig.node.coordinator.put(kNoncesKey, "", known->version)).ok());
  TierService next(rig.context(), Rig::quiet());
  auto started = world.run(next.start());
  ASSERT_TRUE(started.ok()) << started.error().text();
  copy();
  ASSERT_TRUE(world.run(next.publish()).ok());
  EXPECT_EQ(world.run(other.tier.start()).code(), Code::kDeposed);
  world.run_until(next.stop());
}

// Nobody has written head yet: the copy knows that it did not.
TEST_F(TierTest, BadInputACopyOfAStateWithoutAHeadIsRefusedOnceThereIsOne) {
  Rig first(world, bucket, "first");
  Rig second(world, bucket, "second");
  auto owner = world.run(owner_record(first.node.env, first.node.coordinator, first.store.url()));
  ASSERT_TRUE(owner.ok());
  auto records = world.run(first.node.coordinator.list(""));
  for (auto& [key, record] : *records)
    ASSERT_TRUE(world.run(second.node.coordinator.put(key, record.value, 0)).ok()) << key;
  first.start();
  EXPECT_EQ(world.run(second.tier.start()).code(), Code::kDeposed);
}

TEST_F(TierTest, RestartedOwnerResumesItsOwnHeadInTheSameEpoch) {
  Rig rig(world, bucket);
  rig.start();
  ASSERT_TRUE(world.run(rig.tier.publish()).ok());
  world.run_until(rig.tier.stop());
  TierService second({rig.node.env,
                      rig.store,
                      rig.node.coordinator,
                      rig.node.ports,
                      rig.node.targets,
                      rig.pieces,
                      rig.node.identity,
                      {},
                      {}},
                     Rig::quiet());
  auto started = world.run(second.start());
  ASSERT_TRUE(started.ok()) << started.error().text();
  auto cut = world.run(second.publish());
  ASSERT_TRUE(cut.ok()) << cut.error().text();
  EXPECT_EQ(*cut, Cut(NamespaceEpoch(1), 2));
}

TEST_F(TierTest, UnansweredSwapOfAManifestLosesNothing) {
  Rig rig(world, bucket);
  rig.start();
  rig.node[0].files["1.sst"] = random_bytes(1000, 1);
  ASSERT_TRUE(world.run(rig.tier.publish()).ok());
  rig.node[0].files["2.sst"] = random_bytes(1000, 2);
  rig.store.down(true);
  EXPECT_FALSE(world.run(rig.tier.publish()).ok());
  rig.store.down(false);
  EXPECT_TRUE(rig.node[0].kept.empty());  // a cut that was given up is not held for ever
  auto cut = world.run(rig.tier.publish());
  ASSERT_TRUE(cut.ok()) << cut.error().text();
  for (int i = 0; i < 3; ++i) {
    world.run_for(seconds(110));
    ASSERT_TRUE(world.run(rig.tier.publish()).ok());
  }
  auto head = world.run(BucketHead(rig.node.env, rig.store).read());
  auto manifest = world.run(read_manifest(rig.node.env, rig.store, head->record));
  ASSERT_TRUE(manifest.ok());
  for (const std::string& key : keys_of(*manifest)) EXPECT_TRUE(bucket->get(key).ok()) << key;
}

// Larger than any buffer: in pieces, and what verifies is as good as what was held whole.
TEST_F(TierTest, ALargeStoreFileIsPublishedInPieces) {
  Rig rig(world, bucket);
  rig.start();
  rig.node[0].files["large.sst"] = random_bytes(41 * kMiB + 5, 1);
  auto cut = world.run(rig.tier.publish());
  ASSERT_TRUE(cut.ok()) << cut.error().text();
  auto head = world.run(BucketHead(rig.node.env, rig.store).read());
  auto manifest = world.run(read_manifest(rig.node.env, rig.store, head->record));
  ASSERT_TRUE(manifest.ok());
  const ManifestFile& file = manifest->partitions[0].files.at(0);
  EXPECT_TRUE(bucket->get(file.key)->body.text() == rig.node[0].files["large.sst"].text());
  // Also through a service that fails, answers late, or stores something else.
  FaultRates rates = FaultRates::all(30'000);
  rates.timeout = milliseconds(300);
  rates.slow_for = milliseconds(200);
  rig.store.rates() = rates;
  rig.node[0].files["second.sst"] = random_bytes(30 * kMiB, 2);
  cut = Error(Code::kUnavailable, "");
  for (int i = 0; i < 20 && !cut.ok(); ++i) cut = world.run(rig.tier.publish());
  ASSERT_TRUE(cut.ok()) << cut.error().text();
  rig.store.rates() = {};
  head = world.run(BucketHead(rig.node.env, rig.store).read());
  manifest = world.run(read_manifest(rig.node.env, rig.store, head->record));
  ASSERT_TRUE(manifest.ok());
  for (const ManifestFile& one : manifest->partitions[0].files)
    EXPECT_EQ(crc32c(bucket->get(one.key)->body.view()), one.file.crc) << one.key;
}

// An upload that was cut off between its put and its record leaves an object; a listing finds it, rows decide.
TEST_F(TierTest, ObjectsThatNobodyRecordedAreDeletedAfterTheHorizonAndNoOthers) {
  TierOptions options = Rig::quiet();
  options.publish.stray_interval = seconds(10);
  Rig rig(world, bucket, "node", 1, options);
  rig.start();
  rig.node.add_segment(kP0, random_bytes(5000, 1));
  ASSERT_TRUE(world.run(rig.tier.publish()).ok());
  const size_t recorded = keys("d/");
  const std::string stray = object_key(ObjectId(NamespaceEpoch(1), kP0, 77));
  const std::string old_owners = object_key(ObjectId(NamespaceEpoch(0), kP1, 78));
  const std::string nobodys = "d/zz/not-an-object";
  for (const std::string& key : {stray, old_owners, nobodys})
    ASSERT_TRUE(bucket->put(key, random_bytes(100, 2), {}).ok());
  world.run_for(seconds(20));
  ASSERT_TRUE(world.run(rig.tier.publish()).ok());  // seen
  world.run_for(seconds(50));
  ASSERT_TRUE(world.run(rig.tier.publish()).ok());
  EXPECT_EQ(keys("d/"), recorded + 3) << "the horizon has not passed";
  world.run_for(seconds(60));
  ASSERT_TRUE(world.run(rig.tier.publish()).ok());
  EXPECT_FALSE(bucket->get(stray).ok());
  EXPECT_FALSE(bucket->get(old_owners).ok());
  EXPECT_TRUE(bucket->get(nobodys).ok()) << "what is no object of ours is left alone";
  EXPECT_EQ(keys("d/"), recorded + 1);
  EXPECT_EQ(rig.tier.status().publish.strays_deleted, 2u);
}

// A process that ended in the middle of a publish leaves what it had put, and nobody remembers it.
TEST_F(TierTest, WhatAPublishLeftBehindIsDeletedAfterTheHorizonAndNothingElse) {
  TierOptions options = Rig::quiet();
  options.publish.stray_interval = seconds(10);
  Rig rig(world, bucket, "node", 1, options);
  rig.start();
  rig.node[0].files["kept.sst"] = random_bytes(1000, 1);
  ASSERT_TRUE(world.run(rig.tier.publish()).ok());
  rig.node[0].files["left.sst"] = random_bytes(1000, 2);
  rig.node[1].files["lost.sst"] = random_bytes(1000, 3);
  rig.node.lost_file = "lost.sst";
  ASSERT_FALSE(world.run(rig.tier.publish()).ok());
  rig.node.lost_file.clear();
  world.run_until(rig.tier.stop());
  std::set<std::string> left;
  for (const auto& [key, object] : bucket->contents())
    if (key.find("left.sst") != std::string::npos) left.insert(key);
  ASSERT_EQ(left.size(), 1u);

  // The next process leads its partitions in the next epoch. The file is gone meanwhile.
  rig.node.lead_in(PartitionEpoch(6));
  rig.node.identity.cut = Cut(NamespaceEpoch(1), 9);
  rig.node[0].files.erase("left.sst");
  auto key_of = [](uint16_t epoch, uint64_t leadership) {
    return store_file_key(NamespaceEpoch(epoch), kP0, PartitionEpoch(leadership), {"other.sst", 1000, 77, ""});
  };
  left.insert(manifest_key(Cut(NamespaceEpoch(1), 7)));
  left.insert(manifest_key(Cut(NamespaceEpoch(0), 99)));
  left.insert(locations_key(Cut(NamespaceEpoch(1), 7), kP1));
  left.insert(key_of(1, 5));
  left.insert(key_of(0, 50));
  // What a publish could still make or another owner may need, and what is none of ours.
  const std::set<std::string> others = {key_of(1, 6),
                                        key_of(2, 1),
                                        manifest_key(Cut(NamespaceEpoch(1), 99)),
                                        manifest_key(Cut(NamespaceEpoch(2), 1)),
                                        locations_key(Cut(NamespaceEpoch(2), 1), kP0),
                                        "m/notes",
                                        "m/0001-0000/00000005-short",
                                        "manifest/0001-7",
                                        "manifest/0001-000000000007.bak"};
  std::set<std::string> all = left;
  all.insert(others.begin(), others.end());
  for (const std::string& key : all) (void)bucket->put(key, random_bytes(100, 4), PutCondition::if_absent());
  TierService next(rig.context(), options);
  ASSERT_TRUE(world.run(next.start()).ok());
  auto there = [&](const std::set<std::string>& keys) {
    size_t n = 0;
    for (const std::string& key : keys) n += bucket->get(key).ok() ? 1 : 0;
    return n;
  };
  ASSERT_TRUE(world.run(next.publish()).ok());  // seen
  world.run_for(seconds(60));
  rig.node[0].files["new.sst"] = random_bytes(1000, 5);
  ASSERT_TRUE(world.run(next.publish()).ok());
  EXPECT_EQ(there(left), left.size()) << "the horizon has not passed";
  world.run_for(seconds(60));
  ASSERT_TRUE(world.run(next.publish()).ok());
  EXPECT_EQ(there(left), 0u);
  EXPECT_EQ(there(others), others.size());
  EXPECT_EQ(next.status().publish.strays_deleted, left.size());
  for (int i = 0; i < 3; ++i) {
    world.run_for(seconds(110));
    ASSERT_TRUE(world.run(next.publish()).ok());
  }
  EXPECT_EQ(there(others), others.size());
  auto head = world.run(BucketHead(rig.node.env, rig.store).read());
  auto manifest = world.run(read_manifest(rig.node.env, rig.store, head->record));
  ASSERT_TRUE(manifest.ok());
  EXPECT_EQ(keys_of(*manifest).size(), 3u);  // kept, lost, new
  for (const std::string& key : keys_of(*manifest)) EXPECT_TRUE(bucket->get(key).ok()) << key;
  world.run_until(next.stop());
}

// Between two looks another owner takes over: what it started from is not ours to judge.
TEST_F(TierTest, WhoIsNoOwnerAnyMoreDeletesNoStrays) {
  TierOptions options = Rig::quiet();
  options.publish.stray_interval = seconds(10);
  Rig old(world, bucket, "old", 1, options);
  old.start();
  const std::string stray = store_file_key(NamespaceEpoch(1), kP0, PartitionEpoch(1), {"1.sst", 100, 7, ""});
  ASSERT_TRUE(bucket->put(stray, random_bytes(100, 1), {}).ok());
  ASSERT_TRUE(world.run(old.tier.publish()).ok());
  world.run_for(seconds(120));
  Rig young(world, bucket, "young", 2);
  auto taken =
      world.run(attach(young.node.env, young.node.coordinator, young.store, {ClusterId(2), "young", true, true}));
  ASSERT_TRUE(taken.ok()) << taken.error().text();
  EXPECT_FALSE(world.run(old.tier.publish()).ok());
  EXPECT_TRUE(bucket->get(stray).ok());
}

// One object that cannot be read holds up nobody else.
TEST_F(TierTest, BadInputADamagedSparseObjectDoesNotKeepOthersFromBeingRewritten) {
  Rig rig(world, bucket);
  rig.start();
  std::vector<ObjectId> objects;
  std::vector<SegmentId> living;
  for (uint64_t i = 0; i < 3; ++i) {
    living.push_back(rig.node.add_segment(kP0, random_bytes(10'000, i)));
    SegmentId dies = rig.node.add_segment(kP0, random_bytes(30'000, 10 + i));
    ASSERT_TRUE(world.run(rig.tier.push()).ok());
    objects.push_back(rig.node[0].segments[dies].location.object.object);
    rig.node[0].segments.erase(dies);
  }
  for (ObjectId object : objects) rig.node.sparse.objects.push_back({object, 40'000, 10'000});
  rig.node.sparse.raw = 120'000;
  rig.node.sparse.live = 30'000;
  bucket->remove(object_key(objects[1]));
  auto moved = world.run(rig.tier.uploader().rewrite(kP0));
  EXPECT_FALSE(moved.ok());
  EXPECT_NE(moved.error().message().find(object_key(objects[1])), std::string::npos) << moved.error().text();
  EXPECT_EQ(rig.tier.status().upload.rewritten, 20'000u);
  for (size_t i = 0; i < 3; ++i) {
    const ObjectId now = rig.node[0].segments[living[i]].location.object.object;
    EXPECT_EQ(now == objects[i], i == 1) << i;
  }
}

TEST_F(TierTest, UploadsAndManifestsHappenByThemselves) {
  TierOptions options;
  options.upload.min_age = seconds(1);
  options.publish_interval = seconds(20);
  Rig rig(world, bucket, "node", 1, options);
  rig.node.add_segment(kP0, random_bytes(1000, 1));
  rig.start();
  world.run_for(seconds(10));
  EXPECT_EQ(rig.node.unplaced(), 0u);
  world.run_for(seconds(30));
  EXPECT_TRUE(rig.tier.status().published.packed());
  world.run_until(rig.tier.stop());
}

TEST_F(TierTest, EvictionStopsAtTheLowWatermarkAndDropsOnlyWhatIsInTheBucket) {
  Rig rig(world, bucket);
  rig.start();
  for (uint64_t i = 0; i < 100; ++i) rig.node.add_segment(i % 2 ? kP0 : kP1, random_bytes(10 * kBlock, i));
  ASSERT_TRUE(world.run(rig.tier.push()).ok());
  for (uint64_t i = 0; i < 10; ++i) rig.node.add_segment(kP0, random_bytes(10 * kBlock, i));
  auto used = [&] {
    uint64_t bytes = 0;
    for (auto& [p, partition] : rig.node.partitions)
      for (auto& [id, segment] : partition.segments) bytes += segment.location.placement.hot() ? 10 * kBlock : 0;
    return bytes;
  };
  const uint64_t unit = 10 * kBlock;
  Evictor evictor(rig.node.env, rig.node.ports, [&] { return HotUsage{used(), 100 * unit}; });
  ASSERT_TRUE(world.run(evictor.round()).ok());
  EXPECT_EQ(used(), 90 * unit);
  ASSERT_TRUE(world.run(evictor.round()).ok());
  EXPECT_EQ(used(), 90 * unit);
  auto all = world.run(evictor.drop(~uint64_t{0}));
  ASSERT_TRUE(all.ok());
  EXPECT_EQ(used(), 10 * unit);
}

// A user's deletes while the evictor waits for the bucket: what is left need not go.
struct SlowPush {
  static Task<Result<void>> run(Env env, TierService& tier, uint64_t& others) {
    co_await env.clock.sleep(seconds(1));
    others = 0;
    co_return co_await tier.push();
  }
};

class EvictionInVain : public TierTest, public testing::WithParamInterface<bool> {};

TEST_P(EvictionInVain, StopsWhenOthersHaveFreedTheSpaceMeanwhile) {
  Rig rig(world, bucket);
  rig.start();
  for (uint64_t i = 0; i < 20; ++i) rig.node.add_segment(i % 2 ? kP0 : kP1, random_bytes(10 * kBlock, i));
  const uint64_t unit = 10 * kBlock;
  uint64_t others = 80 * unit;
  auto hot = [&] {
    uint64_t bytes = 0;
    for (auto& [p, partition] : rig.node.partitions)
      for (auto& [id, segment] : partition.segments) bytes += segment.location.placement.hot() ? unit : 0;
    return bytes;
  };
  EvictorHelp help{[&] { return SlowPush::run(rig.node.env, rig.tier, others); }, {}, {}, {}};
  Evictor evictor(rig.node.env, rig.node.ports, [&] { return HotUsage{others + hot(), 100 * unit}; }, {}, help);
  ASSERT_TRUE(world.run(evictor.round(GetParam())).ok());
  EXPECT_EQ(rig.node.unplaced(), 0u) << "all of it could have been dropped";
  EXPECT_EQ(hot(), 20 * unit);
  EXPECT_FALSE(evictor.progress().short_of);
  EXPECT_FALSE(evictor.progress().stuck);
  world.run_until(evictor.stop());
}

INSTANTIATE_TEST_SUITE_P(WhetherSomebodyWaits, EvictionInVain, testing::Bool());

// Whoever asked for room while a round made it has it: no other round follows for that.
TEST_F(TierTest, AskingWhileRoomIsMadeDropsNoMore) {
  Rig rig(world, bucket);
  rig.start();
  for (uint64_t i = 0; i < 20; ++i) rig.node.add_segment(i % 2 ? kP0 : kP1, random_bytes(10 * kBlock, i));
  ASSERT_TRUE(world.run(rig.tier.push()).ok());
  const uint64_t unit = 10 * kBlock;
  auto hot = [&] {
    uint64_t bytes = 0;
    for (auto& [p, partition] : rig.node.partitions)
      for (auto& [id, segment] : partition.segments) bytes += segment.location.placement.hot() ? unit : 0;
    return bytes;
  };
  Evictor* asked = nullptr;
  auto usage = [&] {
    if (hot() == 20 * unit) asked->kick();  // as the round begins
    return HotUsage{80 * unit + hot(), 100 * unit};
  };
  Evictor evictor(rig.node.env, rig.node.ports, usage, {}, {});
  asked = &evictor;
  evictor.start();
  world.run_for(seconds(20));
  EXPECT_EQ(hot(), 10 * unit);
  world.run_until(evictor.stop());
}

TEST_F(TierTest, EvictionUploadsWhatIsHotOnlyWhenNothingElseIsLeftAndSparesPins) {
  Rig rig(world, bucket);
  rig.start();
  std::set<SegmentId> pinned;
  for (uint64_t i = 0; i < 100; ++i) {
    SegmentId id = rig.node.add_segment(i % 2 ? kP0 : kP1, random_bytes(10 * kBlock, i));
    if (i < 60) pinned.insert(id);
  }
  const uint64_t unit = 10 * kBlock;
  auto used = [&] {
    uint64_t bytes = 0;
    for (auto& [p, partition] : rig.node.partitions)
      for (auto& [id, segment] : partition.segments) bytes += segment.location.placement.hot() ? unit : 0;
    return bytes;
  };
  uint64_t capacity = 100 * unit;
  EvictorHelp help{[&] { return rig.tier.push(); }, [&](const SegmentId& id) { return pinned.contains(id); }, {}, {}};
  Evictor evictor(rig.node.env, rig.node.ports, [&] { return HotUsage{used(), capacity}; }, {}, help);
  ASSERT_TRUE(world.run(evictor.round()).ok());
  EXPECT_EQ(rig.node.unplaced(), 0u);
  EXPECT_EQ(used(), 90 * unit);
  EXPECT_FALSE(evictor.progress().short_of);
  capacity = 50 * unit;  // fewer than are pinned
  ASSERT_TRUE(world.run(evictor.round()).ok());
  EXPECT_EQ(used(), 60 * unit);
  EXPECT_TRUE(evictor.progress().short_of);
  EXPECT_FALSE(evictor.progress().stuck);
  ASSERT_TRUE(world.run(evictor.round()).ok());
  EXPECT_TRUE(evictor.progress().stuck) << "only pinned segments are left";
  for (SegmentId id : pinned)
    EXPECT_TRUE(rig.node[id.home().value() == 0 ? 0 : 1].segments.at(id).location.placement.hot());
  world.run_until(evictor.stop());
}

}  // namespace
}  // namespace headrace
