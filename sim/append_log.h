// AppendLog: what a file must hold that several clients append records to.
//
// A record says who it is, so that the file can be read from its bytes alone. Each that is sure to be there is there
// once and whole; none is there twice; and one that was answered before another began comes before that. Between them
// is something else only where a client was lost with what it had not synced.
// Owner: the model's inode. One thread.
#pragma once

#include <string>
#include <vector>

#include "base/bytes.h"
#include "sim/model.h"

namespace headrace::sim {

class AppendLog {
 public:
  // Its bytes, for one write.
  [[nodiscard]] static Buffer bytes_of(Stamp stamp);

  // kWrite each; of its fields `stamp`, `client`, `state` and the times say something.
  [[nodiscard]] DataOperations& operations() { return records_; }
  // Of a read of the whole file that began then. Empty: fine. Otherwise what is wrong.
  [[nodiscard]] std::string check(const std::vector<Buffer>& whole, uint64_t began, const Lenient& lenient) const;
  // From a quiet moment on, this is what it holds: what check() accepted.
  void settle(const std::vector<Buffer>& whole);

 private:
  struct Seen {
    std::vector<Stamp> stamps;  // in the order of the file
    bool torn = false;          // there is something between them, or behind them
  };
  [[nodiscard]] Seen parse(const std::vector<Buffer>& whole) const;

  DataOperations records_;
  bool torn_ = false;  // by clients that were lost before the last quiet moment
};

}  // namespace headrace::sim
