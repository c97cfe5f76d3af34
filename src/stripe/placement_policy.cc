#include "stripe/placement_policy.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <set>
#include <string>

namespace headrace {
namespace {

constexpr uint8_t kMaxData = Protection::kMaxData;
constexpr uint8_t kMaxParity = Protection::kMaxParity;
constexpr size_t kSpares = 2;

struct Candidate {
  TargetId id;
  uint64_t weight = 0;              // free bytes
  std::vector<std::string> labels;  // path prefixes of its domain, highest level first
};

std::vector<std::string> prefixes(const std::string& domain) {
  std::vector<std::string> out;
  for (size_t at = domain.find('/'); at != std::string::npos; at = domain.find('/', at + 1))
    out.push_back(domain.substr(0, at));
  out.push_back(domain);
  return out;
}

// Sorted by id, so that the order of the map's members decides nothing.
std::vector<Candidate> candidates_in(const ClusterMap& map, const std::vector<TargetId>& avoid) {
  std::vector<Candidate> out;
  for (const TargetInfo& target : map.targets) {
    if (target.state != TargetState::kLive) continue;
    const NodeInfo* node = map.node(target.node);
    if (node != nullptr && !node->alive) continue;
    if (std::ranges::find(avoid, target.id) != avoid.end()) continue;
    uint64_t free = target.capacity > target.used ? target.capacity - target.used : 0;
    out.push_back({target.id, free, prefixes(target.domain)});
  }
  std::ranges::sort(out, {}, &Candidate::id);
  return out;
}

// An index into `from`, drawn by weight. Targets without free space only when nothing else is left.
size_t draw(const std::vector<const Candidate*>& from, Random& random) {
  uint64_t sum = 0;
  for (const Candidate* candidate : from) sum += candidate->weight >> 12;
  if (sum == 0) return random.below(from.size());
  uint64_t point = random.below(sum);
  for (size_t i = 0; i < from.size(); ++i) {
    uint64_t weight = from[i]->weight >> 12;
    if (point < weight) return i;
    point -= weight;
  }
  return from.size() - 1;
}

// Up to `width` of them, in drawn order. At each level of domains no domain gets more than its even
// share (which is one where there are enough of them); levels from the top are given up where that
// leaves too few. Domains are nested, so choosing one by one never ends early where a full choice
// exists.
std::vector<const Candidate*> spread(const std::vector<Candidate>& all, size_t width, Random& random) {
  size_t levels = 0;
  for (const Candidate& candidate : all) levels = std::max(levels, candidate.labels.size());
  std::vector<size_t> share(levels);
  for (size_t level = 0; level < levels; ++level) {
    std::set<std::string> distinct;
    for (const Candidate& candidate : all)
      distinct.insert(candidate.labels[std::min(level, candidate.labels.size() - 1)]);
    share[level] = divide_up(width, distinct.size());
  }
  std::vector<const Candidate*> chosen;
  for (size_t top = 0; top <= levels; ++top) {
    chosen.clear();
    std::vector<std::map<std::string, size_t>> taken(levels);
    std::vector<const Candidate*> left;
    for (const Candidate& candidate : all) left.push_back(&candidate);
    while (chosen.size() < width) {
      std::erase_if(left, [&](const Candidate* candidate) {
        for (size_t level = top; level < levels; ++level) {
          const std::string& label = candidate->labels[std::min(level, candidate->labels.size() - 1)];
          if (taken[level][label] >= share[level]) return true;
        }
        return false;
      });
      if (left.empty()) break;
      size_t i = draw(left, random);
      const Candidate* candidate = left[i];
      left.erase(left.begin() + static_cast<ptrdiff_t>(i));
      for (size_t level = top; level < levels; ++level)
        ++taken[level][candidate->labels[std::min(level, candidate->labels.size() - 1)]];
      chosen.push_back(candidate);
    }
    if (chosen.size() == width || chosen.size() == all.size()) break;
  }
  return chosen;
}

Error unknown(std::string_view text) {
  return Error(Code::kInvalid,
               "unknown protection class '" + std::string(text) +
                   "': use D+P with 2 to 16 data and 1 to 4 parity fragments (4+2, 8+2, 16+4), or replica-N "
                   "with 1 to 5 copies (replica-3)");
}

std::optional<uint32_t> number(std::string_view text) {
  uint32_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty() || text.size() > 3) return std::nullopt;
  return value;
}

}  // namespace

Result<Choice> choose_targets(const ClusterMap& map, Protection wanted, Random& random,
                              const std::vector<TargetId>& avoid) {
  HR_ASSERT(wanted.data > 0);
  std::vector<Candidate> all = candidates_in(map, avoid);
  if (all.size() < size_t{wanted.parity} + 1)
    return Error(Code::kUnavailable,
                 "protection " + to_string(wanted) + " needs at least " + std::to_string(wanted.parity + 1) +
                     " live targets and " + std::to_string(all.size()) +
                     " can be used: bring targets back or add some (`headrace target list` shows them)");
  Choice choice;
  choice.placement.protection.parity = wanted.parity;
  choice.placement.protection.data = static_cast<uint8_t>(std::min<size_t>(wanted.data, all.size() - wanted.parity));
  for (const Candidate* candidate : spread(all, choice.placement.protection.width(), random))
    choice.placement.targets.push_back(candidate->id);
  HR_ASSERT(choice.placement.targets.size() == choice.placement.protection.width());
  std::vector<const Candidate*> left;
  for (const Candidate& candidate : all)
    if (std::ranges::find(choice.placement.targets, candidate.id) == choice.placement.targets.end())
      left.push_back(&candidate);
  while (!left.empty() && choice.spares.size() < kSpares) {
    size_t i = draw(left, random);
    choice.spares.push_back(left[i]->id);
    left.erase(left.begin() + static_cast<ptrdiff_t>(i));
  }
  return choice;
}

Result<std::vector<TargetId>> choose_copies(const ClusterMap& map, uint8_t count, Random& random,
                                            const std::vector<TargetId>& avoid) {
  HR_ASSERT(count > 0);
  std::vector<Candidate> all = candidates_in(map, avoid);
  if (all.empty())
    return Error(Code::kUnavailable,
                 "no live target can be used: bring targets back or add some (`headrace target list` "
                 "shows them)");
  std::vector<TargetId> out;
  for (const Candidate* candidate : spread(all, std::min<size_t>(count, all.size()), random))
    out.push_back(candidate->id);
  return out;
}

Result<Protection> parse_protection(std::string_view text) {
  constexpr std::string_view kReplica = "replica-";
  if (text.starts_with(kReplica)) {
    auto copies = number(text.substr(kReplica.size()));
    if (!copies || *copies < 1 || *copies > kMaxParity + 1u) return unknown(text);
    return Protection{1, static_cast<uint8_t>(*copies - 1)};
  }
  size_t plus = text.find('+');
  if (plus == std::string_view::npos) return unknown(text);
  auto data = number(text.substr(0, plus));
  auto parity = number(text.substr(plus + 1));
  if (!data || !parity || *data < 1 || *data > kMaxData || *parity < 1 || *parity > kMaxParity) return unknown(text);
  return Protection{static_cast<uint8_t>(*data), static_cast<uint8_t>(*parity)};
}

std::string to_string(Protection protection) {
  if (protection.data == 1) return "replica-" + std::to_string(protection.width());
  return std::to_string(protection.data) + "+" + std::to_string(protection.parity);
}

}  // namespace headrace
