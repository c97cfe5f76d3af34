// StoreReader: the rows of one checkpoint, read-only, page by page. For `headrace unpack` and
// `headrace recover`.
//
// Imports the files under a name of its own in the factory given (a temporary directory's, for
// RocksDB), which must outlive it; gone with the reader.
#pragma once

#include "meta/store/store.h"

namespace headrace {

class StoreReader {
 public:
  using Rows = std::vector<std::pair<Key, RowValue>>;

  // As StoreFactory::import.
  [[nodiscard]] static Task<Result<std::unique_ptr<StoreReader>>> open(StoreFactory& factory, std::string name,
                                                                       StoreFiles files, FetchFile fetch) {
    auto store = co_await factory.import(std::move(name), std::move(files), std::move(fetch));
    if (!store.ok()) co_return std::move(store).error();
    co_return std::unique_ptr<StoreReader>(new StoreReader(*std::move(store)));
  }

  [[nodiscard]] Position at() const { return store_->applied(); }
  [[nodiscard]] Task<Result<std::optional<RowValue>>> get(Key key) { return store_->get(std::move(key)); }
  // Rows with from <= key < to, ascending, at most limit.
  [[nodiscard]] Task<Result<Rows>> scan(Key from, Key to, size_t limit = 1024) {
    return store_->scan(std::move(from), std::move(to), limit);
  }
  // Where the next page begins.
  [[nodiscard]] static Key after(const Rows& page) { return page.back().first + '\0'; }

 private:
  explicit StoreReader(std::unique_ptr<Store> store) : store_(std::move(store)) {}
  std::unique_ptr<Store> store_;
};

}  // namespace headrace
