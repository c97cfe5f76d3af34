// What the tests of this folder share: a reactor per test, a directory that goes away.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include "runtime/uring/reactor.h"

namespace headrace {

// In the directory of the tests by choice: /tmp is often a tmpfs, which has no O_DIRECT on older
// kernels.
class TempDirectory {
 public:
  explicit TempDirectory(const std::string& parent = "/var/tmp") {
    std::string name = parent + "/headrace-test-XXXXXX";
    HR_ASSERT(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;
  ~TempDirectory() {
    // What a pool's thread still removes in here may vanish under us: that is no error.
    std::error_code error;
    for (int tries = 0; tries < 100 && std::filesystem::exists(path_, error); ++tries)
      std::filesystem::remove_all(path_, error);
  }
  [[nodiscard]] std::string path(const std::string& name = "") const {
    return name.empty() ? path_ : path_ + "/" + name;
  }

 private:
  std::string path_;
};

class UringTest : public testing::Test {
 protected:
  UringTest() { make_reactor({}); }
  void make_reactor(ReactorOptions options) {
    reactor_.reset();
    Result<std::unique_ptr<Reactor>> made = Reactor::create(options);
    if (!made.ok()) {
      ADD_FAILURE() << made.error().text();
      std::abort();
    }
    reactor_ = *std::move(made);
  }
  void run(Task<void> main) { reactor_->run(std::move(main)); }
  [[nodiscard]] Env env() { return reactor_->env(); }

  TempDirectory directory_;
  std::unique_ptr<Reactor> reactor_;
};

// Bytes that tell one position and one seed from another.
inline Buffer patterned(size_t size, uint64_t seed) {
  Buffer out = Buffer::allocate(size);
  uint64_t state = seed * 0x9e3779b97f4a7c15 + 1;
  for (size_t i = 0; i < size; ++i) {
    if (i % 8 == 0) state = (state ^ (state >> 29)) * 0xbf58476d1ce4e5b9 + i;
    out.data()[i] = static_cast<std::byte>(state >> (8 * (i % 8)));
  }
  return out;
}

inline bool same(const Buffer& a, const Buffer& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}

}  // namespace headrace
