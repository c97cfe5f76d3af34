// headrace: the command line: the table of commands. What they do is in apps/cli/.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "apps/bench.h"
#include "apps/cli/cli.h"

namespace headrace {
namespace {

CommandNames names_of(CLI::App& app) {
  CommandNames out{app.get_name(), app.get_description(), {}, {}};
  for (const CLI::Option* option : app.get_options())
    for (const std::string& name : option->get_lnames()) out.options.push_back("--" + name);
  for (CLI::App* child : app.get_subcommands([](CLI::App*) { return true; })) out.commands.push_back(names_of(*child));
  return out;
}

// What is wrong with the arguments, and where to read how it is right.
std::string bad_arguments(const CLI::App& app, int argc, char** argv, std::string why) {
  const CLI::App* at = &app;
  std::string path = "headrace";
  for (int i = 1; i < argc && argv[i][0] != '-' && at->get_require_subcommand_min() > 0; ++i) {
    const CLI::App* next = nullptr;
    std::string known;
    for (const CLI::App* child : at->get_subcommands([](const CLI::App*) { return true; })) {
      if (child->get_name() == argv[i]) next = child;
      known += (known.empty() ? "" : ", ") + child->get_name();
    }
    if (next == nullptr) return "there is no command `" + path + " " + argv[i] + "`; there are: " + known;
    at = next;
    path += std::string(" ") + argv[i];
  }
  while (why.ends_with('\n') || why.ends_with('.')) why.pop_back();
  return why + ": see `" + path + " --help`";
}

int run(int argc, char** argv) {
  CliOptions options;
  options.state = default_state();
  // 16 TiB: a target numbers its blocks in 32 bits.
  const CLI::Range kCapacity(uint64_t{2}, uint64_t{16} << 20, "MiB");
  CLI::App app{"headrace: one POSIX namespace over local NVMe and a bucket", "headrace"};
  app.require_subcommand(1);
  app.footer(
      "A first look:\n"
      "  headrace up --mount /mnt/headrace --detach     # six targets in 4+2 under /var/lib/headrace\n"
      "  cp -a ~/data /mnt/headrace/ && headrace status\n"
      "  headrace tier push /mnt/headrace --wait        # everything is in the bucket too\n"
      "  headrace spin-down                             # and now in the bucket alone\n"
      "  headrace rehydrate file:///var/lib/headrace.bucket --state /srv/h2 --mount /mnt/headrace --detach\n"
      "\n`headrace COMMAND --help` shows each command with an example.");
  auto state = [&](CLI::App* command) {
    command->add_option("--state", options.state, "directory of the node's state (or $HEADRACE_STATE)")
        ->capture_default_str();
  };
  auto add = [](CLI::App& to, const char* name, const char* about, const char* example) {
    CLI::App* command = to.add_subcommand(name, about);
    command->footer(std::string("Example:\n  ") + example);
    return command;
  };

  CLI::App* c_up =
      add(app, "up", "start a node on this machine (again, on an existing state), and mount it where --mount says",
          "headrace up --state /srv/headrace --targets 6 --protection 4+2 --bucket "
          "'s3://data/ns1?endpoint=http://10.0.0.5:9000' \\\n"
          "      --mount /mnt/headrace --detach\n\n"
          "Without arguments: a node of six targets in 4+2 under /var/lib/headrace (as root), its bucket in the "
          "directory beside it\n"
          "(/var/lib/headrace.bucket), not mounted. On an existing state the other options are known already.");
  state(c_up);
  c_up->add_option(
      "--targets", options.targets,
      "how many targets a new namespace gets (default 6), or where: directories and block devices, with commas");
  c_up->add_flag("--force", options.force, "overwrite devices of targets that hold something");
  c_up->add_option("--protection", options.protection, "of a new namespace: D+P or replica-N (default 4+2)");
  c_up->add_option("--capacity-mib", options.capacity_mib, "of each new target (default: from the free space)")
      ->check(kCapacity);
  c_up->add_option("--scrub-days", options.scrub_days, "in which all targets are read and verified once (default 7)")
      ->check(CLI::Range(0.01, 3650.0));
  c_up->add_option("--bucket", options.bucket,
                   "where everything is tiered to: file:///DIR, s3://BUCKET/PREFIX?endpoint=URL or "
                   "az://ACCOUNT/CONTAINER/PREFIX (default: STATE.bucket)");
  c_up->add_option("--mount", options.mount, "where to mount (default: nowhere; /mnt/headrace is customary)");
  c_up->add_flag("--detach", options.detach, "return when it serves");

  CLI::App* c_stop =
      add(app, "stop", "unmount, then stop the node; nothing is lost", "headrace stop --state /srv/headrace");
  state(c_stop);

  CLI::App* c_status = add(app, "status", "what the node says of itself",
                           "headrace status --json --state /srv/headrace | jq .degraded_reads");
  state(c_status);
  c_status->add_flag("--json", options.as_json, "all of it, for programs");

  CLI::App* c_mount = add(app, "mount", "one more mount of a running node",
                          "headrace mount /mnt/second --state /srv/headrace --detach\n"
                          "  headrace mount /mnt/second --state /srv/headrace --upgrade");
  c_mount->add_option("directory", options.mount, "where")->required();
  state(c_mount);
  c_mount->add_flag("--detach", options.detach, "return when it is mounted");
  c_mount->add_flag("--noatime", options.noatime,
                    "reading does not move access times (else: the first read after a change, and once a day)");
  c_mount->add_flag("--upgrade", options.upgrade,
                    "replace the process that serves the mount there by one of this version, and return; programs see "
                    "a pause: open files, locks and mappings stay");

  CLI::App* c_umount = add(app, "umount", "unmount", "headrace umount /mnt/second");
  c_umount->add_option("directory", options.mount, "where")->required();

  CLI::App* c_tier = app.add_subcommand("tier", "what is hot and what is in the bucket");
  c_tier->require_subcommand(1);
  CLI::App* c_push = add(*c_tier, "push", "bring everything into the bucket and publish it",
                         "headrace tier push /mnt/headrace --wait");
  c_push->add_option("path", options.path, "a path of the mount, to find the node by (the whole namespace is pushed)");
  bool wait = false;
  c_push->add_flag("--wait", wait, "return when it is done (it always does)");
  state(c_push);
  CLI::App* c_fetch = add(*c_tier, "fetch", "bring a file or directory from the bucket into the hot tier",
                          "headrace tier fetch /mnt/headrace/models");
  c_fetch->add_option("path", options.path, "a path of a mount; or, with --state, of the namespace")->required();
  c_fetch->add_flag("--json", options.as_json, "what was fetched, for programs");
  state(c_fetch);
  CLI::App* c_pin = add(*c_tier, "pin", "keep a file or directory hot, with all that comes to be in it",
                        "headrace tier pin /mnt/headrace/models --wait");
  c_pin->add_option("path", options.path, "a path of a mount; or, with --state, of the namespace")->required();
  c_pin->add_flag("--wait", options.wait, "return when it is hot");
  state(c_pin);
  CLI::App* c_release = add(*c_tier, "release", "end a pin", "headrace tier release /mnt/headrace/models");
  c_release->add_option("path", options.path, "as it was pinned")->required();
  state(c_release);
  CLI::App* c_pins = add(*c_tier, "pins", "what is pinned, and how much of it is hot", "headrace tier pins --json");
  c_pins->add_flag("--json", options.as_json, "for programs");
  state(c_pins);
  CLI::App* c_tier_status =
      add(*c_tier, "status", "bytes that are hot, cached, in the bucket, and on their way there",
          "headrace tier status --json --state /srv/headrace\n  headrace tier status /mnt/headrace/models");
  c_tier_status->add_option("path", options.path,
                            "of a file or directory: how much of it is where (default: everything)");
  c_tier_status->add_flag("--json", options.as_json, "for programs");
  state(c_tier_status);

  CLI::App* c_target = app.add_subcommand("target", "the devices (or files) that hold the hot tier");
  c_target->require_subcommand(1);
  CLI::App* c_target_list = add(*c_target, "list", "every target with its state, its use, and how far its rebuild is",
                                "headrace target list --state /srv/headrace");
  c_target_list->add_flag("--json", options.as_json, "for programs");
  state(c_target_list);
  CLI::App* c_replace =
      add(*c_target, "replace", "put a fresh target in the place of a lost one, and rebuild what it held",
          "headrace target replace t2 --state /srv/headrace");
  c_replace->add_option("target", options.target, "which, as `target list` names it")->required();
  c_replace->add_flag("--force", options.force, "overwrite the device although something else lies there");
  c_replace->add_flag("--detach", options.detach, "do not wait for the rebuild");
  state(c_replace);
  CLI::App* c_remove = add(*c_target, "remove",
                           "move what a target holds to the others, and let it go: then its directory may be deleted",
                           "headrace target remove t6 --state /srv/headrace && rm -r /srv/headrace/targets/t6\n\n"
                           "Interrupted, by a restart too, it goes on by itself; given again, it shows how far it is.");
  c_remove->add_option("target", options.target, "which, as `target list` names it")->required();
  c_remove->add_flag("--detach", options.detach, "do not wait until it is empty");
  state(c_remove);
  CLI::App* c_scrub = add(*c_target, "scrub", "read and verify all that is on the targets now; repairs what is bad",
                          "headrace target scrub t2 --state /srv/headrace");
  c_scrub->add_option("target", options.target, "which, as `target list` names it (default: all)");
  c_scrub->add_flag("--detach", options.detach, "do not wait for the end");
  state(c_scrub);

  CLI::App* c_spin_down = add(app, "spin-down", "everything into the bucket, then end mounts and node",
                              "headrace spin-down --state /srv/headrace && rm -r /srv/headrace");
  state(c_spin_down);
  c_spin_down->add_flag("--undo", options.undo, "after one that failed half-way: serve again");

  CLI::App* c_rehydrate = add(app, "rehydrate", "bring a namespace back from its bucket",
                              "headrace rehydrate 's3://data/ns1?endpoint=http://10.0.0.5:9000' --state /srv/h2 "
                              "--mount /mnt/headrace --detach");
  c_rehydrate->add_option("bucket", options.bucket, "its URL")->required();
  state(c_rehydrate);
  c_rehydrate->add_option("--mount", options.mount, "where to mount (default: nowhere)");
  c_rehydrate->add_option("--targets", options.targets,
                          "how many targets (default 6), or where: directories and block devices, with commas");
  c_rehydrate->add_flag("--force", options.force, "overwrite devices of --targets that hold something");
  c_rehydrate->add_option("--protection", options.protection, "of new data (default: as the bucket says)");
  c_rehydrate->add_option("--capacity-mib", options.capacity_mib, "of each target (default: from the free space)")
      ->check(kCapacity);
  c_rehydrate->add_flag("--take-over", options.take_over,
                        "although another cluster still owns it; that one turns read-only");
  c_rehydrate->add_flag("--detach", options.detach, "return when it serves");

  CLI::App* c_recover = add(
      app, "recover", "make a lost state directory anew from the targets: each keeps a copy of its records",
      "headrace recover --state /srv/headrace --targets /dev/nvme1n1,/dev/nvme2n1,/data/headrace-t2\n\n"
      "For where the state directory went with its disk, and the targets were on others. Nothing on them is changed; "
      "the next\n`headrace up` starts from them. Refused where another node runs on them.");
  state(c_recover);
  c_recover->add_option("--targets", options.targets, "the devices and directories that the cluster's targets are on")
      ->required();

  CLI::App* c_unpack = add(
      app, "unpack", "restore files from a bucket, with no cluster: its current manifest into a new or empty directory",
      "headrace unpack 's3://data/ns1?endpoint=http://10.0.0.5:9000' /srv/restored\n\n"
      "Reads only: an owner of the bucket goes on. A file that does not verify is named and left out, and the exit "
      "status is 1.");
  c_unpack->add_option("bucket", options.bucket, "its URL")->required();
  c_unpack->add_option("destination", options.destination, "a new or empty directory")->required();
  c_unpack->add_flag("--json", options.as_json, "what was restored, for programs");

  BenchOptions bench;
  CLI::App* c_bench = add(app, "bench", "measure this machine: a node and a mount of its own, for a few minutes",
                          "headrace bench --quick --json");
  c_bench->add_option("--directory", bench.directory, "on the device to be measured")->capture_default_str();
  c_bench->add_option("--state", bench.state, "measure the node that runs on this state, and its mount");
  c_bench->add_flag("--json", bench.as_json, "for programs");
  c_bench->add_flag("--quick", bench.quick, "each once, instead of the median of five");
  c_bench->add_flag("--full", bench.full, "re-hydrate a million files");
  c_bench->add_option("--only", bench.only, "names of results")->delimiter(',');

  CLI::App* c_completion =
      add(app, "completion", "print a shell's completion of these commands", "source <(headrace completion bash)");
  c_completion->add_option("shell", options.shell, "bash, zsh or fish")->required();

  CLI::App* c_version = app.add_subcommand("version", "print the version");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help
    return fail(bad_arguments(app, argc, argv, error.what()));
  }

  if (*c_up) return run_up(options);
  if (*c_rehydrate) {
    options.rehydrate = true;
    return run_up(options);
  }
  for (CLI::App* of_path : {c_push, c_fetch, c_pin, c_release, c_tier_status})
    if (*of_path && of_path->count("--state") == 0 && !options.path.empty())
      options.state = state_of_mount(options.path, options.state);
  if (*c_push) return run_push(options);
  if (*c_fetch) return run_fetch(options);
  if (*c_pin) return run_pin(options);
  if (*c_release) return run_release(options);
  if (*c_pins) return run_pins(options);
  if (*c_tier_status) return run_tier_status(options);
  if (*c_target_list) return run_target_list(options);
  if (*c_replace) return run_target_replace(options);
  if (*c_remove) return run_target_remove(options);
  if (*c_scrub) return run_target_scrub(options);
  if (*c_spin_down) return run_spin_down(options);
  if (*c_stop) return run_stop(options);
  if (*c_status) return run_status(options);
  if (*c_mount) return run_mount(options);
  if (*c_umount) return run_umount(options);
  if (*c_recover) return run_recover(options);
  if (*c_unpack) return run_unpack(options);
  if (*c_bench) return run_bench(bench);
  if (*c_completion) return run_completion(options.shell, names_of(app));
  if (*c_version) std::printf("headrace %s\n", HEADRACE_VERSION);
  return 0;
}

}  // namespace
}  // namespace headrace

int main(int argc, char** argv) {
  return headrace::run(argc, argv);
}
