#include "sim/arena.h"

#include <fmt/core.h>

#include <algorithm>
#include <unordered_set>
#include <utility>

namespace headrace::sim {

std::string Arena::Operation::text() const {
  static constexpr const char* kKinds[] = {"make",     "unlink", "lookup", "rename", "rename, not over another, of",
                                           "exchange", "write",  "read"};
  static constexpr const char* kAnswers[] = {"no answer", "ok", "not found", "exists"};
  return fmt::format("[{}, {}] client {}: {} {}{}: {}{}", begun, ended, client, kKinds[static_cast<size_t>(kind)], of,
                     kind == Kind::kRename || kind == Kind::kRenameNoReplace || kind == Kind::kExchange
                         ? fmt::format(" to {}", to)
                         : "",
                     kAnswers[static_cast<size_t>(answer)], value >= kLeast ? fmt::format(" {:x}", value) : "");
}

size_t Arena::begin(Operation operation) {
  operation.begun = ++clock_;
  history_.push_back(operation);
  return history_.size() - 1;
}

void Arena::end(uint64_t history, size_t index, Answer answer, Value value) {
  if (history != number_) return;
  Operation& operation = history_[index];
  operation.ended = ++clock_;
  operation.answer = answer;
  if (value != 0) operation.value = value;
}

// What is there behind an operation, where its answer can be right; without an answer: where it did what it was asked.
std::optional<Arena::State> Arena::after(State state, const Operation& o) {
  auto present = [](Value& value) {
    if (value == kUnknown) value = kSomething;
    return value != kAbsent;
  };
  auto absent = [](Value& value) {
    if (value == kUnknown) value = kAbsent;
    return value == kAbsent;
  };
  auto holds = [](Value& value, Value found) {
    if (value == kUnknown || value == kSomething) value = found;
    return value == found;
  };
  Value& of = state.names[o.of % kNames];
  Value& to = state.names[o.to % kNames];
  const bool done = o.answer == Answer::kOk || o.answer == Answer::kNone;
  switch (o.kind) {
    case Kind::kMake:
      if (!done) return present(of) ? std::optional(state) : std::nullopt;
      if (!absent(of)) return std::nullopt;
      of = o.answer == Answer::kOk ? o.value : kSomething;
      return state;
    case Kind::kUnlink:
      if (!done) return absent(of) ? std::optional(state) : std::nullopt;
      if (!present(of)) return std::nullopt;
      of = kAbsent;
      return state;
    case Kind::kLookup:
      if (o.answer == Answer::kNone) return state;
      if (!done) return absent(of) ? std::optional(state) : std::nullopt;
      return holds(of, o.value) ? std::optional(state) : std::nullopt;
    case Kind::kRename:
    case Kind::kRenameNoReplace:
      if (o.answer == Answer::kNotFound) return absent(of) ? std::optional(state) : std::nullopt;
      if (o.answer == Answer::kExists) return present(to) ? std::optional(state) : std::nullopt;
      if (!present(of)) return std::nullopt;
      if (o.kind == Kind::kRenameNoReplace && !absent(to)) return std::nullopt;
      to = std::exchange(of, kAbsent);
      return state;
    case Kind::kExchange:
      if (!done) {  // one of them is not there: both ways where neither is known
        if (of == kAbsent || to == kAbsent || of == kUnknown || to == kUnknown) return state;
        return std::nullopt;
      }
      if (!present(of) || !present(to)) return std::nullopt;
      std::swap(of, to);
      return state;
    case Kind::kWrite:
      state.registers[o.of] = o.value;
      return state;
    case Kind::kRead:
      if (o.answer == Answer::kNone) return state;
      return holds(state.registers[o.of], o.value) ? std::optional(state) : std::nullopt;
  }
  return std::nullopt;
}

class Arena::Search {
 public:
  explicit Search(const std::vector<Operation>& history) : history_(history), placed_(history.size(), 0) {
    for (const Operation& operation : history) answered_ += operation.answer == Answer::kNone ? 0 : 1;
  }
  // True: an order was found.
  bool run(const State& state, size_t placed_answered) {
    if (placed_answered == answered_) return true;
    if (placed_answered > most_) {
      most_ = placed_answered;
      furthest_ = placed_;
    }
    if (!seen_.insert(key(state)).second) return false;
    // What begins behind the end of one that is not placed yet cannot come before it.
    uint64_t first_end = ~uint64_t{0};
    for (size_t i = 0; i < history_.size(); ++i)
      if (placed_[i] == 0 && history_[i].answer != Answer::kNone) first_end = std::min(first_end, history_[i].ended);
    for (size_t i = 0; i < history_.size(); ++i) {
      const Operation& operation = history_[i];
      if (placed_[i] != 0 || operation.begun > first_end) continue;
      std::optional<State> next = after(state, operation);
      if (!next) continue;
      placed_[i] = 1;
      if (run(*next, placed_answered + (operation.answer == Answer::kNone ? 0 : 1))) return true;
      placed_[i] = 0;
    }
    return false;
  }
  [[nodiscard]] std::string told() const {
    std::string out = fmt::format("{} of {} operations go together; then none of these can be next:", most_, answered_);
    size_t lines = 0;
    for (size_t i = 0; i < history_.size() && lines < 12; ++i)
      if (furthest_.empty() || furthest_[i] == 0) {
        out += "\n      " + history_[i].text();
        ++lines;
      }
    std::vector<size_t> before;
    for (size_t i = 0; i < furthest_.size(); ++i)
      if (furthest_[i] != 0) before.push_back(i);
    out += "\n    before them:";
    for (size_t i = before.size() > 40 ? before.size() - 40 : 0; i < before.size(); ++i)
      out += "\n      " + history_[before[i]].text();
    return out;
  }

 private:
  [[nodiscard]] std::string key(const State& state) const {
    std::string out(placed_.begin(), placed_.end());
    out.append(reinterpret_cast<const char*>(&state), sizeof state);
    return out;
  }
  const std::vector<Operation>& history_;
  std::vector<char> placed_;
  std::vector<char> furthest_;
  std::unordered_set<std::string> seen_;
  size_t answered_ = 0;
  size_t most_ = 0;
};

std::string Arena::judge() {
  State state;
  state.names.fill(kUnknown);
  state.registers.fill(kUnknown);
  std::vector<Operation> history = std::exchange(history_, {});
  ++number_;
  std::erase_if(history, [](const Operation& o) {
    return o.answer == Answer::kNone && (o.kind == Kind::kLookup || o.kind == Kind::kRead);
  });
  Search search(history);
  if (!search.run(state, 0)) return search.told();
  judged_ += history.size();
  return {};
}

}  // namespace headrace::sim
