// What every ObjectStore must do, as one suite. A back end's test includes this once and
// instantiates it:
//   INSTANTIATE_TEST_SUITE_P(Memory, ObjectStoreContract, ::testing::Values(Backend{"memory",
//   make}));
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <ostream>

#include "object/object_store.h"
#include "object/posix_env_test.h"
#include "object/probe.h"
#include "object/result_matchers_test.h"

namespace headrace::test {

// A bucket, as it is before the first use, and a second store on the same bucket.
struct Backend {
  std::string name;
  // The test is skipped with this reason when it is not empty.
  std::function<std::string()> unavailable = [] { return std::string(); };
  // Called twice with one `fresh`: both stores share a bucket.
  std::function<std::unique_ptr<ObjectStore>(World&, const std::string& fresh)> make;
};
inline void PrintTo(const Backend& backend, std::ostream* out) {
  *out << backend.name;
}

class ObjectStoreContract : public ::testing::TestWithParam<Backend> {
 protected:
  void SetUp() override {
    const std::string reason = GetParam().unavailable();
    if (!reason.empty()) GTEST_SKIP() << reason;
    fresh_ = "t" + std::to_string(random_seed_from_kernel() % 1'000'000'000'000);
    store_ = GetParam().make(world_, fresh_);
    ASSERT_NE(store_, nullptr);
  }
  std::unique_ptr<ObjectStore> second() { return GetParam().make(world_, fresh_); }
  Result<ObjectInfo> put(std::string key, Buffer body, PutCondition condition = {}) {
    return world_.run(store_->put(std::move(key), std::move(body), std::move(condition)));
  }
  Result<Buffer> get(std::string key) { return world_.run(store_->get(std::move(key))); }

  World world_;
  std::string fresh_;
  std::unique_ptr<ObjectStore> store_;
};

TEST_P(ObjectStoreContract, ReadsBackWhatWasPut) {
  for (size_t size : {0UL, 1UL, 4096UL, 65536UL, 65537UL, (1UL << 20) + 3}) {
    Buffer body = pattern(size, size);
    auto put_info = put("d/00/object", body);
    ASSERT_OK(put_info);
    EXPECT_EQ(put_info->size, size);
    EXPECT_EQ(put_info->key, "d/00/object");
    auto got = world_.run(store_->get_with_etag("d/00/object"));
    ASSERT_OK(got);
    EXPECT_TRUE(same(got->body, body)) << size;
    EXPECT_EQ(got->etag, put_info->etag) << size;
    auto info = world_.run(store_->head("d/00/object"));
    ASSERT_OK(info);
    EXPECT_EQ(info->size, size);
    EXPECT_EQ(info->etag, put_info->etag);
  }
}

TEST_P(ObjectStoreContract, SaysNotFoundForWhatIsMissing) {
  EXPECT_EQ(get("nothing").code(), Code::kNotFound);
  ASSERT_OK(put("some/thing", text("x")));
  EXPECT_EQ(get("some/other").code(), Code::kNotFound);
  EXPECT_EQ(get("some").code(), Code::kNotFound);
  EXPECT_EQ(world_.run(store_->head("some/other")).code(), Code::kNotFound);
  EXPECT_EQ(world_.run(store_->get_range("some/other", 0, 1)).code(), Code::kNotFound);
}

TEST_P(ObjectStoreContract, ChangesTheETagWithTheContent) {
  for (size_t size : {10UL, 100'000UL}) {
    auto first = put("x", pattern(size, 1));
    ASSERT_OK(first);
    auto other = put("x", pattern(size, 2));
    ASSERT_OK(other);
    EXPECT_NE(first->etag, other->etag);
    EXPECT_TRUE(other->verified);
    auto got = get("x");
    ASSERT_OK(got);
    EXPECT_TRUE(same(*got, pattern(size, 2)));
  }
}

TEST_P(ObjectStoreContract, CreatesOnlyWhatIsAbsent) {
  ASSERT_OK(put("head", text("one"), PutCondition::if_absent()));
  EXPECT_EQ(put("head", text("two"), PutCondition::if_absent()).code(), Code::kConflict);
  EXPECT_EQ(get("head")->text(), "one");
}

TEST_P(ObjectStoreContract, SwapsOnlyTheVersionThatWasNamed) {
  EXPECT_EQ(put("head", text("zero"), PutCondition::if_match("\"d41d8cd98f00b204e9800998ecf8427e\"")).code(),
            Code::kConflict);
  EXPECT_EQ(get("head").code(), Code::kNotFound);
  auto one = put("head", text("one"));
  ASSERT_OK(one);
  auto two = put("head", text("two"), PutCondition::if_match(one->etag));
  ASSERT_OK(two);
  EXPECT_EQ(put("head", text("three"), PutCondition::if_match(one->etag)).code(), Code::kConflict);
  EXPECT_EQ(get("head")->text(), "two");
  ASSERT_OK(put("head", text("four"), PutCondition::if_match(two->etag)));
  EXPECT_EQ(get("head")->text(), "four");
}

TEST_P(ObjectStoreContract, ReadsExactRanges) {
  Buffer body = pattern(100'000, 7);
  auto info = put("r", body);
  ASSERT_OK(info);
  const std::pair<uint64_t, uint64_t> ranges[] = {{0, 1}, {0, 100'000}, {99'999, 1}, {4096, 8192}, {12'345, 54'321}};
  for (auto [offset, size] : ranges) {
    auto got = world_.run(store_->get_range("r", offset, size));
    ASSERT_OK(got);
    EXPECT_TRUE(same(*got, body.slice(offset, size))) << offset;
    auto with = world_.run(store_->get_range("r", offset, size, info->etag));
    ASSERT_OK(with);
    EXPECT_TRUE(same(*with, body.slice(offset, size))) << offset;
  }
  EXPECT_EQ(world_.run(store_->get_range("r", 99'999, 2)).code(), Code::kRange);
  EXPECT_EQ(world_.run(store_->get_range("r", 100'000, 1)).code(), Code::kRange);
  EXPECT_EQ(world_.run(store_->get_range("r", 200'000, 1)).code(), Code::kRange);
  EXPECT_EQ(world_.run(store_->get_range("r", 0, 0)).code(), Code::kInvalid);
}

TEST_P(ObjectStoreContract, NoticesThatARangesObjectHasChanged) {
  for (size_t size : {1000UL, 100'000UL}) {
    auto old_info = put("r", pattern(size, 1));
    ASSERT_OK(old_info);
    ASSERT_OK(put("r", pattern(size, 2)));
    EXPECT_EQ(world_.run(store_->get_range("r", 10, 10, old_info->etag)).code(), Code::kConflict);
  }
}

TEST_P(ObjectStoreContract, RemovesInBatchesAndForgivesAbsence) {
  ASSERT_OK(put("a/1", text("x")));
  ASSERT_OK(put("a/2", text("y")));
  ASSERT_OK(put("b & <c>", text("z")));
  ASSERT_OK(put("stays", text("s")));
  auto failed = world_.run(store_->remove_batch({"a/1", "a/2", "b & <c>", "never", "a/1/deep"}));
  ASSERT_OK(failed);
  EXPECT_TRUE(failed->empty()) << failed->front().error.text();
  EXPECT_EQ(get("a/1").code(), Code::kNotFound);
  EXPECT_EQ(get("b & <c>").code(), Code::kNotFound);
  EXPECT_EQ(get("stays")->text(), "s");
  auto none = world_.run(store_->remove_batch({}));
  ASSERT_OK(none);
  EXPECT_TRUE(none->empty());
}

TEST_P(ObjectStoreContract, SplitsLargeBatchesOfRemovals) {
  std::vector<std::string> keys;
  for (int i = 0; i < 1500; ++i) keys.push_back("absent/" + std::to_string(i));
  ASSERT_OK(put("absent/0", text("first")));
  ASSERT_OK(put("absent/1499", text("last")));
  auto failed = world_.run(store_->remove_batch(keys));
  ASSERT_OK(failed);
  EXPECT_TRUE(failed->empty());
  EXPECT_EQ(get("absent/0").code(), Code::kNotFound);
  EXPECT_EQ(get("absent/1499").code(), Code::kNotFound);
}

TEST_P(ObjectStoreContract, ListsInOrderPieceByPiece) {
  std::vector<std::string> keys = {"l/a", "l/b/c", "l/b/d", "l/e", "l/f"};
  for (const std::string& key : keys) ASSERT_OK(put(key, text(key)));
  ASSERT_OK(put("m", text("other")));
  std::vector<std::string> seen;
  std::string continuation;
  for (int i = 0; i < 10; ++i) {
    auto listing = world_.run(store_->list("l/", continuation, 2));
    ASSERT_OK(listing);
    EXPECT_LE(listing->objects.size(), 2U);
    for (const ObjectInfo& info : listing->objects) {
      seen.push_back(info.key);
      EXPECT_EQ(info.size, info.key.size());
      EXPECT_FALSE(info.etag.empty());
    }
    continuation = listing->continuation;
    if (continuation.empty()) break;
  }
  EXPECT_EQ(seen, keys);
  auto empty = world_.run(store_->list("zzz", "", 10));
  ASSERT_OK(empty);
  EXPECT_TRUE(empty->objects.empty());
  EXPECT_TRUE(empty->continuation.empty());
}

TEST_P(ObjectStoreContract, TakesAwkwardKeys) {
  const std::vector<std::string> keys = {"a b",        "100%",        "100%25",
                                         "p+l=u&s",    "x~y_z-w.v",   "semi;colon",
                                         "#hash",      "q?mark",      "\u00fc/\u00e9\u4e2d",
                                         "(paren)*!'", "at@,colon:$", "\"quote\""};
  for (const std::string& key : keys) ASSERT_OK(put(key, text(key)));
  for (const std::string& key : keys) {
    auto got = get(key);
    ASSERT_TRUE(got.ok()) << key << ": " << got.error().text();
    EXPECT_EQ(got->text(), key);
  }
  auto listing = world_.run(store_->list("", "", 100));
  ASSERT_OK(listing);
  std::vector<std::string> listed;
  for (const ObjectInfo& info : listing->objects) listed.push_back(info.key);
  std::vector<std::string> sorted = keys;
  std::sort(sorted.begin(), sorted.end());
  EXPECT_EQ(listed, sorted);
  auto failed = world_.run(store_->remove_batch(keys));
  ASSERT_OK(failed);
  EXPECT_TRUE(failed->empty());
  for (const std::string& key : keys) EXPECT_EQ(get(key).code(), Code::kNotFound) << key;
}

TEST_P(ObjectStoreContract, RefusesBadInputAsKey) {
  for (const std::string& key :
       {std::string(), std::string(2000, 'k'), std::string("a\0b", 3), std::string("\xff\xfe")}) {
    EXPECT_FALSE(put(key, text("x")).ok());
    EXPECT_FALSE(get(key).ok());
    EXPECT_FALSE(world_.run(store_->head(key)).ok());
    EXPECT_FALSE(world_.run(store_->begin_upload(key)).ok());
  }
}

TEST_P(ObjectStoreContract, PutsBodiesThatNeedSeveralParts) {
  Buffer body = pattern(37 * kMiB + 12'345, 9);
  auto info = put("large", body);
  ASSERT_OK(info);
  EXPECT_EQ(info->size, body.size());
  auto got = world_.run(store_->get_with_etag("large"));
  ASSERT_OK(got);
  EXPECT_TRUE(same(got->body, body));
  EXPECT_EQ(got->etag, info->etag);
  auto range = world_.run(store_->get_range("large", 17 * kMiB - 5, 100, info->etag));
  ASSERT_OK(range);
  EXPECT_TRUE(same(*range, body.slice(17 * kMiB - 5, 100)));
  EXPECT_EQ(put("large", pattern(17 * kMiB, 1), PutCondition::if_absent()).code(), Code::kConflict);
  EXPECT_EQ(world_.run(store_->head("large"))->size, body.size());
}

Task<Result<ObjectInfo>> inline upload_pieces(ObjectStore* store, std::string key, std::vector<Buffer> pieces,
                                              PutCondition condition, bool* visible_early) {
  HR_CO_TRY(std::unique_ptr<Upload> upload, co_await store->begin_upload(key));
  for (Buffer& piece : pieces) HR_CO_TRY(co_await upload->part(std::move(piece)));
  Result<Buffer> early = co_await store->get(key);
  *visible_early = early.ok();
  Result<ObjectInfo> done = co_await upload->finish(std::move(condition));
  co_return done;
}

TEST_P(ObjectStoreContract, AssemblesAnUploadFromPiecesOfAnySize) {
  for (const std::vector<size_t>& sizes : {std::vector<size_t>{5}, {6 * kMiB, 1, 9 * kMiB, 70'000}, {20 * kMiB, 3}}) {
    std::vector<Buffer> pieces;
    std::string whole;
    for (size_t size : sizes) {
      pieces.push_back(pattern(size, size));
      whole += pieces.back().text();
    }
    const std::string key = "upload/" + std::to_string(sizes.size());
    bool early = true;
    auto info = world_.run(upload_pieces(store_.get(), key, pieces, PutCondition::if_absent(), &early));
    ASSERT_OK(info);
    EXPECT_FALSE(early);
    EXPECT_EQ(info->size, whole.size());
    auto got = world_.run(store_->get_with_etag(key));
    ASSERT_OK(got);
    EXPECT_TRUE(got->body.text() == whole);
    EXPECT_EQ(got->etag, info->etag);
    auto again = world_.run(upload_pieces(store_.get(), key, {text("other")}, PutCondition::if_absent(), &early));
    EXPECT_EQ(again.code(), Code::kConflict);
    EXPECT_TRUE(world_.run(store_->get(key))->text() == whole);
  }
}

TEST_P(ObjectStoreContract, UploadsNothingIsAnEmptyObject) {
  bool early = true;
  auto info = world_.run(upload_pieces(store_.get(), "empty", {}, {}, &early));
  ASSERT_OK(info);
  EXPECT_EQ(get("empty")->size(), 0U);
}

Task<Result<void>> inline abort_upload(ObjectStore* store, std::string key) {
  HR_CO_TRY(std::unique_ptr<Upload> upload, co_await store->begin_upload(key));
  HR_CO_TRY(co_await upload->part(pattern(6 * kMiB, 1)));
  co_await upload->abort();
  co_return {};
}

TEST_P(ObjectStoreContract, LeavesNothingOfAnAbortedUpload) {
  ASSERT_OK(world_.run(abort_upload(store_.get(), "gone")));
  EXPECT_EQ(get("gone").code(), Code::kNotFound);
  auto listing = world_.run(store_->list("", "", 10));
  ASSERT_OK(listing);
  EXPECT_TRUE(listing->objects.empty());
}

Task<void> inline put_and_get(ObjectStore* store, int i, int* good) {
  const std::string key = "many/" + std::to_string(i);
  Buffer body = pattern(10'000 + static_cast<size_t>(i), static_cast<uint64_t>(i));
  Result<ObjectInfo> info = co_await store->put(key, body);
  Result<Buffer> got = co_await store->get(key);
  if (info.ok() && got.ok() && same(*got, body)) ++*good;
}

TEST_P(ObjectStoreContract, ServesManyRequestsAtOnce) {
  int good = 0;
  Scope scope;
  for (int i = 0; i < 64; ++i) scope.spawn(put_and_get(store_.get(), i, &good));
  while (scope.running() > 0) world_.step();
  EXPECT_EQ(good, 64);
}

Task<void> inline count_up(ObjectStore* store, int times, int* done) {
  while (*done < times) {
    Result<Got> got = co_await store->get_with_etag("counter");
    HR_ASSERT(got.ok());
    const int value = std::stoi(std::string(got->body.text()));
    Result<ObjectInfo> swapped =
        co_await store->put("counter", text(std::to_string(value + 1)), PutCondition::if_match(got->etag));
    if (swapped.ok())
      ++*done;
    else
      HR_ASSERT(swapped.code() == Code::kConflict);
  }
}

TEST_P(ObjectStoreContract, LosesNoSwapAmongRacingStores) {
  std::unique_ptr<ObjectStore> other = second();
  ASSERT_OK(put("counter", text("0")));
  int done[6] = {};
  {
    Scope scope;
    for (int i = 0; i < 6; ++i) scope.spawn(count_up(i % 2 == 0 ? store_.get() : other.get(), 10, &done[i]));
    while (scope.running() > 0) world_.step();
  }
  EXPECT_EQ(get("counter")->text(), "60");
}

TEST_P(ObjectStoreContract, PassesTheProbeOfConditionalWrites) {
  auto verdict = world_.run(probe_conditional_writes(*store_, world_.random));
  ASSERT_OK(verdict);
  auto listing = world_.run(store_->list("", "", 10));
  ASSERT_OK(listing);
  EXPECT_TRUE(listing->objects.empty());
}

TEST_P(ObjectStoreContract, SurvivesThatAnAskerGivesUp) {
  for (int steps : {0, 1, 2, 3, 5, 8}) {
    Scope scope;
    int good = 0;
    for (int i = 0; i < 4; ++i) scope.spawn(put_and_get(store_.get(), i, &good));
    for (int i = 0; i < steps && scope.running() > 0; ++i) world_.step();
  }
  int good = 0;
  Scope scope;
  for (int i = 0; i < 40; ++i) scope.spawn(put_and_get(store_.get(), i, &good));
  while (scope.running() > 0) world_.step();
  EXPECT_EQ(good, 40);
}

}  // namespace headrace::test
