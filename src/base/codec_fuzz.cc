// FUZZES: codec
//
// One struct of everything that the codec knows. Whatever decodes must encode to bytes that decode
// to the same encoding again, and nothing may read past the input or allocate more than it could
// fill (ASan, rss limit).
#include "base/codec.h"

namespace headrace {
namespace {

struct Leaf {
  uint16_t a = 0;
  std::string b;
  std::optional<uint64_t> c;
  void fields(this auto& self, auto& v) { v(self.a, self.b, self.c); }
};

struct All {
  static constexpr uint8_t kFormat = 1;
  bool flag = false;
  int32_t i = 0;
  Code code{};
  SegmentId segment;
  FileId file;
  Cut cut;
  TargetId target;
  std::string text;
  Buffer bytes;
  std::vector<uint32_t> numbers;
  std::vector<Leaf> leaves;
  std::optional<Leaf> leaf;
  std::array<uint8_t, 4> four{};
  std::pair<uint64_t, std::vector<std::string>> pair;
  std::string tail;
  std::vector<std::pair<uint8_t, Leaf>> tail_leaves;
  void fields(this auto& self, auto& v) {
    v(self.flag, self.i, self.code, self.segment, self.file, self.cut, self.target, self.text, self.bytes, self.numbers,
      self.leaves, self.leaf, self.four, self.pair);
    v.tail(self.tail, self.tail_leaves);
  }
};

void check(std::string_view input) {
  Result<All> first = decode<All>(input);
  if (first.ok()) {
    std::string again = encode(*first);
    Result<All> second = decode<All>(again);
    HR_ASSERT(second.ok());
    HR_ASSERT(encode(*second) == again);
  }
  Result<All> durable = decode_durable<All>(input);
  if (durable.ok()) HR_ASSERT(decode_durable<All>(encode_durable(*durable)).ok());
}

}  // namespace
}  // namespace headrace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  headrace::check({reinterpret_cast<const char*>(data), size});
  return 0;
}
