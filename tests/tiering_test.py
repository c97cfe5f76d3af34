#!/usr/bin/env python3
"""The tier as its user meets it: a hot tier smaller than the data, a bucket that goes away and comes back, what is
fetched and what is pinned."""
import errno
import hashlib
import json
import os
import time

from box import Failed, S3Server, check, check_equal, facts, main, wait_until

FILE = 4 << 20


def write_files(directory, numbers):
    for i in numbers:
        with open(os.path.join(directory, f"f{i}"), "wb") as f:
            f.write(os.urandom(FILE))


def small(box, **more):
    """A hot tier of 6 x 32 MiB: 128 MiB of data in 4+2."""
    return box.cluster(capacity_mib=32, **more)


def writing_three_times_the_hot_capacity_works(box):
    cluster = small(box)
    cluster.up()
    directory = os.path.join(cluster.mount_dir, "d")
    os.mkdir(directory)
    write_files(directory, range(96))  # 384 MiB
    want = facts(directory)
    fd = os.open(directory, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    os.sync()
    tier = json.loads(cluster.run("tier", "status", "--json", "--state", cluster.state).stdout)
    check(tier["evicted_bytes"] > 200 << 20, f"the rest was dropped: {tier}")
    check(tier["hot_used"] <= tier["hot_capacity"] * 97 // 100, f"targets keep their reserve: {tier}")
    cluster.remount()
    check_equal(want, facts(directory), "after dropping caches")


def no_space_only_while_the_bucket_is_down_and_the_hot_tier_full(box):
    server = S3Server(box)
    cluster = small(box, bucket=server.url("ns"), environment=server.environment)
    cluster.up()
    directory = os.path.join(cluster.mount_dir, "d")
    os.mkdir(directory)
    write_files(directory, range(10))
    server.stop()

    kept = {}  # what was acknowledged: the hash of each

    def intact(path):
        with open(path, "rb") as f:
            return hashlib.sha256(f.read()).digest() == kept[path]

    def refused():
        path, data = os.path.join(directory, f"more{len(kept)}"), os.urandom(FILE)
        try:
            with open(path, "wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
        except OSError as error:
            if error.errno == errno.ENOSPC:
                return True
            raise Failed(f"with the bucket away and the hot tier full: {errno.errorcode[error.errno]}")
        kept[path] = hashlib.sha256(data).digest()
        return False
    began = time.monotonic()
    wait_until(refused, 280, "ENOSPC with the bucket away and the hot tier full", every_s=0)
    print(f"  {len(kept) * 4} MiB were taken, then ENOSPC after {time.monotonic() - began:.0f} s")
    check(len(kept) >= 5, f"the hot tier was used: {len(kept)} files of 4 MiB more")
    cluster.remount()  # it is not the kernel that remembers
    check(all(map(intact, kept)), "what was acknowledged is there")
    for path in list(kept)[:3]:  # deleting still works
        os.unlink(path)
        del kept[path]
    server.start()

    def taken():
        try:
            with open(os.path.join(directory, "again"), "wb") as f:
                f.write(os.urandom(FILE))
                f.flush()
                os.fsync(f.fileno())
        except OSError as error:
            check(error.errno == errno.ENOSPC, f"not {errno.errorcode[error.errno]}")
            return False
        return True
    wait_until(taken, 120, "writing goes on when the bucket is back", every_s=1)
    cluster.remount()
    check(all(map(intact, kept)), "all that was acknowledged is there")


def fetch_pin_and_release(box):
    cluster = box.cluster(capacity_mib=96)  # 384 MiB of data in 4+2
    cluster.up()
    for name, count in (("a", 6), ("b", 6)):
        directory = os.path.join(cluster.mount_dir, name)
        os.mkdir(directory)
        write_files(directory, range(count))
    a = os.path.join(cluster.mount_dir, "a")
    want = facts(a)
    cluster.push()
    # What comes after drives it out.
    filler = os.path.join(cluster.mount_dir, "filler")
    os.mkdir(filler)
    write_files(filler, range(130))
    os.sync()

    def where(path):
        return json.loads(cluster.run("tier", "status", path, "--json").stdout)
    check(where(a)["files"] == 6, "files below it are counted")
    cold = where(a)["bytes"] - where(a)["hot_bytes"]
    check(cold > 0, f"some of it was dropped: {where(a)}")
    os.unlink(os.path.join(filler, "f0"))
    for i in range(1, 120):
        os.unlink(os.path.join(filler, f"f{i}"))

    def fetched():
        done = cluster.run("tier", "fetch", a, "--json", ok=False)
        return done.returncode == 0 and json.loads(done.stdout)
    wait_until(fetched, 60, "there is room for what is fetched", every_s=1)
    check(where(a)["hot_bytes"] == where(a)["bytes"], f"all of it is hot again: {where(a)}")
    cluster.run("tier", "pin", a, "--wait")
    pins = json.loads(cluster.run("tier", "pins", "--json", "--state", cluster.state).stdout)["pins"]
    check([p["path"] for p in pins] == ["/a"] and pins[0]["complete"], f"the pin is listed: {pins}")
    write_files(filler, range(200, 260))
    os.sync()
    check(where(a)["hot_bytes"] == where(a)["bytes"] and where(a)["pinned"], f"a pin keeps it hot: {where(a)}")
    cluster.remount()
    check_equal(want, facts(a), "what is pinned")
    cluster.stop()
    cluster.up()
    pins = json.loads(cluster.run("tier", "pins", "--json", "--state", cluster.state).stdout)["pins"]
    wait_until(lambda: json.loads(cluster.run("tier", "pins", "--json", "--state", cluster.state).stdout)["pins"], 10,
               "a pin is durable")
    cluster.run("tier", "release", a)
    refused = cluster.run("tier", "release", a, ok=False)
    check(refused.returncode == 1 and "not pinned" in refused.stderr, f"{refused.stderr!r}")
    missing = cluster.run("tier", "fetch", os.path.join(cluster.mount_dir, "missing"), ok=False)
    check(missing.returncode == 1 and "/missing" in missing.stderr, f"{missing.stderr!r}")


if __name__ == "__main__":
    main()
