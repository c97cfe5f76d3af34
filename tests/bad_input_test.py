#!/usr/bin/env python3
"""Bad input, as a user meets it: what is wrong, flipped, cut off, full, dead, lying or killed. Each test asserts the message,
the mend that the message names, and that nothing acknowledged was lost: what was logged outside after fsync(file) and
fsync(directory) is there with equal bytes once the mend is done."""
import errno
import hashlib
import json
import mmap
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import bad_bucket
from box import (BIN, Failed, S3Server, Skipped, alive, check, check_equal, drop_caches, facts, is_mounted, main,
                 shell, wait_until)

BLOCK = 4096
NO_SECRETS = ("secret", "Traceback", "terminate called", "AddressSanitizer", "Aborted")


# --- what the tests share

def small(box, name="s", **options):
    """A cluster that starts quickly: three targets in 2+1."""
    options = {"targets": 3, "protection": "2+1", "capacity_mib": 64, **options}
    cluster = box.cluster(name, **options)
    cluster.up()
    return cluster


def headrace(*arguments, timeout_s=120, environment=None):
    return subprocess.run([os.path.join(BIN, "headrace"), *map(str, arguments)], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=timeout_s, env=environment)


def check_refused(done, *texts, status=1):
    """Exit 1, and a message that names all of `texts`: cause and mend. No stack trace, no secret."""
    check(done.returncode == status, f"exit {done.returncode}, not {status}: {done.stderr!r} {done.stdout!r}")
    check(done.stderr.startswith("headrace: "), f"the message begins like ours: {done.stderr!r}")
    for text in texts:
        check(text in done.stderr, f"the message names {text!r}: {done.stderr!r}")
    for text in NO_SECRETS:
        check(text not in done.stderr + done.stdout, f"{text!r} in {done.stderr!r}")


def write_synced(path, data):
    """Written, and acknowledged: file and directory are synced."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view):]
        os.fsync(fd)
    finally:
        os.close(fd)
    sync_directory(os.path.dirname(path))


def sync_directory(path):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fill(cluster, files=24, name="d", seed=1):
    """Files of many sizes, each acknowledged; {name: bytes}."""
    folder = os.path.join(cluster.mount_dir, name)
    os.makedirs(folder, exist_ok=True)
    sync_directory(cluster.mount_dir)
    random.seed(seed)
    log = {}
    for i in range(files):
        size = (0, 10, 700, 5000, 66_000, 300_000, 2_000_000)[i % 7] + i
        log[f"{name}/f{i}"] = data = random.randbytes(size)
        write_synced(os.path.join(cluster.mount_dir, f"{name}/f{i}"), data)
    return log


def check_log(cluster, log, when, directory=None):
    """The oracle: everything logged is there, with equal bytes."""
    for name, data in log.items():
        path = os.path.join(directory or cluster.mount_dir, name)
        try:
            with open(path, "rb") as f:
                got = f.read()
        except OSError as error:
            raise Failed(f"{when}: {name}: {error}")
        check(got == data, f"{when}: {name} has other bytes ({len(got)} of {len(data)})")


def check_from_bucket(box, cluster, log, capacity_mib=64):
    """Spun down, and started elsewhere: everything logged is in the bucket."""
    cluster.spin_down()
    other = box.cluster("other", bucket=cluster.bucket, environment=cluster.environment, capacity_mib=capacity_mib, targets=3)
    other.rehydrate()
    check_log(other, log, "from the bucket alone")


def read_directly(path):
    """Its bytes, or its errno: asked for in a few large pieces, since each waits a minute for what is gone to come back."""
    buffer = mmap.mmap(-1, 4 << 20)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
        try:
            return buffer[:os.preadv(fd, [buffer], 0)]
        finally:
            os.close(fd)
    except OSError as error:
        return error.errno


def again(cluster, mount=True):
    """Stopped and started: nothing cached anywhere."""
    cluster.stop()
    drop_caches()
    return cluster.up(mount=mount)


def events(cluster, name):
    """Those of this name in the node's log."""
    path = os.path.join(cluster.state, "log", "headraced.jsonl")
    with open(path) as f:
        return [e for e in map(json.loads, f) if e["event"] == name]


def target(cluster, name):
    listed = json.loads(cluster.run("target", "list", "--json", "--state", cluster.state).stdout)["targets"]
    return next(t for t in listed if t["name"] == name and t["state"] != "retired")


def make_crc32c_table():
    table = []
    for i in range(256):
        for _ in range(8):
            i = (i >> 1) ^ (0x82F63B78 if i & 1 else 0)
        table.append(i)
    return table


CRC_TABLE = make_crc32c_table()


def crc32c(data, crc=0):
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


class TargetFile:
    """The bytes of STATE/targets/tN/target.dat, as docs/formats/target.md has them."""

    def __init__(self, cluster, number):
        self.path = os.path.join(cluster.state, "targets", f"t{number}", "target.dat")
        with open(self.path, "rb") as f:
            superblock = f.read(BLOCK)
        check(superblock[:4] == b"HRS1", f"{self.path} begins with a superblock")
        self.table = superblock[10]
        self.capacity, self.log_bytes, self.table_bytes = struct.unpack_from("<QQQ", superblock, 48)
        self.log = 128 << 10
        self.data = self.log + self.log_bytes + 2 * self.table_bytes

    def flip(self, offset, mask=0x40):
        with open(self.path, "r+b") as f:
            f.seek(offset)
            byte = f.read(1)
            f.seek(offset)
            f.write(bytes([byte[0] ^ mask]))
            f.flush()
            os.fsync(f.fileno())

    def find(self, magic, begin=None):
        """Offsets of the blocks of the data space that begin with these bytes."""
        out = []
        with open(self.path, "rb") as f:
            f.seek(begin or self.data)
            at = begin or self.data
            while chunk := f.read(1 << 20):
                for i in range(0, len(chunk), BLOCK):
                    if chunk.startswith(magic, i):
                        out.append(at + i)
                at += len(chunk)
        return out

    def journal_runs(self):
        """{run: offsets of its frames in the order of their positions}, of runs of more than two frames."""
        runs = {}
        with open(self.path, "rb") as f:
            for offset in self.find(b"HRJ1"):
                f.seek(offset + 16)
                run, first = struct.unpack("<QQ", f.read(16))
                runs.setdefault(run, []).append((first, offset))
        return {run: [offset for _, offset in sorted(frames)] for run, frames in runs.items() if len(frames) > 2}

    def fragments(self, mirrored=None):
        """(segment, offset of the payload, its bytes) of each fragment; mirrored: whether D = 1 is wanted."""
        out = []
        with open(self.path, "rb") as f:
            for offset in self.find(b"HRF1"):
                f.seek(offset)
                header = f.read(128)
                data, length, tags = header[11], *struct.unpack_from("<Q", header, 40), *struct.unpack_from("<I", header, 52)
                if mirrored is not None and (data == 1) != mirrored:
                    continue
                out.append((header[16:32], offset + (128 + 4 * tags + BLOCK - 1) // BLOCK * BLOCK, length))
        return out


# --- values and commands

def bad_input_options_are_refused_with_the_mend(box):
    state = box.path("s")
    up = ("up", "--state", state, "--detach")
    for arguments, texts in [
            (("--protection", "banana"), ("unknown protection class 'banana'", "4+2", "replica-3")),
            (("--protection", "0+1"), ("unknown protection class '0+1'",)),
            (("--protection", "4+99"), ("unknown protection class '4+99'",)),
            (("--protection", "4+2", "--targets", 2), ("4+2 needs at least 3 targets, there are 2", "--targets", "--protection")),
            (("--targets", "1,,2"), ("--targets 1,,2", "a number, or paths")),
            (("--targets", "/no/a,/no/b,/no/c"), ("--targets /no/a", "name a directory or a block device")),
            (("--targets", 0), ("at least 3 targets", "--targets")),
            (("--targets", 99), ("at most 64",)),
            (("--capacity-mib", "lots"), ("--capacity-mib", "lots", "headrace up --help")),
            (("--capacity-mib", -5), ("--capacity-mib", "-5", "headrace up --help")),
            (("--capacity-mib", 1), ("--capacity-mib", "range 2 to", "headrace up --help")),
            (("--capacity-mib", 10**15), ("--capacity-mib", "range 2 to", "headrace up --help")),
            (("--bucket", "ftp://x"), ("unknown scheme", "file:///dir", "s3://")),
            (("--bucket", "http://127.0.0.1:9000"), ("s3://BUCKET/PREFIX?endpoint=",)),
            (("--bucket", "file://relative"), ("three slashes", "file:///srv/bucket")),
            (("--bucket", "file:///a/../../etc"), ("without '.' and '..'",)),
            (("--bucket", "s3://UPPER"), ("3 to 63 of a-z",)),
            (("--bucket", "s3://bucket/x?endpoint=nowhere"), ("http://",)),
            (("--bucket", "s3://bucket/x?enpoint=http://a"), ("unknown option 'enpoint'", "endpoint, region and style")),
            (("--no-such-option",), ("--no-such-option", "headrace up --help"))]:
        check_refused(headrace(*up, *arguments), *texts)
    done = headrace(*up, "--bucket", "s3://AKIAME:mysecretkey@bucket/x")
    check_refused(done, "AWS_ACCESS_KEY_ID")
    check("mysecretkey" not in done.stderr and "AKIAME" not in done.stderr, "credentials in a URL are not repeated")

    check_refused(headrace("frobnicate"), "no command `headrace frobnicate`", "up, stop, status")
    check_refused(headrace("tier", "frobnicate"), "no command `headrace tier frobnicate`", "push")
    check_refused(headrace("rehydrate", "--state", state), "bucket is required", "headrace rehydrate --help")
    check_refused(headrace("mount", box.path("m"), "--state", state, "-o", "no_such_option"), "-o", "headrace mount --help")
    for command in [("status",), ("mount", box.path("m")), ("target", "list"), ("tier", "status"), ("spin-down",)]:
        check_refused(headrace(*command, "--state", state), "no node runs on " + state, "headrace up --state")
    check_refused(headrace("umount", box.root), "nothing of headrace is mounted at " + box.root)
    check_refused(headrace("rehydrate", "file://" + box.path("nothing"), "--state", state), "holds no namespace", "check bucket and prefix")

    with open(box.path("a-file"), "w") as f:
        f.write("x")
    check_refused(headrace("up", "--state", box.path("a-file"), "--detach"), "cannot be used", "choose another --state")
    check_refused(headrace("up", "--state", box.path("a-file", "below"), "--detach"), "cannot be used", "choose another --state")
    check_refused(headrace("up", "--state", "/proc/headrace", "--detach"), "cannot be used", "choose another --state")

    # None of all that is in the way of a good start at the same place; and then: targets by wrong names, a mount twice.
    cluster = small(box)
    log = fill(cluster, files=3)
    for name, texts in [("banana", ("'banana' is no target", "headrace target list")), ("t77", ("there is no target t77", "t0, t1, t2")),
                        ("t1", ("t1 is live", "headrace target list"))]:
        check_refused(headrace("target", "replace", name, "--state", cluster.state), *texts)
    check_refused(headrace("mount", cluster.mount_dir, "--state", cluster.state, "--detach"), cluster.mount_dir)
    check_refused(headrace("mount", box.path("missing"), "--state", cluster.state, "--detach"), "mkdir -p")
    check_log(cluster, log, "after all of it")


def bad_input_another_bucket_or_a_second_cluster_is_refused(box):
    cluster = small(box)
    log = fill(cluster, files=5)
    # A bucket that holds a namespace is nobody else's.
    check_refused(headrace("up", "--state", box.path("other"), "--bucket", cluster.bucket, "--detach"), "holds a namespace already",
                  "headrace rehydrate", "empty bucket or prefix")
    cluster.stop()
    check_refused(headrace("up", "--state", cluster.state, "--bucket", "file://" + box.path("another"), "--detach"),
                  "a namespace keeps its bucket", "leave --bucket out")
    check_refused(headrace("rehydrate", cluster.bucket, "--state", cluster.state, "--detach"), "holds a cluster already",
                  "empty --state", "headrace up --state")
    cluster.up()
    # A second node on the same state.
    done = subprocess.run([os.path.join(BIN, "headraced"), "--state", cluster.state], capture_output=True, text=True, timeout=60)
    check(done.returncode == 1 and "in use by another node" in done.stderr and "headrace stop" in done.stderr, f"{done.stderr!r}")
    check_log(cluster, log, "after all of it")


# --- targets

def bad_input_a_target_of_another_cluster_a_swapped_or_a_cloned_one_is_refused(box):
    one, two = small(box, "one"), small(box, "two")
    log = fill(one)
    one.stop()
    two.stop()
    mine = [TargetFile(one, i).path for i in range(3)]

    def refused(*texts):
        check_refused(one.up(mount=False, ok=False), *texts)
    keep = box.path("keep.dat")
    os.rename(mine[1], keep)
    shutil.copyfile(TargetFile(two, 1).path, mine[1])
    refused("target t1 belongs to cluster", "put the right target.dat", "headrace target replace t1")
    os.remove(mine[1])
    shutil.copyfile(mine[0], mine[1])
    refused("this is target t0", "put each target.dat back where it was")
    os.replace(keep, mine[1])
    os.rename(mine[0], keep)
    os.rename(mine[1], mine[0])
    os.rename(keep, mine[1])
    refused("swapped", "put each target.dat back where it was")
    os.rename(mine[0], keep)
    os.rename(mine[1], mine[0])
    os.rename(keep, mine[1])
    one.up()
    check_log(one, log, "with every file where it was")
    # The whole directory of a foreign target, its copy of the coordinator's file included.
    one.stop()
    os.rename(os.path.dirname(mine[1]), box.path("keep"))
    shutil.copytree(os.path.dirname(TargetFile(two, 1).path), os.path.dirname(mine[1]))
    refused("target t1 belongs to cluster")
    shutil.rmtree(os.path.dirname(mine[1]))
    os.makedirs(os.path.dirname(mine[1]))
    # What the message says for a target that is lost: without the file it starts, and the target is replaced.
    said = one.up()
    check("target t1 is lost" in said.stdout and "headrace target replace t1" in said.stdout, f"{said.stdout!r}")
    check_log(one, log, "with one target lost")
    one.run("target", "replace", "t1", "--state", one.state)
    check(target(one, "t1")["state"] == "live", "the replaced target is live")
    one.remount()
    check_log(one, log, "with the target replaced")


def bad_input_an_older_copy_of_a_target_is_not_used(box):
    cluster = small(box)
    log = fill(cluster)
    cluster.stop()
    path = TargetFile(cluster, 2).path
    shutil.copyfile(path, box.path("old.dat"))
    cluster.up()
    log |= fill(cluster, files=5, name="later")
    cluster.stop()
    os.rename(path, box.path("new.dat"))
    shutil.copyfile(box.path("old.dat"), path)
    said = cluster.up()
    for part in ("target t2 is lost", "older copy", "put the newest file back", "headrace target replace t2"):
        check(part in said.stdout, f"no {part!r} in {said.stdout!r}")
    check(target(cluster, "t2")["state"] == "lost", "it is not served from")
    check_log(cluster, log, "without it")
    cluster.stop()
    os.replace(box.path("new.dat"), path)
    said = cluster.up()
    check("is lost" not in said.stdout, f"{said.stdout!r}")
    check_log(cluster, log, "with the newest file back")


def bad_input_flipped_superblocks(box):
    cluster = small(box)
    log = fill(cluster)
    cluster.stop()
    TargetFile(cluster, 0).flip(200)        # one of t0's
    TargetFile(cluster, 1).flip(65536 + 9)  # the other of t1's
    said = cluster.up()
    check("is lost" not in said.stdout, f"one good superblock is enough: {said.stdout!r}")
    check_log(cluster, log, "with one superblock of two targets flipped")
    cluster.stop()
    TargetFile(cluster, 2).flip(40)
    with open(TargetFile(cluster, 2).path, "r+b") as f:
        f.seek(65536)
        f.write(bytes(BLOCK))
    said = cluster.up()
    check("target t2 is lost" in said.stdout and "headrace target replace t2" in said.stdout, f"{said.stdout!r}")
    check_log(cluster, log, "with both superblocks of t2 gone")
    done = cluster.run("target", "replace", "t2", "--state", cluster.state)
    check("whole again" in done.stdout, f"{done.stdout!r}")
    check(target(cluster, "t2")["state"] == "live", "t2 is live")
    again(cluster)
    check_log(cluster, log, "after replace")


def bad_input_flipped_target_log_and_table(box):
    cluster = small(box)
    log = fill(cluster, files=40)
    cluster.kill_mount()
    cluster.kill_node()  # a clean stop may leave a log with nothing in it
    a = TargetFile(cluster, 0)
    a.flip(a.log + 60)  # its first batch: more follow
    cluster.up()
    check_log(cluster, log, "with t0's log flipped")
    wait_until(lambda: target(cluster, "t0")["state"] == "live" and [e for e in events(cluster, "target_rescued") if e["target"] == "t0"], 90,
               "what the log of t0 named is found by a scan")
    cluster.remount()
    check_log(cluster, log, "with t0 rescued")
    cluster.stop()
    b = TargetFile(cluster, 1)
    b.flip(b.log + b.log_bytes + b.table * b.table_bytes + 70)
    cluster.up()
    check_log(cluster, log, "with t1's table flipped")
    wait_until(lambda: target(cluster, "t1")["state"] == "live" and [e for e in events(cluster, "target_rescued") if e["target"] == "t1"], 90,
               "what the table of t1 named is found by a scan")
    again(cluster)
    check_log(cluster, log, "with both rescued, after a restart")


def bad_input_a_truncated_target(box):
    cluster = small(box)
    log = fill(cluster)
    cluster.stop()
    file = TargetFile(cluster, 1)
    os.truncate(file.path, file.data + 3 * BLOCK)  # most of its data is gone, while log and table still name it
    cluster.up()
    check_log(cluster, log, "with t1 cut off")
    wait_until(lambda: cluster.status()["upkeep"]["fragments_repaired"] > 0 or target(cluster, "t1")["state"] == "lost", 60,
               "what was cut off is noticed and repaired")
    log |= fill(cluster, files=7, name="after", seed=2)
    again(cluster)
    check_log(cluster, log, "after a restart")


def bad_input_flipped_fragments_are_repaired_and_too_many_are_eio_on_those_files_alone(box):
    cluster = small(box)
    log = fill(cluster)
    cluster.stop()
    one = TargetFile(cluster, 0)
    flipped = 0
    for _, offset, length in one.fragments(mirrored=False):
        for at in range(0, length, 16 * BLOCK):
            one.flip(offset + at + 77)
            flipped += 1
    check(flipped > 5, "fragments were found and flipped")
    cluster.up()
    check_log(cluster, log, "with a bit of every fragment of t0 flipped")
    check(target(cluster, "t0")["corrupt_blocks"] > 0, "they were met")
    wait_until(lambda: cluster.status()["upkeep"]["fragments_repaired"] > 0 and cluster.status()["upkeep"]["damage_waiting"] == 0, 60, "they are repaired")
    # One more than parity: those files say EIO; everything else, the directory's names too, goes on.
    victim = "d/f6"  # the largest
    again(cluster)
    check_log(cluster, log, "after the repair")
    cluster.stop()
    needle = log[victim][70_000:70_064]
    files = [TargetFile(cluster, number) for number in range(3)]
    place = None
    for file in files:
        with open(file.path, "rb") as f:
            whole = f.read()
        for segment, offset, length in file.fragments(mirrored=False):
            at = whole.find(needle, offset, offset + length)
            if at >= 0:
                place = segment, at - offset
    check(place, "the file's bytes are found on a target")
    for file in files:
        for segment, offset, length in file.fragments(mirrored=False):
            if segment == place[0]:
                file.flip(offset + place[1])
    cluster.up()
    wrong = []
    eio = 0
    for name, data in log.items():
        try:
            with open(os.path.join(cluster.mount_dir, name), "rb") as f:
                if f.read() != data:
                    wrong.append(name)
        except OSError as error:
            check(error.errno == errno.EIO, f"{name}: {error}")
            eio += 1
    check(not wrong, f"wrong bytes: {wrong}")
    check(0 < eio < len(log), f"{eio} of {len(log)} files are EIO: some, not all")
    names = sorted(os.listdir(os.path.join(cluster.mount_dir, "d")))
    check(names == sorted(n.split("/")[1] for n in log), "all names are there")
    write_synced(os.path.join(cluster.mount_dir, "d", "new"), b"new")
    write_synced(os.path.join(cluster.mount_dir, victim), b"written anew")
    with open(os.path.join(cluster.mount_dir, victim), "rb") as f:
        check(f.read() == b"written anew", "a damaged file can be written anew")


def bad_input_flipped_journal(box):
    cluster = small(box)
    log = fill(cluster)
    cluster.kill_mount()
    cluster.kill_node()
    file = max((TargetFile(cluster, i) for i in range(3)), key=lambda f: len(f.find(b"HRJ1")))
    frames = file.find(b"HRJ1")
    check(len(frames) > 10, f"a target has journal frames: {len(frames)}")
    for offset in frames:
        file.flip(offset + 90)
    cluster.up()
    check_log(cluster, log, "with every journal frame of one target flipped")
    # Every copy of what was acknowledged: refused, not forgotten.
    log |= fill(cluster, files=8, name="more", seed=3)
    cluster.kill_mount()
    cluster.kill_node()
    flipped = []
    for number in range(3):
        file = TargetFile(cluster, number)
        flipped += [(file, run[len(run) // 2] + 90) for run in file.journal_runs().values()]
    for file, offset in flipped:
        file.flip(offset)
    check_refused(cluster.up(mount=False, ok=False), "partition", "journal record", "no copy of it can be read", "bring back one of its targets",
                  "headrace rehydrate")
    for file, offset in flipped:
        file.flip(offset)
    cluster.up()
    check_log(cluster, log, "with the right bytes back")


def bad_input_flipped_store_files(box):
    cluster = small(box)
    log = fill(cluster)
    # A target that is lost under a running node makes the partitions with a copy of their journal there write a checkpoint.
    busiest = max(range(3), key=lambda i: len(TargetFile(cluster, i).find(b"HRJ1")))
    cluster.destroy_target(busiest)
    wait_until(lambda: target(cluster, f"t{busiest}")["state"] == "lost", 60, "the loss is noticed")
    cluster.run("target", "replace", f"t{busiest}", "--state", cluster.state)
    wait_until(lambda: all(p["fully_copied"] for p in cluster.status()["partitions"]), 60, "journals have all their copies")
    check(any(p["checkpoint_at"] > 0 for p in cluster.status()["partitions"]), "a partition has a checkpoint")
    store = os.path.join(cluster.state, "store")
    # Under the running node: right bytes or EIO.
    flipped = 0
    for folder, _, names in os.walk(store):
        for name in names:
            path = os.path.join(folder, name)
            if name.endswith(".sst"):
                with open(path, "r+b") as f:
                    f.seek(os.path.getsize(path) // 2)
                    byte = f.read(1)
                    f.seek(-1, 1)
                    f.write(bytes([byte[0] ^ 4]))
                flipped += 1
    drop_caches()
    for name, data in log.items():
        try:
            with open(os.path.join(cluster.mount_dir, name), "rb") as f:
                check(f.read() == data, f"{name} has other bytes")
        except OSError as error:
            check(error.errno == errno.EIO, f"{name}: {error}")
    again(cluster)
    check_log(cluster, log, "after a restart: the local store is made anew from the checkpoint")
    # The checkpoint's files on one target, and no local store.
    cluster.stop()
    shutil.rmtree(store)
    for number in range(3):
        file = TargetFile(cluster, number)
        mirrored = file.fragments(mirrored=True)
        for _, offset, length in mirrored:
            file.flip(offset + length // 2 // BLOCK * BLOCK + 5)
        if mirrored:
            break
    check(mirrored, "a target holds files of checkpoints")
    cluster.up()
    check_log(cluster, log, "with the checkpoint's files on t0 flipped")


def bad_input_the_coordinators_file(box):
    cluster = small(box)
    log = fill(cluster)
    path = os.path.join(cluster.state, "coord")
    copies = [os.path.join(cluster.state, "targets", f"t{i}", "coord") for i in range(3)]
    cluster.stop()
    for copy in copies:
        check(open(copy, "rb").read() == open(path, "rb").read(), f"{copy} is a copy")

    def flip(p):
        with open(p, "r+b") as f:
            f.seek(60)
            byte = f.read(1)
            f.seek(60)
            f.write(bytes([byte[0] ^ 1]))
    for how, damage in [("flipped", lambda: flip(path)), ("cut off", lambda: os.truncate(path, 40)), ("empty", lambda: os.truncate(path, 0)),
                        ("missing", lambda: os.remove(path))]:
        damage()
        cluster.up(mount=False)
        check(events(cluster, "coordinator_mended")[-1]["what"].endswith("/coord"), f"{how}: the log says what it was mended from")
        cluster.stop()
    # With one copy left, and then none.
    flip(path)
    flip(copies[0])
    os.remove(copies[1])
    cluster.up()
    check_log(cluster, log, "from the last copy")
    cluster.stop()
    kept = open(path, "rb").read()
    for p in [path, *copies]:
        flip(p)
    check_refused(cluster.up(mount=False, ok=False), path + " is damaged", "no copy of it", "Put back a copy", "headrace rehydrate")
    for p in [path, *copies]:
        os.remove(p)
    check_refused(cluster.up(mount=False, ok=False), "holds a target, but the coordinator's file is gone", path + " back from a copy")
    with open(path, "wb") as f:
        f.write(kept)
    cluster.up()
    check_log(cluster, log, "with the file put back")


def bad_input_a_newer_format_on_disk_is_refused(box):
    cluster = small(box)
    log = fill(cluster, files=7)
    cluster.stop()
    path = os.path.join(cluster.state, "coord")
    kept = open(path, "rb").read()
    newer = bytearray(kept)
    newer[12] = 9
    newer[8:12] = struct.pack("<I", crc32c(bytes(newer[12:])))
    with open(path, "wb") as f:
        f.write(newer)
    check_refused(cluster.up(mount=False, ok=False), "newer", "upgrade headrace")
    with open(path, "wb") as f:
        f.write(kept)
    file = TargetFile(cluster, 1)
    with open(file.path, "r+b") as f:
        old = f.read(BLOCK)
        block = bytearray(old)
        block[4:8] = bytes(4)
        block[8:10] = struct.pack("<H", 7)
        magic = struct.unpack_from("<I", block, 0)[0]
        block[4:8] = struct.pack("<I", crc32c(bytes(block), crc32c(struct.pack("<QQQQ", magic, 0, 0, 0))))
        f.seek(0)
        f.write(block)
    check_refused(cluster.up(mount=False, ok=False), "target t1", "newer", "upgrade headrace")
    with open(file.path, "r+b") as f:
        f.write(old)
    cluster.up()
    check_log(cluster, log, "with the formats that this version knows")
    cluster.spin_down()
    head = os.path.join(box.path("s.bucket"), "head")
    kept = open(head, "rb").read()
    newer = bytearray(kept)
    newer[8] = 9
    newer[4:8] = struct.pack("<I", crc32c(bytes(newer[8:])))
    with open(head, "wb") as f:
        f.write(newer)
    other = box.cluster("other", bucket=cluster.bucket, capacity_mib=64)
    check_refused(other.rehydrate(ok=False, mount=False), "newer", "upgrade headrace")
    with open(head, "wb") as f:
        f.write(kept)
    other.rehydrate()
    check_log(other, log, "re-hydrated from the head that this version knows")


# --- the bucket

def bad_input_a_damaged_bucket_gives_errors_that_name_the_object_and_never_wrong_bytes(box):
    cluster = small(box)
    log = fill(cluster)
    cluster.spin_down()
    bucket = box.path("s.bucket")
    keys = sorted(os.path.relpath(os.path.join(d, f), bucket) for d, _, fs in os.walk(bucket) for f in fs if not f.startswith("."))
    manifest = next(k for k in keys if k.startswith("manifest/"))
    store_files = [k for k in keys if k.startswith("m/") and "locations" not in k]
    objects = [k for k in keys if k.startswith("d/")]
    check(store_files and objects, f"there are files of stores and objects: {keys}")
    attempts = 0

    def damaged(key, how):
        nonlocal attempts
        path = os.path.join(bucket, key)
        with open(path, "rb") as f:
            kept = f.read()
        if how == "flipped":
            with open(path, "r+b") as f:
                f.seek(len(kept) // 2)
                f.write(bytes([kept[len(kept) // 2] ^ 8]))
        elif how == "cut off":
            os.truncate(path, len(kept) // 2)
        else:
            os.remove(path)
        attempts += 1
        other = box.cluster(f"try{attempts}", bucket=cluster.bucket, capacity_mib=64, targets=3)
        done = other.rehydrate(ok=False, mount=False)
        other.close()
        with open(path, "wb") as f:
            f.write(kept)
        return done
    for how in ("flipped", "cut off"):
        check_refused(damaged("head", how), "head", "put the object back from a copy or a version of it")
        check_refused(damaged(manifest, how), manifest, "put the object back from a copy or a version of it")
    check_refused(damaged("head", "removed"), "holds no namespace", "check bucket and prefix")
    check_refused(damaged(manifest, "removed"), manifest, "put the object back from a copy or a version of it")
    # None of that took the namespace: the last one that owned it released it. Store files are read as they are needed.
    other = box.cluster("other", bucket=cluster.bucket, capacity_mib=64, targets=3)
    kept = {}
    for key in objects:
        path = os.path.join(bucket, key)
        with open(path, "rb") as f:
            kept[key] = f.read()
        with open(path, "r+b") as f:
            for at in range(100, len(kept[key]), 512):
                f.seek(at)
                f.write(bytes([kept[key][at] ^ 8]))
    other.rehydrate()
    eio = 0
    for name, data in list(log.items())[3:7]:  # each is tried again for a while
        try:
            with open(os.path.join(other.mount_dir, name), "rb") as f:
                check(f.read() == data, f"{name}: wrong bytes out of damaged objects")
        except OSError as error:
            check(error.errno == errno.EIO, f"{name}: {error}")
            eio += 1
    check(eio > 0, "damaged objects are EIO")
    for key, content in kept.items():
        with open(os.path.join(bucket, key), "wb") as f:
            f.write(content)
    wait_until(lambda: _readable(other, log), 30, "with the objects back, everything is there", every_s=1)


def _readable(cluster, log):
    try:
        check_log(cluster, log, "")
    except Failed:
        return False
    return True


def bad_input_an_object_that_somebody_removed_is_named_and_is_eio_on_its_files_alone(box):
    cluster = small(box)
    gone = fill(cluster, files=7, name="gone")
    cluster.push()
    kept = fill(cluster, files=7, name="kept", seed=2)
    bucket = box.path("s.bucket", "d")

    def objects():
        return {os.path.join(d, f) for d, _, fs in os.walk(bucket) for f in fs}
    removed, = objects()
    cluster.spin_down()
    check(len(objects()) > 1, "what came later is in another object")
    os.rename(removed, box.path("removed"))
    other = box.cluster("other", bucket=cluster.bucket, capacity_mib=64, targets=3)
    other.rehydrate()
    check_log(other, kept, "without an object of other files")
    done = headrace("tier", "fetch", os.path.join(other.mount_dir, "gone"), "--state", other.state)
    check_refused(done, "could not be fetched", "object " + os.path.basename(removed) + " is not in the bucket")
    got = read_directly(os.path.join(other.mount_dir, "gone/f6"))
    check(got == errno.EIO, f"a file without its object: {got if isinstance(got, int) else len(got)}")
    os.rename(box.path("removed"), removed)
    other.run("tier", "fetch", other.mount_dir)
    check_log(other, gone | kept, "with the object back")


def bad_input_a_damaged_store_file_in_the_bucket(box):
    cluster = small(box)
    log = fill(cluster)
    cluster.spin_down()
    folder = box.path("s.bucket", "m")
    keys = [os.path.join(d, f) for d, _, fs in os.walk(folder) for f in fs if "locations" not in f]
    for how in ("flipped", "removed"):
        kept = {}
        for path in keys:
            with open(path, "rb") as f:
                kept[path] = f.read()
            if how == "removed":
                os.remove(path)
            else:
                with open(path, "r+b") as f:
                    f.seek(len(kept[path]) // 2)
                    f.write(bytes([kept[path][len(kept[path]) // 2] ^ 8]))
        other = box.cluster("o" + how, bucket=cluster.bucket, capacity_mib=64, targets=3)
        done = other.rehydrate(ok=False, mount=False)
        check_refused(done, "m/", "put the object back from a copy or a version of it")
        for path, content in kept.items():
            with open(path, "wb") as f:
                f.write(content)
        other.up()  # what began goes on
        check_log(other, log, f"with the store files back that were {how}")
        other.spin_down()
        keys = [os.path.join(d, f) for d, _, fs in os.walk(folder) for f in fs if "locations" not in f]
        current = set(keys)
        check(current, "there are store files")


def bad_input_a_dead_bucket_costs_nothing_that_is_hot(box):
    server = S3Server(box)
    proxy = bad_bucket.Proxy(box, server.port)
    cluster = small(box, bucket=proxy.url(server.bucket, "ns"), environment=server.environment)
    log = fill(cluster)
    for mode in ("refuse", "hang"):
        proxy.set(mode)
        # What is written, read and synced while the bucket is away.
        log |= fill(cluster, files=6, name=mode, seed=len(mode))
        check_log(cluster, log, f"while the bucket does {mode}")
        # And a restart: it serves what is hot, and says what it waits for.
        again(cluster)
        check_log(cluster, log, f"restarted while the bucket does {mode}")
        owner = cluster.status()["owner"]
        check("unconfirmed" in owner, f"owner: {owner!r}")
        check(proxy.fired > 0, f"{mode} has happened")
        proxy.set("pass")
        wait_until(lambda: cluster.status()["owned"], 60, "the owner is confirmed when the bucket is back", every_s=0.5)
    cluster.push()
    check_from_bucket(box, cluster, log)


def bad_input_a_bucket_that_refuses_or_hangs_is_named_within_seconds_and_holds_up_no_end(box):
    fake = bad_bucket.FakeS3(box)
    proxy = bad_bucket.Proxy(box, fake.port)
    cluster = small(box, bucket=proxy.url("bucket", "ns"), environment=fake.environment)
    log = fill(cluster, files=8)

    def says(*texts):
        shown = cluster.run("status", "--state", cluster.state).stdout
        return all(text in shown for text in texts)

    def timed(call, *arguments, most_s, **named):
        began = time.monotonic()
        out = call(*arguments, **named)
        took = time.monotonic() - began
        check(took < most_s, f"{call.__name__} took {took:.1f} s, more than {most_s} s")
        return out
    for mode, words in (("refuse", (f"GET http://127.0.0.1:{proxy.port}: ",)), ("hang", ("has not answered for",))):
        # Under a running node: in the status before anybody asks for anything of the bucket. (Head is looked at every 10 s.)
        proxy.set(mode)
        wait_until(lambda: says("bucket ", *words), 25, f"a bucket that does {mode} is named", every_s=0.2)
        check(cluster.status()["owned"], "no answer takes nothing away")
        proxy.set("pass")
        wait_until(lambda: not cluster.status()["bucket_trouble"], 60, "and no more when it is well", every_s=0.5)
        # From a start on.
        cluster.stop()
        proxy.set(mode)
        timed(cluster.up, most_s=20)
        wait_until(lambda: says("unconfirmed", *words), 10, f"who waits for a bucket that does {mode} is told", every_s=0.2)
        check_log(cluster, log, f"started while the bucket does {mode}")
        timed(cluster.stop, most_s=10)
        proxy.set("pass")
        cluster.up()
        wait_until(lambda: cluster.status()["owned"], 30, "the owner is confirmed")
    # Uploads, looks at head and a manifest are under way when it stops answering; then a stop.
    log |= fill(cluster, files=14, name="more", seed=3)
    proxy.set("hang")
    push = subprocess.Popen([os.path.join(BIN, "headrace"), "tier", "push", cluster.mount_dir, "--wait", "--state", cluster.state],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=cluster.environment)
    wait_until(lambda: proxy.fired >= 1, 30, "requests hang")
    time.sleep(2)
    timed(cluster.stop, most_s=10)
    check("stopping" in push.communicate(timeout=10)[1] and push.returncode == 1, "who waited for the push is told")
    proxy.set("pass")
    cluster.up()
    check_log(cluster, log, "after a stop while the bucket hung")
    # A spin-down while it hangs: a stop ends it, nobody is told that it was done, and all is here yet.
    wait_until(lambda: cluster.status()["owned"], 30, "the owner is confirmed")
    proxy.set("hang")
    down = subprocess.Popen([os.path.join(BIN, "headrace"), "spin-down", "--state", cluster.state],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=cluster.environment)
    wait_until(lambda: proxy.fired >= 1, 30, "requests hang")
    timed(cluster.stop, most_s=10)
    out, said = down.communicate(timeout=10)
    check(down.returncode == 1 and said.startswith("headrace: not spun down") and "may be deleted" not in out, f"{down.returncode}: {out!r} {said!r}")
    check(os.path.exists(os.path.join(cluster.state, "targets", "t0", "target.dat")), "the state stays")
    # Alone, it gives up by itself and says why; the namespace goes on.
    proxy.set("pass")
    cluster.up()
    wait_until(lambda: cluster.status()["owned"], 30, "the owner is confirmed")
    proxy.set("hang")
    done = timed(headrace, "spin-down", "--state", cluster.state, most_s=60, environment=cluster.environment)
    check_refused(done, "not spun down", "has not answered", "--undo")
    proxy.set("pass")
    wait_until(lambda: headrace("spin-down", "--undo", "--state", cluster.state).returncode == 0, 90, "it is undone", every_s=1)
    check_log(cluster, log, "after a spin-down that failed")
    write_synced(os.path.join(cluster.mount_dir, "again"), b"again")
    check_from_bucket(box, cluster, log | {"again": b"again"})


def bad_input_a_slow_a_cut_off_and_a_lying_bucket(box):
    server = S3Server(box)
    proxy = bad_bucket.Proxy(box, server.port)
    cluster = small(box, bucket=proxy.url(server.bucket, "ns"), environment=server.environment)
    log = fill(cluster)
    proxy.set("slow")
    cluster.push()
    check(proxy.fired > 0, "answers were slow")
    proxy.set("pass")
    cluster.spin_down()
    other = box.cluster("other", bucket=cluster.bucket, environment=server.environment, capacity_mib=64, targets=3)
    other.rehydrate()
    # A read that meets it waits, and then has the right bytes: it is tried again, and nothing is taken on trust.
    large = [name for name, data in log.items() if len(data) > 200_000]
    for mode, name in zip(("cut", "lie"), large):
        proxy.set(mode)
        got = []

        def read():
            with open(os.path.join(other.mount_dir, name), "rb") as f:
                got.append(f.read())
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        wait_until(lambda: proxy.fired >= 2 or got, 30, f"{mode} happens")
        check(proxy.fired > 0, f"{mode} has happened")
        time.sleep(0.5)
        check(not got or got[0] == log[name], f"{name}: wrong bytes from a bucket that does {mode}")
        proxy.set("pass")
        reader.join(60)
        check(got and got[0] == log[name], f"{name}: after {mode}, the read has the right bytes")
    check_log(other, log, "with the bucket well")


def bad_input_puts_that_are_damaged_cut_off_or_forgotten_are_never_taken_for_uploaded(box):
    """What no object is recorded for is never dropped from the hot tier."""
    server = S3Server(box)
    meddler = bad_bucket.Meddler(box, server.port)
    cluster = small(box, bucket=meddler.url(server.bucket, "ns"), environment=server.environment)
    log = {}
    for mode in ("flip", "short", "forget"):
        objects = cluster.status()["objects"]
        meddler.set(mode)
        log |= fill(cluster, files=7, name=mode, seed=len(mode))
        push = subprocess.Popen([os.path.join(BIN, "headrace"), "tier", "push", cluster.mount_dir, "--wait", "--state", cluster.state],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=cluster.environment)
        wait_until(lambda: meddler.fired >= 5, 60, f"{mode} happens again and again")
        check(push.poll() != 0, f"nobody says that it is in the bucket while puts are {mode}")
        check(cluster.status()["objects"] == objects, f"no object is recorded while puts are {mode}")
        cluster.remount()
        check_log(cluster, log, f"while puts are {mode}")
        meddler.set("pass")
        push.communicate(timeout=120)
        cluster.push()
    check_from_bucket(box, cluster, log)


def bad_input_a_bucket_that_admits_one_request_a_second_loses_nothing(box):
    server = S3Server(box)
    meddler = bad_bucket.Meddler(box, server.port)
    cluster = small(box, bucket=meddler.url(server.bucket, "ns"), environment=server.environment)
    log = fill(cluster, files=7)
    meddler.set("busy")
    log |= fill(cluster, files=7, name="busy", seed=2)
    check_log(cluster, log, "while the bucket says SlowDown")
    cluster.spin_down()
    check(meddler.fired > 0, "it has said so")
    meddler.set("pass")  # who attaches a bucket tries 20 rounds of conditional writes first
    other = box.cluster("other", bucket=cluster.bucket, environment=server.environment, capacity_mib=64, targets=3)
    other.rehydrate()
    meddler.set("busy")
    check_log(other, log, "from the bucket alone, at one request a second")


def bad_input_credentials_and_buckets_that_are_wrong(box):
    server = S3Server(box)
    url = server.url("ns")

    def up(environment, bucket=url):
        return headrace("up", "--state", box.path("s"), "--targets", 3, "--protection", "2+1", "--capacity-mib", 64, "--bucket", bucket,
                        "--detach", environment=dict(os.environ, **environment), timeout_s=120)
    nobody = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true", "HOME": box.path("home"),
              "AWS_SHARED_CREDENTIALS_FILE": box.path("none"), "AWS_CONFIG_FILE": box.path("none")}
    check_refused_openly(up(nobody), server, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    check_refused_openly(up({"AWS_ACCESS_KEY_ID": "box", "AWS_SECRET_ACCESS_KEY": "", "AWS_REGION": "us-east-1"}), server, "AWS_SECRET_ACCESS_KEY")
    wrong = dict(server.environment, AWS_SECRET_ACCESS_KEY="wrongwrongwrong")
    done = up(wrong)
    check_refused_openly(done, server, "cannot be used", "AWS_SECRET_ACCESS_KEY")
    check("wrongwrongwrong" not in done.stderr, "what was tried is not repeated")
    check_refused_openly(up(dict(server.environment, AWS_ACCESS_KEY_ID="stranger")), server, "AWS_ACCESS_KEY_ID")
    missing = f"s3://no-such-bucket/ns?endpoint=http://127.0.0.1:{server.port}"
    check_refused_openly(up(server.environment, missing), server, "no-such-bucket", "create")
    dead = bad_bucket.Proxy(box, server.port)
    dead.set("refuse")
    check_refused_openly(up(server.environment, dead.url(server.bucket, "ns")), server, "cannot be used", str(dead.port))
    # The same place, once all is right; then credentials that go bad under a running node's feet: hot data stays.
    cluster = box.cluster("s", bucket=url, environment=server.environment, targets=3, protection="2+1", capacity_mib=64)
    check(up(server.environment).returncode == 0, "with all of it right, it starts")
    cluster.mount()
    log = fill(cluster, files=8)
    cluster.stop()
    cluster.environment.update(wrong)
    cluster.up()
    check_log(cluster, log, "with wrong credentials")
    owner = cluster.status()["owner"]
    check("unconfirmed" in owner and "AWS_SECRET_ACCESS_KEY" in owner, f"{owner!r}")
    cluster.stop()
    cluster.environment.update(server.environment)
    cluster.up()
    wait_until(lambda: cluster.status()["owned"], 30, "the owner is confirmed")
    cluster.push()
    check_log(cluster, log, "with the right credentials")


def check_refused_openly(done, server, *texts):
    """As check_refused; the variables that hold secrets may be named, their values may not."""
    check(done.returncode == 1 and done.stderr.startswith("headrace: "), f"exit {done.returncode}: {done.stderr!r}")
    for text in texts:
        check(text in done.stderr, f"the message names {text!r}: {done.stderr!r}")
    check(server.environment["AWS_SECRET_ACCESS_KEY"] not in done.stderr + done.stdout, "no secret in it")


def bad_input_expired_credentials_another_clock_and_no_conditional_writes(box):
    fake = bad_bucket.FakeS3(box, conditional=False)

    def up(name, ok=False):
        cluster = box.cluster(name, bucket=fake.url("ns-" + name), environment=fake.environment, targets=3, protection="2+1", capacity_mib=64)
        done = cluster.up(ok=ok)
        said = done.stderr + done.stdout
        check("nobody-may-see" not in said, f"no secret in {said!r}")
        return cluster, done
    _, done = up("plain")
    check_refused(done, "cannot be used", "conditional writes", "file:// bucket")
    check(fake.ignored > 0, "conditions were ignored")
    check(not [k for k in fake.objects if "/head" in k], "no head was written there")
    fake.conditional = True
    fake.refuse = (400, "ExpiredToken", "The provided token has expired.")
    _, done = up("expired")
    check(done.returncode == 1, "expired credentials are refused")
    for text in ("expired", "AWS_SESSION_TOKEN"):
        check(text in done.stderr, f"the message names {text!r}: {done.stderr!r}")
    fake.refuse = None
    # 20 minutes off, either way.
    for off in (1200, -1200):
        fake.clock_off_s = off
        _, done = up(f"clock{off}")
        check_refused(done, "this machine's clock is off", "set the clock (NTP)")
    fake.clock_off_s = 0
    # The same under a running node: hot data is served, who asks for the bucket is told why not, and then all goes on.
    cluster, _ = up("running", ok=True)
    log = fill(cluster, files=6)

    def push():
        return headrace("tier", "push", cluster.mount_dir, "--wait", "--state", cluster.state, timeout_s=240)
    fake.refuse = (403, "ExpiredToken", "The provided token has expired.")
    log |= fill(cluster, files=4, name="expired", seed=4)
    done = push()
    check(done.returncode == 1 and "the session token has ended: renew AWS_SESSION_TOKEN" in done.stderr, f"{done.stderr!r}")
    check_log(cluster, log, "with expired credentials")
    fake.refuse = None
    fake.clock_off_s = -1200
    log |= fill(cluster, files=4, name="clock", seed=5)
    check_refused(push(), "this machine's clock is off", "set the clock (NTP)")
    check_log(cluster, log, "with a clock that is off")
    fake.clock_off_s = 0
    cluster.push()
    check_from_bucket(box, cluster, log)


# --- what programs may ask for

def bad_input_paths_sizes_and_attributes_get_the_errno_of_posix(box):
    cluster = small(box)
    log = fill(cluster, files=3)
    m = cluster.mount_dir

    def fails(number, call, *arguments, **named):
        try:
            call(*arguments, **named)
        except OSError as error:
            check(error.errno == number, f"{call.__name__}{arguments[1:]}: {errno.errorcode[error.errno]}, not {errno.errorcode[number]}")
            return
        raise Failed(f"{call.__name__} succeeds, not {errno.errorcode[number]}")
    os.symlink("b", f"{m}/a")
    os.symlink("a", f"{m}/b")
    fails(errno.ELOOP, os.stat, f"{m}/a")
    fails(errno.ELOOP, os.open, f"{m}/a/x", os.O_RDONLY)
    fails(errno.ENAMETOOLONG, os.open, f"{m}/" + "n" * 256, os.O_CREAT | os.O_WRONLY)
    fails(errno.ENAMETOOLONG, os.mkdir, f"{m}/" + "n" * 256)
    fails(errno.ENAMETOOLONG, os.rename, f"{m}/d/f0", f"{m}/" + "n" * 256)
    fails(errno.ENAMETOOLONG, os.stat, m + "/d" * 4096)
    fails(errno.ENAMETOOLONG, os.symlink, "t" * 5000, f"{m}/s")
    os.symlink("t" * 4095, f"{m}/s")
    check(len(os.readlink(f"{m}/s")) == 4095, "a symlink of 4,095 bytes comes back")
    # Deep: below PATH_MAX each, by way of a directory's descriptor; far longer than PATH_MAX in all.
    fd = os.open(m, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(60):
        os.mkdir("deep" * 40, dir_fd=fd)
        below = os.open("deep" * 40, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    f0 = f"{m}/d/f0"
    fails(errno.E2BIG, os.setxattr, f0, "user.big", bytes(10 << 20))
    fails(errno.ERANGE, os.setxattr, f0, "user." + "n" * 300, b"x")
    fails(errno.EOPNOTSUPP, os.setxattr, f0, "nonsense.name", b"x")
    fails(errno.ENODATA, os.getxattr, f0, "user.big")
    with open(f0, "r+b") as f:
        fails(errno.EFBIG, os.ftruncate, f.fileno(), (1 << 62) + 1)
        fails(errno.EFBIG, os.pwrite, f.fileno(), b"x", 1 << 62)
        fails(errno.EINVAL, os.ftruncate, f.fileno(), -1)
        # Over 4 PiB, most of it a hole.
        check(os.pwrite(f.fileno(), b"end", (4 << 50) + 7) == 3, "a write beyond 4 PiB")
        os.fsync(f.fileno())
        check(os.fstat(f.fileno()).st_size == (4 << 50) + 10, "its size")
        check(os.pread(f.fileno(), 100, (4 << 50) + 3) == bytes(4) + b"end", "its end")
        os.ftruncate(f.fileno(), 0)
        os.fsync(f.fileno())
    fails(errno.EINVAL, os.rename, f"{m}/d", f"{m}/d/below")
    fails(errno.ENOTEMPTY, os.rmdir, f"{m}/d")
    fails(errno.ENOTDIR, os.stat, f"{m}/d/f0/x")
    log["d/f0"] = b""
    log2 = fill(cluster, files=3, name="e")
    again(cluster)
    check_log(cluster, log | log2, "after all of it")


def frame(head, payload=b""):
    """A frame as docs/formats/wire.md has it."""
    front = struct.pack("<III", 0x31465248, len(head), len(payload))
    return front + struct.pack("<I", crc32c(front)) + head + payload


def bad_input_strangers_and_other_protocol_versions_at_the_nodes_socket(box):
    cluster = small(box)
    log = fill(cluster, files=4)
    path = os.path.join(cluster.state, "node.sock")

    def say(data):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(path)
            try:
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
                answer = b""
                while piece := s.recv(65536):
                    answer += piece
                return answer
            except (BrokenPipeError, ConnectionResetError):
                return b""
    answer = say(frame(struct.pack("<HHBQ", 7, 50, 0, 77) + b"whatever version 7 has"))
    check(b"speaks protocol 7, this node 1: upgrade" in answer, f"the answer to another version: {answer!r}")
    random.seed(5)
    for junk in (b"GET / HTTP/1.1\r\n\r\n", bytes(1000), b"\xff" * 5000, frame(b""), frame(random.randbytes(200)),
                 frame(struct.pack("<HHBQ", 1, 50, 0, 1)), frame(struct.pack("<HHBQ", 1, 9999, 0, 1) + bytes(100)),
                 struct.pack("<IIII", 0x31465248, 0xffffffff, 0xffffffff, 0), random.randbytes(100_000)):
        say(junk)
    # The admin port: no token, a wrong one, paths that are none, and a body without end.
    with open(os.path.join(cluster.state, "node.json")) as f:
        node = json.load(f)
    check(os.stat(os.path.join(cluster.state, "node.json")).st_mode & 0o077 == 0, "the token is for its owner alone")
    for line, code in [("GET /status", b"401"), ("POST /spin-down", b"401"), ("GET /../../etc/passwd", b"40"), ("GET /nothing", b"40")]:
        with socket.create_connection(("127.0.0.1", node["admin_port"]), timeout=10) as s:
            s.sendall(f"{line} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wrong\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            answer = s.recv(65536)
        check(b" " + code in answer.split(b"\r\n")[0], f"{line}: {answer[:200]!r}")
    check(alive(node["pid"]), "the node lives")
    check_log(cluster, log, "after all of it")


# --- a full disk

class SmallDisk:
    """A file system of so many MiB, in a file of the box."""

    def __init__(self, box, name, mib):
        self.path = box.path(name)
        image = box.path(name + ".img")
        os.makedirs(self.path)
        with open(image, "wb") as f:
            f.truncate(mib << 20)
        shell(["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", image])
        done = shell(["mount", "-o", "loop", image, self.path], ok=False)
        if done.returncode != 0:
            raise Skipped(f"no loop devices here: {done.stderr.strip()}")
        box.on_close(lambda: subprocess.run(["umount", "-l", self.path], check=False))

    def fill(self, leave=0):
        """Nothing is left but `leave` bytes; returns the file to remove."""
        path = os.path.join(self.path, "ballast")
        free = os.statvfs(self.path)
        size = max(0, free.f_bavail * free.f_frsize - leave)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError:
            pass
        while True:
            try:
                if leave or os.write(fd, bytes(4096)) < 4096:
                    break
            except OSError:
                break
        os.close(fd)
        return path


def bad_input_a_full_disk_at_the_store_and_at_the_log(box):
    cluster = small(box)
    log = fill(cluster, files=6)
    cluster.stop()
    disk = SmallDisk(box, "disk", 24)
    for name in ("store", "log"):
        place = os.path.join(cluster.state, name)
        os.makedirs(os.path.join(disk.path, name))
        shell(["mount", "--bind", os.path.join(disk.path, name), place])
        box.on_close(lambda p=place: subprocess.run(["umount", "-l", p], check=False))
    cluster.up()
    check_log(cluster, log, "with store and log elsewhere")
    ballast = disk.fill()
    log |= fill(cluster, files=6, name="on-full", seed=6)  # the journal is on the targets
    check_log(cluster, log, "with store and log on a full disk")
    # A checkpoint cannot be written now: whoever asks is told why, and nothing is lost.
    done = headrace("tier", "push", cluster.mount_dir, "--wait", "--state", cluster.state, timeout_s=240)
    check_refused(done, "No space left on device", "free")
    check(alive(cluster.node_pid()), "the node lives")
    os.remove(ballast)
    wait_until(lambda: headrace("tier", "push", cluster.mount_dir, "--wait", "--state", cluster.state, timeout_s=240).returncode == 0, 90,
               "with room again, it is pushed", every_s=1)
    log |= fill(cluster, files=3, name="later", seed=7)
    again(cluster)
    check_log(cluster, log, "after a restart")


def bad_input_a_full_disk_at_the_bucket(box):
    disk = SmallDisk(box, "disk", 12)
    cluster = small(box, bucket="file://" + os.path.join(disk.path, "b"))
    log = fill(cluster)
    ballast = disk.fill(leave=300_000)
    done = headrace("tier", "push", cluster.mount_dir, "--wait", "--state", cluster.state, timeout_s=240)
    check_refused(done, "No space left on device", "make room on the bucket's file system")
    check_log(cluster, log, "with a full bucket")
    os.remove(ballast)
    cluster.push()
    check_from_bucket(box, cluster, log)


def write_mib(cluster, folder, count, log):
    """So many files of 1 MiB and a bit, each acknowledged; stops at the first error, which it returns with how long that took."""
    os.makedirs(os.path.join(cluster.mount_dir, folder), exist_ok=True)
    for i in range(count):
        name = f"{folder}/{len(log)}"
        data = random.randbytes(1_100_000)
        began = time.monotonic()
        try:
            write_synced(os.path.join(cluster.mount_dir, name), data)
        except OSError as error:
            return error, time.monotonic() - began
        log[name] = data
    return None, 0


def bad_input_a_full_disk_at_the_targets(box):
    disk = SmallDisk(box, "disk", 420)
    server = S3Server(box)
    proxy = bad_bucket.Proxy(box, server.port)
    cluster = box.cluster("disk/s", bucket=proxy.url(server.bucket, "ns"), environment=server.environment, targets=3, protection="2+1", capacity_mib=512)
    cluster.mount_dir = box.path("m")
    cluster.up()  # more than there is: what is not there yet is written ahead as it is used
    log = fill(cluster, files=8)

    def goes_on(name):
        def writes():
            try:
                write_synced(os.path.join(cluster.mount_dir, name), b"again" * 20_000)
            except OSError as error:
                check(error.errno == errno.ENOSPC, f"{error}")
                return False
            log[name] = b"again" * 20_000
            return True
        return writes
    # While the bucket takes it, a full disk is a small hot tier: writing goes on at the bucket's pace.
    error, _ = write_mib(cluster, "through", 300, log)
    check(error is None, f"with a bucket, writing goes on: {error}")
    # Without: an answer that says why, soon, and nothing else ends.
    proxy.set("refuse")
    error, took = write_mib(cluster, "until", 400, log)
    check(error is not None and error.errno == errno.ENOSPC, f"{error}")
    check(took < 60, f"it took {took:.0f} s")
    # Somebody else takes the last byte: whatever is answered then, an error or not, nothing that was acknowledged is lost.
    ballast = disk.fill()
    for i in range(20):
        try:
            write_synced(os.path.join(cluster.mount_dir, f"d/n{i}"), b"n" * 1000)
        except OSError as error:
            check(error.errno in (errno.ENOSPC, errno.EIO), f"{error}")
            break
        log[f"d/n{i}"] = b"n" * 1000
    check(alive(cluster.node_pid()) and all(t["state"] == "live" for t in cluster.status()["targets"]), "nothing died, nothing is fenced")
    os.remove(ballast)
    # Deleting works, and so does the bucket: either makes room.
    proxy.set("pass")
    wait_until(goes_on("again"), 90, "with the bucket back, there is room again", every_s=0.5)
    again(cluster)
    check_log(cluster, log, "restarted on the full disk")
    # Not a byte left: a start is refused, which costs nothing either.
    cluster.stop()
    ballast = disk.fill()
    done = cluster.up(mount=False, ok=False)
    check_refused(done, "No space left on device", "free")
    cluster.stop()
    os.remove(ballast)
    cluster.up()
    check_log(cluster, log, "with room again")
    wait_until(goes_on("more"), 60, "and writing goes on", every_s=0.5)
    check_from_bucket(box, cluster, log, capacity_mib=256)


# --- lost targets

def bad_input_a_destroyed_target_is_replaced_rebuilt_and_survives_two_more(box):
    cluster = box.cluster("s", targets=6, protection="4+2", capacity_mib=128)
    cluster.up()
    log = fill(cluster, files=42)
    cluster.destroy_target(1)
    cluster.remount()
    check_log(cluster, log, "with t1 destroyed")
    wait_until(lambda: cluster.status()["degraded_reads"] > 0, 10, "degraded reads are counted")
    wait_until(lambda: target(cluster, "t1")["state"] == "lost", 60, "its loss is noticed")
    listed = cluster.run("target", "list", "--state", cluster.state).stdout
    check("lost" in listed and "headrace target replace t1" in listed, f"{listed}")
    done = cluster.run("target", "replace", "t1", "--state", cluster.state)
    check("segments are whole again" in done.stdout, f"{done.stdout!r}")
    rebuilt = cluster.status()["upkeep"]
    check(rebuilt["segments_rebuilt"] > 0 and rebuilt["bytes_rebuilt"] > 0, f"{rebuilt}")
    cluster.remount()  # whose end reports what it had read
    before = cluster.status()["degraded_reads"]
    check_log(cluster, log, "after rebuild")
    time.sleep(1.2)  # a mount reports twice a second
    check(cluster.status()["degraded_reads"] == before, "after rebuild no read is degraded")
    for number in (0, 4):
        cluster.destroy_target(number, zeros=number == 4)
    cluster.remount()
    check_log(cluster, log, "with two more destroyed")
    for number in (0, 4):
        wait_until(lambda n=number: target(cluster, f"t{n}")["state"] == "lost", 60, f"the loss of t{number} is noticed")
        cluster.run("target", "replace", f"t{number}", "--state", cluster.state)
    again(cluster)
    check_log(cluster, log, "with all replaced, after a restart")


def bad_input_more_targets_lost_than_parity_are_errors_until_they_are_back(box):
    cluster = small(box, targets=5)
    log = fill(cluster)
    places = [(os.path.join(cluster.state, "targets", name), box.path(name)) for name in ("t0", "t1")]
    for place, elsewhere in places:
        os.rename(place, elsewhere)
    wait_until(lambda: all(target(cluster, name)["state"] == "lost" for name in ("t0", "t1")), 60, "both are noticed")
    shown = cluster.run("status", "--state", cluster.state).stdout
    for text in ("target t0 is lost", "headrace target replace t0", "target t1 is lost", "headrace target replace t1"):
        check(text in shown, f"the status names {text!r}: {shown}")
    # By a mount that has read none of it: right bytes or EIO. What is written now needs none of the lost.
    second = cluster.mount(box.path("second"))
    with ThreadPoolExecutor(len(log)) as readers:
        got = dict(zip(log, readers.map(lambda name: read_directly(os.path.join(second, name)), log)))
    wrong = [name for name in log if got[name] not in (errno.EIO, log[name])]
    check(not wrong, f"neither right bytes nor EIO: {[(n, got[n] if isinstance(got[n], int) else len(got[n])) for n in wrong]}")
    lost = [name for name in log if got[name] == errno.EIO]
    check(0 < len(lost) < len(log), f"{len(lost)} of {len(log)} files are EIO: some, not all")
    check(sorted(os.listdir(os.path.join(second, "d"))) == sorted(os.path.basename(name) for name in log), "all names are there")
    log |= fill(cluster, files=7, name="meanwhile", seed=2)
    # A start without them says so, whether it can serve the rest or not.
    cluster.stop()
    done = cluster.up(mount=False, ok=False)
    if done.returncode != 0:
        check_refused(done, "no copy of journal run", "bring one target back")
    else:
        check("target t0 is lost" in done.stdout and "target t1 is lost" in done.stdout, f"{done.stdout!r}")
    cluster.stop()
    for place, elsewhere in places:
        os.rename(elsewhere, place)
    said = cluster.up()
    check("is lost" not in said.stdout, f"{said.stdout!r}")
    check_log(cluster, log, "with both back")


# --- SIGKILL

class Workload(threading.Thread):
    """Creates, overwrites, renames and unlinks files, each step synced and then logged outside of the mount: what must hold
    afterwards. Survives the end of the mount: an operation that failed may or may not have happened."""

    def __init__(self, mount_dir, name, seed):
        super().__init__(daemon=True)
        self.mount_dir = mount_dir
        self.folder = os.path.join(mount_dir, name)
        self.beneath = os.stat(os.path.dirname(mount_dir)).st_dev
        self.name = name
        self.random = random.Random(seed)
        self.ended = threading.Event()
        self.log = {}      # name: bytes, acknowledged
        self.unsure = {}   # name: what may be there as well (None: nothing)
        self.acknowledged = 0
        self.wrong = None

    def run(self):
        while not self.ended.is_set():
            try:
                self.step()
            except OSError:
                time.sleep(0.02)  # no mount just now
            except Exception as error:  # shown by the test
                self.wrong = error
                return

    def step(self):
        # By descriptors from the mount's root on: while nothing is mounted, the path is the directory beneath.
        root = os.open(self.mount_dir, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if os.fstat(root).st_dev == self.beneath:
                raise OSError(errno.ENOTCONN, "not mounted")
            try:
                os.mkdir(self.name, dir_fd=root)
            except FileExistsError:
                pass
            os.fsync(root)
            folder = os.open(self.name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=root)
            try:
                self.change(folder)
            finally:
                os.close(folder)
        finally:
            os.close(root)

    def change(self, folder):
        name = f"f{self.random.randrange(40)}"
        if self.random.random() < 0.7:
            data = self.random.randbytes(self.random.choice((10, 3000, 70_000, 400_000))) + name.encode()
            self.note(name, data)
            fd = os.open(name + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=folder)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view):]
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(name + ".new", name, src_dir_fd=folder, dst_dir_fd=folder)
        else:
            data = None
            self.note(name, data)
            try:
                os.unlink(name, dir_fd=folder)
            except FileNotFoundError:
                pass
        os.fsync(folder)
        if data is None:
            self.log.pop(name, None)
        else:
            self.log[name] = data
        self.unsure.pop(name, None)
        self.acknowledged += 1

    def note(self, name, data):
        self.unsure.setdefault(name, []).append(data)

    def verify(self, when):
        """Every file is what was acknowledged last, or one of those that were under way since; nothing else is there."""
        if self.wrong:
            raise self.wrong
        there = {}
        for name in os.listdir(self.folder):
            if name.endswith(".new"):
                continue
            with open(os.path.join(self.folder, name), "rb") as f:
                there[name] = f.read()
        for name in set(self.log) | set(there) | set(self.unsure):
            allowed = [self.log.get(name)] + self.unsure.get(name, [])
            check(there.get(name) in allowed, f"{when}: {self.name}/{name} is neither what was acknowledged nor what was under way "
                  f"({'missing' if name not in there else len(there[name])}; acknowledged: {'no' if name not in self.log else len(self.log[name])})")
            # What is there now is what counts from here on.
            if name in there:
                self.log[name] = there[name]
            else:
                self.log.pop(name, None)
            self.unsure.pop(name, None)


def bad_input_sigkill_of_node_and_mounts_at_any_moment(box):
    cluster = small(box, targets=3, capacity_mib=512)
    seed = int(os.environ.get("HEADRACE_TEST_SEED", "7"))
    chance = random.Random(seed)
    second = box.path("second")
    cluster.mount(second)
    rounds = int(os.environ.get("HEADRACE_TEST_ROUNDS", "30"))
    killed = {"node": 0, "mount": 0, "both": 0}
    workloads = [Workload(cluster.mount_dir, "a", seed), Workload(second, "b", seed + 1)]
    for workload in workloads:
        workload.start()
    for turn in range(rounds):
        # A mount that died keeps its grants until its lease ends, and others wait for them: most kills are the node's.
        what = ("node", "node", "mount", "node", "node", "both")[turn % 6]
        before = [w.acknowledged for w in workloads]
        wait_until(lambda: all(w.wrong or w.acknowledged > n for w, n in zip(workloads, before)), 60, "the workload goes on between kills")
        time.sleep(chance.uniform(0, 0.3))
        killed[what] += 1
        directory = chance.choice([cluster.mount_dir, second])
        if what != "node":
            cluster.kill_mount(directory)
        if what != "mount":
            cluster.kill_node()
            time.sleep(chance.choice((0, 0, chance.uniform(0, 0.3))))
            cluster.up(mount=False)
        if what != "node":
            cluster.mount(directory)
    for workload in workloads:
        workload.ended.set()
        workload.join(60)
        check(not workload.is_alive(), "the workload ends")
    total = sum(w.acknowledged for w in workloads)
    print(f"seed {seed}: killed {killed}, {total} steps acknowledged", flush=True)
    check(total > rounds, f"the workload got on between kills: {total} steps")
    for workload in workloads:
        workload.verify(f"seed {seed}, after {rounds} kills")
    cluster.remount()
    for workload in workloads:
        workload.verify("mounted anew")
    again(cluster)
    cluster.mount(second)
    for workload in workloads:
        workload.verify("after a restart")
    # And from the bucket alone.
    cluster.spin_down()
    cluster.wipe()
    other = box.cluster("other", bucket=cluster.bucket, capacity_mib=512, targets=3)
    other.rehydrate()
    for workload in workloads:
        workload.folder = os.path.join(other.mount_dir, workload.name)
        workload.verify("from the bucket alone")


def bad_input_a_node_that_stood_still_for_a_minute_goes_on(box):
    """A machine that was suspended: what its journals had begun to write is over time at once. It begins anew by itself."""
    cluster = small(box, capacity_mib=512)
    workload = Workload(cluster.mount_dir, "a", 7)
    workload.start()
    wait_until(lambda: workload.wrong or workload.acknowledged > 20, 60, "the workload has begun")
    node = cluster.node_pid()
    os.kill(node, signal.SIGSTOP)
    time.sleep(65)
    os.kill(node, signal.SIGCONT)
    before = workload.acknowledged
    wait_until(lambda: workload.wrong or workload.acknowledged > before + 20, 60, "the workload goes on")
    workload.ended.set()
    workload.join(60)
    check(cluster.node_pid() == node and alive(node), "it is the same process")
    workload.verify("after it stood still")
    again(cluster)
    workload.verify("after a restart")


def bad_input_a_state_whose_process_numbers_belong_to_others_now(box):
    """After a power cut and a restart of the machine, node.json and mounts/ name processes that are somebody else's."""
    cluster = small(box)
    log = fill(cluster, files=6)
    cluster.kill_mount()
    cluster.kill_node()
    stranger = subprocess.Popen(["sleep", "600"])
    box.on_close(stranger.kill)
    mounts = os.path.join(cluster.state, "mounts")
    for path in [os.path.join(cluster.state, "node.json"), *(os.path.join(mounts, n) for n in os.listdir(mounts))]:
        with open(path) as f:
            content = json.load(f)
        content["pid"] = stranger.pid
        with open(path, "w") as f:
            json.dump(content, f)
    check_refused(headrace("status", "--state", cluster.state), "no node runs", "headrace up")
    cluster.stop()
    check(stranger.poll() is None, "`stop` leaves the stranger alone")
    cluster.up()
    check_log(cluster, log, "after the restart")
    cluster.stop()
    check(stranger.poll() is None, "`stop` of the new node does, too")


if __name__ == "__main__":
    main()
