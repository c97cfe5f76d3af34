// Counting: holds one unit of a count for as long as it lives, as a frame or an object does.
#pragma once

#include <cstddef>

namespace headrace {

class Counting {
 public:
  // The count outlives it.
  explicit Counting(size_t& count) : count_(count) { ++count_; }
  Counting(const Counting&) = delete;
  Counting& operator=(const Counting&) = delete;
  ~Counting() { --count_; }

 private:
  size_t& count_;
};

}  // namespace headrace
