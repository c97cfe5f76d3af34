#!/usr/bin/env python3
"""Programs that people use, on a mount: what they leave behind is what a local file system would have."""
import glob
import os
import pwd
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time

from box import TOOLS, Skipped, alive, check, check_equal, facts, make_odd_tree, main, shell, wait_until


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


# --- PostgreSQL

class Postgres:
    """Debian's server with its data in a directory of the mount, as its own user; sockets and what pgbench says lie beside it."""

    def __init__(self, box, data):
        found = os.path.join(TOOLS, "postgresql")
        if not os.path.exists(found):
            raise Skipped(f"{found} is missing: scripts/setup --tools postgresql")
        root = box.path("postgresql")  # where another user may go
        os.mkdir(root)
        shell(["mount", "--bind", os.path.realpath(found), root])
        box.on_close(lambda: subprocess.run(["umount", "-l", root], check=False))
        self.programs = os.path.join(root, "usr/lib/postgresql/15/bin")
        self.user = pwd.getpwnam("nobody")
        self.box = box
        self.data = data
        self.sockets = box.path("pg")
        os.chmod(box.root, 0o711)  # the way to the mount
        for directory in (data, self.sockets):
            os.mkdir(directory, 0o700)
            os.chown(directory, self.user.pw_uid, self.user.pw_gid)
        self.process = None
        self.benches = []
        box.on_close(self.close)
        version = shell(self.command("postgres", "--version"), ok=False)
        if version.returncode != 0:
            raise Skipped(f"PostgreSQL does not run: {version.stderr.strip()}")

    def command(self, program, *arguments):
        return ["setpriv", f"--reuid={self.user.pw_uid}", f"--regid={self.user.pw_gid}", "--clear-groups", "--inh-caps=-all",
                os.path.join(self.programs, program), *map(str, arguments)]

    def run(self, program, *arguments):
        return shell(self.command(program, *arguments), cwd=self.sockets).stdout

    def client(self, program, *arguments):
        return self.run(program, "-h", self.sockets, "-U", "postgres", *arguments)

    def query(self, text):
        return self.client("psql", "-XAtq", "-c", text, "postgres").strip()

    def start(self):
        with open(os.path.join(self.sockets, "server.log"), "ab") as said:
            self.process = subprocess.Popen(
                self.command("postgres", "-D", self.data, "-k", self.sockets, "-c", "listen_addresses=", "-c", "shared_buffers=16MB",
                             "-c", "max_wal_size=48MB", "-c", "checkpoint_timeout=30s", "-c", "dynamic_shared_memory_type=mmap"),
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=self.sockets, start_new_session=True)

        def ready():
            check(self.process.poll() is None, f"PostgreSQL ended: {self.tail()}")
            return subprocess.run(self.command("pg_isready", "-q", "-h", self.sockets), check=False).returncode == 0
        wait_until(ready, 60, "PostgreSQL recovers and serves")

    def stop(self):
        self.process.send_signal(signal.SIGINT)  # what is under way is rolled back
        check(self.process.wait(60) == 0, f"PostgreSQL stops: {self.tail()}")

    def kill(self):
        """SIGKILL to all of it."""
        self.process.send_signal(signal.SIGSTOP)  # it makes no more children
        wait_until(lambda: state_of(self.process.pid) == "T", 10, "the postmaster stands still")
        children = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if parent_of(pid) == self.process.pid]
        for pid in [*children, self.process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()
        wait_until(lambda: not any(alive(pid) for pid in children), 30, "the backends are gone")
        check(len(children) > 4, f"it had children: {len(children)}")

    def bench(self, seconds):
        """pgbench in the background; finish_bench() waits for it."""
        bench = subprocess.Popen(self.command("pgbench", "-h", self.sockets, "-U", "postgres", "-n", "-c", "4", "-T", seconds, "postgres"), text=True,
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self.sockets)
        self.benches.append(bench)
        return bench

    def history(self):
        return int(self.query("select count(*) from pgbench_history"))

    def wait_for_work(self, transactions):
        least = self.history() + transactions
        wait_until(lambda: self.history() >= least, 60, f"{transactions} more transactions")

    def finish_bench(self, bench, whole):
        """How many transactions it was told are committed."""
        out, errors = bench.communicate(timeout=120)
        check(not whole or bench.returncode == 0, f"pgbench: {errors[-500:]}")
        done = re.search(r"transactions actually processed: (\d+)", out)
        check(done, f"pgbench says how many: {out[-300:]} {errors[-300:]}")
        return int(done[1])

    def check_all(self, least, when):
        """What pgbench keeps equal is equal, no transaction that it was told of is missing, and pages and indexes are sound."""
        sums = self.query("select (select sum(abalance) from pgbench_accounts), (select sum(bbalance) from pgbench_branches), "
                          "(select sum(tbalance) from pgbench_tellers), (select coalesce(sum(delta), 0) from pgbench_history)")
        check(len(set(sums.split("|"))) == 1, f"{when}: accounts, branches, tellers and history have the same sum: {sums}")
        check(self.history() >= least, f"{when}: {self.history()} transactions are there, {least} were acknowledged")
        self.client("pg_amcheck", "--install-missing", "--heapallindexed", "-d", "postgres")

    def tail(self):
        with open(os.path.join(self.sockets, "server.log"), errors="replace") as f:
            return "".join(f.readlines()[-20:])

    def close(self):
        for bench in self.benches:
            if bench.poll() is None:
                bench.kill()
        if self.process and self.process.poll() is None:
            self.kill()


def stat_fields(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return ["", "0"]


def state_of(pid):
    return stat_fields(pid)[0]


def parent_of(pid):
    return int(stat_fields(pid)[1])


def postgresql_survives_kills_of_itself_and_of_the_node(box):
    cluster = box.cluster()
    cluster.up()
    rng = random.Random(11)
    server = Postgres(box, os.path.join(cluster.mount_dir, "pgdata"))
    server.run("initdb", "-D", server.data, "-U", "postgres", "--data-checksums", "-A", "trust", "--no-instructions")
    server.start()
    server.client("pgbench", "-q", "-i", "-s", "2", "postgres")
    acknowledged = 0
    for turn in range(2):
        bench = server.bench(60)
        server.wait_for_work(200)
        time.sleep(rng.uniform(0, 0.5))
        check(bench.poll() is None, "pgbench runs until its server is killed")
        server.kill()
        acknowledged += server.finish_bench(bench, whole=False)
        if turn == 1:
            cluster.remount()
        server.start()
        server.check_all(acknowledged, f"after kill {turn} of PostgreSQL")

    # The node goes and comes back beneath: the mount waits for it, and nobody notices.
    bench = server.bench(8)
    server.wait_for_work(100)
    cluster.kill_node()
    cluster.up(mount=False)
    server.wait_for_work(100)
    acknowledged += server.finish_bench(bench, whole=True)
    server.check_all(acknowledged, "after a kill of the node")

    # And both at once.
    bench = server.bench(60)
    server.wait_for_work(100)
    cluster.kill_node()
    server.kill()
    acknowledged += server.finish_bench(bench, whole=False)
    cluster.up(mount=False)
    server.start()
    server.check_all(acknowledged, "after a kill of both")
    server.stop()
    cluster.remount()
    server.start()
    server.check_all(acknowledged, "on a new mount")
    server.stop()
    print(f"{acknowledged} transactions acknowledged", flush=True)


# --- stressors and verifiers

# Of stress-ng's class filesystem those that work in the directory that they are given.
STRESSORS = """access chdir chmod chown copy-file dentry dir dirdeep dirmany fallocate fcntl fiemap file-ioctl filename flock fpunch
fstat getdent handle hdd inode-flags io iomix lease link locka lockf lockofd mknod open rename seek sendfile splice symlink sync-file
touch utime verity xattr""".split()


def stress(directory, seconds, workers, at_once):
    """Each for so long, a few at once, checking what they read."""
    if not shutil.which("stress-ng"):
        raise Skipped("stress-ng is missing: scripts/setup installs it")
    wrong = []
    for i in range(0, len(STRESSORS), at_once):
        names = STRESSORS[i:i + at_once]
        done = shell(["stress-ng", "--temp-path", directory, "--verify", "--oomable", "--timeout", f"{seconds}s", "--hdd-bytes", "16m",
                      "--fallocate-bytes", "8m", "--iomix-bytes", "8m", *(word for name in names for word in (f"--{name}", workers))],
                     ok=False, timeout_s=seconds + 120)
        said = done.stderr + done.stdout
        # 3 and 4: no resources, not implemented here.
        if done.returncode not in (0, 3, 4) or "fail:" in said:
            wrong.append(f"{' '.join(names)}: exit {done.returncode}: {said[-1500:]}")
    check(not wrong, "; ".join(wrong))
    left = os.listdir(directory)
    check(not left, f"they clean up after themselves: {left}")


FIO_JOBS = {
    "sequential": ["--rw=write", "--bs=1m", "--size=24m"],
    "random": ["--rw=randwrite", "--bsrange=512-64k", "--bs_unaligned", "--size=12m"],
    "mixed": ["--rw=randrw", "--bs=4k", "--size=8m", "--fsync=16"],
    "direct": ["--rw=randwrite", "--bs=4k", "--size=8m", "--direct=1", "--ioengine=libaio", "--iodepth=16"],
    "uring": ["--rw=randwrite", "--bs=16k", "--size=12m", "--ioengine=io_uring", "--iodepth=8"],
    "mapped": ["--rw=randwrite", "--bs=4k", "--size=8m", "--ioengine=mmap"],
}


def fio(directory, only=None, size_factor=1, kill=None):
    """Writes with checksums in every block; `kill` happens meanwhile."""
    command = ["fio", f"--directory={directory}", "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--randrepeat=1", "--group_reporting=0"]
    command += ["--verify_only=1"] if only else ["--do_verify=0", "--end_fsync=1"]
    for name, options in FIO_JOBS.items():
        sizes = [re.sub(r"(?<=--size=)\d+", lambda m: str(int(m[0]) * size_factor), o) for o in options]
        command += [f"--name={name}", *sizes]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        if kill:
            kill(lambda: process.poll() is None)
        said, _ = process.communicate(timeout=600)
    finally:
        if process.poll() is None:
            process.kill()
    check(process.returncode == 0, f"fio: exit {process.returncode}: {said[-1500:]}")


def stress_ng_finds_nothing_wrong(box):
    cluster = box.cluster(targets=3, protection="2+1")
    cluster.up()
    directory = os.path.join(cluster.mount_dir, "stress")
    os.mkdir(directory)
    stress(directory, seconds=1, workers=1, at_once=5)


def fio_verifies_what_it_wrote_through_a_kill_of_the_node(box):
    cluster = box.cluster(targets=3, protection="2+1")
    cluster.up()

    def kill(runs):
        wait_until(lambda: any(os.path.getsize(os.path.join(cluster.mount_dir, n)) for n in os.listdir(cluster.mount_dir)) or not runs(),
                   60, "something was written")
        check(runs(), "fio writes while the node is killed")
        cluster.kill_node()
        cluster.up(mount=False)
    fio(cluster.mount_dir, kill=kill)
    fio(cluster.mount_dir, only=True)
    cluster.remount()
    fio(cluster.mount_dir, only=True)


def long_run_of_stressors_and_verifiers(box):
    cluster = box.cluster(targets=3, protection="2+1")
    cluster.up()
    directories = []
    for mount_dir in (cluster.mount_dir, cluster.mount(box.path("second"))):
        directories.append(os.path.join(mount_dir, f"stress{len(directories)}"))
        os.mkdir(directories[-1])
    for directory in directories:
        stress(directory, seconds=3, workers=4, at_once=1)
    fio(cluster.mount_dir, size_factor=12)
    fio(box.path("second"), only=True, size_factor=12)
    cluster.push()
    cluster.remount()
    fio(cluster.mount_dir, only=True, size_factor=12)


def rsync_round_trip_keeps_everything(box):
    source = box.path("source")
    make_odd_tree(os.path.join(source, "odd"))
    shutil.copytree("/usr/include/linux", os.path.join(source, "linux"), symlinks=True)
    want = facts(source)
    cluster = box.cluster()
    cluster.up()
    inside = os.path.join(cluster.mount_dir, "in")
    back = box.path("back")
    shell(["rsync", "-aHAX", source + "/", inside])
    check_equal(want, facts(inside), "after rsync to the mount")
    again = shell(["rsync", "-aHAXni", "--checksum", source + "/", inside]).stdout
    check(again == "", f"a second rsync finds nothing to do, not:\n{again[:500]}")
    cluster.remount()
    shell(["rsync", "-aHAX", inside + "/", back])
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
