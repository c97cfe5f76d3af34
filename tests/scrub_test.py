#!/usr/bin/env python3
"""Scrub on real files: a byte that flipped at rest is found before anybody reads it, and mended."""
import os

from box import check, check_equal, drop_caches, facts, main, sync_tree


def _fill(cluster, files=40):
    folder = os.path.join(cluster.mount_dir, "f")
    os.makedirs(folder)
    for i in range(files):
        with open(os.path.join(folder, str(i)), "wb") as f:
            f.write(os.urandom(300_000 + 1000 * i))
    sync_tree(folder)
    return folder


def _flip(path, magic, skip, many):
    """Flips a byte `skip` behind the begin of each of the first `many` places of `magic`, at a block's begin; how many."""
    flipped = 0
    with open(path, "r+b") as f:
        offset = 0
        while flipped < many:
            f.seek(offset)
            block = f.read(4096)
            if not block:
                break
            if block[:4] == magic:
                f.seek(offset + skip)
                byte = f.read(1)
                f.seek(offset + skip)
                f.write(bytes([byte[0] ^ 0x40]))
                flipped += 1
            offset += 4096
        f.flush()
        os.fsync(f.fileno())
    return flipped


def scrub_finds_and_mends_what_flipped_at_rest(box):
    cluster = box.cluster(capacity_mib=512)
    cluster.up()
    folder = _fill(cluster)
    want = facts(folder)
    before = cluster.status()["upkeep"]["fragments_repaired"]
    flipped = 0
    for index in (1, 4):
        for path in cluster.target_files(index):
            if path.endswith("target.dat"):
                flipped += _flip(path, b"HRF1", 40, 1)        # a header
                flipped += _flip(path, b"HRF1", 4096 + 77, 1)  # a block of data
    check(flipped == 4, f"four bytes are flipped, not {flipped}")
    done = cluster.run("target", "scrub", "--state", cluster.state)
    # Header and block were of the same fragment of each target.
    check("2 damaged" in done.stdout and "2 repaired" in done.stdout, f"scrub says what it found: {done.stdout!r}")
    status = cluster.status()
    check(status["upkeep"]["fragments_repaired"] == before + 2, f"two repaired: {status['upkeep']}")
    check(status["scrub"]["damaged"] == 2 and status["scrub"]["passes"] >= 1, f"counted: {status['scrub']}")
    corrupt = sum(t["corrupt_blocks"] for t in status["targets"])
    again = cluster.run("target", "scrub", "--state", cluster.state)
    check("0 damaged, 0 missing" in again.stdout, f"nothing is left to find: {again.stdout!r}")
    cluster.umount()
    drop_caches()
    cluster.mount()
    check_equal(want, facts(folder), "after the repair")
    status = cluster.status()
    check(sum(t["corrupt_blocks"] for t in status["targets"]) == corrupt, "no read met damage any more")
    one = cluster.run("target", "scrub", "t2", "--state", cluster.state)
    check("scrubbed: " in one.stdout, one.stdout)


def bad_input_scrub_of_no_target(box):
    cluster = box.cluster(capacity_mib=256)
    cluster.up(mount=False)
    for name, words in (("t9", "no live target t9"), ("nine", "is no target")):
        refused = cluster.run("target", "scrub", name, "--state", cluster.state, ok=False)
        check(refused.returncode != 0 and words in refused.stderr, f"{name}: {refused.stderr!r}")


if __name__ == "__main__":
    main()
