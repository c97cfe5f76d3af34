// Every mutant that our sources hold (base/fault_point.h), with what is broken in it. `headrace-sim --all-mutants` runs
// them.
#pragma once

namespace headrace::sim {

struct Mutant {
  const char* name;
  const char* what;
};

inline constexpr Mutant kMutants[] = {
    // hot
    {"skip_flush", "a target acknowledges before its device is flushed"},
    {"flip_unflushed", "a superblock names a table that was not flushed"},
    {"chunk_not_logged", "journal space is used and its log record is forgotten"},
    {"sweep_claimed", "orphans are swept whoever claims them"},
    // meta: journal, checkpoints, cuts
    {"ack_one_copy_less", "a record is acknowledged with one copy less"},
    {"reply_before_durable", "replies do not wait for the journal"},
    {"trim_early", "the journal is trimmed beyond what the checkpoint holds"},
    {"skip_recopy", "a closed run short of copies is not copied again"},
    {"ignore_cut", "a partition acts on a message before it journals the message's higher cut"},
    {"reissue_id", "segment ids are given out beyond the journaled mark"},
    {"ignore_conflict", "an operation commits although a row that it read has changed"},
    // meta: sessions, grants, transactions
    {"forget_result", "a mutation's result is not journaled with it"},
    {"session_not_journaled", "a new leader knows nothing of who held grants"},
    {"claims_not_awaited", "a new leader gives grants before clients have claimed theirs"},
    {"recall_not_awaited", "a grant counts as recalled before its client answered"},
    {"decision_not_journaled", "a transaction over partitions forgets its decision"},
    {"prepared_not_locked", "rows of a prepared transaction are not locked"},
    {"lock_beside_lock", "a lock is granted whoever else has one"},
    {"remove_open_file", "an unlinked file goes although it is open"},
    // meta: extents, segments, names
    {"split_off_by_one", "the tail of a split extent begins one byte early"},
    {"truncate_keeps_extents", "a truncation leaves the extents behind the end"},
    {"repoint_newer_bytes", "the packer moves pieces that were overwritten since"},
    {"copy_uncharged", "a copy by reference does not count as one"},
    {"dead_with_a_referrer", "a segment dies with its last but one referrer"},
    {"drop_staged_early", "staged bytes go with the first piece that leaves them"},
    {"reap_despite_cut", "a dead segment goes although a cut in the making holds it"},
    {"drop_without_object", "eviction drops what is in no object"},
    {"collect_live_objects", "objects with live segments are collected"},
    {"reuse_cookie", "two entries of a directory get one cookie"},
    {"keep_cookie_of_removed", "a removed entry stays in the listing"},
    // tier
    {"drop_unverified", "objects are taken as written without being read back"},
    {"publish_before_upload", "a manifest is published before its segments are in the bucket"},
    {"omit_locations", "a manifest lacks the locations that changed since its cut"},
    {"collect_named_keys", "keys that the manifest names are collected"},
    {"keep_stray_objects", "objects that nobody recorded stay in the bucket"},
    {"keep_epoch", "a new owner goes on in the epoch of the one before"},
    {"ignore_other_owner", "an owner goes on although head names another"},
    // client
    {"size_of_unwritten", "a commit names the size with bytes that are not written yet"},
    {"failed_not_put_back", "bytes of a failed flush are forgotten"},
    {"sync_before_commit", "fsync returns before the commit"},
    {"sync_before_changes", "fsync returns before the names that it makes durable were sent"},
    {"commit_out_of_turn", "commits of one file overtake each other"},
    {"swallow_lost", "an evicted client's fsync says success"},
    {"unlock_given_up", "an unlocking that failed is not asked for again"},
    {"append_at_committed_end", "an append goes where the partition knows the file to end"},
    {"rename_looks_twice", "two names that showed one file, one after the other, are taken for links"},
    {"stale_extent_cache", "a client reads by the extents from before its own commit"},
    {"keep_cache_after_recall", "what was known under a grant is still used after it"},
};

}  // namespace headrace::sim
