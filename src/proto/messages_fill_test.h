// RandomFill: a visitor for fields() that fills any message with random contents. For tests and fuzzers.
#pragma once

#include <random>

#include "proto/messages.h"

namespace headrace {

class RandomFill {
 public:
  explicit RandomFill(uint64_t seed) : random_(seed) {}
  void operator()(auto&... values) { (fill(values), ...); }
  void tail(auto&... values) { (fill(values), ...); }

  template <class T>
  void fill(T& value) {
    if constexpr (std::same_as<T, bool>) {
      value = (random_() & 1) != 0;
    } else if constexpr (std::is_enum_v<T>) {
      value = static_cast<T>(static_cast<std::underlying_type_t<T>>(random_()));
    } else if constexpr (std::is_integral_v<T>) {
      value = static_cast<T>(random_() >> (random_() % 64));
    } else if constexpr (codec_detail::IsId<T>::value) {
      value = T(static_cast<typename T::Rep>(random_()));
    } else if constexpr (std::same_as<T, Cut> || std::same_as<T, FileId> || std::same_as<T, ObjectId>) {
      value = T(random_());
    } else if constexpr (std::same_as<T, SegmentId>) {
      value = SegmentId(random_(), random_());
    } else if constexpr (std::same_as<T, std::string>) {
      value = text();
    } else if constexpr (std::same_as<T, Buffer>) {
      value = Buffer::copy_of(bytes_of(text()));
    } else {
      value.fields(*this);
    }
  }
  template <class T>
  void fill(std::vector<T>& values) {
    values.resize(random_() % 4);
    for (T& value : values) fill(value);
  }
  template <class T>
  void fill(std::optional<T>& value) {
    value.reset();
    if ((random_() & 1) != 0) fill(value.emplace());
  }
  template <class T, size_t N>
  void fill(std::array<T, N>& values) {
    for (T& value : values) fill(value);
  }
  template <class A, class B>
  void fill(std::pair<A, B>& pair) {
    fill(pair.first);
    fill(pair.second);
  }

 private:
  std::string text() {
    std::string out(random_() % 20, ' ');
    for (char& c : out) c = static_cast<char>(random_());
    return out;
  }
  std::mt19937_64 random_;
};

}  // namespace headrace
