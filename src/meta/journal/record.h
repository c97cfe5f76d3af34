// A journal record (fixed, format 1): row changes, not operations, so that replay does not depend on the code.
// On the wire and on targets: length u32 | crc32c u32 (seeded with partition, epoch, position) | body.
// docs/formats/journal.md.
#pragma once

#include <vector>

#include "base/bytes.h"
#include "meta/store/store.h"

namespace headrace {

struct JournalRecord {
  static constexpr uint8_t kFormat = 1;
  PartitionId partition;
  PartitionEpoch epoch;
  Position position;
  Position acknowledged;  // highest known durable on all copies when it was written
  Cut cut;                // highest journaled, this record's included
  bool is_cut = false;    // this record begins the cut `cut`: it and what was before belong to it
  std::vector<RowChange> changes;
  void fields(this auto& self, auto& v) {
    v(self.partition, self.epoch, self.position, self.acknowledged, self.cut, self.is_cut, self.changes);
  }
};

void append_record(const JournalRecord& record, std::string& out);
// All records of one batch. kCorrupt when any byte is off.
// DECODER: journal_records
[[nodiscard]] Result<std::vector<JournalRecord>> decode_records(ByteView bytes, PartitionId partition);

}  // namespace headrace
