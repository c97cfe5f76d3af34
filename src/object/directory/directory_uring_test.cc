// DirectoryStore on the real reactor: what its disk answers must mean what the store thinks that it
// means.
#include "object/directory/directory_store.h"

#include <future>

#include "object/open.h"
#include "object/posix_env_test.h"
#include "object/result_matchers_test.h"
#include "runtime/uring/disk.h"
#include "runtime/uring/reactor.h"
#include "runtime/uring/thread_pool.h"

namespace headrace::test {

Task<void> walk_through(Env env, std::string root) {
  auto opened = open_object_store(*parse_bucket_url("file://" + root), env);
  HR_ASSERT(opened.ok());
  ObjectStore& store = **opened;
  Result<Buffer> missing = co_await store.get("d/00/a");
  EXPECT_EQ(missing.code(), Code::kNotFound);
  for (size_t size : {0UL, 5UL, 100'000UL, 20UL * kMiB}) {
    Buffer body = pattern(size, size);
    Result<ObjectInfo> put = co_await store.put("d/00/a", body);
    EXPECT_OK(put);
    Result<Got> got = co_await store.get_with_etag("d/00/a");
    EXPECT_OK(got);
    if (!got.ok() || !put.ok()) co_return;
    EXPECT_TRUE(same(got->body, body));
    EXPECT_EQ(got->etag, put->etag);
    if (size < 100) continue;
    Result<Buffer> range = co_await store.get_range("d/00/a", 777, 1234, put->etag);
    EXPECT_OK(range);
    if (range.ok()) EXPECT_TRUE(same(*range, body.slice(777, 1234)));
  }
  Result<Buffer> folder = co_await store.get("d/00");
  EXPECT_EQ(folder.code(), Code::kNotFound);
  Result<Buffer> below = co_await store.get("d/00/a/b");
  EXPECT_EQ(below.code(), Code::kNotFound);
  Result<ObjectInfo> created = co_await store.put("head", text("one"), PutCondition::if_absent());
  EXPECT_OK(created);
  Result<ObjectInfo> late = co_await store.put("head", text("two"), PutCondition::if_absent());
  EXPECT_EQ(late.code(), Code::kConflict);
  Result<std::unique_ptr<Upload>> upload = co_await store.begin_upload("u");
  EXPECT_OK(upload);
  Result<void> part = co_await (*upload)->part(pattern(70'000, 1));
  EXPECT_OK(part);
  Result<void> second = co_await (*upload)->part(pattern(3, 2));
  EXPECT_OK(second);
  Result<ObjectInfo> finished = co_await (*upload)->finish();
  EXPECT_OK(finished);
  Result<ObjectInfo> info = co_await store.head("u");
  EXPECT_OK(info);
  if (info.ok()) EXPECT_EQ(info->size, 70'003U);
  std::vector<std::string> keys = {"u", "d/00/a", "absent"};
  Result<std::vector<RemoveFailure>> removed = co_await store.remove_batch(std::move(keys));
  EXPECT_OK(removed);
  Result<Listing> listing = co_await store.list("", "", 10);
  EXPECT_OK(listing);
  if (listing.ok()) {
    EXPECT_EQ(listing->objects.size(), 1U);
    EXPECT_EQ(listing->objects.front().key, "head");
  }
}

Task<void> put_one(ObjectStore& store, bool* done) {
  Result<ObjectInfo> put = co_await store.put("one", text("1"));
  EXPECT_OK(put);
  *done = true;
}

Task<void> hang(Blocking& pool, std::shared_future<void> end) {
  co_await pool.run([end] { end.wait(); });
}

// As a directory on an NFS server that does not answer.
Task<void> beside_a_directory_that_hangs(Reactor* reactor, std::string root) {
  Env env = reactor->env();
  ThreadPool requests(*reactor, 2);
  const std::unique_ptr<Disk> disk = make_disk(*reactor, requests);
  ObjectStoreOptions options;
  options.requests = &requests;
  options.directory = disk.get();
  auto opened = open_object_store(*parse_bucket_url("file://" + root), env, options);
  HR_ASSERT(opened.ok());
  std::promise<void> end;
  std::shared_future<void> ended = end.get_future().share();
  Scope scope;
  for (int i = 0; i < 2; ++i) scope.spawn(hang(requests, ended));
  bool put = false;
  for (int i = 0; i < 16; ++i) scope.spawn(put_one(**opened, &put));
  co_await env.clock.sleep(milliseconds(200));
  EXPECT_FALSE(put) << "it uses the threads of others";
  const int answer = co_await env.blocking.run([] { return 7; });
  EXPECT_EQ(answer, 7);
  end.set_value();
  co_await scope.join();
  EXPECT_TRUE(put);
}

TEST(DirectoryOnTheReactor, OneThatHangsTakesNoThreadOfOthers) {
  TempDir dir;
  auto reactor = Reactor::create();
  ASSERT_OK(reactor);
  (*reactor)->run(beside_a_directory_that_hangs(reactor->get(), dir.path + "/bucket"));
}

TEST(DirectoryOnTheReactor, DoesAllThatAStoreDoes) {
  TempDir dir;
  auto reactor = Reactor::create();
  ASSERT_OK(reactor);
  (*reactor)->run(walk_through((*reactor)->env(), dir.path + "/deep/bucket"));
}

}  // namespace headrace::test
