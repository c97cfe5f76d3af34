#include "sim/append_log.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

namespace headrace::sim {

namespace {

constexpr uint64_t kMagic = 0x7265'636f'7264'2121;
constexpr uint64_t kHeader = 16;  // magic, stamp

uint64_t size_of(Stamp stamp) {
  // Some are staged, some are segments, most are small.
  return kHeader + stamp * 7919 % (stamp % 16 == 0 ? 70'000 : 600);
}

void fill_record(Stamp stamp, ByteSpan into) {
  std::memcpy(into.data(), &kMagic, sizeof kMagic);
  std::memcpy(into.data() + sizeof kMagic, &stamp, sizeof stamp);
  fill_bytes(stamp, kHeader, into.subspan(kHeader));
}

}  // namespace

Buffer AppendLog::bytes_of(Stamp stamp) {
  Buffer bytes = Buffer::allocate(size_of(stamp));
  fill_record(stamp, bytes.span());
  return bytes;
}

AppendLog::Seen AppendLog::parse(const std::vector<Buffer>& whole) const {
  std::vector<std::byte> bytes;
  for (const Buffer& piece : whole) bytes.insert(bytes.end(), piece.data(), piece.data() + piece.size());
  Seen seen;
  std::vector<std::byte> expected;
  for (uint64_t at = 0; at < bytes.size();) {
    Stamp stamp = 0;
    if (bytes.size() - at >= kHeader && std::memcmp(&bytes[at], &kMagic, sizeof kMagic) == 0)
      std::memcpy(&stamp, &bytes[at + sizeof kMagic], sizeof stamp);
    const bool known = std::ranges::any_of(records_, [stamp](const DataOperation& r) { return r.stamp == stamp; });
    bool right = false;
    if (stamp != 0 && known && bytes.size() - at >= size_of(stamp)) {
      expected.resize(size_of(stamp));
      fill_record(stamp, expected);
      right = std::memcmp(&bytes[at], expected.data(), expected.size()) == 0;
    }
    if (right) {
      seen.stamps.push_back(stamp);
      at += size_of(stamp);
    } else {
      seen.torn = true;
      ++at;
    }
  }
  return seen;
}

std::string AppendLog::check(const std::vector<Buffer>& whole, uint64_t began, const Lenient& lenient) const {
  const Seen seen = parse(whole);
  std::map<Stamp, const DataOperation*> records;
  bool may_be_torn = torn_;
  for (const DataOperation& record : records_) {
    records[record.stamp] = &record;
    const bool sure = surely_kept(record, lenient);
    may_be_torn |= !sure;
    const auto times = std::ranges::count(seen.stamps, record.stamp);
    if (times > 1) return fmt::format("record {} of client {} is there {} times", record.stamp, record.client, times);
    if (times == 0 && sure && record.done != 0 && record.done < began)
      return fmt::format("record {} of client {} is missing among {}", record.stamp, record.client, seen.stamps.size());
  }
  if (seen.torn && !may_be_torn) return "there is something between the records, and no client was lost";
  const DataOperation* last_begun = nullptr;
  for (const Stamp stamp : seen.stamps) {
    const DataOperation* record = records[stamp];
    if (last_begun != nullptr && record->done != 0 && record->done < last_begun->begun)
      return fmt::format("record {} of client {} comes behind {} of client {}, which began after it was answered",
                         record->stamp, record->client, last_begun->stamp, last_begun->client);
    if (last_begun == nullptr || record->begun > last_begun->begun) last_begun = record;
  }
  return "";
}

void AppendLog::settle(const std::vector<Buffer>& whole) {
  const Seen seen = parse(whole);
  torn_ |= seen.torn;
  std::erase_if(records_, [&](const DataOperation& record) {
    return std::ranges::find(seen.stamps, record.stamp) == seen.stamps.end();
  });
  for (DataOperation& record : records_) record.state = DataOperation::kCertain;
}

}  // namespace headrace::sim
