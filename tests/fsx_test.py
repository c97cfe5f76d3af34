#!/usr/bin/env python3
"""One file, two mounts, random operations on either, and a model of its bytes: after each, both mounts say what the model
says. After the fashion of fsx. A failure prints the seed and the last operations; HEADRACE_FSX_SEED repeats it,
HEADRACE_FSX_SECONDS runs it for hours."""
import ctypes
import errno
import mmap
import os
import random
import time

from box import Failed, check, drop_caches, main

LIBC = ctypes.CDLL(None, use_errno=True)
MAX_SIZE = 600_000


class Checker:
    def __init__(self, mounts, name, seed):
        self.rng = random.Random(seed)
        self.seed = seed
        self.paths = [os.path.join(mount, name) for mount in mounts]
        self.model = bytearray()
        self.log = []
        self.counts = {}
        with open(self.paths[0], "wb"):
            pass
        self.fds = [os.open(path, os.O_RDWR) for path in self.paths]
        self.appenders = [os.open(path, os.O_WRONLY | os.O_APPEND) for path in self.paths]

    def close(self):
        for fd in self.fds + self.appenders:
            os.close(fd)

    def step(self):
        operation = self.rng.choice([self.write] * 6 + [self.read] * 6 + [self.append, self.truncate, self.punch, self.zero,
                                    self.allocate, self.copy, self.map_write, self.map_read, self.sync, self.reopen, self.seek,
                                    self.forget])
        side = self.rng.randrange(2)
        self.log.append([operation.__name__, side])
        self.counts[operation.__name__] = self.counts.get(operation.__name__, 0) + 1
        operation(side)
        for fd in self.fds:
            size = os.fstat(fd).st_size
            self.expect(size == len(self.model), f"the size is {size}, not {len(self.model)}")

    def expect(self, condition, message):
        if not condition:
            last = "\n".join(f"  {entry}" for entry in self.log[-25:])
            raise Failed(f"seed {self.seed}, step {len(self.log)}: {message}. The last operations:\n{last}")

    def compare(self, data, offset, how):
        want = bytes(self.model[offset:offset + len(data)])
        if data == want:
            return
        at = next(i for i, (x, y) in enumerate(zip(data, want)) if x != y)
        self.expect(False, f"{how}: byte {offset + at} is {data[at]}, not {want[at]}")

    def range(self):
        offset = self.rng.choice([self.rng.randrange(MAX_SIZE), self.rng.randrange(MAX_SIZE) & ~4095,
                                  min(len(self.model), MAX_SIZE - 1)])
        length = self.rng.choice([self.rng.randrange(1, 200), self.rng.randrange(1, 20_000), 4096,
                                  self.rng.randrange(1, 200_000)])
        length = min(length, MAX_SIZE - offset)
        self.log[-1] += [offset, length]
        return offset, length

    def put(self, offset, data):
        self.model.extend(bytes(max(0, offset + len(data) - len(self.model))))
        self.model[offset:offset + len(data)] = data

    # --- operations

    def write(self, side):
        offset, length = self.range()
        data = self.rng.randbytes(length)
        done = os.pwrite(self.fds[side], data, offset)
        self.expect(done == length, f"a write of {length} wrote {done}")
        self.put(offset, data)

    def append(self, side):
        data = self.rng.randbytes(self.rng.randrange(1, 5000))
        if len(self.model) + len(data) > MAX_SIZE:
            return
        self.log[-1] += [len(self.model), len(data)]
        os.write(self.appenders[side], data)
        self.put(len(self.model), data)

    def read(self, side):
        offset, length = self.range()
        data = os.pread(self.fds[side], length, offset)
        want = max(0, min(len(self.model) - offset, length))
        self.expect(len(data) == want, f"a read has {len(data)} bytes, not {want}")
        self.compare(data, offset, "read")

    def truncate(self, side):
        size, _ = self.range()
        os.ftruncate(self.fds[side], size)
        del self.model[size:]
        self.model.extend(bytes(size - len(self.model)))

    def fallocate(self, side, mode, offset, length):
        if LIBC.fallocate(self.fds[side], mode, ctypes.c_long(offset), ctypes.c_long(length)) != 0:
            self.expect(False, f"fallocate {mode}: {errno.errorcode[ctypes.get_errno()]}")

    def punch(self, side):
        offset, length = self.range()
        self.fallocate(side, 3, offset, length)
        end = min(offset + length, len(self.model))
        if end > offset:
            self.model[offset:end] = bytes(end - offset)

    def zero(self, side):
        offset, length = self.range()
        self.fallocate(side, 16, offset, length)
        self.put(offset, bytes(length))

    def allocate(self, side):
        offset, length = self.range()
        self.fallocate(side, 0, offset, length)
        self.model.extend(bytes(max(0, offset + length - len(self.model))))

    def copy(self, side):
        source, length = self.range()
        target = self.rng.randrange(MAX_SIZE - length + 1)
        self.log[-1].append(target)
        length = min(length, max(0, len(self.model) - source))
        if length == 0 or (source < target + length and target < source + length):
            return
        data = bytes(self.model[source:source + length])
        done = 0
        while done < length:
            n = os.copy_file_range(self.fds[side], self.fds[side], length - done, source + done, target + done)
            self.expect(n > 0, "copy_file_range copies nothing")
            done += n
        self.put(target, data)

    def map_write(self, side):
        if not self.model:
            return
        offset, length = self.range()
        length = min(length, len(self.model) - offset)
        if length <= 0:
            return
        data = self.rng.randbytes(length)
        with mmap.mmap(self.fds[side], 0) as mapping:
            mapping[offset:offset + length] = data
            mapping.flush()
        self.put(offset, data)

    def map_read(self, side):
        if not self.model:
            return
        offset, length = self.range()
        with mmap.mmap(self.fds[side], 0, prot=mmap.PROT_READ) as mapping:
            self.compare(mapping[offset:offset + length], offset, "mapped")

    def sync(self, side):
        os.fsync(self.fds[side])

    def reopen(self, side):
        os.close(self.fds[side])
        self.fds[side] = os.open(self.paths[side], os.O_RDWR)

    def forget(self, side):
        if self.rng.randrange(5) == 0:
            drop_caches()

    def seek(self, side):
        offset, _ = self.range()
        if offset >= len(self.model):
            return
        try:
            data = os.lseek(self.fds[side], offset, os.SEEK_DATA)
        except OSError as error:
            self.expect(error.errno == errno.ENXIO, f"SEEK_DATA: {error}")
            data = len(self.model)
        self.expect(not any(self.model[offset:data]), f"SEEK_DATA leapt over data between {offset} and {data}")
        hole = os.lseek(self.fds[side], offset, os.SEEK_HOLE)
        self.expect(offset <= hole <= len(self.model), f"SEEK_HOLE says {hole}")

    def whole(self):
        for path in self.paths:
            with open(path, "rb") as f:
                data = f.read()
            self.expect(len(data) == len(self.model), f"{path} has {len(data)} bytes, not {len(self.model)}")
            self.compare(data, 0, path)


def run(box, seconds):
    cluster = box.cluster()
    cluster.up()
    mounts = [cluster.mount_dir, cluster.mount(box.path("second"))]
    seed = int(os.environ.get("HEADRACE_FSX_SEED", time.time_ns() % 1_000_000))
    end = time.monotonic() + seconds
    steps = 0
    counts = {}
    while True:
        checker = Checker(mounts, f"f{seed}", seed)
        for _ in range(500):
            checker.step()
            if time.monotonic() > end and len(checker.log) >= 100:
                break
        checker.whole()
        checker.close()
        if seed % 2 == 0:
            cluster.umount(mounts[1])
            drop_caches()
            cluster.mount(mounts[1])
            check(os.path.getsize(checker.paths[1]) == len(checker.model), "the size on a new mount")
            with open(checker.paths[1], "rb") as f:
                checker.compare(f.read(), 0, "on a new mount")
        os.unlink(checker.paths[seed % 2])
        steps += len(checker.log)
        for name, count in checker.counts.items():
            counts[name] = counts.get(name, 0) + count
        seed += 1
        if time.monotonic() > end:
            break
    print(f"{steps} operations: " + ", ".join(f"{count} {name}" for name, count in sorted(counts.items())))


def random_operations_on_one_file_over_two_mounts(box):
    run(box, float(os.environ.get("HEADRACE_FSX_SECONDS", "30")))


def long_run_random_operations_on_one_file_over_two_mounts(box):
    run(box, float(os.environ.get("HEADRACE_FSX_SECONDS", "1500")))


if __name__ == "__main__":
    main()
