#!/usr/bin/env python3
"""What POSIX and Linux promise of a file system, on one mount and over two."""
import ctypes
import errno
import fcntl
import os
import random
import select
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time

from box import ACCESS_ACL, DEFAULT_ACL, Failed, Skipped, acl, acl_text, alive, check, drop_caches, main, resident_mib, shell, wait_until

LIBC = ctypes.CDLL(None, use_errno=True)
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
KEEP_SIZE, PUNCH_HOLE, COLLAPSE, ZERO_RANGE, INSERT = 1, 2, 8, 16, 32


def fails(code, call, *arguments):
    """The call fails with this errno."""
    try:
        result = call(*arguments)
    except OSError as error:
        check(error.errno == code, f"{call.__name__}: {errno.errorcode[error.errno]}, not {errno.errorcode[code]}")
        return
    raise Failed(f"{call.__name__} returned {result!r}, not {errno.errorcode[code]}")


def renameat2(old, new, flags):
    if LIBC.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags) != 0:
        raise OSError(ctypes.get_errno(), f"renameat2 {old} {new}")


def fallocate(fd, mode, offset, length):
    if LIBC.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)) != 0:
        raise OSError(ctypes.get_errno(), "fallocate")


def link_open(fd, path):
    # With a directory descriptor Python calls linkat(2), which can follow.
    os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)


def put(path, data):
    with open(path, "wb") as f:
        f.write(data)


def get(path):
    with open(path, "rb") as f:
        return f.read()


def two_mounts(box, cluster=None):
    cluster = cluster or box.cluster()
    cluster.up()
    return cluster, cluster.mount_dir, cluster.mount(box.path("second"))


def python(program, *arguments):
    """A process that runs a program of the test; its standard output is a pipe of lines."""
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True)


def line(process, timeout_s=30):
    """Its next line, or Failed."""
    found = []
    reader = threading.Thread(target=lambda: found.append(process.stdout.readline().strip()), daemon=True)
    reader.start()
    reader.join(timeout_s)
    check(found and found[0], f"the process says nothing within {timeout_s} s")
    return found[0]


def appends_of_two_mounts_are_atomic(box):
    _, a, b = two_mounts(box)
    put(os.path.join(a, "log"), b"")
    writer = """
        import os, sys
        fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
        for i in range(int(sys.argv[3])):
            record = f"{sys.argv[2]} {i} ".encode() + b"x" * (i * 7 % 300) + b"\\n"
            assert os.write(fd, record) == len(record)
    """
    writers = [python(writer, os.path.join(mount, "log"), name, 400)
               for name, mount in (("a1", a), ("a2", a), ("b1", b), ("b2", b))]
    for process in writers:
        check(process.wait(timeout=200) == 0, "the writer ends well")
    for mount in (a, b):
        seen = {}
        for record in get(os.path.join(mount, "log")).split(b"\n")[:-1]:
            name, number, rest = record.split(b" ")
            check(int(number) == seen.get(name, 0), f"records of {name} are whole and in order")
            check(rest == b"x" * (int(number) * 7 % 300), "a record is whole")
            seen[name] = int(number) + 1
        check(sorted(seen.values()) == [400] * 4, f"every record is there: {seen}")


def a_name_that_is_replaced_is_always_there(box):
    _, a, _ = two_mounts(box)
    put(f"{a}/f", b"0")
    reader = python("""
        import os, random, sys, time
        count = 0
        while not os.path.exists(sys.argv[2]):
            with open(sys.argv[1], "rb") as f:
                assert f.read().isdigit()
            os.stat(sys.argv[1])
            count += 1
            time.sleep(random.random() * 0.005)
        print(count)
    """, f"{a}/f", box.path("stop"))
    for i in range(1000):
        put(f"{a}/tmp", str(i).encode())
        os.rename(f"{a}/tmp", f"{a}/f")
    put(box.path("stop"), b"")
    check(int(line(reader)) > 20, "the reader got through")
    check(reader.wait(timeout=30) == 0, "and always found the file")


def rename_exchanges_and_refuses_whiteout(box):
    _, a, b = two_mounts(box)
    # Directories spread over partitions: some of these pairs lie in two.
    for i in range(8):
        os.makedirs(f"{a}/x{i}/sub")
        os.makedirs(f"{a}/y{i}")
        put(f"{a}/x{i}/f", b"x" * i)
        put(f"{a}/y{i}/g", b"y")
        os.stat(f"{b}/x{i}/f"), os.listdir(f"{b}/y{i}")
        renameat2(f"{a}/x{i}/f", f"{a}/y{i}/g", RENAME_EXCHANGE)
        check(get(f"{b}/x{i}/f") == b"y" and get(f"{b}/y{i}/g") == b"x" * i, "both mounts see files exchanged")
        renameat2(f"{b}/x{i}/sub", f"{b}/y{i}/g", RENAME_EXCHANGE)
        check(os.path.isdir(f"{a}/y{i}/g") and get(f"{a}/x{i}/sub") == b"x" * i, "a directory against a file")
        check(os.stat(f"{a}/x{i}").st_nlink == 2 and os.stat(f"{a}/y{i}").st_nlink == 3, "link counts follow")
        check(os.stat(f"{a}/y{i}/g/..").st_ino == os.stat(f"{a}/y{i}").st_ino, "'..' follows")
        renameat2(f"{a}/x{i}", f"{a}/y{i}", RENAME_EXCHANGE)
        check(sorted(os.listdir(f"{b}/y{i}")) == ["f", "sub"], "two directories")
    fails(errno.EINVAL, renameat2, f"{a}/x0", f"{a}/x0/g", RENAME_EXCHANGE)
    fails(errno.EINVAL, renameat2, f"{a}/x0/g", f"{a}/x0", RENAME_EXCHANGE)
    fails(errno.ENOENT, renameat2, f"{a}/x0", f"{a}/absent", RENAME_EXCHANGE)
    fails(errno.EEXIST, renameat2, f"{a}/x0", f"{a}/x1", RENAME_NOREPLACE)
    fails(errno.EINVAL, renameat2, f"{a}/x0", f"{a}/new", RENAME_WHITEOUT)
    fails(errno.EINVAL, renameat2, f"{a}/x0", f"{a}/x1", RENAME_NOREPLACE | RENAME_EXCHANGE)


def holes_are_found_made_and_copied(box):
    cluster, a, b = two_mounts(box)
    block = 1 << 20
    fd = os.open(f"{a}/f", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"a" * block, 0)
    os.pwrite(fd, b"b" * block, 8 * block)
    os.ftruncate(fd, 12 * block)
    for when in ("dirty", "synced"):
        for path in (f"{a}/f", f"{b}/f"):
            other = os.open(path, os.O_RDONLY)
            check(os.lseek(other, 0, os.SEEK_DATA) == 0, f"{when}: data at the start")
            check(os.lseek(other, 0, os.SEEK_HOLE) == block, f"{when}: the hole behind it")
            check(os.lseek(other, block, os.SEEK_DATA) == 8 * block, f"{when}: data behind the hole")
            check(os.lseek(other, 8 * block + 5, os.SEEK_HOLE) == 9 * block, f"{when}: the last hole")
            fails(errno.ENXIO, os.lseek, other, 9 * block, os.SEEK_DATA)
            fails(errno.ENXIO, os.lseek, other, 12 * block, os.SEEK_HOLE)
            os.close(other)
        os.fsync(fd)

    fallocate(fd, KEEP_SIZE, 20 * block, block)
    check(os.fstat(fd).st_size == 12 * block, "keep-size keeps the size")
    fallocate(fd, 0, 0, 13 * block)
    check(os.stat(f"{b}/f").st_size == 13 * block, "posix_fallocate grows, seen on the other mount")
    fallocate(fd, 0, 0, block)
    check(os.fstat(fd).st_size == 13 * block, "and never shrinks")
    fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 4096, 8192)
    fallocate(fd, ZERO_RANGE | KEEP_SIZE, 8 * block, 100)
    fallocate(fd, ZERO_RANGE, 13 * block - 10, 100)
    want = bytearray(13 * block + 90)
    want[0:block] = b"a" * block
    want[4096:12288] = bytes(8192)
    want[8 * block + 100:9 * block] = b"b" * (block - 100)
    check(get(f"{b}/f") == bytes(want), "punched and zeroed bytes are zero, on the other mount too")
    for mode in (COLLAPSE, INSERT):
        fails(errno.EOPNOTSUPP, fallocate, fd, mode, 0, 4096)
    fails(errno.EOPNOTSUPP, fallocate, fd, PUNCH_HOLE, 0, 4096)

    to = os.open(f"{b}/copy", os.O_RDWR | os.O_CREAT)
    source = os.open(f"{b}/f", os.O_RDONLY)
    done = 0
    while n := os.copy_file_range(source, to, len(want)):
        done += n
    check(done == len(want) and get(f"{a}/copy") == bytes(want), "copy_file_range copies all of it")
    check(os.lseek(to, block, os.SEEK_DATA) == 8 * block + 100, "and keeps its holes")
    check(os.copy_file_range(source, to, 1000, 500, 10) == 1000, "a piece")
    want[10:1010] = want[500:1500]
    check(get(f"{a}/copy") == bytes(want), "lands where it should")
    os.fsync(to)
    for each in (fd, to, source):
        os.close(each)
    cluster.remount()
    check(get(f"{a}/copy") == bytes(want), "and stays")


def copies_share_their_bytes(box):
    cluster, a, b = two_mounts(box)
    data = os.urandom(40 << 20)
    put(f"{a}/f", data)
    shell(["sync", f"{a}/f"])

    def hot():
        return cluster.status()["hot_bytes"]

    before = hot()
    for i in range(5):
        shell(["cp", "--reflink=auto", f"{b if i % 2 else a}/f", f"{b if i % 2 else a}/copy{i}"])
    shell(["sync", "-f", a])
    for i in range(5):
        check(get(f"{a}/copy{i}") == data, f"copy {i}")
    check(hot() - before < len(data), f"five copies of {len(data)} bytes take {hot() - before} more")
    # Each goes its own way.
    with open(f"{a}/copy1", "r+b") as f:
        f.seek(1 << 20)
        f.write(b"changed")
    os.truncate(f"{b}/copy2", 5 << 20)
    os.unlink(f"{a}/f")
    os.unlink(f"{b}/copy0")
    changed = data[:1 << 20] + b"changed" + data[(1 << 20) + 7:]

    def check_all(when):
        for name, want in (("copy1", changed), ("copy2", data[:5 << 20]), ("copy3", data), ("copy4", data)):
            for where in (a, b):
                check(get(f"{where}/{name}") == want, f"{when}: {name} in {where}")

    check_all("after changes")
    cluster.push()
    cluster.umount(b)
    cluster.spin_down()
    cluster.wipe()
    cluster.rehydrate()
    cluster.mount(b)
    check_all("after it came back from the bucket")
    for i in range(1, 5):
        os.unlink(f"{a}/copy{i}")
    wait_until(lambda: cluster.status()["hot_bytes"] < 5 << 20, 90, "the bytes go with the last of them")


def a_file_without_a_name_gets_one_or_goes(box):
    cluster, a, b = two_mounts(box)
    os.mkdir(f"{a}/d")
    files = cluster.status()["files"]
    fd = os.open(f"{a}/d", os.O_TMPFILE | os.O_RDWR, 0o640)
    os.write(fd, b"x" * 100000)
    check(os.listdir(f"{b}/d") == [] and os.fstat(fd).st_nlink == 0, "it has no name")
    time.sleep(6)  # the partition reaps what nobody has open
    link_open(fd, f"{a}/d/named")
    os.close(fd)
    check(get(f"{b}/d/named") == b"x" * 100000, "named, it is there for all")
    check(os.stat(f"{b}/d/named").st_nlink == 1 and os.stat(f"{b}/d/named").st_mode & 0o777 == 0o640, "with one link")
    fd = os.open(f"{a}/d", os.O_TMPFILE | os.O_WRONLY | os.O_EXCL, 0o600)
    os.write(fd, b"y" * 100000)
    fails(errno.ENOENT, link_open, fd, f"{a}/d/second")
    os.close(fd)
    wait_until(lambda: cluster.status()["files"] == files + 1, 30, "a file that never got a name is gone")


def renaming_what_is_listed_ends(box):
    _, a, b = two_mounts(box)
    os.mkdir(f"{a}/many")
    for i in range(3000):
        put(f"{a}/many/{i}", b"")
    for mount in (a, b):
        found = 0
        with os.scandir(f"{mount}/many") as entries:
            for entry in entries:
                os.rename(entry.path, f"{entry.path}.x")
                found += 1
                check(found <= 3000, "no entry is met again under its new name")
        check(found == 3000, f"{found} entries were met")


def replacing_what_is_listed_hides_nothing(box):
    _, a, b = two_mounts(box)
    os.mkdir(f"{a}/many")
    for i in range(2000):
        put(f"{a}/many/{i}", b"old")
    for mount, other in ((a, a), (a, b)):
        met = []
        with os.scandir(f"{mount}/many") as entries:
            met.append(next(entries).name)
            for i in range(2000):
                put(f"{other}/new", b"new")
                os.rename(f"{other}/new", f"{other}/many/{i}")
            met += [entry.name for entry in entries]
        check(sorted(met, key=int) == [str(i) for i in range(2000)], f"{len(met)} names were met, {len(set(met))} of them once")


def a_removed_directory_may_still_be_looked_at(box):
    _, a, b = two_mounts(box)
    put(f"{a}/replacing", b"")

    def gone(mount, name, remove, what):
        os.mkdir(f"{mount}/{name}", 0o710)
        fd = os.open(f"{mount}/{name}", os.O_RDONLY | os.O_DIRECTORY)
        before = os.fstat(fd)
        inside = python("""
            import os, sys
            os.chdir(sys.argv[1])
            print("in", flush=True)
            sys.stdin.readline()
            print(os.stat(".").st_nlink, os.listdir("."), flush=True)
        """, f"{mount}/{name}")
        line(inside)
        remove(name)
        now = os.fstat(fd)
        check(now.st_nlink == 0, f"{what}: {now.st_nlink} links")
        check((now.st_ino, now.st_mode, now.st_mtime) == (before.st_ino, before.st_mode, before.st_mtime), f"{what}: as it was")
        check(os.listdir(fd) == [], f"{what}: nothing is in it")
        os.fsync(fd)
        for call in (lambda: os.mkdir("x", dir_fd=fd), lambda: os.open("x", os.O_CREAT | os.O_RDWR, dir_fd=fd),
                     lambda: os.stat("x", dir_fd=fd), lambda: os.link(f"{a}/replacing", "x", dst_dir_fd=fd),
                     lambda: os.rename(f"{a}/replacing", "x", dst_dir_fd=fd)):
            fails(errno.ENOENT, call)
        inside.stdin.write("\n"), inside.stdin.flush()
        check(line(inside) == "0 []", f"{what}: as its own directory")
        inside.wait(timeout=30)
        os.close(fd)

    def rename_over(mount):
        def remove(name):
            os.mkdir(f"{mount}/new")
            os.rename(f"{mount}/new", f"{mount}/{name}")
            check(os.stat(f"{a}/{name}").st_nlink == 2 == os.stat(f"{b}/{name}").st_nlink, "the new one is there")
        return remove

    for mount in (a, b):
        by = "here" if mount == a else "on the other mount"
        for i in range(3):
            gone(a, f"d{i}{by[0]}", lambda name: os.rmdir(f"{mount}/{name}"), f"removed {by}")
            gone(a, f"e{i}{by[0]}", rename_over(mount), f"renamed over {by}")
    # Also where it was made elsewhere, and is asked for only when it is gone for long.
    os.mkdir(f"{b}/late")
    fd = os.open(f"{a}/late", os.O_RDONLY)
    os.rmdir(f"{b}/late")
    time.sleep(6)
    check(os.fstat(fd).st_nlink == 0 and os.listdir(fd) == [], "seconds later")
    os.close(fd)


LOCKER = """
    import fcntl, os, struct, sys
    fd = os.open(sys.argv[1], os.O_RDWR)
    for request in sys.stdin:
        kind, start, length = request.split()[:3]
        try:
            if kind.startswith("flock"):
                fcntl.flock(fd, {"flock-ex": fcntl.LOCK_EX, "flock-sh": fcntl.LOCK_SH, "flock-un": fcntl.LOCK_UN,
                                 "flock-try": fcntl.LOCK_EX | fcntl.LOCK_NB}[kind])
            elif kind == "close":
                os.close(os.open(sys.argv[1], os.O_RDONLY))
            else:
                command = fcntl.F_SETLKW if kind.endswith("wait") else fcntl.F_SETLK
                types = {"w": fcntl.F_WRLCK, "r": fcntl.F_RDLCK, "u": fcntl.F_UNLCK}
                fcntl.fcntl(fd, command, struct.pack("hhqqi4x", types[kind[0]], 0, int(start), int(length), 0))
            print("ok", flush=True)
        except OSError as error:
            print(error.errno, flush=True)
"""


class Locker:
    def __init__(self, path):
        self.process = python(LOCKER, path)

    def send(self, kind, start=0, length=0):
        self.process.stdin.write(f"{kind} {start} {length}\n")
        self.process.stdin.flush()

    def ask(self, kind, start=0, length=0):
        self.send(kind, start, length)
        said = line(self.process)
        return said if said == "ok" else errno.errorcode[int(said)]

    def end(self):
        self.process.kill()
        self.process.wait()


def locks_hold_among_mounts_and_end_with_their_owner(box):
    cluster, a, b = two_mounts(box)
    put(f"{a}/f", b"0" * 1000)
    one, two, three = Locker(f"{a}/f"), Locker(f"{b}/f"), Locker(f"{a}/f")
    try:
        check(one.ask("w", 0, 100) == "ok", "a write lock")
        check(two.ask("w", 50, 10) == "EAGAIN" and two.ask("r", 99, 1) == "EAGAIN", "is in the way on the other mount")
        check(three.ask("r", 0, 1) == "EAGAIN", "and on this")
        check(two.ask("w", 100, 10) == "ok", "behind it is free")
        check(two.ask("flock-try") == "ok" and one.ask("flock-try") == "EAGAIN", "flock knows of flock alone")
        probe = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 100, 0)
        fd = os.open(f"{b}/f", os.O_RDWR)
        kind, _, start, length, pid = struct.unpack("hhqqi4x", fcntl.fcntl(fd, fcntl.F_GETLK, probe))
        check((kind, start, length, pid) == (fcntl.F_WRLCK, 0, 100, one.process.pid), "F_GETLK names who holds it")

        two.send("wwait", 0, 100)
        time.sleep(0.3)
        started = time.monotonic()
        check(one.ask("u", 0, 40) == "ok", "a part is given back")
        check(three.ask("w", 0, 40) == "ok", "and may be taken")
        check(one.ask("u", 40, 60) == "ok", "the rest too")
        time.sleep(0.2)
        check(three.ask("close") == "ok", "closing any descriptor of the file ends the process's locks")
        check(line(two.process) == "ok", "who waited gets it")
        check(time.monotonic() - started < 5, "soon")

        one.send("rwait", 0, 1)
        time.sleep(0.3)
        two.end()  # its locks go with it, by SIGKILL
        check(line(one.process) == "ok", "a killed process holds nothing")
        check(one.ask("flock-ex") == "ok", "nor by flock")
        three.send("flock-ex")
        time.sleep(0.7)
        started = time.monotonic()
        three.end()
        check(time.monotonic() - started < 3, "who waits for a lock can be killed")

        os.kill(cluster.node_pid(), signal.SIGKILL)
        cluster.up(mount=False)
        four = Locker(f"{b}/f")
        try:
            check(four.ask("flock-try") == "EAGAIN", "locks outlive the node")
            one.end()
            wait_until(lambda: four.ask("flock-try") == "ok", 20, "and end with their owner")
        finally:
            four.end()
        os.close(fd)
    finally:
        for locker in (one, two, three):
            locker.end()


def of_two_that_raise_their_flock_one_gets_on(box):
    _, a, b = two_mounts(box)
    put(f"{a}/f", b"")
    for paths in ((f"{a}/f", f"{a}/f"), (f"{a}/f", f"{b}/f")):
        lockers = [Locker(path) for path in paths]
        try:
            for each in lockers:
                check(each.ask("flock-sh") == "ok", "a shared lock each")
            for each in lockers:
                each.send("flock-ex")
            ready, _, _ = select.select([each.process.stdout for each in lockers], [], [], 10)
            check(len(ready) == 1, f"{len(ready)} have it within 10 s")
            first, last = lockers if ready[0] is lockers[0].process.stdout else reversed(lockers)
            check(line(first.process) == "ok", "one gets it")
            check(first.ask("flock-un") == "ok" and line(last.process) == "ok", "and after it the other")
        finally:
            for each in lockers:
                each.end()


def who_would_wait_for_itself_gets_edeadlk(box):
    _, a, b = two_mounts(box)
    put(f"{a}/f", b"0" * 10)

    def told(lockers):
        """Which of those that wait is told of a deadlock: the last one, unless the others just looked again."""
        readable, _, _ = select.select([locker.process.stdout for locker in lockers], [], [], 30)
        check(len(readable) == 1, f"one of {len(lockers)} is told: {len(readable)}")
        locker = next(locker for locker in lockers if locker.process.stdout is readable[0])
        check(line(locker.process) == str(errno.EDEADLK), "EDEADLK")
        return locker

    for what, mounts in (("one mount", (a, a)), ("two mounts", (a, b)), ("three on two mounts", (a, b, a))):
        lockers = [Locker(f"{mount}/f") for mount in mounts]
        try:
            for i, locker in enumerate(lockers):
                check(locker.ask("w", i, 1) == "ok", f"{what}: each has one")
            for i, locker in enumerate(lockers):
                time.sleep(0.2)
                locker.send("wwait", (i + 1) % len(lockers), 1)
            out = told(lockers)
            place = lockers.index(out)
            check(out.ask("u", place, 1) == "ok", f"{what}: it unlocks")
            before = lockers[place - 1]
            check(line(before.process) == "ok", f"{what}: who waited for it gets its lock")
            out.send("wwait", place, 1)  # no deadlock: `before` does not wait any more
            time.sleep(0.7)
            before.end()
            for other in (lockers[place - i] for i in range(2, len(lockers))):
                check(line(other.process) == "ok", f"{what}: and so on")
                other.end()
            check(line(out.process) == "ok", f"{what}: and in the end it gets that again")
        finally:
            for locker in lockers:
                locker.end()

    # Linux finds none of these either: a waiter by flock, one that left, the process's own other descriptor.
    one, two = Locker(f"{a}/f"), Locker(f"{b}/f")
    try:
        check(one.ask("w", 0, 1) == "ok" and two.ask("flock-ex") == "ok", "two kinds")
        one.send("flock-ex")
        time.sleep(0.2)
        two.send("wwait", 0, 1)
        check(not select.select([one.process.stdout, two.process.stdout], [], [], 1.5)[0], "flock is no part of it")
    finally:
        one.end(), two.end()
    threads = python("""
        import fcntl, os, struct, sys, threading, time
        fds = [os.open(sys.argv[1], os.O_RDWR) for _ in range(2)]
        def lock(fd, command, kind, byte):
            fcntl.fcntl(fd, command, struct.pack("hhqqi4x", kind, 0, byte, 1, 0))
        for i in range(2):
            lock(fds[i], fcntl.F_OFD_SETLK, fcntl.F_WRLCK, i)
        got = []
        def wait(i):
            lock(fds[i], fcntl.F_OFD_SETLKW, fcntl.F_WRLCK, 1 - i)
            got.append(i)
        waiters = [threading.Thread(target=wait, args=(i,)) for i in range(2)]
        for waiter in waiters:
            waiter.start()
        time.sleep(1.2)
        assert not got
        lock(fds[0], fcntl.F_OFD_SETLK, fcntl.F_UNLCK, 0)
        waiters[1].join()
        lock(fds[1], fcntl.F_OFD_SETLK, fcntl.F_UNLCK, 1)
        waiters[0].join()
        print(sorted(got), flush=True)
    """, f"{a}/f")
    check(line(threads) == "[0, 1]", "locks of open files, which a third thread ends")
    threads.wait(timeout=30)


def a_dead_mounts_locks_end_with_its_lease(box):
    cluster, a, b = two_mounts(box)
    put(f"{a}/f", b"0")
    fd = os.open(f"{b}/f", os.O_RDWR)
    fcntl.lockf(fd, fcntl.LOCK_EX)
    mine = os.open(f"{a}/f", os.O_RDWR)
    fails(errno.EAGAIN, fcntl.lockf, mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
    cluster.kill_mount(b)
    started = time.monotonic()
    fcntl.lockf(mine, fcntl.LOCK_EX)
    check(time.monotonic() - started < 30, "a dead mount delays others by its lease, no longer")
    try:
        os.close(fd)
    except OSError:
        pass  # its mount is gone


LEASE_S = 10  # of a client: after that, a partition takes back what one that does not answer holds
MARGIN_S = 5  # of a busy machine


def sync(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def leave_unsent(mount, folder):
    """A file and a name in a folder that nobody else has looked into are there, and others are only this mount's yet."""
    os.mkdir(f"{mount}/{folder}")
    put(f"{mount}/{folder}/synced", b"synced")
    sync(f"{mount}/{folder}/synced"), sync(f"{mount}/{folder}")
    put(f"{mount}/{folder}/synced", b"unsent")
    put(f"{mount}/{folder}/unsent", b"unsent")


def a_mount_that_stood_still_past_its_lease_says_estale_and_never_success(box):
    """What it had not sent is gone when another takes the file over, and whoever wrote it is told at the next fsync."""
    cluster, a, b = two_mounts(box)
    leave_unsent(b, "d")
    opened = {name: os.open(f"{b}/{name}", os.O_RDONLY) for name in ("d/synced", "d/unsent", "d")}
    mount = cluster.mount_pid(b)
    os.kill(mount, signal.SIGSTOP)
    try:
        check(sorted(os.listdir(f"{a}/d")) == ["synced"], f"what was never sent is nowhere: {os.listdir(f'{a}/d')}")
        put(f"{a}/d/synced", b"taken over")
        sync(f"{a}/d/synced")
    finally:
        os.kill(mount, signal.SIGCONT)
    for name, fd in opened.items():
        try:
            os.fsync(fd)
        except OSError as error:
            check(error.errno == errno.ESTALE, f"fsync of {name}: {error}")
        else:
            raise Failed(f"fsync of {name} is a false success")
    for fd in opened.values():
        os.close(fd)
    for where in (a, b):
        check(get(f"{where}/d/synced") == b"taken over" and os.listdir(f"{where}/d") == ["synced"], f"what {where} shows")
    # It was told; what it writes from here on is as good as ever.
    put(f"{b}/d/synced", b"once more")
    sync(f"{b}/d/synced")
    check(get(f"{a}/d/synced") == b"once more", "and the mount goes on")


def a_dead_mount_delays_others_by_its_lease(box):
    """Killed or standing still, with files and names under its write grants: all of it is free when its lease has ended."""
    cluster, a, b = two_mounts(box)
    for how in (signal.SIGSTOP, signal.SIGKILL):
        folders = [f"{how.name}-{i}" for i in range(4)]  # of several partitions
        for folder in folders:
            leave_unsent(b, folder)
        mount = cluster.mount_pid(b)
        os.kill(mount, how)
        began = time.monotonic()
        try:
            for folder in folders:
                os.stat(f"{a}/{folder}/synced"), os.listdir(f"{a}/{folder}")
                os.rename(f"{a}/{folder}/synced", f"{a}/{folder}/moved")
                put(f"{a}/{folder}/moved", b"mine now"), put(f"{a}/{folder}/unsent", b"mine too")
                sync(f"{a}/{folder}/moved"), sync(f"{a}/{folder}")
            took = time.monotonic() - began
        finally:
            if how == signal.SIGSTOP:
                os.kill(mount, signal.SIGCONT)
        print(f"  {how.name}: everything is free after {took:.1f} s")
        check(took > 1, "nobody had to wait: the dead mount held nothing")
        check(took < LEASE_S + MARGIN_S, f"{how.name}: a dead mount delays others by {took:.1f} s, longer than its lease")
        for folder in folders:
            check(get(f"{a}/{folder}/moved") == b"mine now" and get(f"{a}/{folder}/unsent") == b"mine too", f"in {folder}")


def recalls_take_milliseconds(box):
    """Two mounts take turns: each has what the other holds recalled, which no timeout may be part of."""
    _, *mounts = two_mounts(box)
    os.mkdir(f"{mounts[0]}/d")
    put(f"{mounts[0]}/d/f", b"")
    files = [os.open(f"{mount}/d/f", os.O_RDWR) for mount in mounts]
    turns = {"writing": [], "reading": [], "naming": []}
    for i in range(300):
        me, it = i % 2, 1 - i % 2
        text = f"{i:06}".encode()
        times = [time.monotonic()]
        os.pwrite(files[me], text, 0)
        times.append(time.monotonic())
        check(os.pread(files[it], 6, 0) == text, f"what one wrote in turn {i} is read by the other")
        times.append(time.monotonic())
        os.mknod(f"{mounts[me]}/d/{i}")
        check(i == 0 or os.path.exists(f"{mounts[me]}/d/{i - 1}"), f"what the other made in turn {i - 1} is found")
        times.append(time.monotonic())
        for what, begun, done in zip(turns, times, times[1:]):
            turns[what].append(done - begun)
    for what, took in turns.items():
        middle, worst = sorted(took)[len(took) // 2], max(took)
        print(f"  {what}: {middle * 1e3:.1f} ms a turn, {worst * 1e3:.1f} ms at worst")
        check(middle < 0.15, f"{what}: {middle * 1e3:.1f} ms a turn is no recall's, but a timeout's")
    for fd in files:
        os.close(fd)


def open_unlinked_files_live_through_restarts(box):
    cluster, a, b = two_mounts(box)
    names = [f"f{i}" for i in range(5)]
    for name in names:
        put(f"{a}/{name}", name.encode() * 5000)
    readers = {name: os.open(f"{b}/{name}", os.O_RDWR) for name in names}
    for name in names[:3]:
        os.unlink(f"{a}/{name}")  # by the other mount
    os.unlink(f"{b}/{names[3]}")
    put(f"{a}/new", b"new")
    os.rename(f"{a}/new", f"{a}/{names[4]}")  # replaced while open
    for restart in range(2):
        cluster.kill_node()
        cluster.up(mount=False)
        time.sleep(6)  # the reaper has passed
        for name, fd in readers.items():
            check(os.pread(fd, 1 << 20, 0).startswith(name.encode() * 5000), f"{name} can be read, unlinked, after a restart")
            os.pwrite(fd, f"more {restart}".encode(), 5000 * len(name) + restart * 10)
            os.fsync(fd)
    files = cluster.status()["files"]
    for fd in readers.values():
        os.close(fd)
    wait_until(lambda: cluster.status()["files"] == files - 5, 30, "closed, they are gone")
    check(sorted(os.listdir(a)) == [names[4]], "no name came back")


def a_node_restart_looks_like_a_pause(box):
    cluster, a, b = two_mounts(box)
    os.mkdir(f"{a}/d")
    writer = """
        import os, sys
        fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
        n = 0
        while True:
            record = f"{n:08d}".encode() * 100
            os.pwrite(fd, record, n % 50 * 800)
            if n % 3 == 0:
                os.fsync(fd)
            assert os.pread(fd, 800, n % 50 * 800) == record
            with open(f"{sys.argv[1]}.{n}", "w") as f:
                f.write(str(n))
            if n > 20:
                os.rename(f"{sys.argv[1]}.{n - 10}", f"{sys.argv[1]}.old")
            n += 1
            print(n, flush=True)
    """
    writers = [python(writer, f"{mount}/d/{name}") for name, mount in (("p", a), ("q", a), ("r", b))]
    try:
        for restart in range(4):
            for process in writers:
                line(process)
            if restart % 2 == 0:
                cluster.kill_node()
            else:
                cluster.run("stop", "--node", "--state", cluster.state, ok=False)
                if cluster.node_pid():
                    cluster.kill_node()
            time.sleep(1)
            cluster.up(mount=False)
            for process in writers:
                for _ in range(3):
                    line(process, timeout_s=60)
                check(process.poll() is None, "no writer saw an error")
    finally:
        for process in writers:
            process.kill()
            process.wait()


def umount_and_sigterm_flush(box):
    cluster, a, b = two_mounts(box)
    for i in range(200):
        put(f"{a}/by-umount-{i}", str(i).encode() * 1000)
        put(f"{b}/by-sigterm-{i}", str(i).encode() * 1000)
    cluster.umount(a)
    pid = cluster.mount_pid(b)
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not alive(pid), 60, "a mount ends after SIGTERM")
    subprocess.run(["umount", "-l", b], check=False, stderr=subprocess.DEVNULL)
    cluster.kill_node()
    cluster.up(mount=False)
    cluster.mount(a)
    for i in range(200):
        for how in ("umount", "sigterm"):
            check(get(f"{a}/by-{how}-{i}") == str(i).encode() * 1000, f"what {how} flushed is there: {i}")


def long_run_what_an_unmount_could_not_write_is_said_in_the_log(box):
    cluster = box.cluster()
    cluster.up()
    a = cluster.mount_dir
    put(f"{a}/f", b"never synced")
    pid = cluster.mount_pid(a)
    cluster.kill_node()
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not alive(pid), 300, "the mount ends without a node")
    with open(os.path.join(cluster.state, "log", "mount.log"), errors="replace") as log:
        check("error: " in log.read(), "what is lost is said")


def no_process_becomes_unkillable(box):
    cluster, a, _ = two_mounts(box)
    put(f"{a}/f", b"x" * 100000)
    os.kill(cluster.node_pid(), signal.SIGSTOP)
    try:
        stuck = """
            import os, sys
            print("go", flush=True)
            if sys.argv[2] == "fsync":
                fd = os.open(sys.argv[1], os.O_RDWR)
                os.pwrite(fd, b"y", 5)
                os.fsync(fd)
            elif sys.argv[2] == "create":
                open(sys.argv[1] + ".new", "w").write("new")
                os.sync()
            else:
                os.listdir(os.path.dirname(sys.argv[1]))
            print("done", flush=True)
        """
        processes = [python(stuck, f"{a}/f", what) for what in ("fsync", "create", "list")]
        for process in processes:
            line(process)
        time.sleep(2)
        for process in processes:
            process.kill()
        started = time.monotonic()
        for process in processes:
            process.wait(timeout=30)
        check(time.monotonic() - started < 25, "processes that wait for a stopped node can be killed")
    finally:
        os.kill(cluster.node_pid(), signal.SIGCONT)
    check(get(f"{a}/f")[:5] == b"x" * 5, "and the mount works when the node does")


def readdir_under_change_has_no_duplicate_and_misses_nothing(box):
    _, a, b = two_mounts(box)
    os.mkdir(f"{a}/d")
    steady = {f"steady{i}" for i in range(1500)}
    for name in steady:
        open(f"{a}/d/{name}", "w").close()
    stop = threading.Event()
    broken = []

    def change(mount, seed):
        rng = random.Random(seed)
        mine = []
        try:
            while not stop.is_set():
                if len(mine) < 50 or rng.random() < 0.5:
                    name = f"m{seed}-{rng.randrange(10**9)}"
                    open(f"{mount}/d/{name}", "w").close()
                    mine.append(name)
                else:
                    at = rng.randrange(len(mine))
                    if rng.random() < 0.5:
                        os.unlink(f"{mount}/d/{mine.pop(at)}")
                    else:
                        os.rename(f"{mount}/d/{mine[at]}", f"{mount}/d/{mine[at]}r")
                        mine[at] += "r"
                        if len(mine[at]) > 200:
                            os.unlink(f"{mount}/d/{mine.pop(at)}")
        except OSError as error:
            broken.append(error)
    changers = [threading.Thread(target=change, args=(mount, seed)) for seed, mount in ((1, a), (2, b))]
    for thread in changers:
        thread.start()
    try:
        for round_ in range(20):
            for mount in (a, b):
                with os.scandir(f"{mount}/d") as entries:
                    names = [entry.name for entry in entries]
                untouched = [n for n in names if n in steady]
                check(len(untouched) == len(steady), f"round {round_}: {len(steady) - len(set(untouched))} names were missed, "
                      f"{len(untouched) - len(set(untouched))} came twice")
    finally:
        stop.set()
        for thread in changers:
            thread.join()
    check(not broken, f"changes worked: {broken}")


def grow_a_directory(box, entries, most_mib=None):
    """Making, finding and listing cost the same in a large directory as in a small one: no cliff."""
    cluster, a, b = two_mounts(box)
    os.mkdir(f"{a}/d")
    batch = entries // 16
    make, find = [], []
    rng = random.Random(5)
    for start in range(0, entries, batch):
        begun = time.monotonic()
        for i in range(start, start + batch):
            os.mknod(f"{a}/d/entry-{i:09}")
        made = time.monotonic()
        for _ in range(batch // 8):
            os.stat(f"{b}/d/entry-{rng.randrange(start + batch):09}")
        make.append(made - begun)
        find.append(time.monotonic() - made)

    def middle(values):
        return sorted(values)[len(values) // 2]
    for what, times in (("making", make), ("finding", find)):
        first, last = middle(times[1:8]), middle(times[8:])
        print(f"{what}: {first / batch * 1e6:.0f} us an entry at first, {last / batch * 1e6:.0f} us at the end")
        check(last < 3 * first + 0.2, f"{what} became slower: {first:.2f} s, then {last:.2f} s for {batch} entries")
    drop_caches()
    begun = time.monotonic()
    with os.scandir(f"{b}/d") as found:
        first_entry = next(found).name
        waited = time.monotonic() - begun
        names = {first_entry} | {entry.name for entry in found}
    print(f"listing: the first entry after {waited * 1e3:.1f} ms, all after {time.monotonic() - begun:.1f} s")
    check(len(names) == batch * 16, f"the list has {len(names)} of {batch * 16} names")
    check(waited < 5, "the first entries come at once")
    drop_caches()  # of what the kernel forgets, a mount keeps nothing either
    for pid in map(cluster.mount_pid, (a, b)):
        wait_until(lambda p=pid: most_mib is None or resident_mib(p) < most_mib, 60, f"a mount that knows no name takes less than {most_mib} MiB")
        print(f"a mount with {batch * 16} names forgotten: {resident_mib(pid):.0f} MiB")


def a_large_directory_has_no_cliff(box):
    grow_a_directory(box, 8000)


def long_run_a_million_entries_have_no_cliff_and_bounded_memory(box):
    grow_a_directory(box, 1_000_000, most_mib=320)


def times_and_birth_are_kept(box):
    cluster, a, b = two_mounts(box)
    put(f"{a}/f", b"x")
    birth = shell(["stat", "-c", "%W %w", f"{a}/f"]).stdout
    check(not birth.startswith("0") and "-" in birth, f"statx has a birth time: {birth!r}")
    check(birth == shell(["stat", "-c", "%W %w", f"{b}/f"]).stdout, "the same on the other mount")
    put(f"{a}/f", b"changed")
    os.rename(f"{a}/f", f"{a}/g")
    check(birth == shell(["stat", "-c", "%W %w", f"{a}/g"]).stdout, "it never changes")
    os.utime(f"{a}/g", ns=(10**9 + 1, 2 * 10**9 + 3))
    s = os.stat(f"{b}/g")
    check((s.st_atime_ns, s.st_mtime_ns) == (10**9 + 1, 2 * 10**9 + 3), "utimensat to the nanosecond, on the other mount")
    cluster.remount()
    s = os.stat(f"{a}/g")
    check((s.st_atime_ns, s.st_mtime_ns) == (10**9 + 1, 2 * 10**9 + 3), "and after a new mount")
    # One that lies ahead is as good as any, and the next change is now.
    os.mkdir(f"{a}/d")
    ahead = time.time_ns() + 365 * 86400 * 10**9
    for path, change in ((f"{a}/g", lambda: put(f"{a}/g", b"x")), (f"{a}/d", lambda: put(f"{a}/d/new", b""))):
        os.utime(path, ns=(ahead, ahead))
        before = os.stat(path)
        check(before.st_mtime_ns == ahead and before.st_ctime_ns <= time.time_ns(), f"{path}: set, and changed now")
        change()
        os.sync()
        s = os.stat(path)
        check(max(s.st_mtime_ns, s.st_ctime_ns) <= time.time_ns(), f"{path}: changed now, not in a year")
        os.chmod(path, 0o700)
        check(s.st_ctime_ns < os.stat(path).st_ctime_ns <= time.time_ns(), f"{path}: chmod moves the ctime")


def reading_moves_the_atime_as_relatime_has_it(box):
    cluster, a, b = two_mounts(box)
    path = os.path.join(a, "f")
    put(path, b"x" * 10_000)
    def atime(where=path):
        return os.stat(where).st_atime_ns
    check(atime() <= os.stat(path).st_mtime_ns, "nobody has read it")
    fd = os.open(path, os.O_RDONLY | os.O_NOATIME)
    os.read(fd, 100)
    os.close(fd)
    drop_caches()  # what the kernel has is read without asking
    check(atime() <= os.stat(path).st_mtime_ns, "O_NOATIME")
    get(path)
    first = atime()
    check(first > os.stat(path).st_mtime_ns, "the first read after a change moves it")
    drop_caches()
    get(path)
    check(atime() == first, "and no other on that day")
    # Who sets it, sets it for good.
    os.utime(path, ns=(10**18, 10**18))
    check(atime() == 10**18 and atime(os.path.join(b, "f")) == 10**18, "utimensat")
    drop_caches()
    get(path)
    check(atime() > 10**18, "an atime of long ago moves")
    os.utime(os.path.join(b, "f"), ns=(10**18, os.stat(path).st_mtime_ns))
    check(atime() == 10**18, "set by the other mount, before ours was told")
    os.mkdir(os.path.join(a, "d"))
    put(os.path.join(a, "d/x"), b"x")
    os.listdir(os.path.join(a, "d"))
    check(os.stat(os.path.join(a, "d")).st_atime_ns > os.stat(os.path.join(a, "d")).st_mtime_ns, "of directories too")
    # It is kept; and a mount without.
    drop_caches()
    get(path)
    kept = atime()
    cluster.umount(a)
    check(atime(os.path.join(b, "f")) == kept, "told at the end")
    cluster.run("mount", a, "--state", cluster.state, "--detach", "--noatime")
    with open("/proc/self/mounts") as mounts:
        check(any(line.split()[1] == a and "noatime" in line.split()[3].split(",") for line in mounts), "/proc/mounts")
    os.utime(path, ns=(10**18, os.stat(path).st_mtime_ns))
    get(path)
    check(atime() == 10**18, "with --noatime it stays")


def set_ids_sticky_bits_and_umask(box):
    os.chmod(box.root, 0o755)  # other users pass
    _, a, b = two_mounts(box)
    os.mkdir(f"{a}/shared")
    os.chown(f"{a}/shared", 1000, 2000)
    os.chmod(f"{a}/shared", 0o3777)
    program = """
        import mmap, os, sys
        os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
        os.umask(0o027)
        what, path = sys.argv[1], sys.argv[3]
        try:
            if what == "make":
                open(path, "w").close(); os.mkdir(path + ".d"); os.chmod(path, 0o2755)
            elif what == "unlink":
                os.unlink(path)
            elif what == "write":
                fd = os.open(path, os.O_WRONLY); os.write(fd, b"x")
            elif what == "allocate":
                os.posix_fallocate(os.open(path, os.O_WRONLY), 0, 10)
            elif what == "direct":
                fd = os.open(path, os.O_WRONLY | os.O_DIRECT); os.write(fd, mmap.mmap(-1, 4096))
            print("ok")
        except OSError as error:
            print(error.errno)
    """

    def run(what, uid, path):
        said = line(python(program, what, uid, path))
        return said if said == "ok" else errno.errorcode[int(said)]
    check(run("make", 1001, f"{a}/shared/f") == "ok", "another user makes files there")
    s, d = os.stat(f"{b}/shared/f"), os.stat(f"{b}/shared/f.d")
    check((s.st_uid, s.st_gid) == (1001, 2000), "the group is the directory's")
    check(s.st_mode & 0o7777 == 0o0755, f"set-group-id is not for one outside the group: {oct(s.st_mode)}")
    check(d.st_mode & 0o7777 == 0o2750, f"a directory inherits set-group-id, umask applies: {oct(d.st_mode)}")
    check(run("unlink", 1002, f"{b}/shared/f") == "EPERM", "the sticky bit protects it from others")
    check(run("unlink", 1001, f"{b}/shared/f") == "ok", "not from its owner")
    put(f"{a}/program", b"#!")
    os.chmod(f"{a}/program", 0o6777)
    check(run("write", 1002, f"{b}/program") == "ok", "who may write")
    check(os.stat(f"{a}/program").st_mode & 0o7777 == 0o0777, "takes the set-ids away")
    os.chmod(f"{a}/program", 0o6777)
    check(run("direct", 1002, f"{a}/program") == "ok", "directly, too")
    # stat(1) asks for the mode alone, of which the kernel would not know that a write had changed it.
    check(shell(["stat", "-c", "%a", f"{a}/program"]).stdout.strip() == "777", "and it is seen at once on this mount")
    os.chmod(f"{a}/program", 0o6777)
    check(run("allocate", 1002, f"{a}/program") == "ok", "fallocate is a change as well")
    check(os.stat(f"{a}/program").st_mode & 0o7777 == 0o0777, "that takes the set-ids away")


def extended_attributes_and_their_limits(box):
    cluster, a, b = two_mounts(box)
    os.chmod(box.root, 0o755)
    put(f"{a}/f", b"x")
    os.symlink("f", f"{a}/l")
    os.setxattr(f"{a}/f", "user.empty", b"")
    os.setxattr(f"{a}/f", "user.big", b"v" * 65536)
    os.setxattr(f"{a}/f", "trusted.t", b"t")
    os.setxattr(f"{a}/f", "security.s", b"s")
    for mount in (a, b):
        check(os.getxattr(f"{mount}/f", "user.empty") == b"" and len(os.getxattr(f"{mount}/f", "user.big")) == 65536, "values")
        check(sorted(os.listxattr(f"{mount}/f")) == ["security.s", "trusted.t", "user.big", "user.empty"], "names")
        names = as_user(1001, 1001, [], lambda: sorted(os.listxattr(f"{mount}/f")))
        check(names == "['security.s', 'user.big', 'user.empty']", f"trusted.* is root's: {names}")
    fails(errno.E2BIG, os.setxattr, f"{a}/f", "user.huge", b"v" * 65537)
    fails(errno.E2BIG, os.setxattr, f"{a}/f", "user.huge", b"v" * (10 << 20))
    fails(errno.ERANGE, os.setxattr, f"{a}/f", "user." + "n" * 251, b"v")
    fails(errno.EOPNOTSUPP, os.setxattr, f"{a}/f", "nonsense.n", b"v")
    fails(errno.EINVAL, os.setxattr, f"{a}/f", "user.", b"v")
    fails(errno.EEXIST, os.setxattr, f"{a}/f", "user.big", b"v", os.XATTR_CREATE)
    fails(errno.ENODATA, os.setxattr, f"{b}/f", "user.absent", b"v", os.XATTR_REPLACE)
    fails(errno.ENODATA, os.getxattr, f"{a}/f", "user.absent")
    fails(errno.EPERM, lambda: os.setxattr(f"{a}/l", "user.on-link", b"v", follow_symlinks=False))
    os.removexattr(f"{b}/f", "user.big")
    fails(errno.ENODATA, os.getxattr, f"{a}/f", "user.big")
    for i in range(300):
        os.setxattr(f"{a}/f", f"user.many{i}", str(i).encode())
    cluster.remount()
    check(len(os.listxattr(f"{a}/f")) == 303, "hundreds of attributes")


ACL_USER = "u::rwx u:1001:rwx g::r-x m::rwx o::---"


def get_acl(where, name=ACCESS_ACL):
    """As text; "" where there is none."""
    try:
        return acl_text(os.getxattr(where, name))
    except OSError as error:
        check(error.errno == errno.ENODATA, f"getxattr: {error}")
        return ""


def set_acl(where, text, name=ACCESS_ACL):
    os.setxattr(where, name, acl(text))


def mode(where):
    return os.stat(where).st_mode & 0o7777


def as_user(uid, gid, groups, call):
    """What call() returns, by a child that is that user; an errno's name where it fails."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(groups), os.setgid(gid), os.setuid(uid)
            said = call()
        except OSError as error:
            said = errno.errorcode[error.errno]
        os.write(writer, str(said).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as f:
        said = f.read()
    os.waitpid(child, 0)
    return said


def acls_and_modes_follow_each_other(box):
    cluster, a, b = two_mounts(box)
    put(f"{a}/f", b"x")
    os.chmod(f"{a}/f", 0o6640)
    check(get_acl(f"{b}/f") == "", "none at first")
    set_acl(f"{a}/f", "u::rw- u:1001:rwx g::r-x g:2000:-w- m::rw- o::--x")
    for mount in (a, b):
        check(mode(f"{mount}/f") == 0o6661, f"the mode follows: {oct(mode(f'{mount}/f'))}")
        check(get_acl(f"{mount}/f") == "u::rw- u:1001:rwx g::r-x g:2000:-w- m::rw- o::--x", "it comes back")
        check(os.listxattr(f"{mount}/f") == [ACCESS_ACL], "and is listed")
    os.chmod(f"{b}/f", 0o714)
    for mount in (a, b):
        check(get_acl(f"{mount}/f") == "u::rwx u:1001:rwx g::r-x g:2000:-w- m::--x o::r--", "it follows the mode, by its mask")
    os.chown(f"{a}/f", 1001, 2000)
    check(get_acl(f"{b}/f") == "u::rwx u:1001:rwx g::r-x g:2000:-w- m::--x o::r--", "an owner is nothing to it")
    set_acl(f"{b}/f", "u::rw- g::r-- o::---")
    for mount in (a, b):
        check(get_acl(f"{mount}/f") == "" and mode(f"{mount}/f") == 0o640, "one that is but a mode is that mode")
        check(os.listxattr(f"{mount}/f") == [], "and nothing else")
    set_acl(f"{a}/f", ACL_USER)
    os.removexattr(f"{b}/f", ACCESS_ACL)
    check(get_acl(f"{a}/f") == "" and mode(f"{a}/f") == 0o770, "removed, the mode stays")
    os.removexattr(f"{b}/f", ACCESS_ACL)  # Linux says nothing of one that is not there
    os.mkdir(f"{a}/d")
    set_acl(f"{a}/d", "u::rwx g::r-x o::r-x", DEFAULT_ACL)
    check(get_acl(f"{b}/d", DEFAULT_ACL) == "u::rwx g::r-x o::r-x", "a default ACL is kept as it is")
    set_acl(f"{a}/d", ACL_USER)
    os.chmod(f"{a}/d", 0o1700)
    check(get_acl(f"{b}/d", DEFAULT_ACL) == "u::rwx g::r-x o::r-x", "and no mode changes it")
    check(get_acl(f"{b}/d") == "u::rwx u:1001:rwx g::r-x m::--- o::---", "the access ACL it does")
    # Under write grants, before the partition knows of the file: the two are one change nevertheless.
    for i in range(20):
        put(f"{a}/d/f{i}", b"new")
        set_acl(f"{a}/d/f{i}", ACL_USER)
        os.chmod(f"{a}/d/f{i}", 0o750)
        check(get_acl(f"{a}/d/f{i}") == get_acl(f"{b}/d/f{i}") == "u::rwx u:1001:rwx g::r-x m::r-x o::---", f"file {i}")
    cluster.kill_mount()
    cluster.kill_node()
    cluster.up()
    check(get_acl(f"{a}/d/f7") == "u::rwx u:1001:rwx g::r-x m::r-x o::---" and mode(f"{a}/d/f7") == 0o750, "after a crash")


def bad_input_of_acls(box):
    os.chmod(box.root, 0o755)
    _, a, b = two_mounts(box)
    put(f"{a}/f", b"x")
    os.symlink("f", f"{a}/l")
    os.mkdir(f"{a}/d")
    good = acl(ACL_USER)
    for wrong in (good[:-1], good[:7], good[:-8], good + good[4:], good[:4] + good[12:], acl("u::rwx u:1001:rwx g::r-x o::---"),
                  good[:6] + b"\x0f" + good[7:], good[:4] + b"\x40" + good[5:], b"\2\0\0\0" + good[12:20] + good[4:12] + good[20:]):
        for name in (ACCESS_ACL, DEFAULT_ACL):
            fails(errno.EINVAL, os.setxattr, f"{a}/d", name, wrong)
    fails(errno.EOPNOTSUPP, os.setxattr, f"{a}/f", ACCESS_ACL, b"\1" + good[1:])
    fails(errno.EACCES, os.setxattr, f"{a}/f", DEFAULT_ACL, good)
    fails(errno.EOPNOTSUPP, lambda: os.setxattr(f"{a}/l", ACCESS_ACL, good, follow_symlinks=False))
    largest = "u::rwx " + " ".join(f"u:{i}:rwx" for i in range(507)) + " g::r-x m::rwx o::---"
    set_acl(f"{a}/f", largest)
    check(get_acl(f"{b}/f") == largest, "511 entries")
    fails(errno.E2BIG, set_acl, f"{a}/f", "u::rwx " + " ".join(f"u:{i}:rwx" for i in range(508)) + " g::r-x m::rwx o::---")
    check(as_user(1001, 1001, [], lambda: set_acl(f"{b}/f", ACL_USER)) == "EPERM", "only the owner sets one")
    check(get_acl(f"{b}/f") == largest and mode(f"{b}/f") == 0o770, "nothing of it changed")
    os.setxattr(f"{a}/f", ACCESS_ACL, b"\2\0\0\0")  # without entries: none
    check(get_acl(f"{b}/f") == "" and os.listxattr(f"{b}/f") == [], "it is gone")
    # Set by an owner who is not of the group, it takes the set-group-id away; by others not.
    os.chown(f"{a}/f", 1001, 2000)
    for uid, gid, groups, left in ((1001, 1001, [2000], 0o2770), (1001, 2000, [], 0o2770), (0, 0, [], 0o2770), (1001, 1001, [], 0o770)):
        os.chmod(f"{a}/f", 0o2755)
        said = as_user(uid, gid, groups, lambda: set_acl(f"{a}/f", ACL_USER))
        check(said == "None", f"{uid} of {gid} and {groups} sets one: {said}")
        check(mode(f"{b}/f") == left, f"by {uid} of {gid} and {groups}: {oct(mode(f'{b}/f'))}")


def default_acls_are_inherited_where_no_umask_counts(box):
    _, a, b = two_mounts(box)
    os.mkdir(f"{a}/plain")
    os.mkdir(f"{a}/d")
    os.mkdir(f"{a}/d/mode")
    set_acl(f"{a}/d/mode", "u::rwx g::rwx o::---", DEFAULT_ACL)
    set_acl(f"{a}/d", ACL_USER, DEFAULT_ACL)

    def made(directory, name, asked):
        """Modes and ACLs of a file, directories (in whatever partition), a fifo, and a file without a name."""
        path = f"{directory}/{name}"
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, asked))
        os.mknod(f"{path}.fifo", 0o010000 | asked)
        found = {(mode(path), get_acl(path)), (mode(f"{path}.fifo"), get_acl(f"{path}.fifo"))}
        fd = os.open(directory, os.O_TMPFILE | os.O_RDWR, asked)
        found.add((os.fstat(fd).st_mode & 0o7777, get_acl(fd)))
        link_open(fd, f"{path}.tmp")
        os.close(fd)
        found.add((mode(f"{path}.tmp"), get_acl(f"{path}.tmp")))
        folders = set()
        for i in range(8):
            os.mkdir(f"{path}.d{i}", asked)
            folders.add((mode(f"{path}.d{i}"), get_acl(f"{path}.d{i}"), get_acl(f"{path}.d{i}", DEFAULT_ACL)))
        os.symlink("to", f"{path}.l")
        check(os.lstat(f"{path}.l").st_mode & 0o7777 == 0o777, "a symlink has no mode")
        check(len(found) == 1 and len(folders) == 1, f"all the same: {found} {folders}")
        check({(m, access) for m, access, _ in folders} == found, "a directory has what a file has")
        other = a if directory.startswith(b) else b
        for kind in ("", ".fifo", ".tmp", ".d0", ".d5"):
            there = path.replace(a, other, 1) if other == b else path.replace(b, other, 1)
            check((mode(there + kind), get_acl(there + kind)) in found, f"the other mount sees {kind}")
        return (*found.pop(), folders.pop()[2])

    before = os.umask(0o027)
    try:
        check(made(f"{a}/plain", "f", 0o666) == (0o640, "", ""), "no default ACL: the umask counts")
        check(made(f"{b}/plain", "g", 0o777) == (0o750, "", ""), "on the other mount too")
        want = (0o660, "u::rw- u:1001:rwx g::r-x m::rw- o::---", ACL_USER)
        check(made(f"{a}/d", "f", 0o666) == want, "a default ACL: it does not")
        check(made(f"{b}/d", "g", 0o666) == want, "on the other mount neither")
        check(made(f"{a}/d", "h", 0o740)[:2] == (0o740, "u::rwx u:1001:rwx g::r-x m::r-- o::---"), "no more than was asked for")
        check(made(f"{a}/d/f.d3", "below", 0o666) == want, "and so on below")
        check(made(f"{a}/d/mode", "f", 0o666) == (0o660, "", "u::rwx g::rwx o::---"), "one that is but a mode gives a mode")
        # What one mount makes under write grants, and another's ACL.
        os.mkdir(f"{a}/many")
        for i in range(30):
            put(f"{a}/many/a{i}", b"x")
            set_acl(f"{b}/many", ACL_USER, DEFAULT_ACL)
            put(f"{a}/many/b{i}", b"x")
            check(mode(f"{a}/many/a{i}") == 0o640 and get_acl(f"{a}/many/a{i}") == "", f"round {i}: before")
            check(mode(f"{a}/many/b{i}") == 0o660 and get_acl(f"{a}/many/b{i}").startswith("u::rw- u:1001:"), f"round {i}: after")
            os.removexattr(f"{b}/many", DEFAULT_ACL)
    finally:
        os.umask(before)


def acls_decide_who_may_and_are_never_stale(box):
    os.chmod(box.root, 0o755)
    _, a, b = two_mounts(box)
    os.mkdir(f"{a}/d", 0o700)
    put(f"{a}/d/f", b"x")
    put(f"{a}/g", b"x")

    def may(path, flags, uid, gid, groups=()):
        return as_user(uid, gid, list(groups), lambda: os.close(os.open(path, flags)))
    set_acl(f"{a}/g", "u::rw- u:1001:rw- u:1002:--- g::r-- g:2000:rw- g:2001:--- m::rw- o::r--")
    for uid, gid, groups, flags, want in (
            (1001, 1001, [], os.O_RDWR, "None"), (1002, 1002, [], os.O_RDONLY, "EACCES"), (1002, 1002, [2000], os.O_RDONLY, "EACCES"),
            (1003, 2000, [], os.O_RDWR, "None"), (1003, 1003, [2000], os.O_RDWR, "None"), (1003, 2001, [], os.O_RDONLY, "EACCES"),
            (1003, 1003, [2001, 2000], os.O_RDWR, "None"), (1003, 0, [], os.O_RDONLY, "None"), (1003, 0, [], os.O_WRONLY, "EACCES"),
            (1003, 1003, [], os.O_RDONLY, "None"), (1003, 1003, [], os.O_WRONLY, "EACCES")):
        for mount in (a, b):
            said = may(f"{mount}/g", flags, uid, gid, groups)
            check(said == want, f"{uid} of {gid} and {groups} with {flags}: {said}, not {want}")
    os.chmod(f"{a}/g", 0o644)
    check(may(f"{b}/g", os.O_RDWR, 1001, 1001) == "EACCES" and may(f"{b}/g", os.O_RDONLY, 1001, 1001) == "None", "the mask takes")
    # One process on the second mount, which asks again and again: its kernel keeps ACLs, and must not keep old ones.
    asker = python("""
        import os, sys
        fd = os.open(sys.argv[1] + "/d", os.O_RDONLY)
        file = os.open(sys.argv[1] + "/d/f", os.O_RDONLY)
        os.setgroups([]); os.setgid(1001); os.setuid(1001)
        print("ready", flush=True)
        for _ in sys.stdin:
            said = []
            for path in ("/d", "/d/f"):
                try:
                    os.close(os.open(sys.argv[1] + path, os.O_RDONLY)); said.append("yes")
                except PermissionError:
                    said.append("no")
            for descriptor in (fd, file):
                try:
                    said.append(os.getxattr(descriptor, "system.posix_acl_access").hex())
                except OSError as error:
                    said.append(str(error.errno))
            print(*said, flush=True)
    """, b)
    check(line(asker) == "ready", "ready")

    def ask(want, when):
        for _ in range(2):  # the second time from what is kept
            asker.stdin.write("?\n"), asker.stdin.flush()
            said = line(asker).split()
            check(said[:2] == want, f"{when}: {said}, not {want}")
        return [acl_text(bytes.fromhex(s)) if len(s) > 4 else "" for s in said[2:]]
    wrong = []
    for i in range(60):
        ask(["no", "no"], f"round {i}, before")
        set_acl(f"{a}/d", "u::rwx u:1001:r-x g::--- m::r-x o::---")
        set_acl(f"{a}/d/f", "u::rwx u:1001:--- g::--- m::r-x o::r--")
        wrong += [i] if ask(["yes", "no"], f"round {i}, one") != ["u::rwx u:1001:r-x g::--- m::r-x o::---", "u::rwx u:1001:--- g::--- m::r-x o::r--"] else []
        set_acl(f"{a}/d/f", "u::rwx u:1001:r-- g::--- m::r-x o::r--")
        ask(["yes", "yes"], f"round {i}, both")
        os.chmod(f"{a}/d/f", 0o700)
        wrong += [i] if ask(["yes", "no"], f"round {i}, by chmod")[1] != "u::rwx u:1001:r-- g::--- m::--- o::---" else []
        os.removexattr(f"{a}/d", ACCESS_ACL), os.chmod(f"{a}/d", 0o700)
        wrong += [i] if ask(["no", "no"], f"round {i}, none")[0] != "" else []
    asker.stdin.close()
    check(asker.wait(timeout=30) == 0, "the asker ends well")
    check(not wrong, f"stale ACLs in rounds {wrong}")


def acls_are_as_on_the_disk(box):
    """The same at random on the mount and in a directory beside it, whose file system knows ACLs: the same comes of it."""
    os.chmod(box.root, 0o755)
    _, a, b = two_mounts(box)
    disk = box.path("disk")
    os.mkdir(disk, 0o755)
    try:
        set_acl(disk, "u::rwx g::r-x o::r-x", DEFAULT_ACL)
        os.removexattr(disk, DEFAULT_ACL)
    except OSError as error:
        raise Skipped(f"{disk}: {error}")
    rng = random.Random(5)
    paths, folders = ["."], ["."]

    def some_acl():
        def bits():
            return "".join(letter if rng.random() < 0.6 else "-" for letter in "rwx")
        users = [f"u:{i}:{bits()}" for i in (1001, 1002) if rng.random() < 0.4]
        groups = [f"g:{i}:{bits()}" for i in (2000, 2001) if rng.random() < 0.3]
        mask = [f"m::{bits()}"] if users or groups or rng.random() < 0.2 else []
        parts = [f"u::{bits()}", *users, f"g::{bits()}", *groups, *mask, f"o::{bits()}"]
        if rng.random() < 0.05:
            parts.pop(rng.randrange(len(parts)))
        return acl(" ".join(parts))

    def step(number):
        """What happens, as a function of a root."""
        kind, path, folder, name = rng.randrange(12), rng.choice(paths), rng.choice(folders), f"n{number}"
        bits, umask, new = rng.choice((0o666, 0o777, 0o640, 0o2755, 0o1777, 0o600, rng.randrange(0o1000))), rng.choice((0, 0o22, 0o77)), some_acl()
        user, group, groups = rng.choice((0, 1001, 1002, 1003)), rng.choice((2000, 2001, 3000)), rng.choice(([], [2000], [2000, 2001]))
        which = rng.choice((ACCESS_ACL, DEFAULT_ACL))
        if kind < 4 and number % 3 == 0:
            kind = 4
        if kind < 4:
            paths.append(f"{folder}/{name}")
            if kind == 1 and len(folders) < 20:
                folders.append(f"{folder}/{name}")

        def run(root):
            at = f"{root}/{folder}/{name}"
            before = os.umask(umask)
            try:
                if kind == 0:
                    os.close(os.open(at, os.O_CREAT | os.O_EXCL, bits & 0o777))
                elif kind == 1:
                    os.mkdir(at, bits)
                elif kind == 2:
                    os.mknod(at, 0o010000 | bits & 0o777)
                elif kind == 3:
                    fd = os.open(f"{root}/{folder}", os.O_TMPFILE | os.O_RDWR, bits & 0o777)
                    link_open(fd, at)
                    os.close(fd)
            finally:
                os.umask(before)
            if kind in (4, 5, 6):
                os.setxattr(f"{root}/{path}", which if kind > 4 else ACCESS_ACL, new)
            elif kind == 7:
                os.removexattr(f"{root}/{path}", which)
            elif kind == 8:
                os.chmod(f"{root}/{path}", bits)
            elif kind == 9:
                os.chown(f"{root}/{path}", user, group)
            elif kind == 10:
                return as_user(user, group, groups, lambda: (os.chmod(f"{root}/{path}", bits), os.setxattr(f"{root}/{path}", which, new)))
            elif kind == 11:
                return [as_user(user, group, groups, lambda: os.access(f"{root}/{path}", how)) for how in (os.R_OK, os.W_OK, os.X_OK)]
            return None
        return f"{number}: {kind} {path} {folder} {oct(bits)} {oct(umask)} {user} {group} {groups} {which} {new.hex()}", run

    def done(run, root):
        try:
            return run(root)
        except OSError as error:
            return errno.errorcode[error.errno]

    def state(root, path):
        s = os.lstat(f"{root}/{path}")
        return oct(s.st_mode), s.st_uid, s.st_gid, get_acl(f"{root}/{path}"), get_acl(f"{root}/{path}", DEFAULT_ACL), sorted(os.listxattr(f"{root}/{path}"))
    for number in range(1500):
        what, run = step(number)
        want, have = done(run, disk), done(run, a)
        check(want == have, f"{what}: {have}, on the disk {want}")
        if number % 10 == 0:
            for path in paths if number % 100 == 0 else rng.sample(paths, min(5, len(paths))):
                want = state(disk, path)
                for root in (a, b):
                    have = state(root, path)
                    check(want == have, f"after {what}: {path}: {have}, on the disk {want}")


def acls_survive_tools_restarts_and_spin_down(box):
    cluster, a, b = two_mounts(box)
    os.mkdir(f"{a}/d")
    shell(["setfacl", "-m", "d:u:1001:rwx,d:g:2000:rx,u:1002:rwx", f"{a}/d"])
    os.makedirs(f"{a}/d/sub/deeper")
    for i in range(10):
        put(f"{a}/d/sub/f{i}", b"x" * i)
    shell(["setfacl", "-m", "u:1003:r", f"{a}/d/sub/f3"])
    os.chmod(f"{a}/d/sub/f4", 0o604)

    def listing(directory):
        return shell(["getfacl", "-R", "-n", "-p", "."], cwd=directory).stdout
    want = listing(f"{a}/d")
    check("user:1003:r--" in want and "default:group:2000:r-x" in want and "user:1001:rwx\t" in want, f"getfacl says: {want[:2000]}")
    check(listing(f"{b}/d") == want, "on the other mount")
    for tool in (["rsync", "-aA", f"{a}/d/", f"{b}/copy"], ["cp", "-a", f"{a}/d", f"{a}/copied"]):
        shell(tool)
        check(listing(tool[-1]) == want, f"{tool[0]} keeps ACLs")
    shell(["tar", "--acls", "-C", f"{a}/d", "-cf", box.path("d.tar"), "."])
    os.mkdir(f"{b}/untarred")
    shell(["tar", "--acls", "-C", f"{b}/untarred", "-xpf", box.path("d.tar")])
    check(listing(f"{a}/untarred") == want, "tar keeps ACLs")
    again = shell(["rsync", "-aAni", "--checksum", f"{a}/d/", f"{b}/copy"]).stdout
    check(again == "", f"a second rsync finds nothing to do, not {again[:500]}")
    shell(["setfacl", "-R", "-b", f"{a}/copy"])
    check("1001" not in listing(f"{b}/copy") and os.listxattr(f"{b}/copy/sub") == [], "setfacl -b takes all away")
    cluster.kill_mount()
    cluster.kill_node()
    cluster.up()
    check(listing(f"{a}/d") == want, "after a crash")
    cluster.spin_down()
    cluster.up()
    check(listing(f"{a}/d") == want, "after spin-down")
    put(f"{a}/d/sub/deeper/new", b"")
    check(get_acl(f"{a}/d/sub/deeper/new").startswith("u::rw- u:1001:rwx "), "they are inherited still")


def long_names_deep_paths_and_loops(box):
    _, a, b = two_mounts(box)
    name = "ä" * 127 + "x"
    put(f"{a}/{name}", b"x")
    check(get(f"{b}/{name}") == b"x", "a name of 255 bytes")
    fails(errno.ENAMETOOLONG, put, f"{a}/{'n' * 256}", b"")
    os.symlink("loop", f"{a}/loop")
    fails(errno.ELOOP, os.stat, f"{a}/loop")
    fails(errno.ENAMETOOLONG, os.stat, a + "/d" * 3000)
    fd = os.open(a, os.O_RDONLY)
    for _ in range(300):  # deeper than PATH_MAX
        os.mkdir("d" * 50, dir_fd=fd)
        below = os.open("d" * 50, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    other = os.open("leaf", os.O_WRONLY | os.O_CREAT, dir_fd=fd)
    os.write(other, b"deep")
    os.close(other)
    check(os.stat("leaf", dir_fd=fd).st_size == 4, "a path of 15,000 bytes, walked")
    os.close(fd)
    fd = os.open(f"{a}/big", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 1 << 52)
    check(os.pwrite(fd, b"end", (1 << 52) - 3) == 3 and os.stat(f"{b}/big").st_size == 1 << 52, "a file of 4 PiB")
    fails(errno.EFBIG, os.ftruncate, fd, (1 << 62) + 1)
    os.close(fd)


class Handle:
    """What name_to_handle_at(2) gives: it outlives all names and all mounts."""

    def __init__(self, path):
        self.bytes = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 8 + 128)
        mount = ctypes.c_int()
        if LIBC.name_to_handle_at(-100, path.encode(), self.bytes, ctypes.byref(mount), 0) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)

    def open(self, mount, flags=os.O_RDONLY):
        at = os.open(mount, os.O_RDONLY)
        fd = LIBC.open_by_handle_at(at, self.bytes, flags)
        error = ctypes.get_errno()
        os.close(at)
        if fd < 0:
            raise OSError(error, os.strerror(error))
        return fd


def file_handles_outlive_names_and_mounts(box):
    cluster, a, b = two_mounts(box)
    os.makedirs(f"{a}/d/e")
    put(f"{a}/d/e/f", b"found")
    put(f"{a}/d/gone", b"")
    put(f"{a}/d/open", b"")
    handles = {name: Handle(f"{a}/{name}") for name in ("d", "d/e", "d/e/f", "d/gone", "d/open", "")}
    inodes = {name: os.stat(f"{a}/{name}").st_ino for name in handles}

    def check_all(where, present):
        for name in present:
            fd = handles[name].open(where)
            check(os.fstat(fd).st_ino == inodes[name], f"{name} by its handle, in {where}")
            os.close(fd)
        fd = handles["d/e/f"].open(where, os.O_RDWR)
        check(os.read(fd, 10) == b"found", "its bytes")
        os.close(fd)

    check_all(a, handles)
    check_all(b, handles)  # which has never looked any of them up
    os.rename(f"{b}/d/e", f"{b}/moved")
    os.unlink(f"{b}/d/gone")
    present = [name for name in handles if name not in ("d/gone", "d/open")]
    for where in (a, b):
        check_all(where, present)
        fails(errno.ESTALE, handles["d/gone"].open, where)
    # One that is open on another mount alone has no name for this one either.
    with open(f"{b}/d/open", "rb"):
        os.unlink(f"{a}/d/open")
        fails(errno.ESTALE, handles["d/open"].open, a)
    cluster.umount(b)
    cluster.remount()
    check_all(a, present)
    # From a directory that nobody looked up, its path is found by its parents.
    fd = handles["d/e"].open(a)
    check(os.readlink(f"/proc/self/fd/{fd}") == f"{a}/moved", os.readlink(f"/proc/self/fd/{fd}"))
    put(f"/proc/self/fd/{fd}/new", b"")
    os.close(fd)
    check(os.path.exists(f"{a}/moved/new"), "a file made in it")
    fails(errno.ESTALE, handles["d/gone"].open, a)
    cluster.kill_mount()
    cluster.kill_node()
    cluster.up()
    check_all(a, present)


def names_and_attributes_that_a_kernel_keeps_are_never_stale(box):
    """The kernel of one mount answers by itself what it was told a moment ago; a change on the other ends that first."""
    _, *mounts = two_mounts(box)
    wrong = []

    def absent(path):
        try:
            os.lstat(path)
            return False
        except FileNotFoundError:
            return True
    for i in range(600):
        a, b = (f"{m}/d{i}" for m in (mounts if i % 2 == 0 else mounts[::-1]))
        os.makedirs(f"{a}/sub/deep")
        put(f"{a}/f", b"one")
        put(f"{a}/g", b"other")
        os.link(f"{a}/g", f"{a}/h")
        here = os.open(f"{b}/sub/deep", os.O_RDONLY)
        for _ in range(2):  # the second time from what it keeps
            kept = [os.lstat(f"{b}/{name}") for name in ("f", "g", "h", "sub", "sub/deep")]
            get(f"{b}/f")
        kind = i % 6
        if kind == 0:
            os.rename(f"{a}/f", f"{a}/moved")
            wrong += [i] if not absent(f"{b}/f") or get(f"{b}/moved") != b"one" else []
        elif kind == 1:
            os.rename(f"{a}/g", f"{a}/f")
            wrong += [i] if get(f"{b}/f") != b"other" or not absent(f"{b}/g") else []
        elif kind == 2:
            os.unlink(f"{a}/g")
            wrong += [i] if not absent(f"{b}/g") or os.lstat(f"{b}/h").st_nlink != 1 else []
        elif kind == 3:
            os.rename(f"{a}/sub", f"{a}/away")
            wrong += [i] if not absent(f"{b}/sub/deep") or os.lstat(f"{b}/away/deep").st_ino != kept[4].st_ino else []
        elif kind == 4:
            os.chmod(f"{a}/f", 0o600), os.chown(f"{a}/g", 7, 8), os.utime(f"{a}/sub", (1, 2))
            now = [os.lstat(f"{b}/{name}") for name in ("f", "g", "h", "sub")]
            wrong += [i] if (now[0].st_mode & 0o777, now[1].st_uid, now[2].st_gid, now[3].st_mtime) != (0o600, 7, 8, 2) else []
        else:
            os.rmdir(f"{a}/sub/deep")
            put(f"{a}/sub/deep", b"a file now")
            put(f"{a}/f", b"longer than one")
            wrong += [i] if get(f"{b}/sub/deep") != b"a file now" or get(f"{b}/f") != b"longer than one" else []
        if kind not in (3, 5):
            check(os.readlink(f"/proc/self/fd/{here}") == f"{b}/sub/deep", f"who is in a directory stays there: {os.readlink(f'/proc/self/fd/{here}')}")
        os.close(here)
    check(not wrong, f"{len(wrong)} of 600 were stale: {wrong[:10]}")


def a_name_that_was_moved_is_not_kept(box):
    """What a kernel kept of the old name must not answer for the new one, once another mount has changed that."""
    _, a, b = two_mounts(box)
    for i in range(100):
        to = "." if i % 2 == 0 else "other"
        os.makedirs(f"{a}/d{i}/other")
        here, there = f"{a}/d{i}", f"{b}/d{i}"
        put(f"{here}/x", b"x"), put(f"{here}/z", b"z"), os.mkdir(f"{here}/dir")
        z = os.stat(f"{there}/z").st_ino
        os.stat(f"{here}/x"), os.stat(f"{here}/dir")
        os.rename(f"{here}/x", f"{here}/{to}/y")
        os.rename(f"{there}/z", f"{there}/{to}/y")
        check(os.stat(f"{here}/{to}/y").st_ino == z, f"{i}: the name means what the other mount has put there")
        os.rename(f"{there}/{to}/y", f"{there}/{to}/away")
        fails(errno.ENOENT, os.stat, f"{here}/{to}/y")
        os.rename(f"{here}/dir", f"{here}/{to}/moved")
        os.rename(f"{there}/{to}/moved", f"{there}/{to}/gone")
        fails(errno.ENOENT, os.stat, f"{here}/{to}/moved")
        put(f"{here}/p", b"p"), put(f"{here}/{to}/q", b"q")
        q = os.stat(f"{here}/{to}/q").st_ino
        os.stat(f"{here}/p")
        renameat2(f"{here}/p", f"{here}/{to}/q", RENAME_EXCHANGE)
        os.unlink(f"{there}/p")
        fails(errno.ENOENT, os.stat, f"{here}/p")
        check(os.stat(f"{there}/{to}/q").st_ino != q, f"{i}: they changed places")
        os.unlink(f"{there}/{to}/q")
        fails(errno.ENOENT, os.stat, f"{here}/{to}/q")


def shared_mappings_are_coherent_after_msync(box):
    import mmap
    _, a, b = two_mounts(box)
    put(f"{a}/f", bytes(1 << 16))
    with open(f"{a}/f", "r+b") as f, open(f"{b}/f", "r+b") as g:
        here = mmap.mmap(f.fileno(), 0)
        there = mmap.mmap(g.fileno(), 0)
        private = mmap.mmap(f.fileno(), 0, flags=mmap.MAP_PRIVATE)
        private[:4] = b"mine"
        for i in range(50):
            text = f"round {i:5}".encode()
            here[i * 100:i * 100 + len(text)] = text
            here.flush()
            check(there[i * 100:i * 100 + len(text)] == text, f"msync on one mount is seen in a mapping on the other: {i}")
            there[i * 100 + 50:i * 100 + 50 + len(text)] = text
            there.flush()
            check(here[i * 100 + 50:i * 100 + 50 + len(text)] == text, f"and back: {i}")
            check(get(f"{a}/f")[i * 100 + 50:i * 100 + 50 + len(text)] == text, "and by read")
        check(private[:4] == b"mine" and here[:4] != b"mine", "a private mapping is private")
        here.close(), there.close(), private.close()


if __name__ == "__main__":
    main()
