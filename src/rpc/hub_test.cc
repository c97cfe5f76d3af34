#include "rpc/hub.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "proto/messages.h"
#include "runtime/sim/world.h"

namespace headrace {
namespace {

// A process that serves a few messages: Lookup answers its name after `delay`; FragmentRead gives bulk; GetMap calls
// back (Recall) over the channel it came by.
struct Node : Process {
  explicit Node(Env& e, Address where = {}) : env(e), address(std::move(where)), hub(e, identity, handlers) {
    identity.name_space = NamespaceId(7);
    identity.namespace_epoch = NamespaceEpoch(1);
    handlers.on<Lookup>([this](Lookup r, CallInfo i) { return lookup(std::move(r), std::move(i)); });
    handlers.on<FragmentRead>([this](FragmentRead r, CallInfo) { return read(r); });
    handlers.on<FragmentWrite>([this](FragmentWrite r, CallInfo) { return write(std::move(r)); });
    handlers.on<GetMap>([this](GetMap r, CallInfo i) { return call_back(r, std::move(i)); });
    handlers.on<Recall>([this](Recall r, CallInfo) { return recall(r); });
    handlers.on<SessionRenew>([](SessionRenew, CallInfo) { return renew(); });
  }
  Task<void> run() override {
    if (!address.empty()) {
      auto served = co_await hub.serve(address);
      HR_ASSERT(served.ok());
    }
    co_await stop.wait();
    co_await hub.close();
    closed = true;
  }
  Task<Result<EntryReply>> lookup(Lookup request, CallInfo info) {
    seen = info.header;
    ++started;
    most = std::max(most, ++running);
    if (delay > Nanos{}) co_await env.clock.sleep(delay);
    --running;
    ++finished;
    if (request.name == "absent") co_return Error(Code::kNotFound, "no such file");
    EntryReply reply;
    reply.attributes.size = request.name.size();
    co_return reply;
  }
  static Task<Result<Empty>> renew() { co_return Empty{}; }
  Task<Result<FragmentReadReply>> read(FragmentRead request) {
    most_reads = std::max(most_reads, ++reads);
    if (disk_hangs) co_await stop.wait();
    if (delay > Nanos{}) co_await env.clock.sleep(delay);
    --reads;
    FragmentReadReply reply;
    reply.crcs = {1, 2, 3};
    reply.payload = Buffer::zeroed(request.length);
    co_return reply;
  }
  Task<Result<Empty>> write(FragmentWrite request) {
    written = request.payload;
    co_return Empty{};
  }
  Task<Result<GetMapReply>> call_back(GetMap, CallInfo info) {
    Recall recall;
    recall.session = SessionId(5);
    HR_CO_TRY(co_await hub.call(info.channel, recall));
    co_return GetMapReply{.map = "called back"};
  }
  Task<Result<Empty>> recall(Recall request) {
    recalled = request.session;
    co_return Empty{};
  }

  Env env;
  Address address;
  Identity identity;
  Handlers handlers;
  Nanos delay{};
  Header seen;
  bool disk_hangs = false;
  size_t started = 0, finished = 0, running = 0, most = 0, reads = 0, most_reads = 0;
  Buffer written;
  SessionId recalled;
  Event stop;
  bool closed = false;
  Hub hub;
  Scope scope;
};

struct Pair {
  explicit Pair(uint64_t seed = 1, WorldOptions options = {})
      : world(seed, options), a(world.add_machine("a")), b(world.add_machine("b")) {
    start(a);
    start(b);
  }
  void start(Machine& machine) {
    machine.start([&machine](Env& env) { return std::make_unique<Node>(env, machine.address()); });
    world.run_for(milliseconds(1));
  }
  static Node& node(Machine& machine) { return static_cast<Node&>(*machine.process()); }
  template <class Req>
  Result<typename Req::Reply> call(Req request, CallOptions options = {}) {
    return world.run(node(a).hub.call(Address("sim:b"), std::move(request), options));
  }
  World world;
  Machine& a;
  Machine& b;
};

Lookup named(std::string name) {
  return Lookup{.parent = kRootFile, .name = std::move(name)};
}

TEST(Hub, AnswersACall) {
  Pair pair;
  Result<EntryReply> reply =
      pair.call(named("hello"), {.partition = PartitionId(3), .partition_epoch = PartitionEpoch(4)});
  ASSERT_TRUE(reply.ok()) << reply.error().text();
  EXPECT_EQ(reply->attributes.size, 5u);
  EXPECT_EQ(pair.node(pair.b).seen.partition, PartitionId(3));
  EXPECT_EQ(pair.node(pair.b).seen.partition_epoch, PartitionEpoch(4));
  EXPECT_GT(pair.node(pair.b).seen.deadline_ms, 9'000u);
  EXPECT_LE(pair.node(pair.b).seen.deadline_ms, 10'000u);
}

TEST(Hub, CarriesErrorsWithTheirMessage) {
  Pair pair;
  Result<EntryReply> reply = pair.call(named("absent"));
  ASSERT_EQ(reply.code(), Code::kNotFound);
  EXPECT_EQ(reply.error().message(), "no such file");
}

TEST(Hub, CarriesBulkBothWays) {
  Pair pair;
  Buffer data = Buffer::zeroed(100'000);
  data.data()[99'999] = std::byte{42};
  ASSERT_TRUE(pair.call(FragmentWrite{.payload = data}).ok());
  ASSERT_EQ(pair.node(pair.b).written.size(), 100'000u);
  EXPECT_EQ(pair.node(pair.b).written.data()[99'999], std::byte{42});
  Result<FragmentReadReply> reply = pair.call(FragmentRead{.length = 8192});
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(reply->payload.size(), 8192u);
  EXPECT_EQ(reply->crcs, (std::vector<uint32_t>{1, 2, 3}));
}

TEST(Hub, RefusesWhatItDoesNotServeAndWhatIsTooLarge) {
  Pair pair;
  EXPECT_EQ(pair.call(Statistics{}).code(), Code::kNotSupported);
  EXPECT_EQ(pair.call(FragmentWrite{.payload = Buffer::allocate(kMaxPayload + 1)}).code(), Code::kTooLarge);
  Result<FragmentReadReply> reply = pair.call(FragmentRead{.length = kMaxPayload + 1});
  EXPECT_EQ(reply.code(), Code::kTooLarge);
  EXPECT_TRUE(pair.call(named("still works")).ok());
}

TEST(Hub, ACallEndsAtItsDeadlineAndItsLateReplyIsDropped) {
  Pair pair;
  pair.node(pair.b).delay = seconds(2);
  Nanos before = pair.world.now();
  Result<EntryReply> reply = pair.call(named("slow"), {.timeout = seconds(1)});
  EXPECT_EQ(reply.code(), Code::kTimeout);
  EXPECT_LT(pair.world.now() - before, milliseconds(1100));
  pair.node(pair.b).delay = Nanos{};
  EXPECT_EQ(pair.call(named("1234567"))->attributes.size, 7u);
  pair.world.run_for(seconds(3));
  EXPECT_EQ(pair.node(pair.b).finished, 2u);
  EXPECT_EQ(pair.call(named("12"))->attributes.size, 2u);
}

TEST(Hub, PendingCallsEndDisconnectedWhenThePeerDiesAndTheNextCallConnectsAgain) {
  Pair pair;
  pair.node(pair.b).delay = seconds(5);
  std::optional<Code> code;
  auto call = [](Pair& p, std::optional<Code>& out) -> Task<void> {
    Result<EntryReply> reply = co_await p.node(p.a).hub.call(Address("sim:b"), named("x"));
    out = reply.code();
  };
  pair.world.spawn(call(pair, code));
  pair.world.run_for(milliseconds(100));
  ASSERT_EQ(pair.node(pair.b).started, 1u);
  pair.b.crash(CrashKind::kProcess);
  pair.world.run_for(seconds(1));
  EXPECT_EQ(code, Code::kDisconnected);
  EXPECT_EQ(pair.node(pair.a).hub.channels(), 0u);
  EXPECT_EQ(pair.call(named("x")).code(), Code::kUnavailable);
  pair.start(pair.b);
  EXPECT_TRUE(pair.call(named("x")).ok());
}

Task<void> call_many(Hub& hub, size_t count, size_t& ok, Scope& scope) {
  auto one = [](Hub& h, size_t& good) -> Task<void> {
    Result<EntryReply> reply = co_await h.call(Address("sim:b"), named("x"), {.timeout = seconds(60)});
    if (reply.ok()) ++good;
  };
  for (size_t i = 0; i < count; ++i) scope.spawn(one(hub, ok));
  co_await scope.join();
}

TEST(Hub, ConcurrentCallsShareOneConnectionAndAreBounded) {
  Pair pair;
  pair.node(pair.b).delay = milliseconds(50);
  size_t ok = 0;
  Scope scope;
  EXPECT_TRUE(pair.world.run_until(call_many(pair.node(pair.a).hub, 5000, ok, scope)));
  EXPECT_EQ(ok, 5000u);
  EXPECT_EQ(pair.node(pair.a).hub.channels(), 1u);
  EXPECT_EQ(pair.node(pair.b).hub.channels(), 1u);
  EXPECT_EQ(pair.node(pair.b).most, kMaxInFlight);
}

Task<void> read_one(Hub& hub, Nanos timeout, std::map<Code, size_t>& ended) {
  const auto reply = co_await hub.call(Address("sim:b"), FragmentRead{.length = 512}, {.timeout = timeout});
  ++ended[reply.code()];
}

// A node that is well refuses none of them.
TEST(Hub, CallsForStorageWaitForThoseBeforeThem) {
  Pair pair;
  pair.node(pair.b).delay = milliseconds(100);
  std::map<Code, size_t> ended;
  Scope scope;
  for (int i = 0; i < 2000; ++i) scope.spawn(read_one(pair.node(pair.a).hub, seconds(10), ended));
  pair.world.run_for(milliseconds(50));
  EXPECT_TRUE(pair.world.run(pair.node(pair.a).hub.call(Address("sim:b"), SessionRenew{})).ok()) << "others overtake";
  EXPECT_TRUE(pair.world.run_until(scope.join()));
  EXPECT_EQ(ended, (std::map<Code, size_t>{{Code::kOk, 2000}}));
  EXPECT_EQ(pair.node(pair.b).most_reads, kMaxStorageCalls);
}

TEST(Hub, ACallForStorageInLineEndsAtItsDeadlineAndKeepsNobodyWaitingWhenItGoesAway) {
  Pair pair;
  pair.node(pair.b).delay = milliseconds(100);
  std::map<Code, size_t> ended;
  Scope scope;
  {
    Scope gone;
    for (int i = 0; i < 1000; ++i) gone.spawn(read_one(pair.node(pair.a).hub, seconds(10), ended));
    pair.world.run_for(milliseconds(50));
    for (int i = 0; i < 10; ++i) scope.spawn(read_one(pair.node(pair.a).hub, milliseconds(40), ended));
    pair.world.run_for(milliseconds(45));
    EXPECT_EQ(ended, (std::map<Code, size_t>{{Code::kUnavailable, 10}}));
    for (int i = 0; i < 100; ++i) scope.spawn(read_one(pair.node(pair.a).hub, seconds(10), ended));
    pair.world.run_for(milliseconds(1));
  }
  EXPECT_TRUE(pair.world.run_until(scope.join()));
  EXPECT_EQ(ended, (std::map<Code, size_t>{{Code::kOk, 100}, {Code::kUnavailable, 10}}));
}

TEST(Hub, CallsForStorageInLineEndWithTheConnection) {
  Pair pair;
  pair.node(pair.b).disk_hangs = true;
  std::map<Code, size_t> ended;
  Scope scope;
  for (int i = 0; i < 500; ++i) scope.spawn(read_one(pair.node(pair.a).hub, seconds(1000), ended));
  pair.world.run_for(milliseconds(50));
  pair.b.crash(CrashKind::kProcess);
  pair.world.run_for(seconds(1));
  EXPECT_EQ(ended[Code::kDisconnected], kMaxStorageCalls);
  EXPECT_EQ(ended[Code::kUnavailable], 500 - kMaxStorageCalls);
}

// Callers give up and ask again; what they had asked for stays.
TEST(Hub, AHangingDiskKeepsNobodyFromTheRest) {
  Pair pair;
  pair.node(pair.b).disk_hangs = true;
  auto ask = [](Hub& hub, Code& last) -> Task<void> {
    for (int i = 0; i < 40; ++i) {
      const auto reply =
          co_await hub.call(Address("sim:b"), FragmentRead{.length = 4096}, {.timeout = milliseconds(200)});
      last = reply.code();
    }
  };
  std::vector<Code> last(64, Code::kOk);
  Scope scope;
  for (Code& code : last) scope.spawn(ask(pair.node(pair.a).hub, code));
  pair.world.run_for(seconds(20));
  EXPECT_EQ(last, std::vector<Code>(64, Code::kUnavailable));
  EXPECT_TRUE(pair.call(named("x")).ok());
  EXPECT_TRUE(pair.call(SessionRenew{}).ok());
}

// Nor does anything else: who renews its session is there.
TEST(Hub, ASessionIsRenewedHoweverManyCallsAreStuck) {
  Pair pair;
  pair.node(pair.b).delay = seconds(1000);
  auto ask = [](Hub& hub) -> Task<void> {
    for (int i = 0; i < 20; ++i) (void)co_await hub.call(Address("sim:b"), named("x"), {.timeout = milliseconds(200)});
  };
  Scope scope;
  for (int i = 0; i < 100; ++i) scope.spawn(ask(pair.node(pair.a).hub));
  pair.world.run_for(seconds(20));
  EXPECT_EQ(pair.node(pair.b).running, kMaxInFlight);
  EXPECT_EQ(pair.call(named("x")).code(), Code::kUnavailable);
  EXPECT_TRUE(pair.call(SessionRenew{}).ok());
}

TEST(Hub, CallsItselfWithoutTheNetwork) {
  Pair pair;
  Node& a = pair.node(pair.a);
  Buffer data = Buffer::zeroed(4096);
  for (const char* address : {"self", "sim:a"}) {
    ASSERT_TRUE(pair.world.run(a.hub.call(Address(address), FragmentWrite{.payload = data})).ok());
    EXPECT_EQ(a.written.data(), data.data());
  }
  EXPECT_EQ(a.hub.channels(), 0u);
  EXPECT_EQ(pair.world.run(a.hub.call(Address("self"), Statistics{})).code(), Code::kNotSupported);
  a.delay = seconds(2);
  EXPECT_EQ(pair.world.run(a.hub.call(Address("self"), named("x"), {.timeout = seconds(1)})).code(), Code::kTimeout);
  pair.world.run_for(seconds(2));
  EXPECT_EQ(a.finished, 1u);
}

TEST(Hub, AHandlerOutlivesTheFrameOfItsCaller) {
  Pair pair;
  auto forget = [](Hub& hub, Address address) -> Task<void> { (void)co_await hub.call(address, named("x")); };
  for (const char* address : {"self", "sim:b"}) {
    Node& served = address == std::string("self") ? pair.node(pair.a) : pair.node(pair.b);
    served.delay = milliseconds(500);
    {
      Scope scope;
      scope.spawn(forget(pair.node(pair.a).hub, address));
      pair.world.run_for(milliseconds(100));
      EXPECT_EQ(served.started, 1u);
      EXPECT_EQ(served.finished, 0u);
    }
    pair.world.run_for(seconds(1));
    EXPECT_EQ(served.finished, 1u);
  }
}

TEST(Hub, BothEndsOfAChannelMayCall) {
  Pair pair;
  Result<GetMapReply> reply = pair.call(GetMap{});
  ASSERT_TRUE(reply.ok()) << reply.error().text();
  EXPECT_EQ(reply->map, "called back");
  EXPECT_EQ(pair.node(pair.a).recalled, SessionId(5));
  EXPECT_EQ(pair.node(pair.b).hub.channels(), 1u);
}

TEST(Hub, RemembersTheHighestCutOfItsOwnNamespace) {
  Pair pair;
  Cut cut(NamespaceEpoch(1), 9);
  pair.node(pair.a).identity.cut = cut;
  ASSERT_TRUE(pair.call(named("x")).ok());
  EXPECT_EQ(pair.node(pair.b).identity.cut, cut);
  pair.node(pair.b).identity.cut = cut.next();
  ASSERT_TRUE(pair.call(named("x")).ok());
  EXPECT_EQ(pair.node(pair.a).identity.cut, cut.next());
  pair.node(pair.a).identity.name_space = NamespaceId(8);
  pair.node(pair.a).identity.cut = Cut(NamespaceEpoch(5), 1);
  ASSERT_TRUE(pair.call(named("x")).ok());
  EXPECT_EQ(pair.node(pair.b).identity.cut, cut.next());
}

TEST(Hub, AnswersAnOlderNamespaceEpochWithStale) {
  Pair pair;
  pair.node(pair.b).identity.namespace_epoch = NamespaceEpoch(2);
  Result<EntryReply> reply = pair.call(named("x"));
  ASSERT_EQ(reply.code(), Code::kStale);
  EXPECT_NE(reply.error().message().find("mount again"), std::string::npos);
  EXPECT_TRUE(pair.call(GetMap{}).ok());
}

// ---- peers that are not a Hub ----

Task<Result<Frame>> exchange_raw(Env env, Frame frame) {
  HR_CO_TRY(std::unique_ptr<Connection> connection, co_await env.net.connect("sim:b"));
  HR_CO_TRY(co_await connection->send(std::move(frame)));
  co_return co_await connection->receive();
}

TEST(HubBadInput, AnswersAnotherProtocolVersionWithTheMend) {
  Pair pair;
  for (uint16_t version : {uint16_t{0}, uint16_t{7}}) {
    Writer writer;
    writer(version, MessageType::kLookup, false, uint64_t{77}, uint8_t{1});
    Result<Frame> frame = pair.world.run(exchange_raw(pair.a.env(), Frame{.head = Buffer::adopt(writer.take())}));
    ASSERT_TRUE(frame.ok());
    Result<Head> head = decode_head(frame->head.view());
    ASSERT_TRUE(head.ok());
    EXPECT_TRUE(head->header.reply);
    EXPECT_EQ(head->header.request, 77u);
    Result<Empty> reply = decode_reply<Empty>(*frame, head->body);
    ASSERT_EQ(reply.code(), Code::kNotSupported);
    EXPECT_EQ(reply.error().message(), "client speaks protocol " + std::to_string(version) + ", this node 1: upgrade");
  }
}

TEST(HubBadInput, AMalformedRequestIsAnsweredAndAMalformedHeaderEndsTheConnection) {
  Pair pair;
  Writer writer;
  writer(Header{.type = MessageType::kLookup, .request = 5}, uint32_t{0xffffffff});
  Result<Frame> frame = pair.world.run(exchange_raw(pair.a.env(), Frame{.head = Buffer::adopt(writer.take())}));
  ASSERT_TRUE(frame.ok());
  Result<Head> head = decode_head(frame->head.view());
  EXPECT_EQ(decode_reply<EntryReply>(*frame, head->body).code(), Code::kCorrupt);
  frame = pair.world.run(exchange_raw(pair.a.env(), Frame{.head = Buffer::copy_of(bytes_of("rubbish"))}));
  EXPECT_EQ(frame.code(), Code::kDisconnected);
  EXPECT_TRUE(pair.call(named("still works")).ok());
}

Task<Result<void>> send_raw(Env env, std::vector<Frame> frames) {
  HR_CO_TRY(std::unique_ptr<Connection> connection, co_await env.net.connect("sim:b"));
  for (Frame& frame : frames) HR_CO_TRY(co_await connection->send(std::move(frame)));
  co_await env.clock.sleep(seconds(1));
  co_return Result<void>();
}

TEST(HubBadInput, RepliesThatNobodyAskedForAreIgnored) {
  Pair pair;
  std::vector<Frame> frames;
  for (uint64_t request : {uint64_t{0}, uint64_t{1}, uint64_t{1024}, ~uint64_t{0}}) {
    for (uint16_t version : {kProtocolVersion, uint16_t{9}}) {
      Writer writer;
      writer(Header{.protocol = version, .type = MessageType::kLookup, .reply = true, .request = request}, uint16_t{0});
      frames.push_back(Frame{.head = Buffer::adopt(writer.take())});
    }
  }
  size_t sent = frames.size();
  frames.push_back(request_frame(Header{.type = MessageType::kLookup, .request = 3}, named("x")));
  EXPECT_TRUE(pair.world.run(send_raw(pair.a.env(), std::move(frames))).ok());
  EXPECT_EQ(sent, 8u);
  EXPECT_EQ(pair.node(pair.b).started, 1u);  // the connection lived on up to the request
}

// ---- endings ----

TEST(Hub, CloseEndsPendingCallsAndRefusesNewOnes) {
  Pair pair;
  Node& a = pair.node(pair.a);
  pair.node(pair.b).delay = seconds(5);
  std::optional<Code> code;
  auto call = [](Hub& hub, std::optional<Code>& out) -> Task<void> {
    Result<EntryReply> reply = co_await hub.call(Address("sim:b"), named("x"));
    out = reply.code();
  };
  pair.world.spawn(call(a.hub, code));
  pair.world.run_for(milliseconds(100));
  EXPECT_TRUE(pair.world.run_until(a.hub.close()));
  pair.world.run_for(milliseconds(1));
  EXPECT_EQ(code, Code::kDisconnected);
  EXPECT_EQ(pair.world.run(a.hub.call(Address("sim:b"), named("x"))).code(), Code::kCancelled);
  EXPECT_EQ(pair.world.run(a.hub.call(Address("self"), named("x"))).code(), Code::kCancelled);
}

// A client that keeps calling itself, its peer and through the peer back; either machine is crashed after n steps.
struct Caller : Node {
  Caller(Env& e, Address where) : Node(e, std::move(where)) {}
  Task<void> run() override {
    auto served = co_await hub.serve(address);
    HR_ASSERT(served.ok());
    for (int i = 0; i < 4; ++i) scope.spawn(keep_calling(i));
    co_await stop.wait();
  }
  Task<void> keep_calling(int kind) {
    while (true) {
      CallOptions options{.timeout = milliseconds(kind == 3 ? 1 : 200)};
      if (kind == 0) (void)co_await hub.call(Address("self"), named("x"), options);
      if (kind == 1) (void)co_await hub.call(Address("sim:b"), FragmentRead{.length = 4096}, options);
      if (kind == 2) (void)co_await hub.call(Address("sim:b"), GetMap{}, options);
      if (kind == 3) (void)co_await hub.call(Address("sim:b"), named("x"), options);
      co_await env.clock.sleep(microseconds(50));
    }
  }
};

TEST(Hub, SurvivesACrashAtEveryStep) {
  for (uint64_t steps = 1; steps < 400; ++steps) {
    World world(steps);
    Machine& a = world.add_machine("a");
    Machine& b = world.add_machine("b");
    auto start = [](Machine& m) {
      m.start([&m](Env& env) {
        auto caller = std::make_unique<Caller>(env, m.address());
        caller->delay = microseconds(700);
        return caller;
      });
    };
    start(a);
    start(b);
    for (uint64_t i = 0; i < steps; ++i) ASSERT_TRUE(world.step());
    Machine& victim = steps % 2 == 0 ? a : b;
    victim.crash(CrashKind::kProcess);
    world.run_for(milliseconds(5));
    start(victim);
    world.run_for(milliseconds(20));
    auto& survivor = static_cast<Caller&>(*(steps % 2 == 0 ? b : a).process());
    survivor.delay = Nanos{};
    static_cast<Caller&>(*victim.process()).delay = Nanos{};
    Result<EntryReply> reply = world.run(static_cast<Node&>(*a.process()).hub.call(Address("sim:b"), named("abc")));
    ASSERT_TRUE(reply.ok()) << steps << ": " << reply.error().text();
  }
}

uint64_t traced(uint64_t seed) {
  World world(seed);
  Machine& a = world.add_machine("a");
  Machine& b = world.add_machine("b");
  for (Machine* m : {&a, &b}) m->start([m](Env& env) { return std::make_unique<Caller>(env, m->address()); });
  world.run_for(milliseconds(30));
  return world.trace_hash();
}

TEST(Hub, RunsTheSameFromTheSameSeed) {
  EXPECT_EQ(traced(5), traced(5));
  EXPECT_NE(traced(5), traced(6));
}

}  // namespace
}  // namespace headrace
