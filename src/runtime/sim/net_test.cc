#include "runtime/sim/net.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "runtime/sim/world.h"

namespace headrace {
namespace {

Frame frame_of(std::string head, size_t payload = 0) {
  return {Buffer::copy_of(bytes_of(head)), Buffer::zeroed(payload)};
}

struct Ends {
  std::unique_ptr<Listener> listener;
  std::unique_ptr<Connection> client;
  std::unique_ptr<Connection> server;
};

Task<void> accept_into(Listener* listener, std::unique_ptr<Connection>* into) {
  Result<std::unique_ptr<Connection>> accepted = co_await listener->accept();
  if (accepted.ok()) *into = *std::move(accepted);
}
Task<void> send_all(Connection* connection, int count, size_t payload, int* sent, Code* last) {
  for (int i = 0; i < count; ++i) {
    Result<void> result = co_await connection->send(frame_of(std::to_string(i), payload));
    *last = result.code();
    if (!result.ok()) co_return;
    ++*sent;
  }
}
Task<void> receive_all(Connection* connection, std::vector<std::string>* got, Code* last) {
  while (true) {
    Result<Frame> frame = co_await connection->receive();
    *last = frame.code();
    if (!frame.ok()) co_return;
    got->push_back(std::string(frame->head.text()));
  }
}

class SimNetTest : public testing::Test {
 protected:
  World world{1, {}};
  Machine& a = world.add_machine("a");
  Machine& b = world.add_machine("b");

  // a connects to b.
  Ends connected() {
    Ends ends;
    Result<std::unique_ptr<Listener>> listener = world.run(b.env().net.listen("sim:b"));
    EXPECT_TRUE(listener.ok());
    ends.listener = *std::move(listener);
    Result<std::unique_ptr<Connection>> client = world.run(a.env().net.connect("sim:b"));
    EXPECT_TRUE(client.ok());
    ends.client = *std::move(client);
    Result<std::unique_ptr<Connection>> server = world.run(ends.listener->accept());
    EXPECT_TRUE(server.ok());
    ends.server = *std::move(server);
    return ends;
  }
  std::vector<std::string> got;
  int sent = 0;
  Code send_code = Code::kOk;
  Code receive_code = Code::kOk;
};

TEST_F(SimNetTest, DeliversFramesInOrderBothWays) {
  Ends ends = connected();
  EXPECT_EQ(ends.client->peer(), "sim:b");
  EXPECT_EQ(ends.server->peer(), "sim:a");
  world.spawn(send_all(ends.client.get(), 100, 10, &sent, &send_code));
  world.spawn(receive_all(ends.server.get(), &got, &receive_code));
  ASSERT_TRUE(world.run_until([&] { return got.size() == 100; }));
  for (int i = 0; i < 100; ++i) EXPECT_EQ(got[static_cast<size_t>(i)], std::to_string(i));
  ASSERT_TRUE(world.run(ends.server->send(frame_of("back", 5000))).ok());
  Result<Frame> back = world.run(ends.client->receive());
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->payload.size(), 5000u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(back->payload.data()) % kBlock, 0u);
}

TEST_F(SimNetTest, CloseDeliversWhatWasSentAndThenTheEnd) {
  Ends ends = connected();
  world.spawn(send_all(ends.client.get(), 5, 0, &sent, &send_code));
  ASSERT_TRUE(world.run_until([&] { return sent == 5; }));
  ends.client->close();
  ends.client->close();
  EXPECT_EQ(world.run(ends.client->send(frame_of("x"))).code(), Code::kDisconnected);
  EXPECT_EQ(world.run(ends.client->receive()).code(), Code::kDisconnected);
  world.spawn(receive_all(ends.server.get(), &got, &receive_code));
  ASSERT_TRUE(world.run_until([&] { return receive_code == Code::kDisconnected; }));
  EXPECT_EQ(got.size(), 5u);
  EXPECT_EQ(world.run(ends.server->send(frame_of("x"))).code(), Code::kDisconnected);
}

TEST_F(SimNetTest, CloseWakesWhoWaitsAndSurvivesItsConnection) {
  Ends ends = connected();
  world.spawn(receive_all(ends.client.get(), &got, &receive_code));
  world.run_for(milliseconds(10));
  EXPECT_EQ(receive_code, Code::kOk);
  ends.client.reset();  // the receiver still waits in its frame
  ASSERT_TRUE(world.run_until([&] { return receive_code == Code::kDisconnected; }));
  std::unique_ptr<Connection> none;
  world.spawn(accept_into(ends.listener.get(), &none));
  ends.listener.reset();
  world.run_for(milliseconds(10));
  EXPECT_EQ(none, nullptr);
}

TEST_F(SimNetTest, SendWaitsWhileTooMuchIsUnderway) {
  world.network().options.window_bytes = 100'000;
  Ends ends = connected();
  world.spawn(send_all(ends.client.get(), 50, 20'000, &sent, &send_code));
  world.run_for(seconds(1));
  EXPECT_EQ(sent, 5) << "nobody receives";
  world.spawn(receive_all(ends.server.get(), &got, &receive_code));
  ASSERT_TRUE(world.run_until([&] { return got.size() == 50; }));
  world.network().options.window_frames = 10;
}

TEST_F(SimNetTest, RefusesWhereNobodyListensAndAddressesOfOthers) {
  EXPECT_EQ(world.run(a.env().net.connect("sim:b")).code(), Code::kUnavailable);
  EXPECT_EQ(world.run(a.env().net.connect("sim:nobody")).code(), Code::kUnavailable);
  EXPECT_EQ(world.run(a.env().net.connect("tcp:b:1")).code(), Code::kInvalid);
  EXPECT_EQ(world.run(a.env().net.listen("sim:b")).code(), Code::kInvalid);
  auto first = world.run(b.env().net.listen("sim:b"));
  auto admin = world.run(b.env().net.listen("sim:b:admin"));
  EXPECT_TRUE(first.ok() && admin.ok());
  EXPECT_EQ(world.run(b.env().net.listen("sim:b")).code(), Code::kBusy);
  (*first)->close();
  EXPECT_EQ(world.run((*first)->accept()).code(), Code::kCancelled);
  EXPECT_EQ(world.run(a.env().net.connect("sim:b")).code(), Code::kUnavailable);
  EXPECT_TRUE(world.run(b.env().net.connect("sim:b:admin")).ok()) << "a machine reaches itself";
}

TEST_F(SimNetTest, BoundsTheConnectionsThatWaitToBeAccepted) {
  world.network().options.backlog = 2;
  auto listener = world.run(b.env().net.listen("sim:b"));
  auto one = world.run(a.env().net.connect("sim:b"));
  auto two = world.run(a.env().net.connect("sim:b"));
  EXPECT_TRUE(one.ok() && two.ok());
  EXPECT_EQ(world.run(a.env().net.connect("sim:b")).code(), Code::kUnavailable);
}

TEST_F(SimNetTest, RefusesFramesOverTheLimit) {
  Ends ends = connected();
  EXPECT_EQ(world.run(ends.client->send({Buffer::zeroed(kMaxHead + 1), {}})).code(), Code::kTooLarge);
}

TEST_F(SimNetTest, AShortPartitionDelaysAndALongOneBreaks) {
  Ends ends = connected();
  world.spawn(receive_all(ends.server.get(), &got, &receive_code));
  world.network().partition("a", "b", seconds(2));
  EXPECT_TRUE(world.network().blocked("b", "a"));
  ASSERT_TRUE(world.run(ends.client->send(frame_of("late"))).ok());
  world.run_for(seconds(1));
  EXPECT_TRUE(got.empty());
  EXPECT_EQ(world.run(a.env().net.connect("sim:b")).code(), Code::kUnavailable);
  ASSERT_TRUE(world.run_until([&] { return got.size() == 1; }, seconds(3)));
  world.network().partition("a", "b", seconds(100));
  ASSERT_TRUE(world.run(ends.client->send(frame_of("never"))).ok());
  ASSERT_TRUE(world.run_until([&] { return receive_code == Code::kDisconnected; }, seconds(20)));
  EXPECT_EQ(got.size(), 1u);
  EXPECT_EQ(world.run(ends.client->receive()).code(), Code::kDisconnected);
  world.network().heal();
  EXPECT_TRUE(world.run(a.env().net.connect("sim:b")).ok());
}

TEST_F(SimNetTest, AOneWayPartitionLetsTheOtherWayThrough) {
  Ends ends = connected();
  world.network().partition("a", "b", seconds(3), true);
  ASSERT_TRUE(world.run(ends.server->send(frame_of("through"))).ok());
  ASSERT_TRUE(world.run(ends.client->send(frame_of("held"))).ok());
  EXPECT_TRUE(world.run(ends.client->receive(), seconds(1)).ok());
  world.spawn(receive_all(ends.server.get(), &got, &receive_code));
  world.run_for(seconds(1));
  EXPECT_TRUE(got.empty());
  ASSERT_TRUE(world.run_until([&] { return got.size() == 1; }, seconds(5)));
}

TEST(SimNetFaults, ACutDeliversAPrefixAndEndsBothSides) {
  std::set<size_t> lengths;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    World world(seed);
    Machine& a = world.add_machine("a");
    Machine& b = world.add_machine("b");
    auto listener = *world.run(b.env().net.listen("sim:b"));
    auto client = *world.run(a.env().net.connect("sim:b"));
    auto server = *world.run(listener->accept());
    int sent = 0;
    Code send_code = Code::kOk, client_end = Code::kOk, server_end = Code::kOk;
    std::vector<std::string> got, none;
    world.spawn(receive_all(server.get(), &got, &server_end));
    world.spawn(receive_all(client.get(), &none, &client_end));
    world.spawn(send_all(client.get(), 20, 0, &sent, &send_code));
    world.run_until([&] { return sent == 20; });
    ASSERT_TRUE(world.network().cut("b", "a"));
    ASSERT_FALSE(world.network().cut("b", "a")) << "it is dead already";
    ASSERT_TRUE(world.run_until([&] { return client_end != Code::kOk && server_end != Code::kOk; }, seconds(2)));
    for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], std::to_string(i));
    lengths.insert(got.size());
  }
  EXPECT_GT(lengths.size(), 5u);
}

TEST_F(SimNetTest, InjectedFaultsAreCounted) {
  world.faults().set("net.refuse", 1);
  auto listener = world.run(b.env().net.listen("sim:b"));
  EXPECT_EQ(world.run(a.env().net.connect("sim:b")).code(), Code::kUnavailable);
  world.faults().set("net.refuse", 0);
  auto client = world.run(a.env().net.connect("sim:b"));
  auto server = world.run((*listener)->accept());
  world.faults().set("net.delay_burst", 1);
  EXPECT_TRUE(world.run((*client)->send(frame_of("slow"))).ok());
  EXPECT_TRUE(world.run((*server)->receive()).ok());
  world.faults().set("net.cut", 1);
  EXPECT_TRUE(world.run((*client)->send(frame_of("into the void"))).ok());
  EXPECT_EQ(world.run((*server)->receive()).code(), Code::kDisconnected);
  EXPECT_EQ(world.faults().fired("net.refuse"), 1u);
  EXPECT_EQ(world.faults().fired("net.delay_burst"), 1u);
  EXPECT_EQ(world.faults().fired("net.cut"), 1u);
}

TEST_F(SimNetTest, DuplicatesAndReordersOnlyWhereAsked) {
  Ends ends = connected();
  world.faults().set("net.duplicate", 0.3);
  world.faults().set("net.reorder", 0.3);
  world.spawn(receive_all(ends.server.get(), &got, &receive_code));
  world.spawn(send_all(ends.client.get(), 100, 0, &sent, &send_code));
  world.run_for(seconds(1));
  ASSERT_EQ(got.size(), 100u);
  EXPECT_TRUE(std::ranges::is_sorted(got, {}, [](const std::string& s) { return std::stoi(s); }));
  got.clear();
  world.network().options.unordered = true;
  world.spawn(send_all(ends.client.get(), 100, 0, &sent, &send_code));
  world.run_for(seconds(1));
  EXPECT_GT(got.size(), 105u);
  EXPECT_FALSE(std::ranges::is_sorted(got, {}, [](const std::string& s) { return std::stoi(s); }));
}

}  // namespace
}  // namespace headrace
