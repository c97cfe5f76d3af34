#!/usr/bin/env python3
"""Images of whole clusters as earlier versions left them: the state directory of a node that was killed (coordinator, targets,
RocksDB's files, journals that are not in them yet) and its bucket. This version must serve each from its state directory, and from
its bucket alone. tests/corpus/README.md says how one is made."""
import fcntl
import json
import lzma
import os
import shutil
import subprocess

from box import (ROOT, Failed, acl, check, check_equal, drop_caches, facts, main, make_odd_tree, own_mounts, shell, sync_tree,
                 wait_until, ACCESS_ACL)

CORPUS = os.path.join(ROOT, "tests", "corpus")
PLACE = "/media"  # a state directory knows its bucket by its path: each image is mounted there, seen by the test alone
PINNED = ["/odd/empty", "/pinned"]


def at_its_place(box, name, work):
    """Runs work(cluster) in a process that sees the directory `name` of the box at PLACE."""
    os.makedirs(box.path(name), exist_ok=True)

    def placed():
        shell(["mount", "--bind", box.path(name), PLACE])
        cluster = box.cluster("s", bucket=f"file://{PLACE}/b", targets=3, protection="2+1", capacity_mib=64)
        cluster.state = f"{PLACE}/s"
        cluster.mount_dir = f"{PLACE}/m"
        work(cluster)
    box.fork(placed).wait()


def plain(tree):
    """facts() as JSON has them."""
    def of(value):
        if isinstance(value, bytes):
            return value.hex()
        return [of(v) for v in value] if isinstance(value, (list, tuple)) else value
    return {os.fsdecode(path).encode("utf-8", "surrogateescape").hex(): of(fact) for path, fact in tree.items()}


def named(tree):
    return {bytes.fromhex(path).decode("utf-8", "replace"): fact for path, fact in tree.items()}


def scatter(path, pieces, step, size):
    """Pieces apart from each other: an extent leaf of 16 MiB with many of them splits."""
    with open(path, "wb") as f:
        for i in range(pieces):
            f.seek(i * step)
            f.write(f"{i} of {os.path.basename(path)}\n".encode().ljust(size, b"."))


def make(cluster):
    """A killed node, at PLACE; what its tree was when it was last published, and at the end."""
    os.makedirs(f"{PLACE}/b")
    cluster.up()
    root = cluster.mount_dir
    make_odd_tree(f"{root}/odd", files=40, big_mib=0)
    scatter(f"{root}/scattered", pieces=150, step=100_000, size=5000)
    scatter(f"{root}/long", pieces=6, step=17 << 20, size=9000)
    shell(["cp", "--reflink=auto", f"{root}/scattered", f"{root}/copy"])
    os.makedirs(f"{root}/names")
    for i in range(1200):
        open(f"{root}/names/{i:04}-{'n' * (i % 100)}", "w").close()
    os.makedirs(f"{root}/pinned/below")
    with open(f"{root}/pinned/below/f", "wb") as f:
        f.write(b"kept hot\n" * 5000)
    for path in PINNED:
        cluster.run("tier", "pin", root + path)
    for name in ("goes", "moves", "grows"):
        with open(f"{root}/{name}", "wb") as f:
            f.write(name.encode() * 700)
    sync_tree(root)
    cluster.push()
    published = facts(root)
    # What only the journals have: names that go, move, replace and are replaced, small writes in place, attributes, locks, and a
    # file that is open and has no name.
    os.unlink(f"{root}/goes")
    os.rename(f"{root}/moves", f"{root}/odd/moved")
    os.rename(f"{root}/odd/f3", f"{root}/odd/f4")
    os.rename(f"{root}/pinned/below", f"{root}/odd/empty/from-below")
    with open(f"{root}/grows", "r+b") as f:
        f.write(b"in place")
        f.seek(10_000)
        f.write(b"behind a hole")
    os.truncate(f"{root}/long", 20 << 20)
    os.setxattr(f"{root}/grows", "user.late", b"late")
    os.removexattr(f"{root}/odd/f1", "user.n")
    os.setxattr(f"{root}/grows", ACCESS_ACL, acl("u::rw- u:1001:r-- g::r-- m::r-- o::---"))
    os.link(f"{root}/grows", f"{root}/names/one-more")
    os.symlink("x" * 500, f"{root}/long-link")
    unlinked = open(f"{root}/unlinked", "w+b")
    unlinked.write(b"without a name" * 1000)
    os.fsync(unlinked.fileno())
    os.unlink(f"{root}/unlinked")
    locked = open(f"{root}/grows", "r+b")
    fcntl.flock(locked, fcntl.LOCK_EX)
    fcntl.lockf(locked, fcntl.LOCK_EX, 100, 7)
    sync_tree(root)
    stopped = facts(root)
    cluster.kill_node()
    cluster.kill_mount()
    return {"pins": PINNED, "published": plain(published), "stopped": plain(stopped)}


def pack(box, folder, listing, path):
    with open(os.path.join(folder, "listing.json"), "w") as f:
        json.dump(listing, f, indent=0, sort_keys=True)
    shell(["tar", "--sparse", "--hole-detection=raw", "--exclude=./s/log", "--exclude=./m", "-cf", box.path("image.tar"), "-C", folder, "."])
    with open(box.path("image.tar"), "rb") as tar, lzma.open(path, "wb", preset=9) as out:
        shutil.copyfileobj(tar, out)


def unpack(box, path, name):
    """The image as the directory `name` of the box; its listing."""
    os.makedirs(box.path(name))
    with lzma.open(path, "rb") as packed, open(box.path("image.tar"), "wb") as tar:
        shutil.copyfileobj(packed, tar)
    shell(["tar", "-xpf", box.path("image.tar"), "-C", box.path(name)])
    os.remove(box.path("image.tar"))
    with open(box.path(name, "listing.json")) as f:
        return json.load(f)


def images():
    found = sorted(name for name in os.listdir(CORPUS) if name.endswith(".tar.xz"))
    check(found, f"there are images in {CORPUS}")
    return found


def compare(cluster, want, pins, when):
    drop_caches()
    check_equal(named(want), named(plain(facts(cluster.mount_dir))), when)
    listed = json.loads(cluster.run("tier", "pins", "--json", "--state", cluster.state).stdout)["pins"]
    check(sorted(p["path"] for p in listed) == sorted(pins), f"{when}: the pins are {listed}")
    # And it goes on from there.
    with open(f"{cluster.mount_dir}/grows", "r+b") as f:
        def locks():
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True
        wait_until(locks, 60, f"{when}: the locks of a dead mount end")
        f.write(b"this version")
        os.fsync(f.fileno())
    os.rename(f"{cluster.mount_dir}/names", f"{cluster.mount_dir}/renamed")
    cluster.push()
    changed = facts(cluster.mount_dir)
    cluster.remount()
    check_equal(changed, facts(cluster.mount_dir), f"{when}, and changed")


def serves(box, folder, listing, what):
    def served(cluster):
        cluster.up()
        compare(cluster, listing["stopped"], listing["pins"], f"{what}, from its state directory")
    at_its_place(box, folder, served)


def comes_back(box, folder, listing, what):
    def back(cluster):
        shutil.rmtree(cluster.state)
        cluster.rehydrate("--take-over")
        compare(cluster, listing["published"], listing["pins"], f"{what}, from its bucket alone")
    at_its_place(box, folder, back)


def every_image_is_served_from_its_state_directory(box):
    for name in images():
        serves(box, name, unpack(box, os.path.join(CORPUS, name), name), name)


def every_image_comes_back_from_its_bucket_alone(box):
    for name in images():
        comes_back(box, name, unpack(box, os.path.join(CORPUS, name), name), name)


def an_image_of_this_version_can_be_made(box):
    """Written where HEADRACE_WRITE_CORPUS names a file; otherwise it is only seen that it can be made and read."""
    path = os.environ.get("HEADRACE_WRITE_CORPUS", box.path("image.tar.xz"))
    if os.path.exists(path):
        raise Failed(f"{path} exists: an image is never changed")

    def made(cluster):
        pack(box, box.path("made"), make(cluster), box.path("new"))
    at_its_place(box, "made", made)
    serves(box, "one", unpack(box, box.path("new"), "one"), "the image")
    comes_back(box, "two", unpack(box, box.path("new"), "two"), "the image")
    shutil.move(box.path("new"), path)


if __name__ == "__main__":
    main()
