#include "meta/ops/two_phase.h"

#include <algorithm>
#include <map>
#include <memory>

#include "base/fault_point.h"
#include "meta/ops/steps.h"
#include "runtime/when_all.h"

namespace headrace {

namespace {

constexpr size_t kManyTransactions = 10'000;

Key decision_key(Partition& partition, const TransactionId& id) {
  return transaction_key(partition.first_slot(), Table::kDecision, id);
}
Key prepared_key(Partition& partition, const TransactionId& id) {
  return transaction_key(partition.first_slot(), Table::kPrepared, id);
}

// The rename lock, here at the root's partition, from a transaction's commit until all its participants have heard: the
// next rename of a directory must see the parents that it sets. One for all decisions that a new leader tells again.
class RenameHold {
 public:
  RenameHold(Partition& partition, TransactionId by) : partition_(partition), by_(by) {
    partition.lock(rename_lock_key(partition.first_slot()), by);
  }
  RenameHold(const RenameHold&) = delete;
  RenameHold& operator=(const RenameHold&) = delete;
  ~RenameHold() {
    if (Scheduler::present()) partition_.unlock(by_);
  }

 private:
  Partition& partition_;
  TransactionId by_;
};
using RenameHoldRef = std::shared_ptr<RenameHold>;  // null: it changes no parent

struct EraseDecision {
  using Reply = Empty;
  Key key;
  Task<Result<Empty>> run(Transaction& txn) {
    txn.erase(key);
    co_return Empty{};
  }
};

// Tells every participant, for as long as it takes while this partition leads; the decision row goes last.
Task<void> tell(Partition& partition, TransactionId id, std::vector<PartitionId> participants, bool commit,
                Position durable_at, RenameHoldRef hold) {
  if (commit) {
    Result<void> durable = co_await partition.wait_durable(durable_at);
    if (!durable.ok()) co_return;  // the next leader finds the decision row, or not
  }
  for (PartitionId participant : participants) {
    while (partition.serving()) {
      CallOptions options;
      options.timeout = seconds(5);
      Result<Empty> done = co_await partition.context().partitions.call(participant, Finish{id, commit}, options);
      if (done.ok()) break;
      if (!commit) break;  // it asks for the decision itself
      bool slept = co_await partition.scope().token().sleep(partition.context().env.clock, milliseconds(200));
      if (!slept) co_return;
    }
  }
  if (!commit) co_return;
  hold.reset();
  // A participant may have finished behind a cut that this partition has not entered: that cut has what it prepared,
  // and so must it have the decision.
  partition.observe(partition.context().hub.identity().cut);
  while (partition.serving()) {
    Result<Empty> erased = co_await partition.change(EraseDecision{decision_key(partition, id)});
    if (erased.ok()) co_return;
    // Changes may have to wait, for the bucket's word on who owns it. (The next leader tells them again, which is
    // harmless.)
    bool slept = co_await partition.scope().token().sleep(partition.context().env.clock, milliseconds(500));
    if (!slept) co_return;
  }
}

// What earlier leaders decided and nobody may have heard of. False: to be tried again.
Task<bool> tell_decided(Partition& partition) {
  Key from = KeyBuilder(partition.first_slot(), Table::kDecision).take();
  Result<std::vector<std::pair<Key, RowValue>>> decisions =
      co_await partition.store().scan(from, prefix_end(from), kManyTransactions);
  if (!decisions.ok()) co_return false;
  RenameHoldRef hold;  // recovery took it already, unless somebody has it who came after
  const TransactionId oldest = decisions->empty() ? TransactionId() : transaction_of(decisions->front().first);
  if (partition.locked_by(rename_lock_key(partition.first_slot()), oldest))
    hold = std::make_shared<RenameHold>(partition, oldest);
  for (auto& [key, value] : *decisions) {
    Result<DecisionRow> row = decode_durable<DecisionRow>(value);
    if (!row.ok()) continue;
    partition.scope().spawn(tell(partition, transaction_of(key), row->participants, true, Position(), hold));
  }
  co_return true;
}

struct PrepareOp {
  using Reply = StepsReply;
  Partition& partition;
  Prepare request;
  Task<Result<StepsReply>> run(Transaction& txn) {
    HR_CO_TRY(std::optional<PreparedRow> already,
              co_await txn.row<PreparedRow>(prepared_key(partition, request.transaction)));
    if (already) co_return decode<StepsReply>(already->reply);
    StepsReply reply;
    Attributes made;
    for (const Step& step : request.steps) {
      if (!partition.owns(step.slot)) co_return Error(Code::kNotLeader, "not a slot of this partition");
      HR_CO_TRY(Attributes attributes, co_await apply_step(txn, step, made));
      if (attributes.id) made = attributes;
      reply.attributes.push_back(std::move(attributes));
    }
    PreparedRow row = txn.take_prepared();
    row.reply = encode(reply);
    std::erase(row.locks, prepared_key(partition, request.transaction));  // Finish must be able to read it
    std::vector<Key> locks = row.locks;
    txn.put_row(prepared_key(partition, request.transaction), row);
    txn.on_commit([&p = partition, id = request.transaction, locks = std::move(locks)] {
      if (mutant("prepared_not_locked")) return;
      for (const Key& key : locks) p.lock(key, id);
    });
    co_return reply;
  }
};

struct FinishOp {
  using Reply = Empty;
  Partition& partition;
  Finish request;
  Task<Result<Empty>> run(Transaction& txn) {
    Key key = prepared_key(partition, request.transaction);
    HR_CO_TRY(std::optional<PreparedRow> row, co_await txn.row<PreparedRow>(key));
    if (!row) co_return Empty{};  // finished already
    txn.finishes(request.transaction);
    if (request.commit) {
      for (RowChange& change : row->changes) {
        if (change.value)
          txn.put(std::move(change.key), std::move(*change.value));
        else
          txn.erase(std::move(change.key));
      }
      txn.counters.add(row->counters);
    }
    txn.erase(std::move(key));
    txn.on_commit([&p = partition, id = request.transaction] {
      p.unlock(id);
      p.reap_soon();
    });
    co_return Empty{};
  }
};

struct DecisionOp {
  using Reply = DecisionReply;
  Partition& partition;
  Decision request;
  Task<Result<DecisionReply>> run(Transaction& txn) {
    if (partition.deciding().contains(request.transaction)) co_return DecisionReply{false, false};
    HR_CO_TRY(std::optional<DecisionRow> row,
              co_await txn.row<DecisionRow>(decision_key(partition, request.transaction)));
    co_return DecisionReply{true, row.has_value()};
  }
};

}  // namespace

Task<Result<std::vector<Attributes>>> run_steps(Transaction& txn, std::vector<Step> steps) {
  Partition& partition = txn.partition();
  std::vector<Attributes> results(steps.size());
  std::map<PartitionId, std::vector<size_t>> remote;
  for (size_t i = 0; i < steps.size(); ++i) {
    if (partition.owns(steps[i].slot)) continue;
    const PartitionInfo* owner = partition.context().view.map().partition_of(steps[i].slot);
    if (owner == nullptr)
      co_return Error(Code::kUnavailable, "no partition has slot " + std::to_string(steps[i].slot.value()));
    remote[owner->id].push_back(i);
  }
  if (!remote.empty()) {
    TransactionId id = partition.new_transaction();
    std::vector<PartitionId> participants;
    for (const auto& [participant, indexes] : remote) participants.push_back(participant);
    // A directory's new parent must be seen by whoever holds the rename lock next: it is given back behind all else
    // that the transaction changes. Its keeper is told last, or is this partition.
    bool keeps_rename_lock = false;
    for (const Step& step : steps) {
      if (step.kind != StepKind::kLockRename) continue;
      keeps_rename_lock = partition.owns(step.slot);
      const PartitionInfo* owner = partition.context().view.map().partition_of(step.slot);
      auto keeper = std::ranges::find(participants, owner == nullptr ? PartitionId() : owner->id);
      if (!keeps_rename_lock && keeper != participants.end()) std::rotate(keeper, keeper + 1, participants.end());
    }
    // While nothing is prepared yet it may wait.
    if (keeps_rename_lock) co_await partition.wait_unlocked(rename_lock_key(partition.first_slot()));
    partition.deciding().insert(id);
    txn.must_not_wait();
    txn.on_abandon([&partition, id, participants] {
      partition.deciding().erase(id);
      partition.scope().spawn(tell(partition, id, participants, false, Position(), nullptr));
    });
    for (const auto& [participant, indexes] : remote) {
      Prepare request;
      request.transaction = id;
      for (size_t i : indexes) request.steps.push_back(steps[i]);
      CallOptions options;
      options.timeout = seconds(10);
      Result<StepsReply> reply = co_await partition.context().partitions.call(participant, std::move(request), options);
      if (!reply.ok()) {
        // Whatever became of the prepare, this transaction will abort; a lost answer is no answer to the client.
        if (reply.error().retry() != Retry::kFinal) co_return Error(Code::kBusy, reply.error().message());
        co_return std::move(reply).error();
      }
      if (reply->attributes.size() != indexes.size())
        co_return Error(Code::kCorrupt, "prepare answered for other steps");
      for (size_t k = 0; k < indexes.size(); ++k) results[indexes[k]] = reply->attributes[k];
    }
    // A participant may be in a later cut than this partition has heard of: so must the decision be.
    partition.observe(partition.context().hub.identity().cut);
    if (!mutant("decision_not_journaled")) txn.put_row(decision_key(partition, id), DecisionRow{participants});
    txn.on_commit([&partition, id, participants, keeps_rename_lock] {
      partition.deciding().erase(id);
      RenameHoldRef hold = keeps_rename_lock ? std::make_shared<RenameHold>(partition, id) : nullptr;
      // The record that commit() queues next is the newest one.
      partition.scope().spawn(tell(partition, id, participants, true, partition.next_position(), std::move(hold)));
    });
  }
  Attributes made;
  for (const Attributes& attributes : results)
    if (attributes.id) made = attributes;
  for (size_t i = 0; i < steps.size(); ++i) {
    if (!partition.owns(steps[i].slot)) continue;
    HR_CO_TRY(Attributes attributes, co_await apply_step(txn, steps[i], made));
    if (attributes.id) made = attributes;
    results[i] = std::move(attributes);
  }
  co_return results;
}

Task<Result<StepsReply>> prepare(Partition& partition, Prepare request) {
  for (;;) {
    HR_CO_TRY(partition.may_mutate());
    Transaction txn(partition, SessionId(), true);
    PrepareOp op{partition, request};
    Result<StepsReply> reply = co_await op.run(txn);
    if (!reply.ok() && partition.outdated(txn)) continue;
    if (!reply.ok()) co_return reply;
    Position at;
    if (!partition.commit(txn, at)) {
      co_await partition.before_again(txn);
      continue;
    }
    HR_CO_TRY(co_await partition.wait_durable(std::max(at, txn.seen())));
    co_return reply;
  }
}

Task<Result<Empty>> finish(Partition& partition, Finish request) {
  return partition.change(FinishOp{partition, std::move(request)});
}

Task<Result<DecisionReply>> decision(Partition& partition, Decision request) {
  return partition.read(DecisionOp{partition, std::move(request)});
}

Task<void> resolve_loop(Partition& partition) {
  Env env = partition.context().env;
  std::map<TransactionId, Nanos> seen;  // prepared here since
  bool first = true;
  bool told = false;
  for (;;) {
    if (!first && !co_await partition.scope().token().sleep(env.clock, seconds(1))) co_return;
    first = false;
    if (!partition.serving()) co_return;
    if (!told) told = co_await tell_decided(partition);
    std::set<TransactionId> held = partition.prepared_transactions();
    std::erase_if(seen, [&](const auto& item) { return !held.contains(item.first); });
    for (const TransactionId& id : held) {
      auto [it, fresh] = seen.emplace(id, env.clock.now());
      if (fresh || env.clock.now() - it->second < seconds(2)) continue;
      CallOptions options;
      options.timeout = seconds(5);
      Result<DecisionReply> answer =
          co_await partition.context().partitions.call(id.coordinator, Decision{id}, options);
      // A commit is told by the coordinator, in an order that matters.
      if (!answer.ok() || !answer->known || answer->commit) continue;
      Result<Empty> done = co_await finish(partition, Finish{id, answer->commit});
      (void)done.ok();  // tried again in the next round
    }
  }
}

}  // namespace headrace
