// How many frames a connection carries: a client with DEPTH requests in flight, a server that
// answers each with PAYLOAD bytes, on two threads.
//
//     echo_bench [tcp|unix] [depth=32] [payload=4096] [seconds=3]
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "runtime/uring/reactor.h"

namespace headrace {
namespace {

struct Options {
  std::string kind = "tcp";
  int depth = 32;
  size_t payload = 4096;
  Nanos duration = seconds(3);
};

Task<void> serve(Reactor* reactor, Address address, size_t payload, std::atomic<bool>* listening, Address* bound) {
  Result<std::unique_ptr<Listener>> listener = co_await reactor->env().net.listen(address);
  HR_ASSERT(listener.ok());
  *bound = (*listener)->address();
  *listening = true;
  listening->notify_all();
  Result<std::unique_ptr<Connection>> connection = co_await (*listener)->accept();
  HR_ASSERT(connection.ok());
  Buffer data = Buffer::zeroed(payload);
  for (;;) {
    Result<Frame> request = co_await (*connection)->receive();
    if (!request.ok()) co_return;
    Result<void> sent = co_await (*connection)->send({request->head, data});
    if (!sent.ok()) co_return;
  }
}

Task<void> ask(Reactor* reactor, Address address, Options options) {
  Result<std::unique_ptr<Connection>> connection = co_await reactor->env().net.connect(address);
  HR_ASSERT(connection.ok());
  Buffer head = Buffer::zeroed(64);
  for (int i = 0; i < options.depth; ++i) {
    Result<void> sent = co_await (*connection)->send({head, {}});
    HR_ASSERT(sent.ok());
  }
  Nanos begin = reactor->now();
  uint64_t count = 0;
  Nanos elapsed{};
  for (;;) {
    Result<Frame> reply = co_await (*connection)->receive();
    HR_ASSERT(reply.ok() && reply->payload.size() == options.payload);
    ++count;
    if (count % 64 == 0) {
      elapsed = reactor->now() - begin;
      if (elapsed > options.duration) break;
    }
    Result<void> sent = co_await (*connection)->send({head, {}});
    HR_ASSERT(sent.ok());
  }
  double rate = static_cast<double>(count) / elapsed.seconds();
  std::printf("%s depth %d payload %zu: %.0f frames/s, %.0f MB/s\n", options.kind.c_str(), options.depth,
              options.payload, rate, rate * static_cast<double>(options.payload) / 1e6);
}

}  // namespace
}  // namespace headrace

int main(int argc, char** argv) {
  using headrace::Reactor;
  headrace::Options options;
  if (argc > 1) options.kind = argv[1];
  if (argc > 2) options.depth = std::atoi(argv[2]);
  if (argc > 3) options.payload = static_cast<size_t>(std::atoll(argv[3]));
  if (argc > 4) options.duration = headrace::seconds(std::atoi(argv[4]));
  std::string path = "/tmp/headrace-echo-" + std::to_string(getpid());
  headrace::Address address = options.kind == "unix" ? "unix:" + path : "tcp:127.0.0.1:0";
  std::atomic<bool> listening{false};
  headrace::Address bound;
  std::thread server([&] {
    auto reactor = Reactor::create({.blocking_threads = 1});
    HR_ASSERT(reactor.ok());
    (*reactor)->run(headrace::serve(reactor->get(), address, options.payload, &listening, &bound));
  });
  listening.wait(false);
  {
    auto reactor = Reactor::create({.blocking_threads = 1});
    HR_ASSERT(reactor.ok());
    (*reactor)->run(headrace::ask(reactor->get(), bound, options));
  }
  server.join();
  return 0;
}
