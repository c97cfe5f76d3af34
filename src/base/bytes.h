// Buffer: a shared, 4 KiB-aligned piece of memory; slices keep the whole alive.
//
// Copying a Buffer copies a reference, never bytes. Whoever allocated it fills it, then hands it on;
// from then on every holder treats the bytes as immutable. References may be dropped on any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace headrace {

using ByteView = std::span<const std::byte>;
using ByteSpan = std::span<std::byte>;

inline constexpr uint64_t kKiB = 1024;
inline constexpr uint64_t kMiB = 1024 * kKiB;
inline constexpr uint64_t kGiB = 1024 * kMiB;
inline constexpr uint64_t kBlock = 4 * kKiB;  // unit of device I/O, of checksums, of allocation

[[nodiscard]] constexpr uint64_t round_up(uint64_t n, uint64_t unit) {
  return (n + unit - 1) / unit * unit;
}
[[nodiscard]] constexpr uint64_t round_down(uint64_t n, uint64_t unit) {
  return n / unit * unit;
}
[[nodiscard]] constexpr uint64_t divide_up(uint64_t n, uint64_t unit) {
  return (n + unit - 1) / unit;
}

[[nodiscard]] inline ByteView bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}
[[nodiscard]] inline std::string_view text_of(ByteView bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

class Buffer {
 public:
  Buffer() = default;
  // Uninitialised bytes, address aligned to kBlock, capacity rounded up to kBlock.
  [[nodiscard]] static Buffer allocate(size_t size);
  [[nodiscard]] static Buffer zeroed(size_t size);
  [[nodiscard]] static Buffer copy_of(ByteView bytes);
  // Takes over a string's bytes without copying them; not aligned: for heads of messages, not for devices.
  [[nodiscard]] static Buffer adopt(std::string text);

  [[nodiscard]] std::byte* data() { return data_; }
  [[nodiscard]] const std::byte* data() const { return data_; }
  [[nodiscard]] size_t size() const { return size_; }
  [[nodiscard]] bool empty() const { return size_ == 0; }
  [[nodiscard]] ByteView view() const { return {data_, size_}; }
  [[nodiscard]] ByteSpan span() { return {data_, size_}; }
  [[nodiscard]] std::string_view text() const { return text_of(view()); }
  // Nobody else refers to the memory: it may be filled again.
  [[nodiscard]] bool unique() const { return owner_.use_count() == 1; }
  // Shares memory. [offset, offset + size) must lie inside.
  [[nodiscard]] Buffer slice(size_t offset, size_t size) const {
    HR_ASSERT(offset <= size_ && size <= size_ - offset);
    Buffer out(*this);
    out.data_ += offset;
    out.size_ = size;
    return out;
  }

 private:
  std::shared_ptr<std::byte> owner_;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace headrace
