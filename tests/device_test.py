#!/usr/bin/env python3
"""Targets on block devices (loop devices here) and in directories of their own."""
import os
import shutil
import subprocess

from box import Skipped, check, check_equal, drop_caches, facts, main, shell, sync_tree, wait_until


def _loop(box, name, mib=192):
    """A loop device over a file of the box; detached when the box closes."""
    path = box.path(name)
    with open(path, "wb") as f:
        f.truncate(mib << 20)
    made = subprocess.run(["losetup", "-f", "--show", "--direct-io=on", path], capture_output=True, text=True)
    if made.returncode != 0:
        raise Skipped(f"no loop devices: {made.stderr.strip()}")
    device = made.stdout.strip()
    box.on_close(lambda: subprocess.run(["losetup", "-d", device], check=False))
    return device


def _beginning(device):
    drop_caches()
    with open(device, "rb") as f:
        return f.read(1 << 20)


def _fill(cluster):
    folder = os.path.join(cluster.mount_dir, "f")
    os.makedirs(folder)
    for i in range(20):
        with open(os.path.join(folder, str(i)), "wb") as f:
            f.write(os.urandom(150_000 * (1 + i % 5)))
    sync_tree(folder)
    return folder


def targets_on_block_devices_and_in_directories(box):
    devices = [_loop(box, f"disk{i}") for i in range(3)]
    folder = box.path("elsewhere")
    os.makedirs(folder)
    cluster = box.cluster(targets=",".join([*devices, folder]), protection="2+1", capacity_mib=128)
    cluster.up()
    inside = _fill(cluster)
    want = facts(inside)
    listed = {t["name"]: t for t in cluster.status()["targets"]}
    check(len(listed) == 4 and all(t["state"] == "live" for t in listed.values()), f"four live targets: {listed}")
    check(all(t["used"] > 0 for t in listed.values()), f"each is used: {listed}")
    for i, device in enumerate(devices):
        with open(device, "rb") as f:
            check(f.read(4) == b"HRS1", f"{device} begins with a superblock")
        check(not os.path.exists(os.path.join(cluster.state, "targets", f"t{i}", "target.dat")), "no file beside the device")
    check(os.path.getsize(os.path.join(folder, "headrace-t3", "target.dat")) > 0, "the fourth is in its directory")

    cluster.stop()
    wait_until(lambda: not cluster.node_pid(), 30, "the node ends")
    subprocess.run(["umount", "-l", cluster.mount_dir], check=False, stderr=subprocess.DEVNULL)
    cluster.up()
    drop_caches()
    check_equal(want, facts(inside), "after a restart")

    # One is overwritten: lost, and put in place again on the same device.
    with open(devices[1], "r+b") as f:
        f.write(b"\0" * (128 << 10))
        f.flush()
        os.fsync(f.fileno())
    wait_until(lambda: {t["name"]: t["state"] for t in cluster.status()["targets"]}.get("t1") == "lost", 60, "the node sees that t1 is lost")
    cluster.run("target", "replace", "t1", "--state", cluster.state)
    with open(devices[1], "rb") as f:
        check(f.read(4) == b"HRS1", "the fresh target is on the device again")
    drop_caches()
    check_equal(want, facts(inside), "after the replacement")


def bad_input_a_lost_state_directory_is_recovered_from_its_targets(box):
    devices = [_loop(box, f"disk{i}") for i in range(3)]
    folder = box.path("elsewhere")
    os.makedirs(folder)
    targets = ",".join([*devices, folder])
    cluster = box.cluster(targets=targets, protection="2+1", capacity_mib=128)
    cluster.up()
    want = facts(_fill(cluster))
    done = cluster.run("recover", "--state", box.path("new"), "--targets", targets, ok=False)
    check(done.returncode != 0 and "is in use" in done.stderr, f"while the node runs: {done.stderr!r}")
    # The disk of the state goes, in the middle of things: what fsync acknowledged is on the targets alone.
    cluster.kill_node()
    cluster.kill_mount()
    os.rename(cluster.state, box.path("gone"))

    def refused(words, state, named):
        done = cluster.run("recover", "--state", state, "--targets", named, ok=False)
        check(done.returncode != 0 and words in done.stderr, f"{named}: wanted {words!r}, got {done.stderr + done.stdout!r}")

    stranger = box.cluster("stranger", targets=1, protection="replica-1", capacity_mib=64)
    stranger.up(mount=False)
    theirs = os.path.join(stranger.state, "targets")
    refused("in use by another node", box.path("new"), f"{targets},{theirs}")
    refused("no target of Headrace there", box.path("new"), _loop(box, "empty", 64))
    refused("neither a directory nor a block device", box.path("new"), box.path("disk0"))
    refused("a node runs on", stranger.state, targets)
    stranger.stop()
    refused("of one cluster only", box.path("new"), f"{targets},{theirs}")
    refused("coord is there", stranger.state, targets)
    check(not os.path.exists(box.path("new")) or not os.listdir(box.path("new")), "nothing was made by what was refused")

    # With one target missing; then it is brought along.
    said = cluster.run("recover", "--state", cluster.state, "--targets", ",".join([devices[2], folder, devices[0]])).stdout
    check("missing: t1" in said and f"t0 at {devices[0]}" in said, f"what is there and what is not: {said}")
    os.rename(cluster.state, box.path("without-t1"))
    said = cluster.run("recover", "--state", cluster.state, "--targets", targets).stdout
    check("missing" not in said, said)
    cluster.up(create=False)
    drop_caches()
    check_equal(want, facts(os.path.join(cluster.mount_dir, "f")), "after the recovery")
    listed = {t["name"]: t["state"] for t in cluster.status()["targets"]}
    check(set(listed.values()) == {"live"} and len(listed) == 4, f"all live: {listed}")
    with open(os.path.join(cluster.mount_dir, "new"), "w") as f:
        f.write("x")
    cluster.push()
    # And once more with a target too few, which is rebuilt on another device.
    cluster.stop()
    wait_until(lambda: not cluster.node_pid(), 30, "the node ends")
    os.rename(cluster.state, box.path("gone-again"))
    cluster.run("recover", "--state", cluster.state, "--targets", ",".join([devices[0], devices[2], folder]))
    cluster.up(create=False)
    drop_caches()
    check_equal(want, facts(os.path.join(cluster.mount_dir, "f")), "with a target missing")


def bad_input_devices_that_somebody_needs(box):
    device = _loop(box, "disk", 64)
    other = _loop(box, "other", 64)

    def refused(words, targets, *more):
        cluster = box.cluster(f"s{len(os.listdir(box.root))}", targets=targets, protection="replica-1")
        done = cluster.run("up", "--state", cluster.state, "--detach", "--targets", targets, "--protection", "replica-1",
                           "--bucket", cluster.bucket, *more, ok=False)
        check(done.returncode != 0 and words in done.stderr + done.stdout, f"{targets}: wanted {words!r}, got {done.stderr + done.stdout!r}")

    shell(["mkfs.ext4", "-q", device])
    refused("holds an ext file system", device)
    folder = box.path("mnt")
    os.makedirs(folder)
    shell(["mount", device, folder])
    box.on_close(lambda: subprocess.run(["umount", "-l", folder], check=False, stderr=subprocess.DEVNULL))
    refused("is in use", device, "--force")
    shell(["umount", folder])
    refused("neither a directory nor a block device", box.path("disk"))
    refused("No such file", "/dev/no-such-device")
    refused("twice", f"{device},{device}")
    # Forced, it is ours; and then another cluster's.
    cluster = box.cluster("forced", targets=device, protection="replica-1")
    cluster.run("up", "--state", cluster.state, "--detach", "--targets", f"{device},{other}", "--protection", "replica-1", "--bucket", cluster.bucket, "--force")
    cluster.run("stop", "--state", cluster.state)
    wait_until(lambda: not cluster.node_pid(), 30, "the node ends")
    refused("target t1 of Headrace cluster", other)


def bad_input_a_device_whose_name_is_another_disks_now(box):
    devices = [_loop(box, f"disk{i}") for i in range(3)]
    other = _loop(box, "other")
    cluster = box.cluster(targets=",".join(devices), protection="2+1", capacity_mib=128)
    cluster.up()
    want = facts(_fill(cluster))
    cluster.spin_down()
    # The machine starts again, and t1's name is that of a data volume.
    shell(["mkfs.ext4", "-q", devices[1]])
    done = cluster.up(ok=False)
    check(done.returncode != 0 and f"{devices[1]} holds an ext file system, not target t1" in done.stderr, f"refused: {done.stderr!r}")
    check("--force" in done.stderr and "/targets/t1/device" in done.stderr, f"with the mend: {done.stderr!r}")
    shell(["fsck.ext4", "-n", "-f", devices[1]])
    with open(os.path.join(cluster.state, "targets", "t1", "device"), "w") as f:
        f.write(other + "\n")
    cluster.up()
    drop_caches()
    check_equal(want, facts(os.path.join(cluster.mount_dir, "f")), "resumed on the right device")
    # And without one whose disk is gone for good.
    cluster.spin_down()
    with open(os.path.join(cluster.state, "targets", "t1", "device"), "w") as f:
        f.write("/dev/no-such-device\n")
    said = cluster.up().stdout
    check("target t1 is lost: headrace target replace t1" in said, f"told: {said!r}")
    drop_caches()
    check_equal(want, facts(os.path.join(cluster.mount_dir, "f")), "resumed without t1")
    with open(os.path.join(cluster.state, "targets", "t1", "device"), "w") as f:
        f.write(other + "\n")
    cluster.run("target", "replace", "t1", "--state", cluster.state)
    # While it runs: what is not the target's is overwritten by the operator's word alone.
    made = _beginning(devices[1])
    with open(devices[2], "r+b") as f:  # mkfs finds that it is in use
        f.write(made)
        f.flush()
        os.fsync(f.fileno())
    wait_until(lambda: {t["name"]: t["state"] for t in cluster.status()["targets"]}.get("t2") == "lost", 60, "the node sees that t2 is lost")
    done = cluster.run("target", "replace", "t2", "--state", cluster.state, ok=False)
    check(done.returncode != 0 and f"{devices[2]} holds an ext file system, not target t2" in done.stderr, f"refused: {done.stderr!r}")
    check(made == _beginning(devices[2]), "nothing there was changed")
    cluster.run("target", "replace", "t2", "--force", "--state", cluster.state)
    drop_caches()
    check_equal(want, facts(os.path.join(cluster.mount_dir, "f")), "after the replacement")


def bad_input_two_nodes_on_the_same_targets(box):
    devices = [_loop(box, f"disk{i}") for i in range(2)]
    folder = box.path("elsewhere")
    os.makedirs(folder)
    cluster = box.cluster(targets=",".join([*devices, folder]), protection="2+1", capacity_mib=128)
    cluster.up()
    want = facts(_fill(cluster))
    copy = box.cluster("copy")

    def copied():
        shutil.rmtree(copy.state, ignore_errors=True)
        shutil.copytree(cluster.state, copy.state, symlinks=True, ignore=lambda d, names: [n for n in names if n in ("node.sock", "node.json", "mounts", "handover")])

    def refused(words, why):
        done = copy.up(mount=False, ok=False)
        check(done.returncode != 0 and words in done.stderr, f"{why}: wanted {words!r}, got {done.stderr!r}")

    copied()
    refused(f"target t0: {devices[0]} is in use", "a copy of the state directory")
    shutil.rmtree(os.path.join(copy.state, "targets", "t0"))
    shutil.rmtree(os.path.join(copy.state, "targets", "t1"))
    refused("targets/t2 is in use by another node", "a directory of both")
    # Killed, it lets go of them; and a mount of a device is found as well.
    cluster.kill_mount()
    cluster.kill_node()
    cluster.up()
    drop_caches()
    check_equal(want, facts(os.path.join(cluster.mount_dir, "f")), "nothing happened to it")
    mounted = subprocess.run(["mount", devices[1], box.path("elsewhere")], capture_output=True, text=True)
    check(mounted.returncode != 0, "a target's device is not mounted while the node runs")
    # What is put in place later is guarded too, and what is let go of is free.
    with open(devices[1], "r+b") as f:
        f.write(b"\0" * (128 << 10))
        f.flush()
        os.fsync(f.fileno())
    wait_until(lambda: {t["name"]: t["state"] for t in cluster.status()["targets"]}.get("t1") == "lost", 60, "the node sees that t1 is lost")
    other = _loop(box, "other")
    with open(os.path.join(cluster.state, "targets", "t1", "device"), "w") as f:
        f.write(other + "\n")
    cluster.run("target", "replace", "t1", "--state", cluster.state)
    shell(["mkfs.ext4", "-q", "-F", devices[1]])
    done = subprocess.run(["mkfs.ext4", "-q", "-F", other], capture_output=True, text=True)
    check(done.returncode != 0 and "in use" in done.stderr, f"mkfs on the new one: {done.stderr!r}")


if __name__ == "__main__":
    main()
