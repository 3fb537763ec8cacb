"""A fork's changes brought back, and changes as text."""

import errno

import pytest
from fs.errors import InsufficientStorage, OperationFailed

from overlayvfs import MemoryFS, OverlayFS
from overlayvfs.faces.errors import CommitConflict
from overlayvfs.testing.snapshots import Snapshot, capture
from overlayvfs.testing.trees import build, file, symlink

LOWER = {
    "/a": "one\ntwo\nthree\n",
    "/b": "lower",
    "/d/e/f": "lower",
    "/d/g": "lower",
    "/s": symlink("a"),
    "/bin": file(b"\0\1"),
}


@pytest.fixture
def ofs():
    lower = MemoryFS()
    build(lower.os, "", LOWER, prefix="user.overlay.")
    with OverlayFS([lower], MemoryFS()) as ofs:
        yield ofs


def shown(ofs: OverlayFS) -> Snapshot:
    return {path: entry for path, entry in capture(ofs.os, "").items() if path}


def test_merge_brings_all_the_fork_did(ofs):
    fork = ofs.fork()
    fork.writetext("/b", "fork")
    fork.removetree("/d/e")
    fork.makedirs("/n/m")
    fork.writetext("/n/m/f", "new")
    fork.os.chmod("/d/g", 0o600)
    fork.remove("/s")
    fork.os.symlink("b", "/s")
    ofs.merge(fork)
    assert shown(ofs) == shown(fork)


def test_merge_takes_from_each_side_what_only_that_changed(ofs):
    ofs.writetext("/before", "both")
    fork = ofs.fork()
    ofs.writetext("/b", "parent")
    ofs.remove("/d/g")
    fork.writetext("/a", "fork")
    fork.remove("/before")
    assert [one.path for one in ofs.merge(fork)] == ["/a", "/before"]
    assert (ofs.readtext("/a"), ofs.readtext("/b")) == ("fork", "parent")
    assert sorted(ofs.walk.files()) == ["/a", "/b", "/bin", "/d/e/f", "/s"]
    assert fork.readtext("/b") == "lower"


def test_same_change_on_both_sides_is_no_conflict(ofs):
    fork = ofs.fork()
    for side in (ofs, fork):
        side.writetext("/a", "the same")
        side.remove("/b")
        side.makedir("/n")
    fork.writetext("/n/f", "fork")
    assert [one.path for one in ofs.merge(fork)] == ["/n/f"]


CONFLICTS = {
    "both wrote": (lambda fs: fs.writetext("/a", "p"), lambda fs: fs.writetext("/a", "f"), "/a", "both changed it"),
    "one removed": (lambda fs: fs.remove("/a"), lambda fs: fs.writetext("/a", "f"), "/a", "both changed it"),
    "other removed": (lambda fs: fs.os.chmod("/a", 0o600), lambda fs: fs.remove("/a"), "/a", "both changed it"),
    "both made": (lambda fs: fs.makedir("/n"), lambda fs: fs.writetext("/n", "f"), "/n", "both changed it"),
    "directory removed here": (
        lambda fs: fs.removetree("/d/e"),
        lambda fs: fs.writetext("/d/e/new", "f"),
        "/d/e/new",
        "the fork changed it, and the directory it is in was removed here",
    ),
    "directory removed there": (
        lambda fs: fs.writetext("/d/e/new", "p"),
        lambda fs: fs.removetree("/d/e"),
        "/d/e/new",
        "it was changed here, and the fork removed the directory it is in",
    ),
}


@pytest.mark.parametrize("case", CONFLICTS)
def test_conflict_is_named_and_nothing_is_changed(ofs, case):
    ours, theirs, path, why = CONFLICTS[case]
    fork = ofs.fork()
    ours(ofs)
    theirs(fork)
    fork.writetext("/d/g", "fork")
    before = shown(ofs)
    with pytest.raises(CommitConflict) as caught:
        ofs.merge(fork)
    assert [(one.path, one.why) for one in caught.value.conflicts] == [(path, why)]
    assert shown(ofs) == before


@pytest.mark.parametrize("case", CONFLICTS)
def test_skip_keeps_what_is_here_and_overwrite_takes_what_is_there(ofs, case):
    ours, theirs, path, _ = CONFLICTS[case]
    fork = ofs.fork()
    ours(ofs)
    theirs(fork)
    fork.writetext("/b", "fork")
    other = ofs.fork()
    before = shown(ofs)
    ofs.merge(fork, on_conflict="skip")
    assert shown(ofs).get(path) == before.get(path)
    assert ofs.readtext("/b") == "fork"
    assert shown(other) == before


def test_overwrite_takes_what_the_fork_has(ofs):
    fork = ofs.fork()
    ofs.writetext("/a", "parent")
    fork.writetext("/a", "fork")
    ofs.merge(fork, on_conflict="overwrite")
    assert ofs.readtext("/a") == "fork"


def test_fork_can_be_merged_again_with_what_it_did_since(ofs):
    fork = ofs.fork()
    fork.writetext("/a", "first")
    ofs.merge(fork)
    ofs.writetext("/b", "parent since")
    fork.writetext("/d/g", "second")
    assert [one.path for one in ofs.merge(fork)] == ["/d/g"]
    assert (ofs.readtext("/a"), ofs.readtext("/b"), ofs.readtext("/d/g")) == ("first", "parent since", "second")
    assert ofs.merge(fork) == []


def test_merge_of_what_is_no_fork_of_this_overlay_is_einval(ofs):
    grandchild = ofs.fork().fork()
    for other in (grandchild, OverlayFS([MemoryFS()], MemoryFS())):
        with pytest.raises(OperationFailed) as caught:
            ofs.merge(other)
        assert caught.value.exc.errno == errno.EINVAL


def test_merge_that_does_not_fit_changes_nothing():
    lower = MemoryFS()
    build(lower.os, "", LOWER, prefix="user.overlay.")
    ofs = OverlayFS([lower], MemoryFS(nr_inodes=10))
    fork = ofs.fork()
    for name in "xyz":
        fork.writetext(f"/{name}", name)
        ofs.writetext(f"/{name}2", name)
    before = shown(ofs)
    with pytest.raises(InsufficientStorage):
        ofs.merge(fork)
    assert shown(ofs) == before


# As text


def test_diff_is_a_unified_diff(ofs):
    ofs.writetext("/a", "one\n2\nthree\n")
    assert ofs.diff("/a") == "--- a/a\n+++ b/a\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n"


def test_diff_of_new_deleted_and_linked_files_names_dev_null(ofs):
    ofs.remove("/d/g")
    ofs.writetext("/d/n", "new")
    ofs.remove("/s")
    ofs.os.symlink("b", "/s")
    no_end = "\\ No newline at end of file\n"
    assert ofs.diff() == (
        f"--- a/d/g\n+++ /dev/null\n@@ -1 +0,0 @@\n-lower\n{no_end}"
        f"--- /dev/null\n+++ b/d/n\n@@ -0,0 +1 @@\n+new\n{no_end}"
        f"--- a/s\n+++ b/s\n@@ -1 +1 @@\n-a\n{no_end}+b\n{no_end}"
    )


def test_diff_says_that_a_file_is_binary(ofs):
    ofs.writebytes("/bin", b"\0\2")
    ofs.writebytes("/a", b"\xff")
    assert ofs.diff() == "Binary files a/a and b/a differ\nBinary files a/bin and b/bin differ\n"


def test_diff_is_empty_where_no_content_changed(ofs):
    ofs.os.chmod("/a", 0o600)
    ofs.makedir("/n")
    assert ofs.diff() == ""


def test_diff_since_a_checkpoint(ofs):
    ofs.writetext("/b", "then\n")
    kept = ofs.checkpoint()
    ofs.writetext("/b", "now\n")
    assert ofs.diff("/b", kept) == "--- a/b\n+++ b/b\n@@ -1 +1 @@\n-then\n+now\n"
