// AdminServer over real sockets.
#include "admin/admin_server.h"

#include <gtest/gtest.h>
#include <httplib.h>

#include <atomic>
#include <thread>
#include <vector>

#include "runtime/sync.h"
#include "runtime/uring/reactor.h"

namespace headrace {
namespace {

Task<Result<std::string>> never_ends(Event* event) {
  co_await event->wait();
  co_return std::string("{}");
}

Task<Result<std::string>> at_once() {
  co_return std::string("{}");
}

int status_of(int port, const std::string& path, bool post) {
  httplib::Client client("127.0.0.1", port);
  client.set_read_timeout(10);
  const httplib::Headers headers{{"Authorization", "Bearer t"}};
  httplib::Result got = post ? client.Post(path, headers, "", "application/json") : client.Get(path, headers);
  return got ? got->status : -1;
}

struct Answers {
  std::atomic<int> refused = 0;
  std::atomic<int> looked = 0;
};

void push(int port, Answers* answers) {
  if (status_of(port, "/push", true) == 503) ++answers->refused;
}

void look_and_undo(int port, Answers* answers) {
  if (status_of(port, "/look", false) == 200) ++answers->looked;
  if (status_of(port, "/undo", true) == 200) ++answers->looked;
}

Task<void> crowd(Reactor* reactor, Answers* answers) {
  Event never;
  AdminServer server([reactor](std::move_only_function<void()> f) { reactor->post(std::move(f)); }, "t");
  server.get("/look", [](std::string) { return at_once(); });
  server.post("/push", [&never](std::string) { return never_ends(&never); });
  server.post("/undo", [](std::string) { return at_once(); }, true);
  Result<int> port = server.start();
  EXPECT_TRUE(port.ok());
  if (!port.ok()) co_return;
  constexpr int kMore = 4;
  std::vector<std::thread> clients;
  for (int i = 0; i < AdminServer::kMaxCommands + kMore; ++i) clients.emplace_back(push, *port, answers);
  for (int i = 0; i < 500 && answers->refused < kMore; ++i) co_await reactor->env().clock.sleep(milliseconds(20));
  EXPECT_EQ(answers->refused, kMore);
  clients.emplace_back(look_and_undo, *port, answers);
  for (int i = 0; i < 500 && answers->looked < 2; ++i) co_await reactor->env().clock.sleep(milliseconds(20));
  EXPECT_EQ(answers->looked, 2);
  server.stop();
  for (std::thread& client : clients) client.join();
}

TEST(AdminServer, LooksAndUndoesWhileCommandsHang) {
  auto reactor = Reactor::create();
  ASSERT_TRUE(reactor.ok()) << reactor.error().text();
  Answers answers;
  (*reactor)->run(crowd(reactor->get(), &answers));
}

}  // namespace
}  // namespace headrace
