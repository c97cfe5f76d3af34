// Drives a fuzz target without libFuzzer, so that ordinary builds compile and exercise it.
//
// Inputs: every file of the corpus folders given, mutated copies of each, and random bytes, all
// from one fixed seed: a failure here is the same failure on every machine. FUZZ_VERBOSE=1 prints
// each input before the target sees it, so the last one printed is the one that failed.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
extern "C" __attribute__((weak)) int LLVMFuzzerInitialize(int* argc, char*** argv);

namespace {

using Input = std::vector<uint8_t>;

constexpr uint64_t kSeed = 20261123;
constexpr int kRandomInputs = 400;
constexpr int kMutationsPerFile = 40;
constexpr size_t kMaxRandomBytes = 4096;

class Driver {
 public:
  void run(const Input& input) {
    if (verbose_) {
      std::fprintf(stderr, "input %llu (%zu bytes):", static_cast<unsigned long long>(count_), input.size());
      for (uint8_t byte : input) std::fprintf(stderr, " %02x", byte);
      std::fprintf(stderr, "\n");
    }
    // A heap block of exactly this size: reading one byte past its end is what ASan must see. Not
    // the vector's own, which is null when empty; libFuzzer never passes null.
    const std::unique_ptr<uint8_t[]> exact(new uint8_t[input.size()]);
    std::copy(input.begin(), input.end(), exact.get());
    LLVMFuzzerTestOneInput(exact.get(), input.size());
    ++count_;
  }

  void run_random() {
    for (int i = 0; i < kRandomInputs; ++i) {
      // Short inputs meet more of a decoder's early exits; squaring favours them.
      const size_t limit = kMaxRandomBytes * (i + 1) / kRandomInputs * (i + 1) / kRandomInputs;
      Input input(below(limit + 1));
      for (uint8_t& byte : input) byte = static_cast<uint8_t>(random_());
      run(input);
    }
  }

  void run_mutations(const Input& original) {
    for (int i = 0; i < kMutationsPerFile; ++i) {
      Input input = original;
      switch (i % 4) {
        case 0:
          input.resize(below(input.size() + 1));
          break;
        case 1:
          if (!input.empty()) input[below(input.size())] ^= uint8_t(1u << below(8));
          break;
        case 2:
          if (!input.empty()) input[below(input.size())] = below(2) ? 0xff : 0x00;
          break;
        default:
          for (uint64_t n = below(16); n > 0; --n) input.push_back(static_cast<uint8_t>(random_()));
      }
      run(input);
    }
  }

  uint64_t count() const { return count_; }

 private:
  uint64_t below(uint64_t limit) { return limit == 0 ? 0 : random_() % limit; }

  std::mt19937_64 random_{kSeed};
  uint64_t count_ = 0;
  const bool verbose_ = std::getenv("FUZZ_VERBOSE") != nullptr;
};

std::vector<std::filesystem::path> files_under(const std::filesystem::path& root) {
  std::vector<std::filesystem::path> files;
  if (std::filesystem::is_regular_file(root)) files.push_back(root);
  if (std::filesystem::is_directory(root)) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
      if (entry.is_regular_file()) files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());  // the order of a directory differs by machine
  return files;
}

}  // namespace

int main(int argc, char** argv) {
  if (LLVMFuzzerInitialize) LLVMFuzzerInitialize(&argc, &argv);
  Driver driver;
  driver.run({});
  for (int i = 1; i < argc; ++i) {
    for (const auto& path : files_under(argv[i])) {
      std::ifstream stream(path, std::ios::binary);
      const Input input{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
      driver.run(input);
      driver.run_mutations(input);
    }
  }
  driver.run_random();
  std::printf("%llu inputs\n", static_cast<unsigned long long>(driver.count()));
  return 0;
}
