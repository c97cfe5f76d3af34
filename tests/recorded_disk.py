#!/usr/bin/env python3
"""Disks that write down everything that reaches them, so that a test can ask: what if the power had failed just then?

RecordedDisks is a FUSE file system (this file, run as a process, over /dev/fuse) with one file per disk; under each a loop
device with direct I/O, so that no cache lies between. The log has each write with its bytes and each flush, in the order in
which they were served. Recording reads it and makes the images that a power cut may leave.

What a flush promises: the writes that had been *answered* when it was asked for. All requests that wait are taken at once,
and a flush among them covers only what earlier turns answered; it takes a while, and what is written meanwhile it does not
cover. So a program that does not wait for its writes before it flushes is found out.

What a cut at position N may leave (a disk with a volatile cache): every write that a flush before N covers; of the others
before N any subset, each whole or by 512-byte sectors. Of several writes of one sector any, the last one or none of them:
that is what a subset, applied in order, gives."""
import bisect
import ctypes
import mmap
import os
import random
import select
import shutil
import stat
import struct
import subprocess
import sys
import time

from box import Failed, Skipped, check, is_mounted, wait_until

LIBC = ctypes.CDLL(None, use_errno=True)
SECTOR = 512
MAX_WRITE = 1 << 20
PUNCH_HOLE_KEEP_SIZE = 3
ZEROS = bytes(MAX_WRITE)
FLUSH_TAKES = 0.001  # seconds

# One entry of the log: kind, disk, of a flush the entries that it covers, offset and length of a write, 1 if its bytes follow
# (all zeros do not).
ENTRY = struct.Struct("<BBxxxxxxQQQQ")
WRITE, FLUSH = 1, 2


def punch(fd, offset, length):
    """Zeros, and no room taken by them."""
    if LIBC.fallocate(fd, PUNCH_HOLE_KEEP_SIZE, ctypes.c_long(offset), ctypes.c_long(length)) != 0:
        raise OSError(ctypes.get_errno(), "punch a hole")


def put(fd, offset, data):
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], offset + done)


def is_zero(data):
    return data == ZEROS[:len(data)]


# --- the process that records

IN_HEADER = struct.Struct("<IIQQIIIHH")
OUT_HEADER = struct.Struct("<IiQ")
READ_WRITE_IN = struct.Struct("<QQIIQII")
ATTRIBUTES = struct.Struct("<6Q10I")
LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE_OPERATION, STATFS, RELEASE, FSYNC = 1, 2, 3, 4, 14, 15, 16, 17, 18, 20
FUSE_FLUSH, INIT, INTERRUPT, DESTROY, BATCH_FORGET = 25, 26, 36, 38, 42
ENOENT, ENODEV, ENOSYS = 2, 19, 38
ASYNC_READ, BIG_WRITES, ASYNC_DIO, MAX_PAGES = 1, 1 << 5, 1 << 15, 1 << 22
DIRECT_IO, PARALLEL_DIRECT_WRITES = 1, 1 << 6
FIRST_DISK = 2  # its node id; 1 is the root


class Recorder:
    """Serves DIRECTORY/mnt from DIRECTORY/diskN, one request at a time; appends to DIRECTORY/log. The count of entries stands in
    DIRECTORY/position, eight bytes that others map: raised before a request is answered."""

    def __init__(self, directory):
        names = sorted(n for n in os.listdir(directory) if n.startswith("disk"))
        self.disks = [os.open(os.path.join(directory, n), os.O_RDWR) for n in names]
        self.sizes = [os.fstat(fd).st_size for fd in self.disks]
        self.log = open(os.path.join(directory, "log"), "ab")
        with open(os.path.join(directory, "position"), "r+b") as f:
            self.position = memoryview(mmap.mmap(f.fileno(), 8)).cast("Q")
        self.answered = 0   # entries, before this turn
        self.flushing = []  # (when it ends, disk, entries that it covers, its request's id)
        self.fuse = os.open("/dev/fuse", os.O_RDWR | os.O_NONBLOCK)
        options = f"fd={self.fuse},rootmode=40000,user_id=0,group_id=0"
        if LIBC.mount(b"recorded", os.path.join(directory, "mnt").encode(), b"fuse.recorded", 6, options.encode()) != 0:
            sys.exit(f"mount: {os.strerror(ctypes.get_errno())}")

    def serve(self):
        poll = select.poll()
        poll.register(self.fuse, select.POLLIN)
        while True:
            poll.poll(max(0, (self.flushing[0][0] - time.monotonic()) * 1000) if self.flushing else None)
            while self.flushing and self.flushing[0][0] <= time.monotonic():
                _, disk, covers, unique = self.flushing.pop(0)
                self.append(FLUSH, disk, covers, 0, b"")
                self.log.flush()
                self.reply(unique, 0, b"")
            requests = []
            while True:
                try:
                    requests.append(os.read(self.fuse, MAX_WRITE + 4096))
                except BlockingIOError:
                    break
                except FileNotFoundError:
                    continue  # withdrawn
                except OSError as error:
                    if error.errno == ENODEV:
                        return  # unmounted
                    raise
            self.answered = self.position[0]
            for request in requests:
                self.handle(request)
            self.log.flush()

    def handle(self, request):
        _, operation, unique, node, *_ = IN_HEADER.unpack_from(request)
        if operation in (FORGET, BATCH_FORGET, INTERRUPT):
            return
        error, body = 0, b""
        if operation == WRITE_OPERATION:
            _, offset, size, *_ = READ_WRITE_IN.unpack_from(request, 40)
            body = self.write(node - FIRST_DISK, offset, request[80:80 + size])
        elif operation == READ:
            _, offset, size, *_ = READ_WRITE_IN.unpack_from(request, 40)
            body = os.pread(self.disks[node - FIRST_DISK], size, offset)
        elif operation == FSYNC:
            self.flushing.append((time.monotonic() + FLUSH_TAKES, node - FIRST_DISK, self.answered, unique))
            return
        elif operation == INIT:
            body = struct.pack("<IIIIHHIIHHII6I", 7, 31, 0, ASYNC_READ | BIG_WRITES | ASYNC_DIO | MAX_PAGES, 64, 48, MAX_WRITE, 1,
                               MAX_WRITE // 4096, 0, 0, 0, *[0] * 6)
        elif operation == LOOKUP:
            name = request[40:].split(b"\0")[0].decode()
            found = [i for i in range(len(self.disks)) if name == f"disk{i}"]
            if found:
                body = struct.pack("<QQQQII", FIRST_DISK + found[0], 0, 3600, 3600, 0, 0) + self.attributes(FIRST_DISK + found[0])
            else:
                error = -ENOENT
        elif operation in (GETATTR, SETATTR):
            body = struct.pack("<QII", 3600, 0, 0) + self.attributes(node)
        elif operation == OPEN:
            body = struct.pack("<QIi", 0, DIRECT_IO | PARALLEL_DIRECT_WRITES, 0)
        elif operation == STATFS:
            body = struct.pack("<5Q10I", 0, 0, 0, 0, 0, 4096, 255, 4096, *[0] * 7)
        elif operation not in (FUSE_FLUSH, RELEASE, DESTROY):
            error = -ENOSYS  # no fallocate: discards and zeroing come as nothing and as writes
        self.reply(unique, error, body)

    def reply(self, unique, error, body):
        try:
            os.writev(self.fuse, [OUT_HEADER.pack(16 + len(body), error, unique), body])
        except FileNotFoundError:
            pass  # nobody waits for it any more

    def write(self, disk, offset, data):
        self.append(WRITE, disk, 0, offset, data)
        if is_zero(data):
            punch(self.disks[disk], offset, len(data))
        else:
            put(self.disks[disk], offset, data)
        return struct.pack("<II", len(data), 0)

    def append(self, kind, disk, covers, offset, data):
        stored = kind == WRITE and not is_zero(data)
        self.log.write(ENTRY.pack(kind, disk, covers, offset, len(data), stored))
        if stored:
            self.log.write(data)
        self.position[0] += 1

    def attributes(self, node):
        mode = stat.S_IFDIR | 0o700 if node == 1 else stat.S_IFREG | 0o600
        size = 0 if node == 1 else self.sizes[node - FIRST_DISK]
        return ATTRIBUTES.pack(node, size, size // SECTOR, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


# --- the test's side

def attach(path, direct):
    """A loop device over the file; detach() it."""
    made = subprocess.run(["losetup", "-f", "--show", *(["--direct-io=on"] if direct else []), path], capture_output=True, text=True)
    if made.returncode != 0:
        raise Skipped(f"no loop devices: {made.stderr.strip()}")
    return made.stdout.strip()


def detach(device, path):
    """If it is still ours: the number may have been given to others since."""
    listed = subprocess.run(["losetup", "-n", "-O", "BACK-FILE", device], capture_output=True, text=True).stdout.strip()
    if listed.startswith(path):
        subprocess.run(["losetup", "-d", device], check=False)


def mount(device, directory):
    os.makedirs(directory, exist_ok=True)
    done = subprocess.run(["mount", "-t", "ext4", device, directory], capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(f"mount {device}: {done.stderr.strip()}")


def unmount(directory):
    """Waits for who still has files open there: a daemon that has just ended."""
    wait_until(lambda: subprocess.run(["umount", directory], capture_output=True).returncode == 0 or not is_mounted(directory), 20,
               f"{directory} can be unmounted")


class RecordedDisks:
    """`devices` over these images (files: they are moved here, and change), recorded from now on."""

    def __init__(self, box, name, images):
        self.box = box
        self.directory = box.path(name)
        os.makedirs(os.path.join(self.directory, "mnt"))
        for i, image in enumerate(images):
            with open(image, "rb") as f, open(os.path.join(self.directory, f"base{i}"), "wb") as base:
                copy_sparse(f.fileno(), base.fileno(), os.path.getsize(image))
            os.rename(image, os.path.join(self.directory, f"disk{i}"))
        for extra, size in (("log", 0), ("position", 8)):
            with open(os.path.join(self.directory, extra), "wb") as f:
                f.truncate(size)
        with open(os.path.join(self.directory, "position"), "r+b") as f:
            self._position = memoryview(mmap.mmap(f.fileno(), 8)).cast("Q")
        self._mount = os.path.join(self.directory, "mnt")
        os.makedirs(box.path("log"), exist_ok=True)
        with open(box.path("log", "recorder.log"), "ab") as said:
            self.process = subprocess.Popen([sys.executable, os.path.abspath(__file__), self.directory], stdin=subprocess.DEVNULL,
                                            stdout=said, stderr=said, start_new_session=True)
        self.devices = []
        box.on_close(self._end)
        wait_until(lambda: is_mounted(self._mount) or self.process.poll() is not None, 20, "the recorder mounts")
        check(self.process.poll() is None, "the recorder serves")
        for i in range(len(images)):
            self.devices.append(attach(os.path.join(self._mount, f"disk{i}"), direct=True))

    def position(self):
        """How many entries the log has. What returned before this was called is among them."""
        return self._position[0]

    def finish(self):
        """Ends the recording; nothing may be mounted any more."""
        self._detach()
        wait_until(lambda: subprocess.run(["umount", self._mount], capture_output=True).returncode == 0, 20, "the recorder's mount ends")
        check(self.process.wait(20) == 0, "the recorder ended well")
        return Recording(self.directory)

    def _detach(self):
        while self.devices:
            device = self.devices.pop()
            detach(device, os.path.join(self._mount, f"disk{len(self.devices)}"))

    def _end(self):
        self._detach()
        if is_mounted(self._mount):
            subprocess.run(["umount", "-l", self._mount], check=False)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Recording:
    """A finished log. Cuts are cheapest in ascending order: the image of what is durable is carried along."""

    def __init__(self, directory):
        self.directory = directory
        self.log = open(os.path.join(directory, "log"), "rb")
        self.entries = []  # (kind, disk, covers, offset, length, where its bytes are or None)
        at = 0
        end = os.path.getsize(self.log.name)
        while at < end:
            kind, disk, covers, offset, length, stored = ENTRY.unpack(os.pread(self.log.fileno(), ENTRY.size, at))
            at += ENTRY.size
            self.entries.append((kind, disk, covers, offset, length, at if stored else None))
            at += length if stored else 0
        self._base = []     # by disk: its image before the first entry
        self._durable = []  # and with its writes before `_upto`
        self._upto = []
        for name in sorted(n for n in os.listdir(directory) if n.startswith("base")):
            self._base.append(os.open(os.path.join(directory, name), os.O_RDONLY))
            self._durable.append(os.open(os.path.join(directory, name.replace("base", "durable")), os.O_RDWR | os.O_CREAT, 0o600))
            self._upto.append(None)
        self.flushes = [[i for i, e in enumerate(self.entries) if e[:2] == (FLUSH, disk)] for disk in range(len(self._base))]

    def remove(self):
        for fd in self._base + self._durable:
            os.close(fd)
        self.log.close()
        shutil.rmtree(self.directory)

    def __len__(self):
        return len(self.entries)

    def durable(self, cut, disk=0):
        """Writes before this position survive a cut for certain."""
        before = bisect.bisect_left(self.flushes[disk], cut)
        return self.entries[self.flushes[disk][before - 1]][2] if before else 0

    def uncovered(self, cut, disk=0):
        """How many writes a cut there may lose."""
        return sum(e[:2] == (WRITE, disk) for e in self.entries[self.durable(cut, disk):cut])

    def image(self, path, cut, keep, disk=0, durable=None):
        """The disk after a cut, at `path`. keep(data, may_tear): what is left of a write that nothing had covered, as a list of
        (offset in it, bytes). `durable`: less than what the flushes promised, of a disk that lied. Returns how many of the
        uncovered writes there were, and how many of them left something."""
        durable = self.durable(cut, disk) if durable is None else durable
        self._advance(disk, durable)
        with open(path, "wb") as f:
            copy_sparse(self._durable[disk], f.fileno(), os.fstat(self._durable[disk]).st_size)
            uncovered = [e for e in self.entries[durable:cut] if e[:2] == (WRITE, disk)]
            kept = 0
            for entry in uncovered:
                # ext4 trusts a disk to write its superblock whole.
                pieces = keep(self._bytes(entry), entry[3] > 0)
                kept += bool(pieces)
                for offset, data in pieces:
                    put(f.fileno(), entry[3] + offset, data)
        return len(uncovered), kept

    def _advance(self, disk, position):
        if self._upto[disk] is None or position < self._upto[disk]:
            os.ftruncate(self._durable[disk], 0)
            copy_sparse(self._base[disk], self._durable[disk], os.fstat(self._base[disk]).st_size)
            self._upto[disk] = 0
        for entry in self.entries[self._upto[disk]:position]:
            if entry[:2] != (WRITE, disk):
                continue
            if entry[5] is None:
                punch(self._durable[disk], entry[3], entry[4])
            else:
                put(self._durable[disk], entry[3], self._bytes(entry))
        self._upto[disk] = position

    def _bytes(self, entry):
        return bytes(entry[4]) if entry[5] is None else os.pread(self.log.fileno(), entry[4], entry[5])


def copy_sparse(source, target, size):
    os.ftruncate(target, size)
    at = 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError:
            return  # zeros up to the end
        end = os.lseek(source, at, os.SEEK_HOLE)
        while at < end:
            data = os.pread(source, min(end - at, 4 << 20), at)
            put(target, at, data)
            at += len(data)


def keep_none(_data, _may_tear):
    return []


def keep_all(data, _may_tear):
    return [(0, data)]


def keep_some(seed, torn):
    """Each write with a chance of its own run; with `torn` some of them by sectors only: the first, the last, or any."""
    rng = random.Random(seed)
    chance = rng.choice((0.3, 0.6, 0.9))

    def keep(data, may_tear):
        if rng.random() >= chance:
            return []
        sectors = len(data) // SECTOR
        if not torn or not may_tear or sectors < 2 or rng.random() < 0.5:
            return [(0, data)]
        how, at = rng.randrange(3), rng.randrange(1, sectors) * SECTOR
        if how == 0:
            return [(0, data[:at])]
        if how == 1:
            return [(at, data[at:])]
        return [(i * SECTOR, data[i * SECTOR:(i + 1) * SECTOR]) for i in range(sectors) if rng.random() < 0.5]
    return keep


if __name__ == "__main__":
    Recorder(sys.argv[1]).serve()
