// The judge of histories: what it must let pass, and what it must not.
#include "sim/arena.h"

#include <gtest/gtest.h>

namespace headrace::sim {
namespace {

using Kind = Arena::Kind;
using Answer = Arena::Answer;

constexpr Arena::Value kA = 100, kB = 101;

struct History {
  Arena arena;
  size_t begin(Kind kind, size_t of, size_t to = 0, Arena::Value value = 0) {
    Arena::Operation operation;
    operation.kind = kind;
    operation.of = of;
    operation.to = to;
    operation.value = value;
    return arena.begin(operation);
  }
  void end(size_t index, Answer answer, Arena::Value value = 0) { arena.end(arena.history(), index, answer, value); }
  void one(Kind kind, size_t of, Answer answer, Arena::Value value = 0) { end(begin(kind, of), answer, value); }
  void two(Kind kind, size_t of, size_t to, Answer answer) { end(begin(kind, of, to), answer); }
  bool right() { return arena.judge().empty(); }
};

TEST(Arena, WhatWasThereBeforeFollowsFromTheAnswers) {
  History h;
  h.one(Kind::kLookup, 0, Answer::kOk, kA);
  h.two(Kind::kRename, 0, 1, Answer::kOk);
  h.one(Kind::kLookup, 1, Answer::kOk, kA);
  h.one(Kind::kLookup, 0, Answer::kNotFound);
  h.one(Kind::kMake, 1, Answer::kExists);
  EXPECT_TRUE(h.right());

  h.one(Kind::kLookup, 0, Answer::kOk, kA);
  h.one(Kind::kLookup, 0, Answer::kOk, kB);
  EXPECT_FALSE(h.right()) << "another file under the same name, and nobody changed it";
}

TEST(Arena, WhatWasAnsweredIsThereForWhoeverBeginsLater) {
  History h;
  h.one(Kind::kMake, 0, Answer::kOk, kA);
  h.one(Kind::kLookup, 0, Answer::kNotFound);
  EXPECT_FALSE(h.right());

  h.one(Kind::kWrite, 0, Answer::kOk, kA);
  h.one(Kind::kWrite, 0, Answer::kOk, kB);
  h.one(Kind::kRead, 0, Answer::kOk, kA);
  EXPECT_FALSE(h.right()) << "an old value";
}

TEST(Arena, WhatIsUnderWayMayBeSeenOrNotButNotBackAndForth) {
  for (const bool forth : {false, true}) {
    History h;
    h.one(Kind::kWrite, 0, Answer::kOk, kA);
    const size_t write = h.begin(Kind::kWrite, 0, 0, kB);
    h.one(Kind::kRead, 0, Answer::kOk, forth ? kB : kA);
    h.one(Kind::kRead, 0, Answer::kOk, forth ? kA : kB);
    h.end(write, Answer::kOk, kB);
    EXPECT_EQ(h.right(), !forth);
  }
}

TEST(Arena, WhatHasNoAnswerMayHaveHappenedOrNotOnce) {
  for (const bool seen : {false, true}) {
    History h;
    h.one(Kind::kMake, 0, Answer::kOk, kA);
    (void)h.begin(Kind::kUnlink, 0);
    h.one(Kind::kLookup, 0, Answer::kOk, kA);
    if (seen) h.one(Kind::kLookup, 0, Answer::kNotFound);
    EXPECT_TRUE(h.right());
  }
  History h;
  h.one(Kind::kMake, 0, Answer::kOk, kA);
  (void)h.begin(Kind::kUnlink, 0);
  h.one(Kind::kLookup, 0, Answer::kNotFound);
  h.one(Kind::kLookup, 0, Answer::kOk, kA);
  EXPECT_FALSE(h.right());
}

// As a client once answered: both names had shown the same file, one after the other.
TEST(Arena, AnExchangeThatWasAnsweredHasHappened) {
  History h;
  h.one(Kind::kMake, 2, Answer::kOk, kA);
  h.one(Kind::kMake, 3, Answer::kOk, kB);
  const size_t rename = h.begin(Kind::kRename, 3, 2);
  h.two(Kind::kExchange, 3, 2, Answer::kOk);
  h.end(rename, Answer::kOk);
  h.one(Kind::kLookup, 2, Answer::kOk, kB);
  EXPECT_FALSE(h.right());
}

TEST(Arena, AnAnswerThatComesBehindTheEndOfItsHistoryIsForgotten) {
  History h;
  const size_t late = h.begin(Kind::kMake, 0);
  const uint64_t history = h.arena.history();
  EXPECT_TRUE(h.right());
  h.one(Kind::kLookup, 0, Answer::kNotFound);
  h.arena.end(history, late, Answer::kOk, kA);
  EXPECT_TRUE(h.right());
}

}  // namespace
}  // namespace headrace::sim
