#include "base/bytes.h"

#include "base/block_cache.h"

namespace headrace {

Buffer Buffer::allocate(size_t size) {
  Buffer out;
  if (size == 0) return out;
  std::byte* memory = take_block(size);
  out.owner_ = std::shared_ptr<std::byte>(memory, [size](std::byte* p) { give_block(p, size); });
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

Buffer Buffer::adopt(std::string text) {
  Buffer out;
  if (text.empty()) return out;
  auto owner = std::make_shared<std::string>(std::move(text));
  out.data_ = reinterpret_cast<std::byte*>(owner->data());
  out.size_ = owner->size();
  out.owner_ = std::shared_ptr<std::byte>(std::move(owner), out.data_);
  return out;
}

}  // namespace headrace
