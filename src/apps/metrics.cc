// The node's figures as Prometheus families, sampled when asked: nothing is kept here.
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <sstream>

#include "apps/node_status.h"

namespace headrace {

namespace {

using Labels = std::vector<prometheus::ClientMetric::Label>;

class Families {
 public:
  void counter(const char* name, const char* help, double value, Labels labels = {}) {
    metric(name, help, prometheus::MetricType::Counter, std::move(labels)).counter.value = value;
  }
  void gauge(const char* name, const char* help, double value, Labels labels = {}) {
    metric(name, help, prometheus::MetricType::Gauge, std::move(labels)).gauge.value = value;
  }
  [[nodiscard]] std::string text() const {
    std::ostringstream out;
    prometheus::TextSerializer().Serialize(out, families_);
    return out.str();
  }

 private:
  prometheus::ClientMetric& metric(const char* name, const char* help, prometheus::MetricType type, Labels labels) {
    for (prometheus::MetricFamily& family : families_)
      if (family.name == name) return add(family, std::move(labels));
    families_.push_back({name, help, type, {}});
    return add(families_.back(), std::move(labels));
  }
  static prometheus::ClientMetric& add(prometheus::MetricFamily& family, Labels labels) {
    family.metric.emplace_back();
    family.metric.back().label = std::move(labels);
    return family.metric.back();
  }
  std::vector<prometheus::MetricFamily> families_;
};

double number(uint64_t value) {
  return static_cast<double>(value);
}

void add_partitions(Families& out, Node& node) {
  for (const auto& [id, partition] : node.partitions().all()) {
    PartitionStatusReply s = partition->status();
    Labels of{{"partition", std::to_string(id.value())}};
    out.gauge("headrace_files", "Inodes alive.", number(s.inodes), of);
    out.gauge("headrace_file_bytes", "Bytes of files, holes not counted.", number(s.bytes), of);
    out.gauge("headrace_hot_bytes", "Bytes of segments with a placement in the hot tier, parity not counted.",
              number(s.hot_bytes), of);
    out.gauge("headrace_bucket_bytes", "Bytes of objects with segments, in the bucket.", number(s.bucket_bytes), of);
    out.gauge("headrace_objects", "Objects with segments, in the bucket.", number(s.objects), of);
    out.gauge("headrace_staged_bytes", "Bytes that wait in metadata rows to be packed into segments.",
              number(s.staged_bytes), of);
    out.gauge("headrace_sessions", "Client sessions.", number(s.sessions), of);
    out.gauge("headrace_grants", "Grants that clients hold.", number(s.grants), of);
    out.counter("headrace_operations_total", "Operations that the partition answered since the node started.",
                number(s.operations), of);
    out.gauge("headrace_journal_position", "Position of the newest journal record.", number(s.last.value()), of);
    out.gauge("headrace_checkpoint_position", "Journal position that the newest protected checkpoint contains.",
              number(s.checkpoint_at.value()), of);
    out.gauge("headrace_partition_epoch", "Leadership epoch; grows with each new leader.", number(s.epoch.value()), of);
    out.gauge("headrace_partition_serving", "1 while the partition serves.", s.serving ? 1 : 0, of);
    out.gauge("headrace_partition_protected", "1 while journal and checkpoint are in all their copies.",
              partition->journal().fully_copied() && partition->checkpoint_whole() ? 1 : 0, of);
  }
}

void add_targets(Families& out, Node& node) {
  std::map<TargetId, TargetStatusReply> statuses;
  for (auto& [id, status] : node.targets().statuses()) statuses[id] = status;
  for (const TargetInfo& info : node.map().targets) {
    Labels of{{"target", "t" + std::to_string(info.number)}, {"id", to_string(info.id)}};
    const TargetStatusReply& s = statuses[info.id];
    out.gauge("headrace_target_state", "0 live, 1 lost, 2 retired.", static_cast<double>(info.state), of);
    out.gauge("headrace_target_capacity_bytes", "Data space of the target.", number(info.capacity), of);
    out.gauge("headrace_target_used_bytes", "Bytes of fragments and journals on the target.", number(s.used), of);
    out.gauge("headrace_target_fragments", "Fragments on the target.", number(s.fragments), of);
    out.counter("headrace_target_corrupt_blocks_total", "Blocks that did not verify, since the target was opened.",
                number(s.corrupt_blocks), of);
    if (std::shared_ptr<Target> target = node.targets().find(info.id)) {
      const TargetCounters& c = target->counters();
      out.counter("headrace_target_fragment_reads_total", "Fragment reads.", number(c.fragment_reads), of);
      out.counter("headrace_target_fragment_writes_total", "Fragment writes.", number(c.fragment_writes), of);
      out.counter("headrace_target_journal_appends_total", "Journal batches appended.", number(c.journal_appends), of);
      out.counter("headrace_target_commits_total", "Flushes that acknowledged something.", number(c.commits), of);
      out.counter("headrace_target_committed_total", "Operations in those flushes.", number(c.committed), of);
    }
    if (info.state == TargetState::kLive) continue;
    RebuildProgress p = node.keeper().rebuild_of(info.id).progress;
    out.gauge("headrace_rebuild_segments", "Segments with a fragment on the lost target when the pass began.",
              number(p.segments_total), of);
    out.gauge("headrace_rebuild_segments_done", "Of these, rebuilt by this pass.", number(p.segments_done), of);
    out.gauge("headrace_rebuild_bytes_per_second", "Rate of fragments made.", p.bytes_per_s, of);
    out.gauge("headrace_rebuild_eta_seconds", "Until the pass ends; 0: not known.", p.eta_s, of);
  }
}

void add_tier(Families& out, Node& node) {
  TierStatus t = node.tier().status();
  out.gauge("headrace_owner", "1 while this cluster owns the bucket and takes changes.",
            node.why_read_only().empty() ? 1 : 0);
  out.gauge("headrace_manifest_published_seconds", "When the current manifest was published, Unix time.",
            number(t.published_s));
  out.counter("headrace_manifests_total", "Manifests published.", number(t.publish.manifests));
  out.counter("headrace_upload_objects_total", "Objects put.", number(t.upload.objects));
  out.counter("headrace_upload_segments_total", "Segments uploaded.", number(t.upload.segments));
  out.counter("headrace_upload_bytes_total", "Bytes of segments uploaded, before compression.", number(t.upload.bytes));
  out.counter("headrace_upload_stored_bytes_total", "Bytes put into the bucket for them.",
              number(t.upload.stored_bytes));
  out.gauge("headrace_upload_failed_segments", "Segments that the last pass could not upload.",
            number(t.upload.failed));
  out.counter("headrace_publish_bytes_total", "Bytes of store files copied into the bucket.",
              number(t.publish.bytes_copied));
  out.counter("headrace_objects_deleted_total", "Dead objects deleted from the bucket.",
              number(t.publish.objects_deleted));
  out.counter("headrace_evicted_segments_total", "Segments whose hot copy was dropped.", number(t.evict.segments));
  out.counter("headrace_evicted_bytes_total", "Bytes of fragments freed by it.", number(t.evict.bytes));
  out.gauge("headrace_evict_short", "1 while over the high watermark with nothing left to drop.",
            t.evict.short_of ? 1 : 0);
  out.counter("headrace_cold_reads_total", "Reads of segments that are in the bucket only.", number(t.cold.reads));
  out.counter("headrace_cold_read_bytes_total", "Bytes answered to them.", number(t.cold.bytes));
  out.counter("headrace_cold_gets_total", "Ranged GETs for them.", number(t.cold.gets));
  out.counter("headrace_cold_got_bytes_total", "Bytes got from the bucket for them.", number(t.cold.got_bytes));
  out.counter("headrace_cold_piece_hits_total", "Pieces found in the cache.", number(t.cold.piece_hits));
  out.counter("headrace_cold_piece_misses_total", "Pieces that were not.", number(t.cold.piece_misses));
  out.counter("headrace_cold_corrupt_total", "Frames and indexes from the bucket that did not verify.",
              number(t.cold.corrupt));
  out.gauge("headrace_cache_bytes", "Bytes of cache entries in this node's memory.", number(node.cache_bytes()));
}

}  // namespace

std::string metrics_text(Node& node) {
  Families out;
  Report reported = node.reported();
  out.counter("headrace_degraded_reads_total", "Reads that needed parity or another copy; clients' included.",
              number(reported.degraded_reads));
  out.counter("headrace_read_bytes_total", "Bytes of segments read from the hot tier; clients' included.",
              number(reported.bytes_read));
  out.counter("headrace_written_bytes_total", "Bytes of segments written; clients' included.",
              number(reported.bytes_written));
  add_partitions(out, node);
  add_targets(out, node);
  add_tier(out, node);
  KeeperCounters k = node.keeper().counters();
  out.counter("headrace_targets_lost_total", "Targets lost while the node ran.", number(k.targets_lost));
  out.counter("headrace_targets_rescued_total",
              "Targets that got their fragments back by a scan, their log or table being lost.", number(k.rescued));
  out.counter("headrace_fragments_repaired_total", "Damaged fragments made again in place.", number(k.repaired));
  out.counter("headrace_fragment_repairs_failed_total", "Repairs that failed; the next read tries again.",
              number(k.repair_failed));
  out.gauge("headrace_damage_waiting", "Damaged fragments reported and not looked at yet.", number(k.damage_waiting));
  out.counter("headrace_segments_rebuilt_total", "Segments of lost targets that are whole again.",
              number(k.segments_rebuilt));
  out.counter("headrace_rebuilt_bytes_total", "Bytes of fragments made for them.", number(k.bytes_rebuilt));
  out.counter("headrace_orphans_freed_total", "Fragments freed that nobody claimed.", number(k.orphans_freed));
  ScrubStatus s = node.keeper().scrubber().status();
  out.gauge("headrace_scrub_running", "1 while a target is scrubbed.", s.running ? 1 : 0);
  out.gauge("headrace_scrub_last_pass_timestamp_seconds",
            "When the last whole pass over all targets ended, Unix time; 0: never.", number(s.ended_s));
  out.counter("headrace_scrub_fragments_total", "Fragments that scrub looked at.", number(s.ever.fragments));
  out.counter("headrace_scrub_bytes_total", "Bytes that scrub read.", number(s.ever.bytes));
  out.counter("headrace_scrub_stripes_total", "Stripes whose parity scrub recomputed.", number(s.ever.stripes));
  out.counter("headrace_scrub_damaged_total", "Fragments that did not verify when scrub read them.",
              number(s.ever.damaged));
  out.counter("headrace_scrub_missing_total", "Fragments that scrub missed where their home says that they are.",
              number(s.ever.missing));
  out.counter("headrace_scrub_parity_wrong_total", "Stripes whose parity did not fit their data.",
              number(s.ever.parity_wrong));
  const Node::Times& times = node.start_times();
  out.gauge("headrace_start_targets_seconds", "Time to open the targets at the last start.", times.targets);
  out.gauge("headrace_start_partitions_seconds", "Time to recover the partitions at the last start.", times.partitions);
  out.gauge("headrace_start_bucket_seconds",
            "Time until the bucket confirmed the owner at the last start, or was given up for the moment.",
            times.bucket);
  return out.text();
}

}  // namespace headrace
