#include "base/bytes.h"

#include <new>

namespace headrace {

Buffer Buffer::allocate(size_t size) {
  Buffer out;
  if (size == 0) return out;
  size_t capacity = round_up(size, kBlock);
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(kBlock, capacity));
  if (memory == nullptr) throw std::bad_alloc();
  out.owner_ = std::shared_ptr<std::byte>(memory, [](std::byte* p) { std::free(p); });
  out.data_ = memory;
  out.size_ = size;
  return out;
}

Buffer Buffer::zeroed(size_t size) {
  Buffer out = allocate(size);
  if (size != 0) std::memset(out.data_, 0, round_up(size, kBlock));
  return out;
}

Buffer Buffer::copy_of(ByteView bytes) {
  Buffer out = allocate(bytes.size());
  if (!bytes.empty()) std::memcpy(out.data_, bytes.data(), bytes.size());
  return out;
}

}  // namespace headrace
