// Arena: names and files that all clients go for at the same time, nothing claimed, and a history of what each of them
// was told. It must be linearizable: there is one order of all operations, no operation before one that had been
// answered when it began, in which each answer is right (Herlihy and Wing, "Linearizability", TOPLAS 1990; the search
// is that of Wing and Gong, "Testing and Verifying Concurrent Objects", 1993, with visited states remembered).
//
// What was there when a history begins is not known: it follows from the first answers. An operation without an answer
// may have happened at any time since, or not at all. Where a client is lost, what it did may be undone: the history
// until then is judged, and the next one begins at the next calm.
// Owner: the workload. One thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace headrace::sim {

class Arena {
 public:
  static constexpr size_t kNames = 4;
  static constexpr size_t kRegisters = 2;
  using Value = uint64_t;
  static constexpr Value kAbsent = 0;
  static constexpr Value kUnknown = 1;
  static constexpr Value kSomething = 2;  // it is there, which one is not known
  static constexpr Value kEmpty = 3;      // a register that nobody has written to
  static constexpr Value kLeast = 16;     // of what names and registers hold

  enum class Kind : uint8_t { kMake, kUnlink, kLookup, kRename, kRenameNoReplace, kExchange, kWrite, kRead };
  enum class Answer : uint8_t { kNone, kOk, kNotFound, kExists };
  struct Operation {
    Kind kind = Kind::kLookup;
    int client = 0;
    size_t of = 0;    // a name, or a register
    size_t to = 0;    // renames
    Value value = 0;  // made, found, written or read
    Answer answer = Answer::kNone;
    uint64_t begun = 0;  // both by one counter
    uint64_t ended = 0;
    [[nodiscard]] std::string text() const;
  };

  // False: not now, since the history was cut off.
  [[nodiscard]] bool open() const { return !closed_ && history_.size() < kMost; }
  // The index of the operation. `value`: what is written.
  [[nodiscard]] size_t begin(Operation operation);
  // With what index and history() said at the time: of an earlier history it is ignored.
  void end(uint64_t history, size_t index, Answer answer, Value value);
  [[nodiscard]] uint64_t history() const { return number_; }

  // Ends the history. Empty: it is linearizable. Otherwise the operations, as far as they went together.
  [[nodiscard]] std::string judge();
  void close() { closed_ = true; }  // until begin_anew()
  void begin_anew() { closed_ = false; }
  [[nodiscard]] uint64_t judged() const { return judged_; }  // operations, of all histories

 private:
  static constexpr size_t kMost = 150;
  struct State {
    std::array<Value, kNames> names{};
    std::array<Value, kRegisters> registers{};
  };
  class Search;
  [[nodiscard]] static std::optional<State> after(State state, const Operation& operation);

  std::vector<Operation> history_;
  uint64_t number_ = 0;
  uint64_t clock_ = 0;
  uint64_t judged_ = 0;
  bool closed_ = false;
};

}  // namespace headrace::sim
