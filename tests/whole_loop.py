"""The loop a user sees, over an S3 server: ingest, lose two targets while reading, tier, spin down, wipe, re-hydrate,
compare, load a model, take over. demo_test.py runs it small, scripts/demo on real size."""
import errno
import os
import shutil
import stat
import subprocess
import sys
import threading
import time

from box import (TOOLS, Failed, check, check_equal, facts, make_odd_tree, shell, wait_until)

MODEL = "model.safetensors"


class Progress:
    """What the loop says while it works: one line a step, and on a terminal a line that moves in between."""

    def __init__(self, quiet=False):
        self.quiet = quiet
        self.rows = []  # (name, value) of the table at the end
        self._started = time.monotonic()
        self._terminal = sys.stdout.isatty()

    def step(self, text):
        self._print(f"[{time.monotonic() - self._started:6.1f} s] {text}")

    def moving(self, text):
        if self._terminal:
            self._print(f"           {text}", end="\r")

    def row(self, name, value):
        self.rows.append((name, value))

    def table(self):
        width = max(len(name) for name, _ in self.rows)
        self._print("")
        for name, value in self.rows:
            self._print(f"  {name:<{width}}  {value}")

    def _print(self, text, end="\n"):
        if not self.quiet:
            print(f"{text:<110}" if end == "\r" else text, end=end, flush=True)


class Watch:
    """While it is open, `progress` shows sample() every second."""

    def __init__(self, progress, sample, every_s=1.0):
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(progress, sample, every_s), daemon=True)

    def __enter__(self):
        self._thread.start()

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _run(self, progress, sample, every_s):
        while not self._stop.wait(every_s):
            try:
                progress.moving(sample())
            except (Failed, subprocess.TimeoutExpired, OSError):
                pass  # the step itself says what is wrong


def mb(count):
    return f"{count / 1e6:,.1f} MB"


def seconds(value):
    return f"{value:.2f} s"


def make_source(box, trees, files, model, odd_files=300, big_mib=8):
    """A folder `source` of the box: copies of `trees` up to `files` files, the made folder, the model if any."""
    source = box.path("source")
    make_odd_tree(os.path.join(source, "odd"), files=odd_files, big_mib=big_mib)
    left = files
    for tree in trees:
        target = os.path.join(source, tree.strip("/").replace("/", "-"))
        for directory, folders, names in os.walk(tree):
            if left <= 0:
                break
            folders.sort()
            to = os.path.join(target, os.path.relpath(directory, tree))
            os.makedirs(to, exist_ok=True)
            shutil.copystat(directory, to)
            for name in sorted(names)[:left]:
                path = os.path.join(directory, name)
                if stat.S_IFMT(os.lstat(path).st_mode) in (stat.S_IFREG, stat.S_IFLNK):
                    shutil.copy2(path, to, follow_symlinks=False)
                    left -= 1
    if model:
        shutil.copy2(model, os.path.join(source, MODEL))
    return source


def model_path():
    """The model that scripts/setup --tools model installed, or None."""
    for directory, _, names in os.walk(os.path.join(TOOLS, "model", "lib")):
        if MODEL in names and os.path.basename(directory) == "model":
            return os.path.join(directory, MODEL)
    return None


def load_model(path):
    """Its tensors through safetensors, all of them read: (count, bytes)."""
    program = ("import sys; from safetensors.numpy import load_file\n"
               "tensors = load_file(sys.argv[1])\n"
               "print(len(tensors), sum(t.nbytes for t in tensors.values()), sum(float(t.sum()) for t in tensors.values()))")
    count, size, total = shell([os.path.join(TOOLS, "model", "bin", "python3"), "-c", program, path]).stdout.split()
    return int(count), int(size), float(total)


def first_byte(path):
    with open(path, "rb") as f:
        return f.read(1)


def target_bytes(status):
    return sum(t["used"] for t in status["targets"])


def run(box, server, source, progress, environment=None):
    want = facts(source)
    regular = [f for f in want.values() if stat.S_ISREG(int(f[0], 8))]
    size = sum(f[4] for f in regular)
    model = os.path.join(source, MODEL) if os.path.exists(os.path.join(source, MODEL)) else None
    progress.step(f"the source has {len(want):,} entries, {len(regular):,} of them files of {mb(size)}")
    progress.row("entries, files, bytes", f"{len(want):,}, {len(regular):,}, {mb(size)}")

    cluster = box.cluster("first", bucket=server.url("loop"), environment=server.environment)
    started = time.monotonic()
    cluster.up()
    progress.step(f"six targets in 4+2 serve after {seconds(time.monotonic() - started)}, bucket {cluster.bucket}")
    inside = copy_in(cluster, source, progress, len(regular), size)
    lose_two_targets(cluster, inside, want, progress)
    push(cluster, progress, server, len(regular))
    took = spin_down(cluster, progress)
    progress.row("time to spin down", seconds(took))
    cluster.wipe()
    progress.step(f"all local state is gone; the bucket has {server.objects()[0]:,} objects of {mb(server.objects()[1])}")

    second = box.cluster("second", bucket=cluster.bucket, environment=server.environment)
    come_back(second, want, model, progress)
    take_over(box, second, server, progress)
    progress.table()


def copy_in(cluster, source, progress, files, size):
    inside = os.path.join(cluster.mount_dir, "in")
    started = time.monotonic()

    def sample():
        status = cluster.status()
        took = time.monotonic() - started
        return (f"copying: {status['files']:,} inodes, {mb(status['bytes'])}, "
                f"{status['files'] / took:,.0f} a second")
    with Watch(progress, sample, every_s=2.0):
        shell(["cp", "-a", source, inside], timeout_s=3600)
        copied = time.monotonic() - started
        shell(["sync", "-f", inside], timeout_s=600)
    took = time.monotonic() - started
    progress.step(f"copied in {seconds(copied)}, durable after {seconds(took)}")
    progress.row("ingest", f"{files / took:,.0f} files/s, {size / took / 1e6:,.1f} MB/s")
    return inside


def lose_two_targets(cluster, inside, want, progress):
    """Their contents go while everything is being read."""
    cluster.remount()
    found = {}

    def read():
        try:
            found["facts"] = facts(inside)
        except Exception as error:
            found["error"] = error
    before = cluster.status()["bytes_read"]
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    wait_until(lambda: cluster.status()["bytes_read"] > before or not reader.is_alive(), 60, "reading is under way")
    cluster.destroy_target(1)
    cluster.destroy_target(4, zeros=True)
    progress.step("two of six targets are destroyed while everything is read")
    with Watch(progress, lambda: f"reading: {cluster.status()['degraded_reads']:,} reads around lost targets"):
        reader.join()
    if "error" in found:
        raise Failed(f"reading with two of six targets lost: {found['error']!r}")
    check_equal(want, found["facts"], "with two of six targets lost while reading")
    if cluster.status()["degraded_reads"] == 0:  # a small tree may be in memory before they are gone
        cluster.remount()
        check_equal(want, facts(inside), "with two of six targets lost")
    wait_until(lambda: cluster.status()["degraded_reads"] > 0, 10, "degraded_reads counts reads around lost targets")
    status = cluster.status()
    progress.step(f"every byte is right; {status['degraded_reads']:,} degraded reads")
    progress.row("degraded reads", f"{status['degraded_reads']:,}")


def push(cluster, progress, server, files):
    before = cluster.status()
    started = time.monotonic()
    with Watch(progress, lambda: f"pushing: {mb(cluster.status()['upload']['bytes'])} sent"):
        cluster.push(timeout_s=3600)
    took = time.monotonic() - started
    after = cluster.status()
    objects, size = server.objects()
    progress.step(f"everything is in the bucket after {seconds(took)}: {objects:,} objects of {mb(size)}")
    progress.row("push", f"{seconds(took)}, {after['bucket_bytes'] / took / 1e6:,.1f} MB/s")
    progress.row("objects made, files per object", f"{objects:,}, {files / objects:,.0f}")
    progress.row("NVMe bytes before and after tiering", f"{mb(target_bytes(before))}, {mb(target_bytes(after))}")
    check(objects < files / 20 + 100, f"small files are packed: {objects} objects for {files} files")
    check(after["bucket_bytes"] > 0 and after["objects"] > 0, "status counts what is in the bucket")


def spin_down(cluster, progress):
    started = time.monotonic()
    with Watch(progress, lambda: f"spinning down: {cluster.status()['spin_down']}"):
        cluster.spin_down(timeout_s=3600)
    took = time.monotonic() - started
    progress.step(f"spun down in {seconds(took)}; node and mount have ended")
    return took


def come_back(cluster, want, model, progress):
    started = time.monotonic()
    cluster.rehydrate()
    inside = os.path.join(cluster.mount_dir, "in")
    check(sorted(os.listdir(inside)) == sorted({os.fsdecode(p).split("/")[0] for p in want}), "the first ls shows the tree")
    listed = time.monotonic() - started
    progress.step(f"re-hydrated elsewhere; the first ls came {seconds(listed)} after the command")
    progress.row("rehydrate to the first ls", seconds(listed))
    if model:
        first_byte(os.path.join(inside, MODEL))
        reached = time.monotonic() - started
        count, size, total = load_model(os.path.join(inside, MODEL))
        loaded = time.monotonic() - started
        check((count, size, total) == load_model(model), "the model through the mount has the tensors of the source")
        progress.step(f"the model's first byte after {seconds(reached)}; all {count} tensors ({mb(size)}) after {seconds(loaded)}")
        progress.row("rehydrate to the model's first byte", seconds(reached))
        progress.row("rehydrate to the model in memory", seconds(loaded))
    with Watch(progress, lambda: f"comparing: {mb(cluster.status()['bytes_read'])} read"):
        have = facts(inside)
    everything = time.monotonic() - started
    check_equal(want, have, "after re-hydrate")
    progress.step(f"every byte, mode, owner, time, link and xattr is right after {seconds(everything)}")
    progress.row("rehydrate to everything read", seconds(everything))


def take_over(box, first, server, progress):
    """Another cluster takes the bucket while `first` lives: within 20 s a write there is EROFS."""
    with open(os.path.join(first.mount_dir, "before"), "wb") as f:
        f.write(b"before")
    first.push()
    third = box.cluster("third", bucket=first.bucket, environment=server.environment)
    refused = third.rehydrate(ok=False)
    check(refused.returncode != 0 and "--take-over" in refused.stderr,
          f"rehydrate of an owned bucket is refused and names --take-over, not: {refused.stderr!r}")
    third.rehydrate("--take-over")
    started = time.monotonic()

    def write_refused():
        try:
            fd = os.open(os.path.join(first.mount_dir, "late"), os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                os.write(fd, b"late")
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno == errno.EROFS:
                return True
            raise Failed(f"a write on the deposed cluster: {errno.errorcode[error.errno]}, not EROFS")
        return False
    wait_until(write_refused, 20, "a write on the first cluster is EROFS", every_s=0.2)
    took = time.monotonic() - started
    owner = first.status()["owner"]
    check(third.state in owner, f"status of the first names the winner, {third.state}: owner is {owner!r}")
    with open(os.path.join(third.mount_dir, "before"), "rb") as f:
        check(f.read() == b"before", "the winner has what the first published")
    with open(os.path.join(third.mount_dir, "after"), "wb") as f:
        f.write(b"after")
        os.fsync(f.fileno())
    progress.step(f"taken over by another cluster; a write on the first is EROFS after {seconds(took)}, its owner: {owner}")
    progress.row("take-over to EROFS on the first", seconds(took))
