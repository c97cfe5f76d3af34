#!/usr/bin/env python3
"""Bad input, as a user meets it: what is wrong, flipped, cut off, full, dead, lying or killed. Each test asserts the message,
the mend that the message names, and that nothing acknowledged was lost: what was logged outside after fsync(file) and
fsync(directory) is there with equal bytes once the mend is done."""
import errno
import hashlib
import json
import os
import random
import shutil
import socket
import struct
import subprocess
import threading
import time

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
            (("--targets", "many"), ("--targets many", "as a number")),
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


def bad_input_an_older_copy_of_a_target_is_refused(box):
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
    check_refused(cluster.up(mount=False, ok=False), "target t2 is an older copy", "put the newest file back", "headrace target replace t2")
    os.replace(box.path("new.dat"), path)
    cluster.up()
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
    said = cluster.up()
    check("target t0 is lost" in said.stdout, f"{said.stdout!r}")
    status = target(cluster, "t0")
    check("log" in status["reason"] and "headrace target replace t0" in status["reason"], f"{status}")
    check_log(cluster, log, "with t0's log flipped")
    cluster.run("target", "replace", "t0", "--state", cluster.state)
    cluster.stop()
    b = TargetFile(cluster, 1)
    b.flip(b.log + b.log_bytes + b.table * b.table_bytes + 70)
    said = cluster.up()
    check("target t1 is lost" in said.stdout, f"{said.stdout!r}")
    status = target(cluster, "t1")
    check("table is damaged" in status["reason"] and "headrace target replace t1" in status["reason"], f"{status}")
    check_log(cluster, log, "with t1's table flipped")
    cluster.run("target", "replace", "t1", "--state", cluster.state)
    again(cluster)
    check_log(cluster, log, "after replace")


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


if __name__ == "__main__":
    main()
