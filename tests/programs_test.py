#!/usr/bin/env python3
"""Programs that people use, on a mount: what they leave behind is what a local file system would have."""
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time

from box import TOOLS, Skipped, check, check_equal, facts, make_odd_tree, main, shell, wait_until


def make_bare_repository(directory, files, commits=3):
    """A bare repository whose last commit has `files` files in folders of 100; the files' contents."""
    stream = []
    contents = {}
    rng = random.Random(7)
    mark = 0
    for commit in range(commits):
        changed = range(files) if commit == 0 else rng.sample(range(files), files // 20)
        names = []
        for i in changed:
            mark += 1
            name = f"d{i // 1000}/e{i // 100}/file{i}.txt"
            text = "".join(f"{commit} {i} line {n} {rng.random()}\n" for n in range(1 + i % 30))
            contents[name] = text
            stream.append(f"blob\nmark :{mark}\ndata {len(text)}\n{text}\n")
            names.append((mark, name))
        message = f"commit {commit}"
        stream.append(f"commit refs/heads/main\ncommitter A <a@example.org> {1700000000 + commit} +0000\n"
                      f"data {len(message)}\n{message}\n")
        stream += [f"M 100{'755' if m % 50 == 0 else '644'} :{m} {n}\n" for m, n in names]
    shell(["git", "init", "-q", "--bare", "--initial-branch=main", directory])
    done = subprocess.run(["git", "fast-import", "--quiet"], input="".join(stream).encode(), cwd=directory,
                          capture_output=True, timeout=120)
    check(done.returncode == 0, f"git fast-import: {done.stderr!r}")
    return contents


def git_clone_of_10000_files_passes_fsck_and_gc(box):
    contents = make_bare_repository(box.path("bare"), 10000)
    cluster = box.cluster()
    cluster.up()
    clone = os.path.join(cluster.mount_dir, "clone")
    shell(["git", "clone", "-q", "--no-local", box.path("bare"), clone])
    shell(["git", "fsck", "--full", "--strict"], cwd=clone)
    check(shell(["git", "status", "--porcelain"], cwd=clone).stdout == "", "a fresh clone is clean")

    cluster.remount()
    shell(["git", "fsck", "--full", "--strict"], cwd=clone)
    check(shell(["git", "status", "--porcelain"], cwd=clone).stdout == "", "it is clean on a new mount")
    tree = {}
    for directory, folders, names in os.walk(clone):
        folders[:] = [f for f in folders if f != ".git"]
        for name in names:
            path = os.path.join(directory, name)
            with open(path) as f:
                tree[os.path.relpath(path, clone)] = f.read()
    check(tree == contents, "every file has the committed content")

    with open(os.path.join(clone, "d0/e0/file1.txt"), "a") as f:
        f.write("changed\n")
    os.unlink(os.path.join(clone, "d1/e10/file1001.txt"))
    os.rename(os.path.join(clone, "d2"), os.path.join(clone, "moved"))
    shell(["git", "add", "-A"], cwd=clone)
    shell(["git", "-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "-qm", "more"], cwd=clone)
    shell(["git", "gc", "-q", "--prune=now"], cwd=clone)
    shell(["git", "fsck", "--full", "--strict"], cwd=clone)
    shell(["git", "push", "-q", "origin", "main"], cwd=clone)
    check(shell(["git", "rev-parse", "main"], cwd=clone).stdout ==
          shell(["git", "rev-parse", "main"], cwd=box.path("bare")).stdout, "the push arrived")


def a_c_project_builds_with_make_j(box):
    source = os.path.join(TOOLS, "zstd-source.tar.xz")
    if not os.path.exists(source):
        raise Skipped(f"{source} is missing: scripts/setup --tools zstd-source")
    cluster = box.cluster()
    cluster.up()
    tree = os.path.join(cluster.mount_dir, "zstd")
    os.makedirs(tree)
    shell(["tar", "-xJf", source, "--strip-components=1", "-C", tree])
    # -O0: it is the file system that is tested. Dependency files and objects are made in parallel.
    shell(["make", "-j4", "-C", os.path.join(tree, "programs"), "zstd", "CC=clang-19", "MOREFLAGS=-O0 -g",
           "HAVE_LZMA=0", "HAVE_LZ4=0", "HAVE_ZLIB=0"], timeout_s=280)
    cluster.remount()
    program = os.path.join(tree, "programs/zstd")
    plain = os.path.join(tree, "programs/zstdcli.c")
    shell([program, "-q", "-f", plain, "-o", os.path.join(tree, "packed.zst")])
    shell([program, "-q", "-d", "-f", os.path.join(tree, "packed.zst"), "-o", os.path.join(tree, "unpacked")])
    with open(plain, "rb") as a, open(os.path.join(tree, "unpacked"), "rb") as b:
        check(a.read() == b.read(), "the program that was built on the mount works")


SQLITE_WRITER = textwrap.dedent("""
    import sqlite3, sys
    db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
    db.execute("pragma journal_mode=wal")
    db.execute("pragma synchronous=full")
    db.execute("pragma wal_autocheckpoint=50")
    db.execute("create table if not exists t(id integer primary key, round integer, body blob)")
    n = db.execute("select coalesce(max(id), 0) from t").fetchone()[0]
    while True:
        n += 1
        db.execute("begin immediate")
        db.execute("insert into t values(?, ?, randomblob(?))", (n, int(sys.argv[2]), 100 + n * 37 % 4000))
        if n % 7 == 0:
            db.execute("update t set body = randomblob(500) where id = ?", (n // 2,))
        db.execute("commit")
        print(n, flush=True)
""")


def sqlite_in_wal_mode_survives_20_kills(box):
    cluster = box.cluster()
    cluster.up()
    path = os.path.join(cluster.mount_dir, "test.db")
    rng = random.Random(1)
    acknowledged = 0
    for kill in range(20):
        # A pipe would stop a writer that nobody reads from; a file on a local disk does not.
        with open(box.path("acknowledged"), "w+") as said:
            writer = subprocess.Popen([sys.executable, "-c", SQLITE_WRITER, path, str(kill)], stdout=said,
                                      stderr=subprocess.PIPE)
            wait_until(lambda: os.path.getsize(said.name) > 0 or writer.poll() is not None, 30,
                       "the writer commits")
            time.sleep(rng.uniform(0.05, 0.4))
            check(writer.poll() is None, "the writer runs until it is killed")
            writer.send_signal(signal.SIGKILL)
            writer.communicate()
            said.seek(0)
            whole = [line for line in said.read().split("\n")[:-1] if line]
        acknowledged = max(acknowledged, int(whole[-1]))
        if kill % 5 == 4:
            cluster.remount()
        db = sqlite3.connect(path)
        found = db.execute("pragma integrity_check").fetchall()
        check(found == [("ok",)], f"integrity_check after kill {kill}: {found[:3]}")
        count, last = db.execute("select count(*), coalesce(max(id), 0) from t").fetchone()
        db.close()
        check(count == last and last >= acknowledged,
              f"after kill {kill}: {count} rows up to {last}; {acknowledged} were acknowledged")
    check(acknowledged > 100, f"the writers did work: {acknowledged} commits")


def rsync_round_trip_keeps_everything(box):
    source = box.path("source")
    make_odd_tree(os.path.join(source, "odd"))
    shutil.copytree("/usr/include/linux", os.path.join(source, "linux"), symlinks=True)
    want = facts(source)
    cluster = box.cluster()
    cluster.up()
    inside = os.path.join(cluster.mount_dir, "in")
    back = box.path("back")
    shell(["rsync", "-aHX", source + "/", inside])
    check_equal(want, facts(inside), "after rsync to the mount")
    again = shell(["rsync", "-aHXni", "--checksum", source + "/", inside]).stdout
    check(again == "", f"a second rsync finds nothing to do, not:\n{again[:500]}")
    cluster.remount()
    shell(["rsync", "-aHX", inside + "/", back])
    check_equal(want, facts(back), "after rsync from the mount")


def ten_thousand_writes_and_stats_over_two_mounts_are_never_stale(box):
    cluster = box.cluster()
    cluster.up()
    mounts = [cluster.mount_dir, cluster.mount(box.path("second"))]
    rng = random.Random(3)
    files = [f"f{i}" for i in range(8)]
    want = {}
    for name in files:
        with open(os.path.join(mounts[0], name), "wb"):
            pass
        want[name] = b""
    stale = []
    for step in range(10000):
        name = rng.choice(files)
        writer, reader = mounts if step % 2 == 0 else mounts[::-1]
        data = str(step).encode() * rng.randint(1, 200)
        choice = rng.randrange(10)
        fd = os.open(os.path.join(writer, name), os.O_WRONLY | (os.O_TRUNC if choice == 0 else 0))
        if choice == 0:
            want[name] = b""
        at = rng.randint(0, len(want[name])) if choice < 8 else len(want[name])
        before = os.fstat(fd).st_mtime_ns
        os.pwrite(fd, data, at)
        os.close(fd)
        old = want[name]
        want[name] = old[:at] + data + old[at + len(data):]
        seen = os.stat(os.path.join(reader, name))
        if seen.st_size != len(want[name]):
            stale.append(f"step {step}: {name} has {seen.st_size} bytes, {len(want[name])} were written")
        if seen.st_mtime_ns < before:
            stale.append(f"step {step}: the mtime of {name} went back")
        if step % 10 == 0:
            with open(os.path.join(reader, name), "rb") as f:
                if f.read() != want[name]:
                    stale.append(f"step {step}: {name} has other bytes")
    check(not stale, f"{len(stale)} of 10000 were stale: " + "; ".join(stale[:5]))


if __name__ == "__main__":
    main()
