"""A box for black-box tests: a temporary directory, and in it clusters, mounts and an S3 server, all
of which are gone when the box closes, however the test ends.

The binaries come from HEADRACE_BIN (default build/bin), test servers from HEADRACE_TOOLS (default
build/tools), as ctest sets them. Directories are made under HEADRACE_TEST_DIR (default /var/tmp): a
disk, since targets use O_DIRECT and the S3 server uses extended attributes.

Only processes that a box started are ended, each by its pid."""
import base64
import ctypes
import hashlib
import hmac
import inspect
import json
import os
import secrets
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.environ.get("HEADRACE_BIN", os.path.join(ROOT, "build/bin"))
TOOLS = os.environ.get("HEADRACE_TOOLS", os.path.join(ROOT, "build/tools"))
SKIPPED = 77  # what ctest takes as 'skipped'
NO_SKIP = os.environ.get("HEADRACE_NO_SKIP") == "1"  # what this machine cannot run is a failure


class Failed(Exception):
    """What a test asserts does not hold; the message is for the reader of the log."""


class Skipped(Exception):
    """This machine cannot run the test."""


def check(condition, message):
    if not condition:
        raise Failed(message)


def wait_until(condition, timeout_s, what, every_s=0.05):
    """Polls until condition() is true and returns its value."""
    end = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed(f"not within {timeout_s} s: {what}")
        time.sleep(every_s)


def alive(pid):
    """A zombie has ended when its other threads have: until then they hold its files and locks."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return fields[0] != "Z" or int(fields[17]) > 1
    except (FileNotFoundError, ProcessLookupError):
        return False


def birth(pid):
    """What no other process of this machine has, ever: numbers are given again. As `headrace` writes it; None: it has ended."""
    try:
        with open(f"/proc/{pid}/stat") as f, open("/proc/sys/kernel/random/boot_id") as boot:
            return boot.read().strip() + "/" + f.read().rsplit(")", 1)[1].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return None


def is_mounted(directory):
    # Not os.path.ismount: it stats the directory, which hangs or fails under a dead mount.
    escaped = directory.replace(" ", "\\040")
    with open("/proc/self/mounts") as f:
        return any(line.split()[1] == escaped for line in f)


def drop_caches():
    """Pages and entries that the kernel keeps of every file system (needs root; otherwise nothing)."""
    try:
        with open("/proc/sys/vm/drop_caches", "w") as f:
            f.write("3")
    except OSError:
        pass


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Box:
    def __init__(self, name, keep=False):
        self.name = name
        self.keep = keep
        self.root = None
        self._closers = []

    def __enter__(self):
        if os.geteuid() != 0 or not os.access("/dev/fuse", os.W_OK):
            raise Skipped("needs root and /dev/fuse")
        base = os.environ.get("HEADRACE_TEST_DIR", "/var/tmp")
        self.root = tempfile.mkdtemp(prefix=f"headrace-{self.name[:40]}.", dir=base)  # the path of a Unix socket is short
        # An interrupt, or ctest's end, closes the box as an exception would.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        return self

    def __exit__(self, kind, value, trace):
        failed = kind is not None
        if failed:
            self.show_logs()
        self.close()
        if self.keep:
            print(f"kept: {self.root}", file=sys.stderr)
        else:
            shutil.rmtree(self.root, ignore_errors=True)
        return False

    def path(self, *parts):
        return os.path.join(self.root, *parts)

    def on_close(self, closer):
        self._closers.append(closer)

    def close(self):
        while self._closers:
            try:
                self._closers.pop()()
            except Exception as error:  # closing goes on: what is left must be removed as well
                print(f"closing: {error}", file=sys.stderr)

    def fork(self, work):
        """Runs work() in a process with mounts of its own, as a box that is closed when it ends: several may so mount at one place
        at once. wait() of what is returned raises what work() raised."""
        return Fork(self, work)

    def cluster(self, name="s", **options):
        return Cluster(self, name, **options)

    def show_logs(self):
        for directory, _, files in os.walk(self.root):
            if os.path.basename(directory) != "log" and not directory.endswith("/logs"):
                continue
            for name in files:
                with open(os.path.join(directory, name), errors="replace") as f:
                    tail = f.readlines()[-30:]
                if tail:
                    print(f"--- {directory}/{name}\n{''.join(tail)}", file=sys.stderr)


class Fork:
    def __init__(self, box, work):
        read, write = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(read)
            said = ""
            box._closers = []  # ours, not the parent's
            try:
                own_mounts()
                work()
            except Failed as error:
                said = str(error) or "failed"
            except BaseException:
                said = traceback.format_exc()
            if said:
                box.show_logs()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            box.close()
            with os.fdopen(write, "w") as pipe:
                pipe.write(said)
            sys.stderr.flush()
            os._exit(1 if said else 0)
        os.close(write)
        self.pipe = os.fdopen(read)
        self.ended = False
        box.on_close(self.end)

    def wait(self):
        said = self.pipe.read()
        _, status = os.waitpid(self.pid, 0)
        self.ended = True
        self.pipe.close()
        check(status == 0 and not said, said or f"a process of the test ended with status {status}")

    def end(self):
        if not self.ended:
            os.kill(self.pid, signal.SIGTERM)
            os.waitpid(self.pid, 0)
            self.ended = True


def own_mounts():
    """From here on, this process (and what it starts) mounts for itself."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_mounts, recursive_and_private = 0x20000, 0x4000 | 0x40000
    if libc.unshare(new_mounts) != 0 or libc.mount(None, b"/", None, recursive_and_private, None) != 0:
        raise Skipped(f"no mount namespaces: {os.strerror(ctypes.get_errno())}")


class Cluster:
    """A state directory with its node and its mounts. `bucket` is a URL."""

    def __init__(self, box, name, bucket=None, targets=6, protection="4+2", capacity_mib=None,
                 environment=None):
        self.box = box
        self.state = box.path(name)
        self.mount_dir = box.path(name + ".mnt")
        if bucket is None:
            bucket = "file://" + box.path(name + ".bucket")
            os.makedirs(box.path(name + ".bucket"), exist_ok=True)
        self.bucket = bucket
        self.targets = targets
        self.protection = protection
        self.capacity_mib = capacity_mib
        self.environment = dict(os.environ, **(environment or {}))
        self._mounts = []
        self._pids = {}  # with their births
        box.on_close(self.close)

    # --- commands

    def run(self, *arguments, timeout_s=300, ok=True):
        """Runs `headrace ARGUMENTS`; its output, or Failed with what it said."""
        done = subprocess.run([os.path.join(BIN, "headrace"), *map(str, arguments)],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=timeout_s, env=self.environment)
        self._note_pids()
        if ok and done.returncode != 0:
            raise Failed(f"headrace {' '.join(map(str, arguments))}: exit {done.returncode}: "
                         f"{done.stderr.strip() or done.stdout.strip()}")
        return done

    def up(self, mount=True, timeout_s=120, create=False, **run_options):
        """`create`: as for the first time, whatever is there."""
        arguments = ["up", "--state", self.state, "--detach"]
        if create or not os.path.exists(self.state):
            arguments += ["--targets", self.targets, "--protection", self.protection,
                          "--bucket", self.bucket]
            if self.capacity_mib:
                arguments += ["--capacity-mib", self.capacity_mib]
        if mount:
            arguments += ["--mount", self._mount_point(self.mount_dir)]
        done = self.run(*arguments, timeout_s=timeout_s, **run_options)
        if mount and done.returncode == 0:
            check(is_mounted(self.mount_dir), f"`up` returned, but {self.mount_dir} is no mount")
        return done

    def rehydrate(self, *more, timeout_s=120, mount=True, **run_options):
        arguments = ["rehydrate", self.bucket, "--state", self.state, "--detach", *more]
        if self.capacity_mib:
            arguments += ["--capacity-mib", self.capacity_mib]
        if mount:
            arguments += ["--mount", self._mount_point(self.mount_dir)]
        return self.run(*arguments, timeout_s=timeout_s, **run_options)

    def mount(self, directory=None):
        """One more mount, or the first again; its directory."""
        directory = self._mount_point(directory or self.mount_dir)
        self.run("mount", directory, "--state", self.state, "--detach")
        check(is_mounted(directory), f"`mount` returned, but {directory} is no mount")
        return directory

    def umount(self, directory=None):
        directory = directory or self.mount_dir
        pid = self.mount_pid(directory)
        self.run("umount", directory)
        # The mount sends what it holds after the kernel has let go of it.
        wait_until(lambda: not pid or not alive(pid), 300, f"the mount at {directory} ends")

    def remount(self):
        self.umount()
        drop_caches()
        return self.mount()

    def stop(self):
        return self.run("stop", "--state", self.state)

    def status(self):
        return json.loads(self.run("status", "--json", "--state", self.state, timeout_s=60).stdout)

    def push(self, timeout_s=600):
        return self.run("tier", "push", self.mount_dir, "--wait", "--state", self.state,
                        timeout_s=timeout_s)

    def spin_down(self, timeout_s=600):
        """Everything into the bucket; then node and mounts have ended."""
        pids = [self.node_pid()] + [self.mount_pid(m) for m in self._mounts]
        done = self.run("spin-down", "--state", self.state, timeout_s=timeout_s)
        wait_until(lambda: not any(p and alive(p) for p in pids), 30, "node and mounts end")
        for directory in self._mounts:
            check(not is_mounted(directory), f"{directory} is still mounted after spin-down")
        return done

    def wipe(self):
        shutil.rmtree(self.state)

    # --- processes

    def node_pid(self):
        return self._pid_in(os.path.join(self.state, "node.json"))

    def mount_pid(self, directory=None):
        directory = directory or self.mount_dir
        folder = os.path.join(self.state, "mounts")
        for name in os.listdir(folder) if os.path.isdir(folder) else []:
            content = self._read_json(os.path.join(folder, name))
            if content.get("directory") == directory and self._lives(content):
                return content["pid"]
        return None

    def kill_node(self):
        self._kill(self.node_pid())

    def kill_mount(self, directory=None):
        """SIGKILL, then the dead mount is taken off."""
        directory = directory or self.mount_dir
        pid = self.mount_pid(directory)
        check(pid, "the mount to be killed does not run")
        os.kill(pid, signal.SIGKILL)
        # A thread of it may stand in the kernel for a directory that a caller of the mount holds, who waits for the mount:
        # only the end of the connection ends both.
        for how in ("-f", "-l"):
            subprocess.run(["umount", how, directory], check=False, stderr=subprocess.DEVNULL)
        wait_until(lambda: not alive(pid), 10, f"process {pid} is gone after SIGKILL")

    def target_files(self, index):
        """The files of the index-th target, in the order of names."""
        folder = os.path.join(self.state, "targets")
        target = os.path.join(folder, sorted(os.listdir(folder))[index])
        return [os.path.join(d, f) for d, _, fs in os.walk(target) for f in fs]

    def destroy_target(self, index, zeros=False):
        """Its contents are gone, or all zeros, while the node has the files open."""
        files = self.target_files(index)
        check(files, f"target {index} has no files")
        for path in files:
            size = os.path.getsize(path)
            os.truncate(path, 0)
            if zeros:
                os.truncate(path, size)

    def close(self):
        self._note_pids()
        if os.path.exists(self.state):
            try:
                self.run("stop", "--state", self.state, ok=False, timeout_s=30)
            except subprocess.TimeoutExpired:
                pass
        for pid, born in self._pids.items():
            if alive(pid) and birth(pid) == born:
                os.kill(pid, signal.SIGKILL)
        for directory in self._mounts:
            for _ in range(4):  # a directory may have been mounted over
                if not is_mounted(directory):
                    break
                subprocess.run(["umount", "-l", directory], check=False, stderr=subprocess.DEVNULL)

    # --- inside

    def _mount_point(self, directory):
        os.makedirs(directory, exist_ok=True)
        if directory not in self._mounts:
            self._mounts.append(directory)
        return directory

    def _kill(self, pid):
        check(pid, "the process to be killed does not run")
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not alive(pid), 10, f"process {pid} is gone after SIGKILL")

    def _note_pids(self):
        """Our processes, for the day when `stop` does not stop them."""
        found = [self.node_pid()] + [self.mount_pid(m) for m in self._mounts]
        self._pids.update((pid, birth(pid)) for pid in found if pid)

    def _pid_in(self, path):
        content = self._read_json(path)
        return content["pid"] if self._lives(content) else None

    @staticmethod
    def _lives(content):
        return alive(content.get("pid", 0)) and content.get("birth") == birth(content["pid"])

    @staticmethod
    def _read_json(path):
        try:
            with open(path) as f:
                return json.load(f)
        except (FileNotFoundError, ValueError):
            return {}


def resident_mib(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) / 1024 for line in f if line.startswith("VmRSS:"))


class S3Server:
    """versitygw over a directory of the box, with one empty bucket. Credentials are made up here and
    travel by environment only."""

    TOOL = "versitygw"

    def __init__(self, box, bucket="headrace"):
        self.program = os.path.join(TOOLS, self.TOOL)
        if not os.access(self.program, os.X_OK):
            raise Skipped(f"{self.program} is missing: scripts/setup --tools {self.TOOL}")
        self.box = box
        self.bucket = bucket
        self.data = box.path("s3", "data")
        self.environment = {"AWS_ACCESS_KEY_ID": "boxes", "AWS_REGION": "us-east-1",
                            "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16)}
        # Either server's file back end takes a directory for a bucket.
        os.makedirs(os.path.join(self.data, bucket))
        os.makedirs(box.path("s3", "logs"))
        self.port = free_port()
        self.process = None
        box.on_close(self.stop)
        self.start()

    def url(self, prefix):
        return f"s3://{self.bucket}/{prefix}?endpoint=http://127.0.0.1:{self.port}"

    def start(self):
        """Starts it (again, on the same port)."""
        with open(self.box.path("s3", "logs", f"{self.TOOL}.log"), "ab") as log:
            self.process = subprocess.Popen(self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            start_new_session=True, env=dict(os.environ, **self._secrets()))

        def answers():
            check(self.process.poll() is None, f"{self.TOOL} ended: see its log")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=1)
            except urllib.error.HTTPError:
                return True  # 'access denied' is an answer
            except OSError:
                return False
            return True
        wait_until(answers, 20, f"{self.TOOL} answers")

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def objects(self):
        """(count, bytes) of the objects in the bucket."""
        count = total = 0
        for directory, folders, files in os.walk(os.path.join(self.data, self.bucket)):
            folders[:] = [f for f in folders if not f.startswith(".")]
            for name in files:
                count += 1
                total += os.path.getsize(os.path.join(directory, name))
        return count, total

    def _command(self):
        return [self.program, "--port", f"127.0.0.1:{self.port}", "posix", self.data]

    def _secrets(self):
        return {"ROOT_ACCESS_KEY": self.environment["AWS_ACCESS_KEY_ID"],
                "ROOT_SECRET_KEY": self.environment["AWS_SECRET_ACCESS_KEY"]}


class MinioServer(S3Server):
    """MinIO in its place: a second opinion of what S3 means."""

    TOOL = "minio"

    def objects(self):
        # An object is a directory with its metadata and, when larger, its parts.
        count = total = 0
        for directory, _, files in os.walk(os.path.join(self.data, self.bucket)):
            count += "xl.meta" in files
            total += sum(os.path.getsize(os.path.join(directory, name)) for name in files)
        return count, total

    def _command(self):
        return [self.program, "server", "--quiet", "--address", f"127.0.0.1:{self.port}", self.data]

    def _secrets(self):
        return {"MINIO_ROOT_USER": self.environment["AWS_ACCESS_KEY_ID"],
                "MINIO_ROOT_PASSWORD": self.environment["AWS_SECRET_ACCESS_KEY"], "MINIO_BROWSER": "off"}


class AzureServer:
    """Azurite over a directory of the box, with one account and one empty container. The account's key
    is made up here and travels by environment only."""

    def __init__(self, box, container="headrace"):
        self.program = os.path.join(TOOLS, "azurite-blob")
        if not os.access(self.program, os.X_OK):
            raise Skipped(f"{self.program} is missing: scripts/setup --tools azurite")
        self.box = box
        self.account = "boxaccount"
        self.container = container
        self._key = base64.b64encode(secrets.token_bytes(32)).decode()
        self.environment = {"AZURE_STORAGE_KEY": self._key}
        os.makedirs(box.path("azure", "logs"))
        os.makedirs(box.path("azure", "data"))
        self.port = free_port()
        self.process = None
        box.on_close(self.stop)
        self.start()
        status, _ = self.request("PUT", "?restype=container")
        check(status == 201, f"azurite makes a container: HTTP {status}")

    def url(self, prefix):
        return f"az://{self.account}/{self.container}/{prefix}?endpoint=http://127.0.0.1:{self.port}"

    def start(self):
        with open(self.box.path("azure", "logs", "azurite.log"), "ab") as log:
            self.process = subprocess.Popen(
                [self.program, "--blobHost", "127.0.0.1", "--blobPort", str(self.port), "--silent",
                 "--disableTelemetry", "--location", self.box.path("azure", "data")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env=dict(os.environ, AZURITE_ACCOUNTS=f"{self.account}:{self._key}"))

        def answers():
            check(self.process.poll() is None, "azurite ended: see its log")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=1)
            except urllib.error.HTTPError:
                return True  # a refusal is an answer
            except OSError:
                return False
            return True
        wait_until(answers, 60, "azurite answers")

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def freeze(self, frozen):
        """A service that does not answer. (Killed, Azurite forgets what it acknowledged last.)"""
        self.process.send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)
        if frozen:
            os.waitpid(self.process.pid, os.WUNTRACED)  # all its threads stand still

    def request(self, method, query):
        """One request to the container, signed with the account's key; (status, body)."""
        path = f"/{self.account}/{self.container}"
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
        parameters = sorted(p.split("=", 1) for p in query.lstrip("?").split("&") if p)
        to_sign = "\n".join([method] + [""] * 11 + [f"x-ms-date:{date}", "x-ms-version:2021-12-02",
                            f"/{self.account}{path}"] + [f"{n}:{v}" for n, v in parameters])
        mac = hmac.new(base64.b64decode(self._key), to_sign.encode(), hashlib.sha256).digest()
        asked = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}{query}", method=method,
            headers={"x-ms-date": date, "x-ms-version": "2021-12-02",
                     "Authorization": f"SharedKey {self.account}:{base64.b64encode(mac).decode()}"})
        try:
            with urllib.request.urlopen(asked, timeout=30) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def objects(self):
        """(count, bytes) of the blobs in the container."""
        status, body = self.request("GET", "?comp=list&maxresults=5000&restype=container")
        check(status == 200, f"azurite lists: HTTP {status}: {body[:300]}")
        sizes = [int(part.split("<")[0]) for part in body.split("<Content-Length>")[1:]]
        return len(sizes), sum(sizes)


# --- trees ------------------------------------------------------------------------------------------

ACCESS_ACL, DEFAULT_ACL = "system.posix_acl_access", "system.posix_acl_default"


def acl(text):
    """An ACL as the kernel takes it: acl("u::rwx u:7:r-x g::r-x m::rwx o::---"), in this order."""
    out = struct.pack("<I", 2)
    for entry in text.split():
        who, name, permissions = entry.split(":")
        tag = {("u", True): 1, ("u", False): 2, ("g", True): 4, ("g", False): 8, ("m", True): 16, ("o", True): 32}[who, not name]
        bits = sum(bit for bit, letter in zip((4, 2, 1), permissions) if letter != "-")
        out += struct.pack("<HHI", tag, bits, int(name) if name else 0xffffffff)
    return out


def acl_text(value):
    """The other way."""
    names = {1: "u:", 2: "u:", 4: "g:", 8: "g:", 16: "m:", 32: "o:"}
    return " ".join(f"{names[tag]}{'' if i == 0xffffffff else i}:" + "".join(
        letter if bits & bit else "-" for bit, letter in zip((4, 2, 1), "rwx"))
        for tag, bits, i in struct.iter_unpack("<HHI", value[4:]))


def facts(root, contents=True):
    """Everything that must come back, by path: type and mode, owner, mtime, links, content, xattrs, ACLs."""
    out = {}
    first = {}
    root_bytes = os.fsencode(root)
    for directory, folders, files in os.walk(root_bytes):
        folders.sort()
        for name in sorted(folders + files):
            path = os.path.join(directory, name)
            s = os.lstat(path)
            relative = os.path.relpath(path, root_bytes)
            fact = [oct(s.st_mode), s.st_uid, s.st_gid, s.st_mtime_ns]
            if stat.S_ISREG(s.st_mode):
                fact += [s.st_size, s.st_nlink, first.setdefault(s.st_ino, relative)]
                if contents:
                    fact.append(digest(path))
            elif stat.S_ISLNK(s.st_mode):
                fact.append(os.readlink(path))
            if not stat.S_ISLNK(s.st_mode):
                fact += [(a, os.getxattr(path, a)) for a in sorted(os.listxattr(path))
                         if a.startswith(("user.", "system.posix_acl_"))]
            out[relative] = fact
    return out


def digest(path):
    h = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            h.update(block)
    return h.digest()


def check_equal(want, have, when):
    if want == have:
        return
    lines = []
    for path in sorted(set(want) | set(have)):
        a, b = want.get(path), have.get(path)
        if a != b:
            lines.append(f"  {path!r}: " + ("is extra" if a is None else "is missing" if b is None
                         else "; ".join(f"{x!r} became {y!r}" for x, y in zip(a, b) if x != y)
                         or f"{a!r} became {b!r}"))
    raise Failed(f"{when}: {len(lines)} of {len(want)} entries differ:\n" + "\n".join(lines[:10]))


def make_odd_tree(root, files=300, big_mib=8, hole_mib=50):
    """A folder of what plain trees lack: hard links, xattrs, ACLs, three owners, set-id and sticky bits,
    holes, fifo, socket-less oddities of names, an empty directory."""
    os.makedirs(root)
    for i in range(files):
        path = f"{root}/f{i}"
        with open(path, "wb") as f:
            f.write(os.urandom(i * 37))
        os.chown(path, 1000 + i % 3, 2000 + i % 2)
        os.chmod(path, (0o600, 0o644, 0o4755, 0o1777)[i % 4])
        os.setxattr(path, "user.n", str(i).encode() * (1 + i % 40))
        if i % 6 == 0:
            os.setxattr(path, ACCESS_ACL, acl(f"u::rwx u:{1000 + i}:r-- g::r-x g:2001:--- m::r-x o::r--"))
        if i % 5 == 0:
            os.link(path, f"{root}/l{i}")
        if i % 7 == 0:
            os.symlink(f"f{i}", f"{root}/s{i}")
    with open(f"{root}/holes", "wb") as f:
        f.write(b"a" * 5000)
        f.seek(hole_mib << 20)
        f.write(b"z" * 5000)
    with open(f"{root}/hole-at-end", "wb") as f:
        f.write(b"b" * 100)
        f.truncate(1 << 20)
    with open(f"{root}/big", "wb") as f:
        for _ in range(big_mib):
            f.write(os.urandom(1 << 20))
    os.mkfifo(f"{root}/fifo")
    os.mkdir(f"{root}/empty")
    os.mkdir(f"{root}/acl")
    os.setxattr(f"{root}/acl", DEFAULT_ACL, acl("u::rwx u:1001:rwx g::r-x m::rwx o::---"))
    os.mkdir(f"{root}/acl/inherits")
    open(f"{root}/acl/inherits/f", "w").close()
    open(f"{root}/" + "n" * 255, "w").close()
    open(f"{root}/ü \n'\"", "w").close()


def sync_tree(root):
    """fsync of every file and directory; the number of files."""
    count = 0
    for directory, _, files in os.walk(root):
        for name in files:
            path = os.path.join(directory, name)
            if stat.S_ISREG(os.lstat(path).st_mode):
                fd = os.open(path, os.O_RDONLY)
                os.fsync(fd)
                os.close(fd)
                count += 1
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(fd)
        os.close(fd)
    return count


# --- main -------------------------------------------------------------------------------------------

def shell(command, timeout_s=300, cwd=None, ok=True):
    """Runs a list (no shell in between); its output, or Failed with the end of what it said."""
    done = subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, errors="replace", timeout=timeout_s, cwd=cwd)
    if ok and done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))}: exit {done.returncode}: "
                     f"{(done.stderr.strip() or done.stdout.strip())[-2000:]}")
    return done


def main():
    """Runs the tests of the script: its functions of one parameter, `box`. Arguments name some of them; none: all."""
    module = vars(sys.modules["__main__"])
    tests = [t for t in module.values() if inspect.isfunction(t) and t.__module__ == "__main__"
             and list(inspect.signature(t).parameters) == ["box"]]
    arguments = [a for a in sys.argv[1:] if not a.startswith("--")]
    keep = "--keep" in sys.argv
    chosen = [t for t in tests if not arguments or t.__name__ in arguments]
    if not chosen:
        sys.exit(f"no such test; there are: {', '.join(t.__name__ for t in tests)}")
    worst = 0
    for test in chosen:
        started = time.monotonic()
        try:
            with Box(test.__name__, keep=keep) as box:
                test(box)
            result = "ok"
        except Skipped as why:
            result = f"{'FAILED: HEADRACE_NO_SKIP=1, but it would be ' if NO_SKIP else ''}skipped: {why}"
            worst = 1 if NO_SKIP else worst or SKIPPED
        except Failed as why:
            result = f"FAILED: {why}"
            worst = 1
        except Exception:
            result = f"FAILED: {traceback.format_exc()}"
            worst = 1
        print(f"{test.__name__}: {result} ({time.monotonic() - started:.1f} s)", flush=True)
    sys.exit(worst)
