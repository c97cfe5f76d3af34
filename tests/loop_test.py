#!/usr/bin/env python3
"""The loop a user sees, over a directory bucket: ingest, lose two targets, tier, spin down, wipe,
re-hydrate elsewhere, take over. Small enough for every run; scripts/demo does it on real size."""
import errno
import json
import os
import shutil
import subprocess
import time

from box import (AzureServer, Failed, Skipped, check, check_equal, drop_caches, facts, make_odd_tree, main,
                 sync_tree, wait_until, shell)


def make_source(box, files=1500):
    source = box.path("source")
    make_odd_tree(os.path.join(source, "odd"))
    os.makedirs(os.path.join(source, "tree"))
    copied = 0
    # A piece of a real tree: names, sizes and times that nobody chose for a test.
    for directory, folders, names in os.walk("/usr/include"):
        folders.sort()
        target = os.path.join(source, "tree", os.path.relpath(directory, "/usr/include"))
        os.makedirs(target, exist_ok=True)
        for name in sorted(names):
            path = os.path.join(directory, name)
            if os.path.isfile(path) and not os.path.islink(path):
                shell(["cp", "-a", path, target]) if copied < 20 else _copy(path, target)
                copied += 1
        if copied >= files:
            break
    return source


def _copy(path, target):
    import shutil
    shutil.copy2(path, target)


def copy_in(source, cluster):
    target = os.path.join(cluster.mount_dir, "in")
    shell(["cp", "-a", source, target])
    sync_tree(target)
    return target


def loop_over_a_directory_bucket(box):
    source = make_source(box)
    want = facts(source)
    cluster = box.cluster()
    cluster.up()
    inside = copy_in(source, cluster)
    check_equal(want, facts(inside), "after cp")

    check(len(os.listdir(os.path.join(cluster.state, "targets"))) == 6, "six directories of targets")
    cluster.destroy_target(1)
    cluster.destroy_target(4, zeros=True)
    cluster.remount()
    check_equal(want, facts(inside), "with two of six targets lost")
    check(cluster.status()["degraded_reads"] > 0, "degraded_reads counts reads around lost targets")

    cluster.push()
    cluster.spin_down()
    cluster.wipe()

    other = box.cluster("other", bucket=cluster.bucket)
    other.rehydrate()
    inside = os.path.join(other.mount_dir, "in")
    check_equal(want, facts(inside), "after re-hydrate")
    objects = sum(len(fs) for _, _, fs in os.walk(box.path("s.bucket")))
    check(objects < len(want) / 20 + 50, f"small files are packed: {objects} objects, {len(want)} files")


def loop_over_azure(box):
    azure = AzureServer(box)
    source = make_source(box, files=150)
    want = facts(source)
    cluster = box.cluster(bucket=azure.url("ns"), environment=azure.environment)
    cluster.up()
    inside = copy_in(source, cluster)
    cluster.push()
    count, total = azure.objects()
    check(count > 1 and total > 4 << 20, f"what was pushed is in the container: {count} blobs, {total} bytes")
    azure.freeze(True)
    cluster.destroy_target(2)
    cluster.remount()
    check_equal(want, facts(inside), "hot data is served while the bucket does not answer")
    azure.freeze(False)
    cluster.spin_down()
    cluster.wipe()

    other = box.cluster("other", bucket=cluster.bucket, environment=azure.environment)
    other.rehydrate()
    inside = os.path.join(other.mount_dir, "in")
    check_equal(want, facts(inside), "after re-hydrate from Azure")
    for directory, _, files in os.walk(box.root):
        for name in files:
            if directory.endswith("/log") or name.endswith(".json"):
                with open(os.path.join(directory, name), "rb") as f:
                    check(azure.environment["AZURE_STORAGE_KEY"].encode() not in f.read(),
                          f"{directory}/{name} contains the account's key")


def bad_input_azure_key_of_another_account(box):
    azure = AzureServer(box)
    cluster = box.cluster(bucket=azure.url("ns"),
                          environment={"AZURE_STORAGE_KEY": "b3RoZXIta2V5LW90aGVyLWtleQ=="})
    refused = cluster.up(ok=False)
    said = refused.stderr + refused.stdout
    check(refused.returncode != 0 and "AZURE_STORAGE_KEY" in said, f"up names the key, not: {said!r}")
    check("b3RoZXIta2V5" not in said, "up does not repeat the key")


def new_files_after_rehydrate_survive_the_next_loop(box):
    cluster = box.cluster()
    cluster.up()
    os.makedirs(os.path.join(cluster.mount_dir, "a"))
    for generation in range(3):
        for i in range(50):
            with open(os.path.join(cluster.mount_dir, "a", f"{generation}-{i}"), "wb") as f:
                f.write(f"{generation} {i}\n".encode() * (i * 40))
        if generation > 0:  # also change what came from the bucket
            with open(os.path.join(cluster.mount_dir, "a", f"{generation - 1}-7"), "r+b") as f:
                f.seek(3)
                f.write(b"changed")
            os.unlink(os.path.join(cluster.mount_dir, "a", f"{generation - 1}-8"))
        want = facts(os.path.join(cluster.mount_dir, "a"))
        cluster.spin_down()
        cluster.wipe()
        cluster = box.cluster(f"s{generation}", bucket=cluster.bucket)
        cluster.rehydrate()
        check_equal(want, facts(os.path.join(cluster.mount_dir, "a")), f"generation {generation}")


def take_over_makes_the_first_read_only(box):
    first = box.cluster("first")
    first.up()
    with open(os.path.join(first.mount_dir, "f"), "wb") as f:
        f.write(b"before" * 1000)
    first.push()

    second = box.cluster("second", bucket=first.bucket)
    refused = second.rehydrate(ok=False)
    check(refused.returncode != 0 and "--take-over" in refused.stderr,
          f"rehydrate of an owned bucket is refused and names --take-over, not: {refused.stderr!r}")
    second.rehydrate("--take-over")
    with open(os.path.join(second.mount_dir, "f"), "rb") as f:
        check(f.read() == b"before" * 1000, "the second cluster has the content")
    winner = second.status()

    def write_refused():
        try:
            fd = os.open(os.path.join(first.mount_dir, "late"), os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                os.write(fd, b"late")
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno == errno.EROFS:
                return True
            raise Failed(f"a write on the deposed cluster: {errno.errorcode[error.errno]}, not EROFS")
        return False
    wait_until(write_refused, 20, "a write on the first cluster is EROFS", every_s=0.5)
    status = first.status()
    check(winner["cluster"] in status["owner"] or "second" in status["owner"],
          f"status of the first names the winner: owner is {status['owner']!r}")
    with open(os.path.join(second.mount_dir, "new"), "wb") as f:
        f.write(b"new")
        f.flush()
        os.fsync(f.fileno())


def up_on_a_state_that_was_spun_down_resumes(box):
    cluster = box.cluster()
    cluster.up()
    directory = os.path.join(cluster.mount_dir, "d")
    make_odd_tree(directory, files=60, big_mib=2, hole_mib=3)
    want = facts(directory)
    for generation in (2, 3):
        cluster.spin_down()
        cluster.up()
        check(cluster.status()["namespace_epoch"] == generation, "the next epoch")
        check_equal(want, facts(directory), f"after resuming, epoch {generation}")
        with open(os.path.join(directory, f"new{generation}"), "wb") as f:
            f.write(os.urandom(100_000))
        sync_tree(directory)
        want = facts(directory)
    # Resumed, it is a state like any other.
    cluster.kill_mount()
    cluster.kill_node()
    cluster.up()
    check_equal(want, facts(directory), "after a crash of the resumed node")
    # And when another cluster has the namespace, it says so and takes nothing.
    cluster.spin_down()
    other = box.cluster("other", bucket=cluster.bucket)
    other.rehydrate()
    refused = cluster.up(mount=False, ok=False)
    check(refused.returncode == 1 and "another cluster has the namespace" in refused.stderr and "--take-over" in refused.stderr,
          f"`up` says who has it: {refused.stderr!r}")
    check(other.status()["owned"], "the other keeps it")
    check_equal(want, facts(os.path.join(other.mount_dir, "d")), "on the other")


def unpack_restores_files_without_a_cluster(box):
    source = make_source(box, files=400)
    want = facts(source)
    cluster = box.cluster()
    cluster.up()
    copy_in(source, cluster)
    cluster.push()
    with open(os.path.join(cluster.mount_dir, "later"), "wb") as f:
        f.write(b"not published")
    # Read-only beside the owner, then from the bucket alone.
    done = cluster.run("unpack", cluster.bucket, box.path("beside"))
    check("in use" in done.stdout, f"unpack says that the bucket has an owner: {done.stdout!r}")
    check_equal(want, facts(box.path("beside", "in")), "unpacked beside the owner")
    check(cluster.status()["owned"], "the owner goes on")
    cluster.spin_down()
    cluster.wipe()
    summary = json.loads(cluster.run("unpack", cluster.bucket, box.path("alone"), "--json").stdout)
    check(summary["complete"] and summary["lost_count"] == 0, f"everything is there: {summary}")
    check_equal(want, facts(box.path("alone", "in")), "unpacked from a released bucket")
    with open(box.path("alone", "later"), "rb") as f:
        check(f.read() == b"not published", "what spin-down published last")
    again = cluster.run("unpack", cluster.bucket, box.path("alone"), ok=False)
    check(again.returncode == 1 and "not empty" in again.stderr, f"nothing is written over: {again.stderr!r}")
    check(not [n for n in os.listdir(box.root) if ".unpack-" in n], "no scratch directory stays")


def bad_input_unpack_names_files_in_a_damaged_object(box):
    cluster = box.cluster()
    cluster.up()
    for i in range(8):
        with open(os.path.join(cluster.mount_dir, f"f{i}"), "wb") as f:
            f.write(os.urandom(1 << 20))
    want = facts(cluster.mount_dir)
    cluster.push()
    cluster.spin_down()
    objects = [os.path.join(d, n) for d, _, names in os.walk(box.path("s.bucket", "d")) for n in names]
    with open(max(objects, key=os.path.getsize), "r+b") as f:
        f.seek(os.path.getsize(f.name) // 2)
        byte = f.read(1)
        f.seek(-1, os.SEEK_CUR)
        f.write(bytes([byte[0] ^ 0x10]))
    done = cluster.run("unpack", cluster.bucket, box.path("out"), ok=False)
    check(done.returncode == 1, "files were lost: exit status 1")
    lost = [line.split(": ")[1] for line in done.stderr.splitlines() if line.startswith("lost: ")]
    check(1 <= len(lost) <= 2, f"one byte is damaged, so one frame: {done.stderr}")
    have = facts(box.path("out"))
    for path in lost:
        name = os.path.relpath(path, box.path("out")).encode()
        check(want.pop(name, None), f"{path} is a file of ours")
        check(name not in have, f"{path} is left out")
    check_equal(want, have, "the others")


def a_removed_target_is_emptied_and_goes(box):
    cluster = box.cluster("s", targets=7, protection="4+2", capacity_mib=128)
    cluster.up()
    make_odd_tree(os.path.join(cluster.mount_dir, "d"), files=80, big_mib=8, hole_mib=5)
    sync_tree(cluster.mount_dir)
    before = facts(cluster.mount_dir)
    done = cluster.run("target", "remove", "t4", "--detach", "--state", cluster.state)
    check("takes nothing new" in done.stdout, f"{done.stdout!r}")
    states = {t["name"]: t["state"] for t in cluster.status()["targets"]}
    check(states["t4"] == "draining" and states["t0"] == "live", f"{states}")
    # In the middle of it, a restart; then it goes on by itself.
    cluster.umount()
    cluster.kill_node()
    cluster.up()
    done = cluster.run("target", "remove", "t4", "--state", cluster.state)
    check("target t4 is removed" in done.stdout and "may be deleted" in done.stdout, f"{done.stdout!r}")
    check("t4" not in [t["name"] for t in cluster.status()["targets"]], "it is out of the map")
    shutil.rmtree(os.path.join(cluster.state, "targets", "t4"))
    cluster.remount()
    degraded = cluster.status()["degraded_reads"]
    check_equal(before, facts(cluster.mount_dir), "without t4")
    check(cluster.status()["degraded_reads"] == degraded, "no read is degraded")
    # 4+2 needs the six that are left.
    done = cluster.run("target", "remove", "t0", "--state", cluster.state, ok=False)
    check(done.returncode == 1 and "4+2 needs 6 targets, and 5 live ones would be left" in done.stderr, f"{done.stderr!r}")
    # Two of them may be lost; and it stays away when all is formatted anew from the bucket.
    for number in (0, 4):
        cluster.destroy_target(number)
    cluster.remount()
    check_equal(before, facts(cluster.mount_dir), "with two more lost")
    cluster.spin_down()
    cluster.up()
    check_equal(before, facts(cluster.mount_dir), "from the bucket")
    check(sorted(t["name"] for t in cluster.status()["targets"]) == ["t0", "t1", "t2", "t3", "t5", "t6"], "the same targets as before")


if __name__ == "__main__":
    main()
