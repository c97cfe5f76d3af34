#include "runtime/net.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/checksum.h"
#include "runtime/uring/address.h"
#include "runtime/uring/frame_header.h"
#include "runtime/uring/net.h"
#include "runtime/uring/uring_test.h"

namespace headrace {
namespace {

// A connected pair, in both kinds of socket.
struct Pair {
  std::unique_ptr<Listener> listener;
  std::unique_ptr<Connection> client;
  std::unique_ptr<Connection> server;
};

template <class T>
T value_or_abort(Result<T> result) {
  if (!result.ok()) {
    ADD_FAILURE() << result.error().text();
    std::abort();
  }
  return *std::move(result);
}

Task<Pair> connected(Net* net, Address address) {
  Pair pair;
  Result<std::unique_ptr<Listener>> listener = co_await net->listen(address);
  pair.listener = value_or_abort(std::move(listener));
  Result<std::unique_ptr<Connection>> client = co_await net->connect(pair.listener->address());
  pair.client = value_or_abort(std::move(client));
  Result<std::unique_ptr<Connection>> server = co_await pair.listener->accept();
  pair.server = value_or_abort(std::move(server));
  co_return pair;
}

Task<void> send_all(Connection* connection, std::vector<Frame> frames) {
  for (Frame& frame : frames) {
    Result<void> sent = co_await connection->send(frame);
    EXPECT_TRUE(sent.ok()) << (sent.ok() ? "" : sent.error().text());
  }
}

Task<void> expect_all(Connection* connection, std::vector<Frame> frames) {
  for (size_t i = 0; i < frames.size(); ++i) {
    Result<Frame> got = co_await connection->receive();
    EXPECT_TRUE(got.ok()) << i << " " << (got.ok() ? "" : got.error().text());
    if (!got.ok()) co_return;
    EXPECT_TRUE(same(got->head, frames[i].head)) << i;
    EXPECT_TRUE(same(got->payload, frames[i].payload)) << i;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(got->payload.data()) % kBlock, 0u) << i;
  }
}

class NetTest : public UringTest, public testing::WithParamInterface<const char*> {
 protected:
  [[nodiscard]] Address address() const {
    return GetParam() == std::string("unix") ? "unix:" + directory_.path("s") : "tcp:127.0.0.1:0";
  }
  [[nodiscard]] Net* net() { return &env().net; }
};

INSTANTIATE_TEST_SUITE_P(, NetTest, testing::Values("unix", "tcp"),
                         [](const auto& info) { return std::string(info.param); });

Task<void> both_ways(Net* net, Address address, std::vector<Frame> frames) {
  Pair pair = co_await connected(net, address);
  Scope scope;
  scope.spawn(send_all(pair.client.get(), frames));
  scope.spawn(send_all(pair.server.get(), frames));
  scope.spawn(expect_all(pair.client.get(), frames));
  scope.spawn(expect_all(pair.server.get(), frames));
  co_await scope.join();
}

TEST_P(NetTest, CarriesFramesOfEverySizeBothWays) {
  std::vector<Frame> frames;
  const size_t sizes[] = {0,      1,      15,     64,     1023,   1024,   1025,    4096,    4097,
                          16'384, 32'768, 40'000, 65'535, 65'536, 65'537, 100'000, 1 << 20, 3'000'001};
  uint64_t seed = 0;
  for (size_t head : sizes) {
    for (size_t payload : {size_t{0}, size_t{1}, size_t{4096}, size_t{70'000}})
      frames.push_back({patterned(head, ++seed), patterned(payload, ++seed)});
  }
  for (size_t payload : sizes) frames.push_back({patterned(64, ++seed), patterned(payload, ++seed)});
  run(both_ways(net(), address(), frames));
}

TEST_P(NetTest, CarriesFramesOnARingWithoutNewerFeatures) {
  make_reactor({.entries = 8, .plain_ring = true});
  std::vector<Frame> frames;
  for (uint64_t i = 0; i < 3000; ++i)
    frames.push_back({patterned(16 + i % 100, i), patterned(i % 50 == 0 ? 300'000 : 0, i)});
  run(both_ways(net(), address(), frames));
}

TEST_P(NetTest, CarriesTheLargestFrames) {
  std::vector<Frame> frames;
  for (uint64_t i = 0; i < 3; ++i) {
    frames.push_back({patterned(64, i), patterned(16 * kMiB, i)});
    frames.push_back({patterned(kMaxHead, i), patterned(kMaxPayload, i)});
    frames.push_back({Buffer(), Buffer()});
  }
  run(both_ways(net(), address(), frames));
}

TEST_P(NetTest, CarriesThousandsOfPipelinedFramesInOrder) {
  std::vector<Frame> frames;
  for (uint64_t i = 0; i < 20'000; ++i)
    frames.push_back({patterned(16 + i % 100, i), patterned(i % 7 == 0 ? i % 9000 : 0, i)});
  run(both_ways(net(), address(), frames));
}

TEST_P(NetTest, CarriesRandomSizes) {
  SeededRandom random(20261124);
  std::vector<Frame> frames;
  for (uint64_t i = 0; i < 1500; ++i) {
    size_t head = random.below(uint64_t{1} << random.below(18));
    size_t payload = random.below(uint64_t{1} << random.below(21));
    frames.push_back({patterned(head, i), patterned(payload, i)});
  }
  run(both_ways(net(), address(), frames));
}

Task<void> collect(Connection* connection, std::vector<Frame>* into, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    Result<Frame> frame = co_await connection->receive();
    into->push_back(value_or_abort(std::move(frame)));
  }
}

Task<void> keep_everything(Net* net, Address address, std::vector<Frame> frames) {
  Pair pair = co_await connected(net, address);
  Scope scope;
  std::vector<Frame> kept;
  scope.spawn(send_all(pair.client.get(), frames));
  scope.spawn(collect(pair.server.get(), &kept, frames.size()));
  co_await scope.join();
  for (size_t i = 0; i < frames.size(); ++i) {
    EXPECT_TRUE(same(kept[i].head, frames[i].head)) << i;
    EXPECT_TRUE(same(kept[i].payload, frames[i].payload)) << i;
  }
}

TEST_P(NetTest, FramesThatAreKeptAreNotOverwrittenByLaterOnes) {
  std::vector<Frame> frames;
  for (uint64_t i = 0; i < 3000; ++i) frames.push_back({patterned(i % 300, i), patterned(i % 5000, i)});
  run(keep_everything(net(), address(), frames));
}

Task<void> send_until_error(Connection* connection, Frame frame, int* sent, Code* code) {
  for (;;) {
    Result<void> result = co_await connection->send(frame);
    if (!result.ok()) {
      *code = result.code();
      co_return;
    }
    ++*sent;
  }
}

Task<void> slow_peer(Net* net, Clock* clock, Address address, int* sent, Code* code) {
  Pair pair = co_await connected(net, address);
  Scope scope;
  scope.spawn(send_until_error(pair.client.get(), {Buffer(), Buffer::zeroed(kMiB)}, sent, code));
  // No receiver: the queue fills, and the sender waits instead of growing it.
  int before = -1;
  while (before != *sent) {
    before = *sent;
    co_await clock->sleep(milliseconds(50));
  }
  EXPECT_GE(*sent, 64);
  EXPECT_LE(*sent, 64 + 40);  // and what the sockets hold
  pair.client->close();
  co_await scope.join();
}

TEST_P(NetTest, SendersWaitWhenThePeerDoesNotRead) {
  int sent = 0;
  Code code = Code::kOk;
  run(slow_peer(net(), reactor_.get(), address(), &sent, &code));
  EXPECT_EQ(code, Code::kDisconnected);
}

Task<void> receive_code(Connection* connection, Code* code) {
  Result<Frame> frame = co_await connection->receive();
  *code = frame.code();
}

Task<void> peer_leaves(Net* net, Address address, Code* waiting, Code* later) {
  Pair pair = co_await connected(net, address);
  Scope scope;
  scope.spawn(receive_code(pair.server.get(), waiting));
  pair.client.reset();
  co_await scope.join();
  Result<void> sent = co_await pair.server->send({Buffer::zeroed(10), Buffer()});
  *later = sent.code();
}

TEST_P(NetTest, ReceiverLearnsThatThePeerIsGone) {
  Code waiting = Code::kOk;
  Code later = Code::kOk;
  run(peer_leaves(net(), address(), &waiting, &later));
  EXPECT_EQ(waiting, Code::kDisconnected);
  EXPECT_EQ(later, Code::kDisconnected);
}

Task<void> close_wakes(Net* net, Address address, Code* own, Code* other) {
  Pair pair = co_await connected(net, address);
  Scope scope;
  scope.spawn(receive_code(pair.client.get(), own));
  scope.spawn(receive_code(pair.server.get(), other));
  co_await yield();
  pair.client->close();
  pair.client->close();
  co_await scope.join();
}

TEST_P(NetTest, CloseWakesBothSides) {
  Code own = Code::kOk;
  Code other = Code::kOk;
  run(close_wakes(net(), address(), &own, &other));
  EXPECT_EQ(own, Code::kDisconnected);
  EXPECT_EQ(other, Code::kDisconnected);
}

Task<void> last_words(Net* net, Address address, size_t count) {
  Pair pair = co_await connected(net, address);
  std::vector<Frame> frames;
  for (uint64_t i = 0; i < count; ++i) frames.push_back({patterned(8, i), patterned(100'000, i)});
  Scope scope;
  co_await send_all(pair.client.get(), frames);
  pair.client->close();
  co_await expect_all(pair.server.get(), frames);
  Result<Frame> end = co_await pair.server->receive();
  EXPECT_EQ(end.code(), Code::kDisconnected);
}

TEST_P(NetTest, CloseLetsTheQueueGoOut) {
  run(last_words(net(), address(), 100));
}

Task<void> accept_code(Listener* listener, Code* code) {
  Result<std::unique_ptr<Connection>> got = co_await listener->accept();
  *code = got.code();
}

Task<void> close_listener(Net* net, Address address, Code* code, Code* connect_code) {
  Result<std::unique_ptr<Listener>> made = co_await net->listen(address);
  std::unique_ptr<Listener> listener = value_or_abort(std::move(made));
  Scope scope;
  scope.spawn(accept_code(listener.get(), code));
  co_await yield();
  listener->close();
  co_await scope.join();
  Result<std::unique_ptr<Connection>> connection = co_await net->connect(listener->address());
  *connect_code = connection.code();
}

TEST_P(NetTest, ClosingAListenerEndsItsAcceptAndFurtherConnections) {
  Code code = Code::kOk;
  Code connect_code = Code::kOk;
  run(close_listener(net(), address(), &code, &connect_code));
  EXPECT_EQ(code, Code::kCancelled);
  EXPECT_EQ(connect_code, Code::kUnavailable);
}

Task<void> abandon_accept(Net* net, Reactor* reactor, Address address) {
  Result<std::unique_ptr<Listener>> made = co_await net->listen(address);
  std::unique_ptr<Listener> listener = value_or_abort(std::move(made));
  Code code = Code::kOk;
  {
    Scope scope;
    scope.spawn(accept_code(listener.get(), &code));
    co_await reactor->sleep(milliseconds(1));
  }
  while (reactor->in_flight() > 0) co_await yield();
  // The next accept is not robbed by the one that was abandoned.
  Result<std::unique_ptr<Connection>> client = co_await net->connect(listener->address());
  EXPECT_TRUE(client.ok());
  Result<std::unique_ptr<Connection>> server = co_await listener->accept();
  EXPECT_TRUE(server.ok());
}

TEST_P(NetTest, AnAbandonedAcceptLeavesTheListenerUsable) {
  run(abandon_accept(net(), reactor_.get(), address()));
}

Task<void> destroy_busy(Net* net, Reactor* reactor, Address address) {
  Pair pair = co_await connected(net, address);
  {
    Scope scope;
    int sent = 0;
    Code code = Code::kOk;
    Code received = Code::kOk;
    scope.spawn(send_until_error(pair.client.get(), {Buffer::zeroed(10), Buffer::zeroed(kMiB)}, &sent, &code));
    scope.spawn(receive_code(pair.client.get(), &received));
    co_await reactor->sleep(milliseconds(2));
  }
  pair.client.reset();
  pair.server.reset();
  while (reactor->in_flight() > 0) co_await yield();
}

TEST_P(NetTest, ConnectionsCanBeDestroyedWhileTheKernelHoldsTheirBuffers) {
  run(destroy_busy(net(), reactor_.get(), address()));
}

// --- Peers that are not ours ---

Task<int> raw_client(Reactor* reactor, Listener* listener) {
  std::vector<SocketAddress> to = value_or_abort(resolve(listener->address(), false));
  int fd = ::socket(to[0].family(), SOCK_STREAM | SOCK_CLOEXEC, 0);
  HR_ASSERT(::connect(fd, to[0].raw(), to[0].size) == 0);
  co_await reactor->sleep({});
  co_return fd;
}

// A client that is no SocketConnection, which has sent these bytes, and who listens to it.
struct RawPeer {
  int fd = -1;
  std::unique_ptr<Connection> server;
};
Task<RawPeer> raw_peer(Net* net, Reactor* reactor, Address address, std::string bytes) {
  Result<std::unique_ptr<Listener>> made = co_await net->listen(address);
  std::unique_ptr<Listener> listener = value_or_abort(std::move(made));
  int fd = co_await raw_client(reactor, listener.get());
  Result<std::unique_ptr<Connection>> accepted = co_await listener->accept();
  EXPECT_EQ(::send(fd, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  co_return RawPeer{fd, value_or_abort(std::move(accepted))};
}

Task<void> raw_bytes(Net* net, Reactor* reactor, Address address, std::string bytes, size_t good, Code* code,
                     std::string* message) {
  auto [fd, server] = co_await raw_peer(net, reactor, address, std::move(bytes));
  ::shutdown(fd, SHUT_WR);
  for (size_t i = 0; i < good; ++i) {
    Result<Frame> frame = co_await server->receive();
    EXPECT_TRUE(frame.ok());
  }
  Result<Frame> bad = co_await server->receive();
  *code = bad.code();
  if (!bad.ok()) *message = bad.error().message();
  Result<void> sent = co_await server->send({});
  EXPECT_FALSE(sent.ok());
  server.reset();
  char rest = 0;
  EXPECT_LE(::recv(fd, &rest, 1, 0), 0);
  ::close(fd);
}

// Without a checksum of the head.
std::string header_bytes(uint32_t head, uint32_t payload) {
  const FrameHeader header{head, payload, {}};
  std::string out(header.size(), '\0');
  encode_frame_header(header, reinterpret_cast<std::byte*>(out.data()));
  return out;
}

std::string frame_bytes(std::string_view head, std::string_view payload) {
  const FrameHeader header{static_cast<uint32_t>(head.size()), static_cast<uint32_t>(payload.size()),
                           crc32c(bytes_of(head))};
  std::string out(header.size(), '\0');
  encode_frame_header(header, reinterpret_cast<std::byte*>(out.data()));
  return out.append(head).append(payload);
}

TEST_P(NetTest, BadInputAnyFlippedBitOfAHeadEndsTheConnection) {
  const std::string first = frame_bytes("first", "");
  for (size_t size : {size_t{12}, size_t{40'000}}) {  // small ones lie in the stage, large ones do not
    const std::string good = frame_bytes(std::string(size, 'h'), "payload");
    const size_t front = good.size() - size - std::string_view("payload").size();
    for (size_t bit = 0; bit < (front + size) * 8; bit += size == 12 ? 1 : 9973) {
      std::string bad = good;
      bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
      Code code = Code::kOk;
      std::string message;
      run(raw_bytes(net(), reactor_.get(), address(), first + bad, 1, &code, &message));
      EXPECT_EQ(code, Code::kCorrupt) << "bit " << bit << " of " << size << ": " << message;
      if (bit / 8 >= front) EXPECT_NE(message.find("fails its checksum"), std::string::npos) << message;
    }
  }
}

Task<void> answered_in_kind(Net* net, Reactor* reactor, Address address, std::string bytes, std::string* answer) {
  auto [fd, server] = co_await raw_peer(net, reactor, address, std::move(bytes));
  Result<Frame> frame = co_await server->receive();
  EXPECT_TRUE(frame.ok());
  Result<void> sent = co_await server->send({.head = Buffer::copy_of(bytes_of("answer"))});
  EXPECT_TRUE(sent.ok());
  co_await reactor->sleep(milliseconds(5));
  answer->resize(100);
  answer->resize(static_cast<size_t>(std::max<ssize_t>(0, ::recv(fd, answer->data(), answer->size(), 0))));
  ::close(fd);
}

TEST_P(NetTest, APeerThatSendsNoChecksumsIsAnsweredWithoutAnyAndOthersWith) {
  std::string answer;
  run(answered_in_kind(net(), reactor_.get(), address(), header_bytes(3, 0) + "abc", &answer));
  EXPECT_EQ(answer, header_bytes(6, 0) + "answer");
  run(answered_in_kind(net(), reactor_.get(), address(), frame_bytes("abc", ""), &answer));
  EXPECT_EQ(answer, frame_bytes("answer", ""));
}

TEST_P(NetTest, BadInputGarbageInsteadOfAHeaderEndsTheConnection) {
  Code code = Code::kOk;
  std::string message;
  run(raw_bytes(net(), reactor_.get(), address(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 0, &code, &message));
  EXPECT_EQ(code, Code::kCorrupt);
  EXPECT_NE(message.find("not a frame"), std::string::npos) << message;
}

TEST_P(NetTest, BadInputGarbageAfterAGoodFrameEndsTheConnection) {
  Code code = Code::kOk;
  std::string message;
  run(raw_bytes(net(), reactor_.get(), address(), header_bytes(3, 0) + "abc" + std::string(64, 'x'), 1, &code,
                &message));
  EXPECT_EQ(code, Code::kCorrupt);
}

TEST_P(NetTest, BadInputAPeerThatLeavesInsideAFrameIsDisconnected) {
  for (std::string bytes :
       {header_bytes(3, 0).substr(0, 7), header_bytes(3, 0) + "ab",
        header_bytes(3, 5000) + "abc" + std::string(4000, 'p'), header_bytes(100'000, 0) + std::string(70'000, 'h')}) {
    Code code = Code::kOk;
    std::string message;
    run(raw_bytes(net(), reactor_.get(), address(), bytes, 0, &code, &message));
    EXPECT_EQ(code, Code::kDisconnected);
  }
}

// --- Names ---

class AddressTest : public UringTest {};

Task<void> listen_code(Net* net, Address address, Code* code) {
  Result<std::unique_ptr<Listener>> made = co_await net->listen(address);
  *code = made.code();
}

Task<void> connect_code(Net* net, Address address, Code* code) {
  Result<std::unique_ptr<Connection>> made = co_await net->connect(address);
  *code = made.code();
}

TEST_F(AddressTest, BadInputWhatIsNoAddressIsRefusedWithTheRightForm) {
  for (const char* text :
       {"", "x", "tcp:", "tcp:host", "tcp:host:", "tcp:host:x", "tcp:host:70000", "tcp::1:80", "tcp::80", "unix:"}) {
    Code code = Code::kOk;
    run(connect_code(&env().net, text, &code));
    EXPECT_EQ(code, Code::kInvalid) << text;
  }
  Code code = Code::kOk;
  run(listen_code(&env().net, "unix:/" + std::string(200, 'x'), &code));
  EXPECT_EQ(code, Code::kNameTooLong);
}

TEST_F(AddressTest, NobodyThereIsUnavailable) {
  Code code = Code::kOk;
  run(connect_code(&env().net, "unix:" + directory_.path("nobody"), &code));
  EXPECT_EQ(code, Code::kUnavailable);
  run(connect_code(&env().net, "tcp:127.0.0.1:1", &code));
  EXPECT_EQ(code, Code::kUnavailable);
}

Task<void> by_name(Net* net, Address address, std::string* peer) {
  Pair pair = co_await connected(net, address);
  *peer = pair.server->peer();
}

TEST_F(AddressTest, NamesAndIpv6Resolve) {
  std::string peer;
  run(by_name(&env().net, "tcp:localhost:0", &peer));
  EXPECT_TRUE(peer.starts_with("tcp:")) << peer;
}

TEST_F(AddressTest, ASocketThatNobodyServesIsReplacedAndALiveOneIsNot) {
  std::string path = directory_.path("s");
  {
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    std::strncpy(name.sun_path, path.c_str(), sizeof name.sun_path - 1);
    int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&name), sizeof name), 0);
    ASSERT_EQ(::listen(fd, 1), 0);
    Code code = Code::kOk;
    run(listen_code(&env().net, "unix:" + path, &code));
    EXPECT_EQ(code, Code::kBusy);
    ::close(fd);  // as a killed server leaves it
  }
  Code code = Code::kIo;
  run(listen_code(&env().net, "unix:" + path, &code));
  EXPECT_EQ(code, Code::kOk);
  EXPECT_FALSE(std::filesystem::exists(path)) << "the listener is gone and so is its socket";
}

Task<void> check_mode(Net* net, std::string path, unsigned* mode) {
  Result<std::unique_ptr<Listener>> made = co_await net->listen("unix:" + path);
  EXPECT_TRUE(made.ok());
  struct stat info{};
  EXPECT_EQ(::stat(path.c_str(), &info), 0);
  *mode = info.st_mode & 07777;
}

TEST_F(AddressTest, UnixSocketsBelongToTheirUserAlone) {
  unsigned mode = 0;
  run(check_mode(&env().net, directory_.path("s"), &mode));
  EXPECT_EQ(mode & 077, 0u) << std::oct << mode;
}

}  // namespace
}  // namespace headrace
