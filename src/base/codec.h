// One codec for wire messages and durable records: little-endian, fixed width, lengths before bytes.
//
// A struct describes itself once, for both directions:
//     struct Lookup { FileId parent; std::string name; void fields(this auto& self, auto& v) { v(self.parent,
//     self.name); } };
// Integers, bool and enums take their width; Id its Rep; Cut and FileId 8 bytes, SegmentId 16;
// std::string, Buffer and std::vector a u32 count before their contents; std::optional a byte before it;
// std::array its elements. Decoding never reads past the end, never allocates more than the input
// could fill, and never throws: after an error every later field is left at its default and ok() is false.
//
// Growing: new fields go last and are read with v.tail(self.x), which leaves the default where the bytes
// end (an older writer). Bytes after the last known field are ignored (a newer writer). This holds for
// top-level structs only: nested ones are frozen unless they are wrapped in std::string / Buffer.
#pragma once

#include <array>
#include <bit>
#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/ids.h"
#include "base/result.h"

namespace headrace {

static_assert(std::endian::native == std::endian::little, "the codec copies integers as they are");

namespace codec_detail {
struct Probe {
  void operator()(auto&&...) {}
  void tail(auto&&...) {}
};
template <class T>
struct IsId : std::false_type {};
template <class Tag, class Rep>
struct IsId<Id<Tag, Rep>> : std::true_type {};
}  // namespace codec_detail

template <class T>
concept Fielded = requires(T& t, codec_detail::Probe& probe) { t.fields(probe); };

class Writer {
 public:
  explicit Writer(size_t reserve = 128) { out_.reserve(reserve); }

  void operator()(const auto&... values) { (put(values), ...); }
  void tail(const auto&... values) { (put(values), ...); }

  template <class T>
  void put(const T& value) {
    if constexpr (std::same_as<T, bool>) {
      put(static_cast<uint8_t>(value));
    } else if constexpr (std::is_enum_v<T>) {
      put(static_cast<std::underlying_type_t<T>>(value));
    } else if constexpr (std::is_integral_v<T>) {
      raw(&value, sizeof value);
    } else if constexpr (codec_detail::IsId<T>::value) {
      put(value.value());
    } else if constexpr (std::same_as<T, Cut> || std::same_as<T, FileId> || std::same_as<T, ObjectId>) {
      put(value.packed());
    } else if constexpr (std::same_as<T, SegmentId>) {
      put(value.high());
      put(value.low());
    } else if constexpr (std::same_as<T, std::string> || std::same_as<T, Buffer>) {
      put(static_cast<uint32_t>(value.size()));
      raw(value.data(), value.size());
    } else {
      static_assert(Fielded<const T>, "give the struct a fields() member");
      value.fields(*this);
    }
  }
  template <class T>
  void put(const std::vector<T>& values) {
    put(static_cast<uint32_t>(values.size()));
    if constexpr (std::is_integral_v<T> && !std::same_as<T, bool>) {
      raw(values.data(), values.size() * sizeof(T));
    } else {
      for (const T& value : values) put(value);
    }
  }
  template <class T>
  void put(const std::optional<T>& value) {
    put(value.has_value());
    if (value) put(*value);
  }
  template <class T, size_t N>
  void put(const std::array<T, N>& values) {
    for (const T& value : values) put(value);
  }
  template <class A, class B>
  void put(const std::pair<A, B>& pair) {
    put(pair.first);
    put(pair.second);
  }
  void raw(const void* data, size_t size) { out_.append(static_cast<const char*>(data), size); }

  [[nodiscard]] size_t size() const { return out_.size(); }
  [[nodiscard]] std::string& bytes() { return out_; }
  [[nodiscard]] std::string take() { return std::move(out_); }

 private:
  std::string out_;
};

class Reader {
 public:
  explicit Reader(ByteView bytes) : at_(bytes.data()), end_(bytes.data() + bytes.size()) {}
  explicit Reader(std::string_view bytes) : Reader(bytes_of(bytes)) {}

  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] size_t left() const { return static_cast<size_t>(end_ - at_); }
  [[nodiscard]] ByteView rest() const { return {at_, left()}; }
  void fail() {
    ok_ = false;
    at_ = end_;
  }

  void operator()(auto&... values) { (get(values), ...); }
  void tail(auto&... values) { (get_tail(values), ...); }

  template <class T>
  void get(T& value) {
    if constexpr (std::same_as<T, bool>) {
      uint8_t byte = 0;
      get(byte);
      if (byte > 1) fail();
      value = byte == 1;
    } else if constexpr (std::is_enum_v<T>) {
      std::underlying_type_t<T> number{};
      get(number);
      value = static_cast<T>(number);
    } else if constexpr (std::is_integral_v<T>) {
      raw(&value, sizeof value);
    } else if constexpr (codec_detail::IsId<T>::value) {
      typename T::Rep number{};
      get(number);
      value = T(number);
    } else if constexpr (std::same_as<T, Cut> || std::same_as<T, FileId> || std::same_as<T, ObjectId>) {
      uint64_t number = 0;
      get(number);
      value = T(number);
    } else if constexpr (std::same_as<T, SegmentId>) {
      uint64_t high = 0;
      uint64_t low = 0;
      get(high);
      get(low);
      value = SegmentId(high, low);
    } else if constexpr (std::same_as<T, std::string>) {
      uint32_t n = count(1);
      if (!ok_) return;
      value.assign(reinterpret_cast<const char*>(at_), n);
      at_ += n;
    } else if constexpr (std::same_as<T, Buffer>) {
      uint32_t n = count(1);
      if (!ok_) return;
      value = Buffer::copy_of({at_, n});
      at_ += n;
    } else {
      static_assert(Fielded<T>, "give the struct a fields() member");
      value.fields(*this);
    }
  }
  template <class T>
  void get(std::vector<T>& values) {
    uint32_t n = count(1);  // every element takes at least a byte
    values.clear();
    if (!ok_) return;
    if constexpr (std::is_integral_v<T> && !std::same_as<T, bool>) {
      if (n > left() / sizeof(T)) return fail();
      values.resize(n);
      raw(values.data(), n * sizeof(T));
    } else {
      for (uint32_t i = 0; i < n && ok_; ++i) get(values.emplace_back());
      if (!ok_) values.clear();
    }
  }
  template <class T>
  void get(std::optional<T>& value) {
    bool there = false;
    get(there);
    value.reset();
    if (ok_ && there) get(value.emplace());
  }
  template <class T, size_t N>
  void get(std::array<T, N>& values) {
    for (T& value : values) get(value);
  }
  template <class A, class B>
  void get(std::pair<A, B>& pair) {
    get(pair.first);
    get(pair.second);
  }
  void raw(void* into, size_t size) {
    if (size > left()) return fail();
    if (size != 0) std::memcpy(into, at_, size);
    at_ += size;
  }

 private:
  template <class T>
  void get_tail(T& value) {
    if (ok_ && left() > 0) get(value);
  }
  uint32_t count(size_t element_size) {
    uint32_t n = 0;
    raw(&n, sizeof n);
    if (ok_ && n > left() / element_size) fail();
    return ok_ ? n : 0;
  }

  const std::byte* at_;
  const std::byte* end_;
  bool ok_ = true;
};

template <Fielded T>
[[nodiscard]] std::string encode(const T& value) {
  Writer writer;
  writer(value);
  return writer.take();
}

// kCorrupt when the bytes do not hold a T.
// DECODER: codec
template <Fielded T>
[[nodiscard]] Result<T> decode(ByteView bytes) {
  T value{};
  Reader reader(bytes);
  reader(value);
  if (!reader.ok()) return Error(Code::kCorrupt, "truncated or malformed record");
  return value;
}
template <Fielded T>
[[nodiscard]] Result<T> decode(std::string_view bytes) {
  return decode<T>(bytes_of(bytes));
}

// Durable values begin with a format version (T::kFormat, from 1). A higher one than we know is refused.
template <Fielded T>
[[nodiscard]] std::string encode_durable(const T& value) {
  Writer writer;
  writer(uint8_t{T::kFormat}, value);
  return writer.take();
}
template <Fielded T>
[[nodiscard]] Result<T> decode_durable(std::string_view bytes) {
  Reader reader(bytes);
  uint8_t format = 0;
  reader(format);
  if (reader.ok() && format > T::kFormat)
    return Error(Code::kUnsupportedFormat, "record format " + std::to_string(format) +
                                               " is newer than this version reads (" + std::to_string(T::kFormat) +
                                               "): upgrade headrace");
  T value{};
  reader(value);
  if (!reader.ok() || format == 0) return Error(Code::kCorrupt, "truncated or malformed record");
  return value;
}

}  // namespace headrace
