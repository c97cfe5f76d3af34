#!/usr/bin/env python3
"""The power fails at any moment: what fsync (or a call that is durable when it returns) acknowledged before is there afterwards,
with its bytes; what was under way happened, or did not; every name that lists can be read.

Threads change files on a mount whose node keeps its state on a recorded disk (recorded_disk.py), and note where in the record each
change began and was acknowledged. Then, for many positions, the disk as a power cut there may leave it is put under a node, and the
mount is compared with the notes. The same is done without Headrace, on the ext4 that lies between, and with disks that lied: those must
be found out, or the test could not fail.

HEADRACE_TEST_SEED repeats a run's choices (not its timing), HEADRACE_TEST_CUTS and HEADRACE_TEST_SECONDS make it longer."""
import os
import random
import stat
import subprocess
import threading
import time

import recorded_disk
from box import Failed, check, is_mounted, main, shell


SECOND_CUTS = 3  # of one recovery


# --- what the threads do, and what must be there afterwards

class Step:
    """What one thread did until it was acknowledged. `changes` are independent of each other; each is {path: (before, after)} of
    paths that change together; None: nothing is there. Contents may be mixed of before and after while a step is under way."""

    def __init__(self, name, started, changes, scratch=()):
        self.name = name
        self.started = started
        self.acknowledged = None
        self.changes = changes
        self.scratch = set(scratch)  # names that may be there meanwhile


class Writer(threading.Thread):
    """Changes its own folder step by step. A file's value is (bytes, xattr or None), a link's its target, a directory's True."""

    FOLDERS = ("a", "b")

    def __init__(self, root, name, seed, position, journaled):
        super().__init__(daemon=True)
        self.root = os.path.join(root, name)
        self.position = position
        self.journaled = journaled  # rename, link, mkdir, … are durable when they return
        self.rng = random.Random(seed)
        self.ended = threading.Event()
        self.wrong = None
        self.state = {}
        self.steps = []
        self.counter = 0
        os.mkdir(self.root)
        for folder in self.FOLDERS:
            os.mkdir(os.path.join(self.root, folder))
            self.state[folder] = True
        self.sync(self.root)
        self.sync(root)
        self.base = dict(self.state)

    def run(self):
        operations = [self.replace] * 4 + [self.create] * 3 + [self.overwrite] * 4 + [self.append] * 2 + [self.rename] * 3 + [
            self.unlink] * 2 + [self.truncate, self.batch, self.directory, self.xattr, self.link, self.symlink, self.direct]
        try:
            while not self.ended.is_set():
                (self.unlink if len(self.files()) > 40 else self.rng.choice(operations))()
        except Exception as error:  # shown by the test
            self.wrong = error

    # --- one step

    def begin(self, name, changes, scratch=()):
        self.steps.append(Step(name, self.position(), changes, scratch))

    def end(self):
        """What `begin` announced is acknowledged."""
        self.steps[-1].acknowledged = self.position()
        for change in self.steps[-1].changes:
            for path, (_, after) in change.items():
                if after is None:
                    self.state.pop(path, None)
                else:
                    self.state[path] = after

    def path(self, name):
        return os.path.join(self.root, name)

    def sync(self, path, data_only=False):
        fd = os.open(path, os.O_RDONLY)
        try:
            (os.fdatasync if data_only else os.fsync)(fd)
        finally:
            os.close(fd)

    def sync_folders(self, *names):
        """Of these names: unless the call that changed them was durable by itself."""
        if not self.journaled:
            for folder in {os.path.dirname(name) for name in names}:
                self.sync(self.path(folder))

    def files(self):
        return [n for n, value in self.state.items() if isinstance(value, tuple)]

    def some_file(self):
        files = self.files()
        return self.rng.choice(files) if files else None

    def fresh(self):
        self.counter += 1
        return f"{self.rng.choice(self.FOLDERS)}/f{self.counter}"

    def bytes(self):
        return self.rng.randbytes(self.rng.choice((10, 3000, 20_000, 70_000, 300_000)))

    def write(self, name, data, flags=os.O_CREAT | os.O_TRUNC, at=0, sync=True):
        fd = os.open(self.path(name), os.O_WRONLY | flags, 0o644)
        try:
            done = 0
            while done < len(data):
                done += os.pwrite(fd, data[done:], at + done)
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)

    # --- the operations

    def replace(self):
        name = (self.rng.random() < 0.6 and self.some_file()) or self.fresh()
        after = (self.bytes(), None)
        self.begin("replace", [{name: (self.state.get(name), after)}], [name + ".new"])
        self.write(name + ".new", after[0])
        os.rename(self.path(name + ".new"), self.path(name))
        self.sync_folders(name)
        self.end()

    def create(self):
        name = self.fresh()
        after = (self.bytes(), None)
        self.begin("create", [{name: (None, after)}])
        self.write(name, after[0])
        self.sync(os.path.dirname(self.path(name)))
        self.end()

    def change_bytes(self, what, name, after, do):
        before = self.state[name]
        self.begin(what, [{name: (before, (after, before[1]))}])
        do()
        self.end()

    def overwrite(self):
        name = self.some_file()
        if not name:
            return
        data = self.state[name][0]
        at = self.rng.randrange(len(data) + 1)
        new = self.rng.randbytes(self.rng.choice((1, 100, 4096, 9000, 100_000)))
        self.change_bytes("overwrite", name, data[:at] + new + data[at + len(new):], lambda: self.write(name, new, 0, at))

    def append(self):
        name = self.some_file()
        if not name:
            return
        data = self.state[name][0]
        new = self.rng.randbytes(self.rng.choice((1, 100, 5000)))
        self.change_bytes("append", name, data + new, lambda: self.write(name, new, 0, len(data)))

    def direct(self):
        """O_DSYNC: acknowledged by write itself."""
        name = self.some_file()
        if not name:
            return
        data = self.state[name][0]
        new = self.rng.randbytes(700)
        self.change_bytes("O_DSYNC write", name, data + new, lambda: self.write(name, new, os.O_DSYNC, len(data), sync=False))

    def truncate(self):
        name = self.some_file()
        if not name:
            return
        size = self.rng.randrange(len(self.state[name][0]) + 1)

        def do():
            os.truncate(self.path(name), size)
            self.sync(self.path(name), data_only=True)
        self.change_bytes("truncate", name, self.state[name][0][:size], do)

    def xattr(self):
        name = self.some_file()
        if not name:
            return
        before = self.state[name]
        value = self.rng.randbytes(20)
        self.begin("setxattr", [{name: (before, (before[0], value))}])
        os.setxattr(self.path(name), "user.x", value)
        if not self.journaled:
            self.sync(self.path(name))
        self.end()

    def unlink(self):
        name = self.some_file()
        if not name:
            return
        self.begin("unlink", [{name: (self.state[name], None)}])
        os.unlink(self.path(name))
        self.sync(os.path.dirname(self.path(name)))
        self.end()

    def rename(self):
        name = self.some_file()
        if not name:
            return
        target = (self.rng.random() < 0.5 and self.some_file()) or self.fresh()
        if target == name:
            return
        self.begin("rename", [{name: (self.state[name], None), target: (self.state.get(target), self.state[name])}])
        os.rename(self.path(name), self.path(target))
        self.sync_folders(name, target)
        self.end()

    def link(self):
        """One more name, and then the first is gone: as two steps."""
        name = self.some_file()
        if not name:
            return
        target = self.fresh()
        value = self.state[name]
        self.begin("link", [{target: (None, value)}])
        os.link(self.path(name), self.path(target))
        self.sync_folders(target)
        self.end()
        self.begin("unlink of a link", [{name: (value, None)}])
        os.unlink(self.path(name))
        self.sync(os.path.dirname(self.path(name)))
        self.end()

    def symlink(self):
        name = self.fresh()
        self.begin("symlink", [{name: (None, f"to {name}")}])
        os.symlink(f"to {name}", self.path(name))
        self.sync(os.path.dirname(self.path(name)))
        self.end()

    def directory(self):
        """One that is made, filled and, sometimes, removed again."""
        name = self.fresh()
        self.begin("mkdir", [{name: (None, True)}])
        os.mkdir(self.path(name))
        self.sync_folders(name)
        self.end()
        if self.rng.random() < 0.5:
            data = (self.bytes(), None)
            self.begin("create in a new directory", [{name + "/x": (None, data)}])
            self.write(name + "/x", data[0])
            self.sync(self.path(name))
            self.end()
        else:
            self.begin("rmdir", [{name: (True, None)}])
            os.rmdir(self.path(name))
            self.sync_folders(name)
            self.end()

    def batch(self):
        """Many small files, each flushed, their names together."""
        new = {f"{self.FOLDERS[0]}/{self.fresh()[2:]}": (self.rng.randbytes(self.rng.randrange(1, 3000)), None)
               for _ in range(self.rng.randrange(3, 15))}
        old = self.files()[:2]
        self.begin("batch", [{n: (None, value)} for n, value in new.items()] + [{n: (self.state[n], None)} for n in old])
        for name, value in new.items():
            self.write(name, value[0], sync=False)
        for name in old:
            os.unlink(self.path(name))
        for name in new:
            self.sync(self.path(name))
        for folder in self.FOLDERS:
            self.sync(self.path(folder))
        for name in old:
            self.sync(os.path.dirname(self.path(name)))
        self.end()

    # --- afterwards

    def at(self, cut):
        """(what is there for certain, the step that was under way or None)"""
        state = dict(self.base)
        for step in self.steps:
            if step.acknowledged is None or step.acknowledged > cut:
                return state, step if step.started <= cut else None
            for change in step.changes:
                for path, (_, after) in change.items():
                    if after is None:
                        state.pop(path, None)
                    else:
                        state[path] = after
        return state, None

    def verify(self, cut):
        want, step = self.at(cut)
        have = self.observe()
        free = step.scratch if step else set()
        for change in step.changes if step else ():
            free |= set(change)
            check(matches(change, have, 0) or matches(change, have, 1) or is_mixed(change, have, self.journaled),
                  f"{self.root}: {step.name} was under way, and is neither done nor undone: "
                  + "; ".join(f"{path} is {describe(have.get(path))}, was {describe(b)}, becomes {describe(a)}" for path, (b, a) in change.items()))
        for path in sorted(set(want) | set(have)):
            if path not in free and want.get(path) != have.get(path):
                last = [s.name for s in self.steps if s.acknowledged is not None and s.acknowledged <= cut and any(path in c for c in s.changes)]
                raise Failed(f"{self.root}/{path} is {describe(have.get(path))}, and {describe(want.get(path))} was acknowledged "
                             f"({', '.join(last[-3:])}; under way: {step.name if step else 'nothing'})")

    def observe(self):
        there = {}
        for directory, folders, names in os.walk(self.root, onerror=fail):
            for name in folders + names:
                path = os.path.join(directory, name)
                try:
                    there[os.path.relpath(path, self.root)] = self.value(path)
                except OSError as error:
                    raise Failed(f"{path} lists and cannot be read: {error}")
        return there

    @staticmethod
    def value(path):
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            return os.readlink(path)
        if stat.S_ISDIR(mode):
            return True
        with open(path, "rb") as f:
            data = f.read()
        check(len(data) == os.stat(path).st_size, f"{path} has as many bytes as its attributes say")
        return data, os.getxattr(path, "user.x") if "user.x" in os.listxattr(path) else None


def fail(error):
    raise Failed(f"a directory lists and cannot be read: {error}")


def matches(change, have, which):
    return all(have.get(path) == values[which] for path, values in change.items())


def is_mixed(change, have, journaled):
    """Of one file that was being written: each byte is the old or the new one, or a zero that nothing was written to yet. (ext4
    zeroes the end of a block before it makes the file shorter.)"""
    if len(change) != 1:
        return False
    (path, (before, after)), = change.items()
    got = have.get(path)
    if not isinstance(got, tuple) or not isinstance(after, tuple) or isinstance(before, (str, bool)):
        return False
    old, new = before[0] if before else b"", after[0]
    if got[1] != after[1] or not min(len(old), len(new)) <= len(got[0]) <= max(len(old), len(new)):
        return False
    zeros_from = len(old) if journaled else min(len(old), len(new))
    return all(byte in old[i:i + 1] or byte in new[i:i + 1] or (i >= zeros_from and byte == 0) for i, byte in enumerate(got[0]))


def describe(value):
    if value is None:
        return "nothing"
    if isinstance(value, tuple):
        return f"{len(value[0])} bytes ({value[0][:6].hex()}…)" + (" with an xattr" if value[1] else "")
    return "a directory" if value is True else "a link"


# --- disks with file systems, their record, and their images after cuts

class Disks:
    """ext4 on disks: {name of the mount point: MiB}. The first loses what was not flushed; the others, if any, lose nothing that they
    were given: a bucket that is elsewhere."""

    def __init__(self, box, sizes_mib):
        self.box = box
        self.memory = box.path("memory")  # images are written and thrown away
        self.places = [box.path(name) for name in sizes_mib]
        os.makedirs(self.memory)
        shell(["mount", "-t", "tmpfs", "-o", "size=12g", "tmpfs", self.memory])
        box.on_close(lambda: subprocess.run(["umount", "-l", self.memory], check=False))
        images = self.names("new")
        for image, mib in zip(images, sizes_mib.values()):
            with open(image, "wb") as f:
                f.truncate(mib << 20)
            shell(["mkfs.ext4", "-q", "-m", "0", image])
        self.recorded = self.record(images, "recorded")

    def names(self, name):
        return [os.path.join(self.memory, f"{name}.{i}") for i in range(len(self.places))]

    def record(self, images, name):
        """The images are used up: mounted, and recorded until finish()."""
        recorded = recorded_disk.RecordedDisks(self.box, f"memory/{name}", images)
        for device, place in zip(recorded.devices, self.places):
            self.mount_one(device, place)
        return recorded

    def position(self):
        return self.recorded.position()

    def finish(self, recorded):
        """The record, once nobody works there any more."""
        for place in self.places:
            recorded_disk.unmount(place)
        return recorded.finish()

    def cut(self, record, name, position, keep, durable=None):
        """Images of what a power cut at this position leaves, and (writes that no flush covered, how many of them are kept)."""
        images = self.names(name)
        counts = record.image(images[0], position, keep, durable=durable)
        for i in range(1, len(images)):
            record.image(images[i], position, recorded_disk.keep_all, disk=i)
        return images, counts

    def mount_one(self, device, place):
        recorded_disk.mount(device, place)
        self.box.on_close(lambda: is_mounted(place) and subprocess.run(["umount", "-l", place], check=False))

    def mount(self, images):
        """The images are mounted; put_away() of what is returned."""
        devices = []
        for image, place in zip(images, self.places):
            devices.append(recorded_disk.attach(image, direct=False))
            self.box.on_close(lambda d=devices[-1], i=image: recorded_disk.detach(d, i))
            self.mount_one(devices[-1], place)
        return devices

    def put_away(self, devices, images):
        for device, image, place in zip(devices, images, self.places):
            recorded_disk.unmount(place)
            recorded_disk.detach(device, image)
            os.remove(image)


def record(disk, root, seconds, seed, journaled=False, threads=4, meanwhile=None):
    """Runs the threads for so long; (writers, position from which on there is something to cut)."""
    writers = [Writer(root, f"w{i}", seed * 100 + i, disk.position, journaled) for i in range(threads)]
    begin = disk.position()
    for writer in writers:
        writer.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end and not any(w.wrong for w in writers):
        if meanwhile:
            meanwhile()
        time.sleep(0.05)
    for writer in writers:
        writer.ended.set()
    for writer in writers:
        writer.join(120)
        check(not writer.is_alive(), "a writer ends")
        if writer.wrong:
            raise writer.wrong
        writer.verify(disk.position())
    return writers, begin


class Cut:
    def __init__(self, at, what, seed):
        self.at = at
        self.what = what
        self.seed = seed
        self.keep = {"none": recorded_disk.keep_none, "all": recorded_disk.keep_all}.get(what) or recorded_disk.keep_some(
            seed, torn=what == "torn")

    def __str__(self):
        return f"cut at {self.at} ({self.what} {self.seed})"


def choose_cuts(record, begin, end, count, rng):
    """Half of them anywhere, half where much is not covered by a flush; in ascending order."""
    flushes = [f for f in record.flushes[0] if begin <= f < end]
    cuts = []
    for i in range(count):
        at = rng.randrange(begin, end)
        if i % 2 == 0 and flushes:
            some = rng.choices(flushes, k=8)
            at = min(end, max(some, key=record.uncovered) + rng.choice((0, 0, 1)))
        cuts.append(Cut(at, ("torn", "none", "some", "all", "torn")[i % 5], rng.randrange(1 << 30)))
    return sorted(cuts, key=lambda cut: cut.at)


def choose_lies(writers, recording, count, rng, whole_step):
    """Positions just after an acknowledgement, each with what is left if the disk had only pretended to flush: once, or for as
    long as the step took. That step must be missing."""
    steps = [s for w in writers for s in w.steps if s.acknowledged is not None and s.name not in ("unlink of a link",)]
    lies = []
    for step in rng.sample(steps, min(count, len(steps))):
        at = step.acknowledged
        last = [f for f in recording.flushes[0] if f < at][-1]
        lies.append((at, recording.durable(step.started if whole_step else last), step.name))
    return sorted(lies, key=lambda lie: lie[1])


def verify(writers, at):
    for writer in writers:
        writer.verify(at)


def is_wrong(writers, at):
    try:
        verify(writers, at)
    except Failed:
        return True
    return False


def count_steps(writers):
    return sum(len(w.steps) for w in writers)


def settings(cuts, seconds):
    seed = int(os.environ.get("HEADRACE_TEST_SEED", "0")) or random.randrange(1, 1 << 20)
    return seed, int(os.environ.get("HEADRACE_TEST_CUTS", cuts)), float(os.environ.get("HEADRACE_TEST_SECONDS", seconds))


class Forks:
    """Pieces of work in processes of their own, so many at once: most of a recovery is waiting, for the lease of the mount that
    went with the power."""

    def __init__(self, box, at_once=int(os.environ.get("HEADRACE_TEST_JOBS", "8"))):
        self.box = box
        self.at_once = at_once
        self.running = []

    def run(self, work):
        if len(self.running) == self.at_once:
            self.running.pop(0).wait()
        self.running.append(self.box.fork(work))

    def wait(self):
        while self.running:
            self.running.pop(0).wait()


# --- the tests

def the_harness_alone_finds_a_disk_that_lies(box):
    """ext4 alone keeps what it acknowledged, and of a disk that dropped one flush it is found that something is missing."""
    seed, count, seconds = settings(30, 2)
    rng = random.Random(seed)
    disks = Disks(box, {"disk": 256})
    writers, begin = record(disks, disks.places[0], seconds, seed)
    end = disks.position()
    recording = disks.finish(disks.recorded)
    for cut in choose_cuts(recording, begin, end, count, rng):
        images, _ = disks.cut(recording, "cut", cut.at, cut.keep)
        devices = disks.mount(images)
        try:
            verify(writers, cut.at)
        except Failed as error:
            raise Failed(f"ext4 alone, seed {seed}, {cut}: {error}")
        disks.put_away(devices, images)
    lies = choose_lies(writers, recording, 10, rng, whole_step=False)
    found = 0
    for at, durable, _ in lies:
        images, _ = disks.cut(recording, "lie", at, recorded_disk.keep_none, durable)
        devices = disks.mount(images)
        found += is_wrong(writers, at)
        disks.put_away(devices, images)
    print(f"seed {seed}: {count_steps(writers)} steps, {len(recording)} entries, {count} cuts hold; "
          f"{found} of {len(lies)} dropped flushes found", flush=True)
    check(found >= len(lies) // 3, f"a dropped flush is found: {found} of {len(lies)}")  # another step's may have covered it


class Powered:
    """A cluster whose state is on the first disk and its bucket on the last, and what was recorded of it."""

    def __init__(self, box, sizes_mib, seconds, seed, spin_down):
        self.box = box
        self.disks = Disks(box, sizes_mib)
        self.cluster = box.cluster(os.path.basename(self.disks.places[0]) + "/s", targets=3, protection="2+1", capacity_mib=64,
                                   bucket="file://" + os.path.join(self.disks.places[-1], "bucket"))
        self.cluster.mount_dir = box.path("mnt")  # not on the disk
        self.made = self.disks.position()
        self.cluster.up()
        pushes = [0, time.monotonic()]

        def push():
            if time.monotonic() > pushes[1] + 0.7:
                self.cluster.push()
                pushes[:] = [pushes[0] + 1, time.monotonic()]
        self.writers, self.begin = record(self.disks, self.cluster.mount_dir, seconds, seed, journaled=True, threads=8, meanwhile=push)
        check(pushes[0] > 0, "something went to the bucket meanwhile")
        if spin_down:
            self.cluster.spin_down()
        else:
            self.cluster.stop()
        self.end = self.disks.position()
        self.record = self.disks.finish(self.disks.recorded)

    def check_images(self, images, at, when, **how):
        devices = self.disks.mount(images)
        self.check_recovery(at, when, **how)
        self.disks.put_away(devices, images)

    def check_second_cuts(self, images, at, when, seed, **how):
        """The recovery is recorded, and power fails in it."""
        recorded = self.disks.record(images, os.path.basename(images[0]) + ".recorded")
        self.check_recovery(at, when, **how)
        record = self.disks.finish(recorded)
        for second in choose_cuts(record, 0, len(record), SECOND_CUTS, random.Random(seed)):
            again, _ = self.disks.cut(record, os.path.basename(images[0]) + ".again", second.at, second.keep)
            self.check_images(again, at, f"{when}, and during its recovery {second}", from_bucket=True, **how)
        record.remove()

    def check_lie(self, images, at, when):
        devices = self.disks.mount(images)
        self.box.on_close(self.cluster.close)
        self.cluster.up()
        check(is_wrong(self.writers, at), when)
        self.cluster.stop()
        self.disks.put_away(devices, images)

    def check_recovery(self, at, when, from_bucket=False, create=False):
        """What is mounted serves, with what had been acknowledged at this position; and new files are kept."""
        self.box.on_close(self.cluster.close)
        try:
            self.cluster.up(create=create)
            self.verify(at)
            status = self.cluster.status()
            states = {t["name"]: t["state"] for t in status["targets"]}
            check(len(states) == 3 and set(states.values()) == {"live"}, f"all targets are live: {status['targets']}")
            check(not status["read_only"], f"the namespace can be written: {status['read_only']}")
            check(status["degraded_reads"] == 0, f"each fragment is where it should be: {status['degraded_reads']} degraded reads")
            path = os.path.join(self.cluster.mount_dir, "after")
            data = os.urandom(30_000)
            with open(path, "wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            with open(path, "rb") as f:
                check(f.read() == data, "a new file is kept")
            if from_bucket:
                scrubbed = self.cluster.run("target", "scrub", "--state", self.cluster.state).stdout
                check("0 missing" in scrubbed, f"scrub misses nothing: {scrubbed!r}")
                self.cluster.spin_down()
                self.cluster.wipe()
                self.cluster.rehydrate()
                self.verify(at)
            self.cluster.stop()
        except Failed as error:
            raise Failed(f"{when}: {error}")

    def verify(self, at):
        if at >= self.begin:  # before, nothing was there
            verify(self.writers, at)


def cut_power(box, sizes_mib, count, seconds, spin_down=False, lies=0, thorough=0):
    """`thorough`: every so many cuts, power fails again while the node recovers, and all is read from the bucket alone."""
    seed, count, seconds = settings(count, seconds)
    rng = random.Random(seed)
    powered = Powered(box, sizes_mib, seconds, seed, spin_down)
    disks, record = powered.disks, powered.record
    # While the namespace was made, and while it was worked with.
    cuts = choose_cuts(record, powered.made, powered.begin, count // 5, rng) + choose_cuts(record, powered.begin, powered.end, count, rng)
    forks = Forks(box)
    lost = kept = again = 0
    for i, cut in enumerate(cuts):
        images, (uncovered, left) = disks.cut(record, f"cut{i}", cut.at, cut.keep)
        lost, kept = lost + uncovered - left, kept + left
        when, how = f"seed {seed}, {cut}", {"create": cut.at < powered.begin}
        if thorough and i % thorough == 0:
            again += SECOND_CUTS
            forks.run(lambda: powered.check_second_cuts(images, cut.at, when, cut.seed, **how))
        else:
            forks.run(lambda: powered.check_images(images, cut.at, when, **how))
    chosen = choose_lies(powered.writers, record, lies, rng, whole_step=True)
    for i, (at, durable, name) in enumerate(chosen):
        images, _ = disks.cut(record, f"lie{i}", at, recorded_disk.keep_none, durable)
        forks.run(lambda: powered.check_lie(images, at, f"seed {seed}: a disk that lied from the begin of a {name} to its acknowledgement "
                                                        f"at {at} is found out"))
    forks.wait()
    print(f"seed {seed}: {count_steps(powered.writers)} steps, {len(record)} entries; {len(cuts)} cuts and {again} in a recovery, "
          f"{lost} writes lost and {kept} kept that no flush covered; {len(chosen)} lies found", flush=True)
    check(lost + kept > 0, "at the cuts there were writes that no flush covered")


def power_cuts_lose_nothing_that_was_acknowledged(box):
    """The bucket beside the state, as `make up` has it: both lose what was not flushed."""
    cut_power(box, {"disk": 512}, count=6, seconds=3, lies=1)


def power_cuts_under_a_bucket_that_keeps_everything(box):
    """A bucket elsewhere is ahead of the node that comes back: of what it published, and of a spin-down."""
    cut_power(box, {"disk": 448, "elsewhere": 192}, count=7, seconds=3, spin_down=True)


def long_run_of_power_cuts(box):
    cut_power(box, {"disk": 1536}, count=100, seconds=15, lies=8, thorough=10)


def long_run_of_power_cuts_under_a_bucket_that_keeps_everything(box):
    cut_power(box, {"disk": 768, "elsewhere": 768}, count=100, seconds=15, spin_down=True, thorough=10)


if __name__ == "__main__":
    main()
