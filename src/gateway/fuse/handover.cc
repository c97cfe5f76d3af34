#include "gateway/fuse/handover.h"

#include <unordered_set>

namespace headrace {

namespace {

// Each part in a string of its own, so that each can grow.
struct Record {
  static constexpr uint8_t kFormat = MountHandover::kFormat;
  std::string directory;
  uint64_t dirty_limit = 0;
  uint64_t read_cache = 0;
  bool access_times = true;
  std::string client;
  std::string session;
  void fields(this auto& self, auto& v) {
    v(self.directory, self.dirty_limit, self.read_cache, self.access_times, self.client, self.session);
  }
};

Error damaged(const char* what) {
  return Error(Code::kCorrupt, std::string("the handed-over mount is damaged: ") + what);
}

}  // namespace

std::string encode_mount_handover(const MountHandover& handover) {
  return encode_durable(Record{.directory = handover.directory,
                               .dirty_limit = handover.dirty_limit,
                               .read_cache = handover.read_cache,
                               .access_times = handover.access_times,
                               .client = encode(handover.client),
                               .session = encode(handover.session)});
}

Result<MountHandover> decode_mount_handover(std::string_view bytes) {
  HR_TRY(Record record, decode_durable<Record>(bytes));
  MountHandover out;
  out.directory = std::move(record.directory);
  out.dirty_limit = record.dirty_limit;
  out.read_cache = record.read_cache;
  out.access_times = record.access_times;
  HR_TRY(out.client, decode<ClientHandover>(record.client));
  HR_TRY(out.session, decode<FuseHandover>(record.session));
  if (!out.directory.starts_with('/')) return damaged("where it is mounted");
  std::unordered_set<uint64_t> seen;
  for (const FuseHandover::Open& open : out.session.open)
    if (open.handle == 0 || open.handle >= out.session.next_handle || !seen.insert(open.handle).second)
      return damaged("an open file");
  seen.clear();
  for (const FuseHandover::Node& node : out.session.nodes)
    if (!node.id || node.lookups == 0 || !seen.insert(node.id.packed()).second) return damaged("a node");
  seen.clear();
  for (const FuseHandover::Waiter& waiter : out.session.waiters)
    if (!seen.insert(waiter.unique).second) return damaged("a waiting lock");
  seen.clear();
  for (const ClientHandover::Session& session : out.client.sessions)
    if (!session.id || session.next_sequence == 0 || !seen.insert(session.partition.value()).second)
      return damaged("a session");
  return out;
}

}  // namespace headrace
