#!/usr/bin/env python3
"""headrace mount DIR --upgrade: the process that serves a mount is replaced, and programs see a pause only."""
import array
import ctypes
import errno
import fcntl
import json
import mmap
import os
import shutil
import signal
import socket
import subprocess
import threading
import time

from box import BIN, alive, check, is_mounted, main, wait_until
from posix_test import Locker, fails, get, line, link_open, put, python, two_mounts

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.opendir.restype = LIBC.readdir.restype = ctypes.c_void_p
LIBC.readdir.argtypes = LIBC.closedir.argtypes = LIBC.telldir.argtypes = [ctypes.c_void_p]
LIBC.telldir.restype = ctypes.c_long
LIBC.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]

WRITER = """
    import os, sys, time
    fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
    n, slowest = 0, 0.0
    while True:
        started = time.monotonic()
        record = f"{n:08d}".encode() * 100
        assert os.pwrite(fd, record, n % 50 * 800) == 800
        if n % 3 == 0:
            os.fsync(fd)
        assert os.pread(fd, 800, n % 50 * 800) == record
        with open(f"{sys.argv[1]}.{n}", "w") as f:
            f.write(str(n))
        os.setxattr(f"{sys.argv[1]}.{n}", "user.n", str(n).encode())
        assert os.stat(f"{sys.argv[1]}.{n}").st_size == len(str(n))
        if n > 20:
            assert open(f"{sys.argv[1]}.{n - 10}").read() == str(n - 10)
            os.rename(f"{sys.argv[1]}.{n - 10}", f"{sys.argv[1]}.old")
        n += 1
        slowest = max(slowest, time.monotonic() - started)
        print(n, f"{slowest:.3f}", flush=True)
"""

# A big file from end to end, over and over, each time with other bytes.
STREAM = """
    import os, sys
    fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
    n = 0
    while True:
        for i in range(12):
            assert os.pwrite(fd, bytes([n % 251]) * (1 << 20), i << 20) == 1 << 20
        for i in range(12):
            assert os.pread(fd, 1 << 20, i << 20) == bytes([n % 251]) * (1 << 20), (n, i)
        n += 1
        print(n, flush=True)
"""

MAPPER = """
    import mmap, os, sys, time
    fd = os.open(sys.argv[1], os.O_RDWR)
    m = mmap.mmap(fd, 0)
    n = 0
    while True:
        for page in range(0, len(m), 4096):
            assert int.from_bytes(m[page:page + 8], "little") == n, (page, n)
            m[page:page + 8] = (n + 1).to_bytes(8, "little")
        n += 1
        if n % 4 == 0:
            m.flush()
            assert int.from_bytes(os.pread(fd, 8, 0), "little") == n
        print(n, flush=True)
        time.sleep(0.01)
"""


def upgrade(cluster, directory):
    """The pid that serves it then."""
    before = cluster.mount_pid(directory)
    said = cluster.run("mount", directory, "--upgrade", "--state", cluster.state, timeout_s=120)
    wait_until(lambda: not alive(before), 20, "the old process ends")
    after = cluster.mount_pid(directory)
    check(after and after != before and str(after) in said.stdout, f"another process serves the mount: {said.stdout}")
    check(is_mounted(directory), "it is still mounted")
    return after


class Program:
    """Runs for ever and says a line each round."""
    def __init__(self, text, *arguments):
        self.process = python(text, *arguments)
        self.rounds = 0
        self.last = ""
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        for said in self.process.stdout:
            self.rounds += 1
            self.last = said.strip()

    def goes_on(self, what):
        want = self.rounds + 3
        wait_until(lambda: self.rounds >= want or self.process.poll() is not None, 60, f"{what}: the program goes on")
        check(self.process.poll() is None, f"{what}: no program sees an error")


class Listing:
    """A directory that is being read, entry by entry, by libc."""
    def __init__(self, path):
        self.stream = LIBC.opendir(os.fsencode(path))

    def next(self):
        entry = LIBC.readdir(self.stream)
        return entry and ctypes.string_at(entry + 19).decode()  # behind d_ino, d_off, d_reclen and d_type

    def rest(self):
        names = []
        while name := self.next():
            names.append(name)
        return names

    def tell(self):
        return LIBC.telldir(self.stream)

    def seek(self, where):
        LIBC.seekdir(self.stream, where)

    def close(self):
        LIBC.closedir(self.stream)


def programs_see_a_pause_only(box):
    cluster, a, b = two_mounts(box)
    os.mkdir(f"{a}/d")
    os.mkdir(f"{a}/many")
    for i in range(3000):
        put(f"{a}/many/{i:04}", b"")
    put(f"{a}/mapped", bytes(1 << 18))
    put(f"{a}/locked", b"0" * 100)
    put(f"{a}/flocked", b"")
    put(f"{a}/awaited", b"")
    put(f"{a}/unlinked", b"unlinked" * 1000)
    unlinked = os.open(f"{a}/unlinked", os.O_RDWR)
    os.unlink(f"{a}/unlinked")
    elsewhere = os.open(f"{a}/many/0000", os.O_RDWR)
    unnamed = os.open(f"{a}/d", os.O_RDWR | os.O_TMPFILE)
    os.write(unnamed, b"unnamed")
    appended = os.open(f"{a}/appended", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    synced = os.open(f"{a}/synced", os.O_RDWR | os.O_SYNC | os.O_CREAT)
    here = os.open(f"{a}/d", os.O_RDONLY | os.O_DIRECTORY)
    programs = [Program(WRITER, f"{a}/d/p"), Program(WRITER, f"{a}/d/q"), Program(WRITER, f"{b}/d/r"),
                Program(STREAM, f"{a}/big"), Program(MAPPER, f"{a}/mapped")]
    holder, flocker, waiter, other = (Locker(f"{a}/locked"), Locker(f"{a}/flocked"), Locker(f"{a}/awaited"),
                                      Locker(f"{b}/awaited"))
    rivals = {name: os.open(f"{b}/{name}", os.O_RDWR) for name in ("locked", "flocked")}
    stolen = []
    over = threading.Event()

    def steal():
        while not over.is_set():
            for name, take in (("locked", fcntl.lockf), ("flocked", fcntl.flock)):
                try:
                    stolen.extend([name] if locks_at_once(take, rivals[name]) else [])
                except OSError as error:
                    stolen.append(f"{name}: {error}")
            time.sleep(0.02)

    thief = threading.Thread(target=steal)
    try:
        check(holder.ask("w", 0, 50) == "ok" and flocker.ask("flock-ex") == "ok", "locks")
        check(other.ask("w") == "ok", "a lock on the other mount")
        waiter.send("wwait")
        time.sleep(0.3)
        thief.start()
        listing = Listing(f"{a}/many")
        seen = [listing.next() for _ in range(100)]
        where = listing.tell()
        for round in range(5):
            for program in programs:
                program.goes_on(f"before round {round}")
            if round == 2:
                os.unlink(f"{b}/many/0000")  # open on the mount that is upgraded, by nobody but us
            upgrade(cluster, a)
            if round == 3:
                cluster.kill_node()  # its next process knows the sessions, and the successor's claims
                cluster.up(mount=False)
            for program in programs:
                program.goes_on(f"round {round}")
            check(not stolen, f"locks never change hands: {stolen}")
            check(os.pread(unlinked, 8000, 0) == b"unlinked" * 1000, "an unlinked open file is there")
            check(os.pwrite(unlinked, f"{round}".encode(), 8000 + round) == 1, "and can be written")
            check(os.pread(elsewhere, 10, 0) == b"", "also one that the other mount unlinked")
            os.write(appended, b"%d" % round)
            os.write(synced, b"%d" % round)
            seen += [listing.next() for _ in range(100)]
        os.fsync(unlinked)
        check(os.pread(unlinked, 5, 8000) == b"01234", "all that was written to it is there")
        check(get(f"{b}/appended") == get(f"{b}/synced") == b"01234", "and to others")
        seen += listing.rest()
        want = {".", ".."} | {f"{i:04}" for i in range(3000)}
        check(len(seen) == len(set(seen)) and want - {"0000"} <= set(seen) <= want, "a listing goes on where it was")
        listing.seek(where)
        again = listing.rest()
        check(set(seen[100:]) - {"0000"} == set(again) - {"0000"}, "from where telldir was, too")
        listing.close()
        link_open(unnamed, f"{a}/named")
        check(get(f"{b}/named") == b"unnamed", "a file without a name gets one")
        check(os.stat("p", dir_fd=here).st_size > 0, "an open directory leads on")
        check(other.ask("u") == "ok", "the other mount's lock ends")
        check(line(waiter.process) == "ok", "who waited through all of it gets it")
        check(other.ask("w") == "EAGAIN", "and has it")
        over.set()
        thief.join()
        check(holder.ask("u", 0, 50) == "ok", "a lock is given back")
        fcntl.lockf(rivals["locked"], fcntl.LOCK_EX | fcntl.LOCK_NB)
        flocker.end()
        wait_until(lambda: locks_at_once(fcntl.flock, rivals["flocked"]), 10, "one ends with its owner")
        print(f"the slowest round of each writer: {[program.last.split()[1] for program in programs[:3]]} s")
    finally:
        over.set()
        end(programs + [holder, flocker, waiter, other])
        for fd in (unlinked, elsewhere, unnamed, appended, synced, here, *rivals.values()):
            os.close(fd)
    files = {mount: {name: get(f"{mount}/d/{name}") for name in sorted(os.listdir(f"{a}/d"))} for mount in (a, b)}
    check(files[a] == files[b], "both mounts have the same")
    with open(f"{b}/mapped", "rb") as f:
        counts = {int.from_bytes(f.read(4096)[:8], "little") for _ in range(64)}
    check(max(counts) - min(counts) <= 1, f"no page of a mapping is older than the others: {counts}")
    kept = cluster.status()["files"]
    time.sleep(6)
    check(cluster.status()["files"] <= kept and not os.path.exists(f"{a}/many/0000"), "what was unlinked goes")
    cluster.remount()
    check({name: get(f"{a}/d/{name}") for name in files[a]} == files[a], "and all is there when mounted again")


def end(programs):
    for program in programs:
        program.process.kill()
        program.process.wait()


def locks_at_once(take, fd):
    try:
        take(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


def many_open_files_and_much_dirty_data_go_over(box):
    cluster, a, b = two_mounts(box)
    fds = [os.open(f"{a}/f{i}", os.O_RDWR | os.O_CREAT) for i in range(900)]
    for i, fd in enumerate(fds):
        os.write(fd, str(i).encode() * 100)
    big = os.open(f"{a}/big", os.O_RDWR | os.O_CREAT)
    for i in range(100):
        os.pwrite(big, bytes([i]) * (1 << 20), i << 20)
    for i in range(0, 900, 3):
        os.unlink(f"{a}/f{i}")
    mapping = mmap.mmap(big, 0)
    upgrade(cluster, a)
    for i, fd in enumerate(fds):
        check(os.pread(fd, 1000, 0) == str(i).encode() * 100, f"f{i}")
        check(os.pwrite(fd, b"after", 0) == 5, f"f{i} can be written")
    for i in range(100):
        check(os.pread(big, 1 << 20, i << 20) == bytes([i]) * (1 << 20), f"MiB {i}")
        check(mapping[i << 20] == i, f"MiB {i} of the mapping")
        mapping[(i << 20) + 1] = 255 - i
    upgrade(cluster, a)
    mapping.flush()
    for i in range(100):
        check(os.pread(big, 2, i << 20) == bytes([i, 255 - i]), f"MiB {i}, written by the mapping")
    mapping.close()
    for fd in fds + [big]:
        os.close(fd)
    want = {f"f{i}": b"after" + (str(i).encode() * 100)[5:] for i in range(900) if i % 3}
    for mount in (a, b):
        check({name: get(f"{mount}/{name}") for name in sorted(os.listdir(mount)) if name != "big"} == want,
              "what has a name is there, what has none is gone")
    upgrade(cluster, b)
    cluster.spin_down()


def what_ends_mounts_ends_upgraded_ones(box):
    cluster, a, b = two_mounts(box)
    put(f"{a}/f", b"x" * 100000)
    third = cluster._mount_point(box.path("third"))
    foreground = subprocess.Popen([os.path.join(BIN, "headrace"), "mount", third, "--state", cluster.state, "--noatime"])
    wait_until(lambda: is_mounted(third) and cluster.mount_pid(third), 30, "a third mount")
    os.utime(f"{a}/f", ns=(10**18, 10**18))
    put(f"{a}/read", b"x")
    get(f"{a}/read")
    read = os.stat(f"{a}/read").st_atime_ns
    for mount in (a, b, third):
        upgrade(cluster, mount)
    get(f"{third}/f")
    check(os.stat(f"{third}/f").st_atime_ns == 10**18, "a mount without access times stays one")
    check(os.stat(f"{b}/read").st_atime_ns == read, "when a file was read is told")
    time.sleep(2)
    check(foreground.poll() is None, "who started it in the foreground waits for the one that serves now")
    check(cluster.status()["files"] >= 1, "status answers")
    put(f"{a}/g", b"by the successor")
    pid = cluster.mount_pid(a)
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not alive(pid), 60, "SIGTERM ends the successor")
    check(not is_mounted(a), "and unmounts")
    check(get(f"{b}/g") == b"by the successor", "and flushes")
    pid = upgrade(cluster, b)
    cluster.umount(b)
    check(not is_mounted(b) and not alive(pid), "umount ends it")
    fails_with = cluster.run("mount", b, "--upgrade", "--state", cluster.state, ok=False)
    check(fails_with.returncode == 1 and "mount it with" in fails_with.stderr, f"nothing there: {fails_with.stderr}")
    upgrade(cluster, third)
    cluster.stop()
    check(not is_mounted(third) and foreground.wait(10) == 0, "`stop` ends all")
    for folder in ("mounts", "handover"):
        check(os.listdir(os.path.join(cluster.state, folder)) == [], f"nothing is left behind in {folder}")
    cluster.up()
    check(get(f"{a}/f") == b"x" * 100000 and get(f"{a}/g") == b"by the successor", "nothing is lost")


class Successor:
    """Talks as a new process does, and then not as it should."""
    def __init__(self, cluster, directory, say="take over 1"):
        path = os.path.join(cluster.state, "handover", f"{cluster.mount_pid(directory)}.sock")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(60)
        self.socket.connect(path)
        if say:
            self.say(say)

    def say(self, text):
        self.socket.send(text.encode())

    def hear(self):
        text, control, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(8))
        for level, kind, data in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                for fd in array.array("i", data):
                    os.close(fd)
        return text.decode()

    def close(self):
        self.socket.close()


def bad_input_a_successor_that_fails_leaves_the_mount_as_it_was(box):
    cluster, a, b = two_mounts(box)
    os.mkdir(f"{a}/d")
    put(f"{a}/locked", b"")
    put(f"{a}/awaited", b"")
    unlinked = os.open(f"{a}/unlinked", os.O_RDWR | os.O_CREAT)
    os.write(unlinked, b"still here")
    os.unlink(f"{a}/unlinked")
    put(f"{a}/mapped", bytes(1 << 16))
    programs = [Program(WRITER, f"{a}/d/p"), Program(MAPPER, f"{a}/mapped")]
    holder, waiter, other = Locker(f"{a}/locked"), Locker(f"{a}/awaited"), Locker(f"{b}/awaited")
    rival = os.open(f"{b}/locked", os.O_RDWR)
    pid = cluster.mount_pid(a)

    def as_before(what):
        for program in programs:
            program.goes_on(what)
        check(cluster.mount_pid(a) == pid and alive(pid), f"{what}: the same process serves")
        check(os.pread(unlinked, 100, 0) == b"still here", f"{what}: an unlinked file")
        fails(errno.EAGAIN, fcntl.lockf, rival, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def died_after(*words):
        successor = Successor(cluster, a)
        for heard, said in words:
            check(successor.hear() == heard, f"it hears {heard}")
            if said:
                successor.say(said)
        if said:
            check(successor.hear().startswith("no: "), "its refusal is answered")
        successor.close()

    try:
        check(holder.ask("w") == "ok" and other.ask("w") == "ok", "locks")
        waiter.send("wwait")
        time.sleep(0.3)
        other_bin = box.path("bin")
        os.mkdir(other_bin)
        shutil.copy(os.path.join(BIN, "headrace"), other_bin)
        put(f"{other_bin}/headrace-mount", b"#!/bin/sh\nexit 3\n")
        os.chmod(f"{other_bin}/headrace-mount", 0o755)
        done = subprocess.run([f"{other_bin}/headrace", "mount", a, "--upgrade", "--state", cluster.state],
                              capture_output=True, text=True)
        check(done.returncode == 1 and "served as before" in done.stderr, f"it is said: {done.stderr}")
        as_before("one that ends at once")
        Successor(cluster, a, say=None).close()
        as_before("one that connects alone")
        for word in ("take over 0", "take over", "nonsense", "serving"):
            refused = Successor(cluster, a, word)
            check("older version" in refused.hear(), f"{word}: refused")
        as_before("an older one")
        died_after(("state", "no: record format 9 is newer than this version reads"))
        as_before("one that does not know the record")
        died_after(("state", None))
        as_before("one that died with the state")
        died_after(("state", "ready"), ("go", None))
        as_before("one that died before it served")
        log = get(os.path.join(cluster.state, "log", "mount.log")).decode()
        check("record format 9" in log, f"the log says why: {log}")
        check(other.ask("u") == "ok" and line(waiter.process) == "ok", "who waits for a lock gets it")
        os.kill(cluster.node_pid(), signal.SIGSTOP)
        try:
            stuck = subprocess.Popen([os.path.join(BIN, "headrace"), "mount", a, "--upgrade", "--state", cluster.state],
                                     stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            time.sleep(2)
        finally:
            os.kill(cluster.node_pid(), signal.SIGCONT)
        stuck.wait(120)  # whether it came through is chance
        pid = cluster.mount_pid(a)
        as_before("a node that stood still meanwhile")
        pid = upgrade(cluster, a)
        as_before("then one that does it right")
    finally:
        end(programs + [holder, waiter, other])
        os.close(unlinked)
        os.close(rival)


def bad_input_a_record_that_is_newer_or_damaged_is_not_taken_over(box):
    cluster = box.cluster()
    cluster.up()
    put(f"{cluster.mount_dir}/f", b"x")
    folder = os.path.join(cluster.state, "mounts")
    sockets = os.path.join(cluster.state, "handover")
    directory = box.path("played")
    os.mkdir(directory)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    here = os.open(sockets, os.O_RDONLY)
    listener.bind(f"/proc/self/fd/{here}/{os.getpid()}.sock")
    listener.listen(1)
    put(f"{folder}/{os.getpid()}.json", json.dumps({"pid": os.getpid(), "directory": directory}).encode())
    try:
        for record, why in ((b"\x63" + bytes(100), "newer than this version reads"), (b"", "malformed"),
                            (b"\x01\xff\xff\xff\xff", "malformed"), (b"\x01" + bytes(200), "malformed")):
            done = []
            run = threading.Thread(target=lambda: done.append(
                cluster.run("mount", directory, "--upgrade", "--state", cluster.state, ok=False)))
            run.start()
            listener.settimeout(30)
            old, _ = listener.accept()
            check(old.recv(4096) == b"take over 1", "a new process asks")
            memory = os.memfd_create("record")
            os.write(memory, record)
            null = os.open("/dev/null", os.O_RDWR)
            socket.send_fds(old, [b"state"], [null, memory])
            said = old.recv(4096).decode()
            check(said.startswith("no: ") and why in said, f"{record[:5]}: it says why not: {said}")
            run.join()
            check(done[0].returncode == 1 and why in done[0].stderr, f"so does the command: {done[0].stderr}")
            for fd in (memory, null):
                os.close(fd)
            old.close()
    finally:
        listener.close()
        os.close(here)
        os.unlink(f"{folder}/{os.getpid()}.json")
        os.unlink(f"{sockets}/{os.getpid()}.sock")
    check(get(f"{cluster.mount_dir}/f") == b"x", "other mounts are not concerned")


def sigterm_during_an_upgrade_unmounts(box):
    cluster, a, b = two_mounts(box)
    put(f"{a}/f", b"x" * 10000)
    pid = cluster.mount_pid(a)
    successor = Successor(cluster, a)
    check(successor.hear() == "state", "it has everything")
    os.kill(pid, signal.SIGTERM)
    time.sleep(1)
    check(alive(pid) and is_mounted(a), "while it is handed over it is not unmounted")
    successor.close()
    wait_until(lambda: not alive(pid) and not is_mounted(a), 30, "then it is")
    check(get(f"{b}/f") == b"x" * 10000, "nothing is lost")


if __name__ == "__main__":
    main()
