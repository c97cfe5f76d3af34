// recover: a state directory out of the targets alone.
#include <cstdio>

#include "apps/cli/cli.h"
#include "apps/devices.h"
#include "apps/recover.h"
#include "runtime/uring/reactor.h"

namespace headrace {

namespace {

Task<void> recover_to(Reactor* reactor, RecoverOptions options, Result<Recovered>* out) {
  *out = co_await recover_state(reactor->env(), std::move(options));
}

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : ", ") + word;
  return out;
}

}  // namespace

int run_recover(const CliOptions& options) {
  Result<TargetPlaces> places = parse_target_places(options.targets);
  if (!places.ok()) return fail(places.error());
  if (places->paths.empty())
    return fail("--targets: which? Name the devices or directories that the cluster's targets are on, with commas");
  const std::string state = absolute_path(options.state);
  if (read_node_file(state).ok()) return fail("a node runs on " + state + " already");
  Result<std::unique_ptr<Reactor>> reactor = Reactor::create();
  if (!reactor.ok()) return fail(reactor.error());
  Result<Recovered> done = Error(Code::kIo, "not run");
  (*reactor)->run(recover_to(reactor->get(), {.state = state, .paths = places->paths}, &done));
  if (!done.ok()) return fail(done.error());
  std::printf("%s is there again: cluster %s, as %s had it (revision %llu)\n", state.c_str(),
              hex(done->cluster.value()).c_str(), done->from.c_str(), static_cast<unsigned long long>(done->revision));
  std::printf("targets: %s\n", joined(done->placed).c_str());
  if (!done->missing.empty())
    std::printf(
        "missing: %s. Recover again with them into an empty --state, or go on without: what they held is rebuilt "
        "if no more are missing than the protection bears\n",
        joined(done->missing).c_str());
  for (const std::string& ignored : done->ignored) std::printf("ignored: %s\n", ignored.c_str());
  std::printf("Start it with `headrace up --state %s`.\n", state.c_str());
  return 0;
}

}  // namespace headrace
