// Counters of one partition: high-water marks of ids and sums over its rows. One row, rewritten with every record, so
// that they are exact after replay.
#pragma once

#include "base/codec.h"
#include "base/ids.h"

namespace headrace {

struct CountersDelta {
  int64_t inodes = 0;
  int64_t bytes = 0;  // logical file bytes that extents hold
  int64_t segments = 0;
  int64_t hot_bytes = 0;     // of segments with a placement
  int64_t bucket_bytes = 0;  // of segments with an object
  int64_t objects = 0;
  int64_t object_bytes = 0;
  int64_t staged_bytes = 0;
  void fields(this auto& self, auto& v) {
    v(self.inodes, self.bytes, self.segments, self.hot_bytes, self.bucket_bytes, self.objects, self.object_bytes,
      self.staged_bytes);
  }
  void add(const CountersDelta& d) {
    inodes += d.inodes;
    bytes += d.bytes;
    segments += d.segments;
    hot_bytes += d.hot_bytes;
    bucket_bytes += d.bucket_bytes;
    objects += d.objects;
    object_bytes += d.object_bytes;
    staged_bytes += d.staged_bytes;
  }
};

struct Counters {
  static constexpr uint8_t kFormat = 1;
  uint64_t next_local = 2;    // of FileIds, over all slots of the partition; 1 is the root
  uint64_t segment_mark = 1;  // no segment sequence at or above it was ever given out
  uint64_t next_staged = 1;
  uint64_t next_transaction = 1;
  uint32_t next_object = 1;
  int64_t time = 0;  // hybrid clock: never goes back, ns
  Cut cut;           // highest journaled
  NamespaceEpoch namespace_epoch;
  bool closed = false;  // spun down: no mutation any more in this namespace epoch
  CountersDelta sums;
  void fields(this auto& self, auto& v) {
    v(self.next_local, self.segment_mark, self.next_staged, self.next_transaction, self.next_object, self.time,
      self.cut, self.namespace_epoch, self.closed, self.sums);
  }
};

}  // namespace headrace
