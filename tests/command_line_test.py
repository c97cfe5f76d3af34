#!/usr/bin/env python3
"""The command line as a person and a script meet it: completion in a real shell, --json, messages."""
import json
import os
import subprocess
import sys
import threading

from box import BIN, Skipped, check, main


def complete(words):
    """What bash offers for the last of `words`."""
    script = ("source <(headrace completion bash); COMP_WORDS=(%s); COMP_CWORD=%d; _headrace headrace '%s' '%s'; printf '%%s\\n' \"${COMPREPLY[@]}\""
              % (" ".join(f"'{w}'" for w in words), len(words) - 1, words[-1], words[-2]))
    environment = dict(os.environ, PATH=BIN + ":" + os.environ["PATH"])
    done = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, env=environment, timeout=30)
    check(done.returncode == 0, f"bash: {done.stderr}")
    return done.stdout.split()


def completion_works_in_a_real_bash(box):
    if subprocess.run(["bash", "-c", "true"], check=False).returncode != 0:
        raise Skipped("needs bash")
    commands = complete(["headrace", ""])
    for name in ("up", "tier", "unpack", "rehydrate", "spin-down", "target"):
        check(name in commands, f"{name} is offered: {commands}")
    check(complete(["headrace", "reh"]) == ["rehydrate"], "a prefix")
    tier = complete(["headrace", "tier", ""])
    for name in ("push", "fetch", "pin", "pins", "release", "status"):
        check(name in tier, f"tier {name} is offered: {tier}")
    check("--json" in complete(["headrace", "tier", "pins", "--"]), "options of a command in a group")
    check("4+2" in complete(["headrace", "up", "--protection", ""]), "values of an option")
    os.mkdir(box.path("some-directory"))
    offered = complete(["headrace", "up", "--state", box.path("some-")])
    check(offered == [box.path("some-directory")], f"directories: {offered}")


def up_names_what_it_made_and_reads_are_json(box):
    cluster = box.cluster()
    done = cluster.up()
    for part in ("namespace", "epoch 1", "targets 6", "protection 4+2", cluster.bucket, cluster.mount_dir):
        check(part in done.stdout, f"`up` names {part!r}: {done.stdout}")
    os.mkdir(os.path.join(cluster.mount_dir, "d"))
    for words in (["status"], ["tier", "status"], ["tier", "pins"], ["target", "list"]):
        json.loads(cluster.run(*words, "--json", "--state", cluster.state).stdout)
        check(cluster.run(*words, "--state", cluster.state).stdout.strip(), f"{words} has an answer for people")
    of = json.loads(cluster.run("tier", "status", os.path.join(cluster.mount_dir, "d"), "--json").stdout)
    check(of["path"] == "/d" and of["directories"] == 1, f"a path of the mount is found: {of}")


def bad_input_commands_without_a_node_name_the_mend(box):
    cluster = box.cluster()
    for words in (["status"], ["tier", "status"], ["tier", "pins"], ["target", "list"], ["spin-down"]):
        done = cluster.run(*words, "--state", box.path("nothing"), ok=False)
        check(done.returncode == 1 and "headrace up --state" in done.stderr, f"{words}: {done.stderr!r}")
    done = cluster.run("unpack", "file://" + box.path("nothing"), box.path("out"), ok=False)
    check(done.returncode == 1 and "holds no namespace" in done.stderr, f"unpack: {done.stderr!r}")
    done = cluster.run("unpack", "http://x", box.path("out"), ok=False)
    check(done.returncode == 1 and "s3://" in done.stderr, f"unpack of no bucket URL: {done.stderr!r}")


def stop_ends_a_node_that_has_not_said_yet_where_it_is(box):
    cluster = box.cluster()
    os.makedirs(cluster.state, exist_ok=True)
    hold = ("import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); "
            "print('held', flush=True); time.sleep(60)")
    starting = subprocess.Popen([sys.executable, "-c", hold, os.path.join(cluster.state, "lock")],
                                stdout=subprocess.PIPE, text=True)
    try:
        check(starting.stdout.readline() == "held\n", "it has the lock")
        waiter = threading.Thread(target=starting.wait)  # reaped: then it is gone
        waiter.start()
        done = cluster.run("stop", "--state", cluster.state)
        waiter.join(10)
        check(done.returncode == 0 and starting.poll() is not None, f"it ends: {done.stderr}")
    finally:
        if starting.poll() is None:
            starting.kill()
    check(cluster.run("stop", "--state", cluster.state).returncode == 0, "nothing to stop")


if __name__ == "__main__":
    main()
