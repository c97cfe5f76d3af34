#include "object/memory_store.h"

#include "object/object_store_contract_test.h"

namespace headrace::test {

std::unique_ptr<ObjectStore> make_memory(World& world, const std::string& fresh, Nanos delay) {
  static std::map<std::string, std::shared_ptr<MemoryBucket>> buckets;
  std::shared_ptr<MemoryBucket>& bucket = buckets[fresh];
  if (bucket == nullptr) bucket = std::make_shared<MemoryBucket>();
  return std::make_unique<MemoryStore>(bucket, &world.clock, delay);
}

INSTANTIATE_TEST_SUITE_P(
    Memory, ObjectStoreContract,
    ::testing::Values(
        Backend{.name = "memory",
                .make = [](World& world, const std::string& fresh) { return make_memory(world, fresh, {}); }},
        Backend{.name = "memory_slow",
                .make = [](World& world,
                           const std::string& fresh) { return make_memory(world, fresh, microseconds(50)); }}),
    [](const auto& info) { return info.param.name; });

TEST(MemoryStore, TakesEffectHalfWayThroughItsDelay) {
  World world(true, 1);
  auto bucket = std::make_shared<MemoryBucket>();
  MemoryStore store(bucket, &world.clock, milliseconds(10));
  int good = 0;
  Scope scope;
  scope.spawn(put_and_get(&store, 1, &good));
  EXPECT_EQ(bucket->size(), 0U);
  const Nanos begin = world.clock.now();
  while (bucket->size() == 0) world.step();
  EXPECT_EQ(world.clock.now() - begin, milliseconds(5));
  while (scope.running() > 0) world.step();
  EXPECT_EQ(world.clock.now() - begin, milliseconds(20));
  EXPECT_EQ(good, 1);
}

}  // namespace headrace::test
