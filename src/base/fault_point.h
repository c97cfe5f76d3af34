// Mutants: named ways to break our own code on purpose, so that the simulator can prove it would
// notice.
//
//     if (!mutant("skip_flush")) HR_CO_TRY(co_await file.flush());
//
// Without -DHEADRACE_MUTANTS mutant() is constant false and the branch disappears. With it
// (simulator builds only) it compares with the one name that select_mutant() chose. That name is
// the only process-wide switch that Headrace allows itself: it is set before anything runs, never
// while a world runs, and by test runners alone. The two variants live in different inline
// namespaces, so that objects built either way may be linked together.
#pragma once

#include <string>
#include <string_view>

namespace headrace {

#ifdef HEADRACE_MUTANTS
inline namespace mutants_compiled_in {

inline constexpr bool kMutantsCompiledIn = true;

namespace mutant_detail {
inline std::string& selected() {
  static std::string name;
  return name;
}
}  // namespace mutant_detail

// Empty: none. Not while a world runs.
inline void select_mutant(std::string_view name) {
  mutant_detail::selected() = name;
}
[[nodiscard]] inline bool mutant(std::string_view name) {
  return name == mutant_detail::selected();
}

}  // namespace mutants_compiled_in
#else
inline namespace mutants_compiled_out {

inline constexpr bool kMutantsCompiledIn = false;

inline void select_mutant(std::string_view) {}
[[nodiscard]] constexpr bool mutant(std::string_view) {
  return false;
}

}  // namespace mutants_compiled_out
#endif

}  // namespace headrace
