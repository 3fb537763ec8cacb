"""What a commit will not do: it says where and why, and nothing is lost; and what it does where others were at work."""

import errno

import pytest
from fs.errors import (
    FileExists,
    FilesystemClosed,
    InsufficientStorage,
    OperationFailed,
    PermissionDenied,
    ResourceLocked,
    ResourceNotFound,
)
from fs.memoryfs import MemoryFS as PlainFS

from overlayvfs import MemoryFS, OverlayFS
from overlayvfs.faces.errors import CommitConflict
from overlayvfs.testing.trees import build

LOWER = {"/a": "lower", "/d/e/f": "lower", "/d/g": "lower"}
STAGE = "/.overlayvfs-commit"


def layer(tree: dict = LOWER) -> MemoryFS:
    made = MemoryFS()
    build(made.os, "", tree, prefix="user.overlay.")
    return made


@pytest.fixture(params=["copy", "lower"])
def pair(request) -> tuple[OverlayFS, MemoryFS]:
    """Return an overlay that knows its lower well, and what to commit into: a copy of that, or itself."""
    lower = layer()
    ofs = OverlayFS([lower], MemoryFS())
    assert text(ofs) == text(lower)
    return ofs, lower if request.param == "lower" else layer()


def text(fs: OverlayFS | MemoryFS) -> dict[str, str]:
    return {path: fs.readtext(path) for path in sorted(fs.walk.files())}


def replace_directory_by_file(fs: MemoryFS) -> None:
    fs.removetree("/d")
    fs.writetext("/d", "by another")


GONE = {"removed": lambda fs: fs.removetree("/d"), "replaced": replace_directory_by_file}
CHANGE = {
    "new file": (lambda ofs: ofs.writetext("/d/new", "new"), {"/d/new": "new"}),
    "changed file": (lambda ofs: ofs.writetext("/d/g", "changed"), {"/d/g": "changed"}),
    "new tree": (lambda ofs: ofs.makedirs("/d/n/m").writetext("f", "new"), {"/d/n/m/f": "new"}),
}


@pytest.mark.parametrize("gone", GONE)
@pytest.mark.parametrize("change", CHANGE)
def test_change_in_a_directory_that_is_gone_is_a_conflict(pair, change, gone):
    ofs, dst = pair
    CHANGE[change][0](ofs)
    GONE[gone](dst)
    before = text(dst)
    with pytest.raises(CommitConflict) as caught:
        ofs.commit(dst)
    assert any(one.path.startswith("/d") for one in caught.value.conflicts)
    assert (text(dst), dst.exists(STAGE)) == (before, False)


@pytest.mark.parametrize("gone", GONE)
@pytest.mark.parametrize("change", CHANGE)
def test_overwrite_makes_the_directory_anew_for_what_changed_in_it(pair, change, gone):
    ofs, dst = pair
    make, expected = CHANGE[change]
    make(ofs)
    GONE[gone](dst)
    ofs.commit(dst, on_conflict="overwrite")
    assert text(dst) == {"/a": "lower", **expected}


@pytest.mark.parametrize("gone", GONE)
@pytest.mark.parametrize("change", CHANGE)
def test_skip_leaves_the_directory_gone_and_commits_the_rest(pair, change, gone):
    ofs, dst = pair
    CHANGE[change][0](ofs)
    ofs.writetext("/a", "changed")
    GONE[gone](dst)
    before = text(dst)
    ofs.commit(dst, on_conflict="skip")
    assert text(dst) == before | {"/a": "changed"}


def test_removed_directory_of_the_lower_that_another_put_something_in_is_a_conflict(pair):
    ofs, dst = pair
    ofs.removetree("/d")
    ofs.writetext("/d", "a file")
    dst.writetext("/d/e/new", "by another")
    with pytest.raises(CommitConflict) as caught:
        ofs.commit(dst)
    assert [one.path for one in caught.value.conflicts] == ["/d/e"]
    assert dst.readtext("/d/e/new") == "by another"


def test_changes_in_lowers_that_lost_a_file_name_it():
    lower = layer()
    ofs = OverlayFS([lower], MemoryFS())
    ofs.writetext("/d/g", "other")
    lower.remove("/d/g")
    with pytest.raises(CommitConflict, match="1 path conflicts: /d/g: it was removed or replaced"):
        ofs.commit(lower)


# Names


@pytest.mark.parametrize("verb", ["commit", "discard"])
def test_one_path_as_text_is_that_path_and_no_other(verb):
    ofs, dst = OverlayFS([layer()], MemoryFS()), layer()
    ofs.writetext("/a", "changed")
    ofs.writetext("/d/g", "changed")
    if verb == "commit":
        ofs.commit(dst, paths="/d/g")
        assert text(dst) == LOWER | {"/d/g": "changed"}
    else:
        ofs.discard("/d/g")
        assert text(ofs) == LOWER | {"/a": "changed"}


@pytest.mark.parametrize("tree", [{STAGE: "mine"}, {f"{STAGE}/mine": "mine"}], ids=["file", "directory"])
def test_what_somebody_keeps_under_the_name_commits_need_is_left_alone(tree):
    dst = layer({"/a": "lower", **tree})
    ofs = OverlayFS([layer({"/a": "lower"})], MemoryFS())
    ofs.writetext("/a", "changed")
    with pytest.raises(FileExists, match="move it away") as caught:
        ofs.commit(dst)
    assert caught.value.exc.errno == errno.EEXIST
    assert text(dst) == {"/a": "lower", **tree}


def test_journal_that_is_none_is_eio():
    dst = layer({"/a": "lower", f"{STAGE}/journal": "no JSON"})
    ofs = OverlayFS([layer({"/a": "lower"})], MemoryFS())
    for verb in (lambda: ofs.commit(dst), lambda: OverlayFS.roll_back_commit(dst)):
        with pytest.raises(OperationFailed, match="no journal of a commit") as caught:
            verb()
        assert caught.value.exc.errno == errno.EIO
    assert text(dst)["/a"] == "lower"


def test_name_that_commits_need_can_not_be_committed():
    ofs = OverlayFS([layer()], MemoryFS())
    ofs.makedir(STAGE)
    with pytest.raises(OperationFailed, match="commits need this name"):
        ofs.commit(layer())


# What messages say


def test_errors_of_a_commit_name_the_path_and_the_reason():
    ofs = OverlayFS([layer({"/a": "lower"})], MemoryFS())
    plain, small = PlainFS(), MemoryFS(size=8192)
    for target in (plain, small):
        target.writetext("/a", "lower")
    ofs.writebytes("/big", b"x" * 100_000)
    with pytest.raises(InsufficientStorage, match="No space left on device: '/big'"):
        ofs.commit(small)
    assert small.listdir("/") == ["a"]
    ofs.os.symlink("a", "/link")
    with pytest.raises(PermissionDenied, match="can't make symlinks: '/link'"):
        ofs.commit(plain)
    with pytest.raises(ResourceNotFound, match=r"\(the target\): '/nothing/here'"):
        ofs.commit("/nothing/here")
    with OverlayFS([layer()], upper := MemoryFS()), pytest.raises(ResourceLocked, match="live overlay: lowerdir="):
        ofs.commit(upper)


@pytest.mark.parametrize("verb", ["changes", "rollback", "merge"])
def test_what_is_no_moment_of_an_overlay_is_a_typeerror(verb):
    with pytest.raises(TypeError, match="expected a"):
        getattr(OverlayFS([layer()], MemoryFS()), verb)("yesterday")


def test_closed_overlay_is_nothing_to_compare_with():
    ofs = OverlayFS([layer()], MemoryFS())
    fork = ofs.fork()
    ofs.close()
    for verb in (fork.changes, lambda since: fork.diff("/", since)):
        with pytest.raises(FilesystemClosed):
            verb(ofs)


def test_commit_that_its_own_progress_stops_goes_on_or_back():
    ofs, dst = OverlayFS([layer()], MemoryFS()), layer()
    ofs.writetext("/a", "changed")
    ofs.remove("/d/g")

    def stop(done: int, total: int, path: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ofs.commit(dst, progress=stop)
    assert OverlayFS.roll_back_commit(dst)
    assert text(dst) == LOWER
    with pytest.raises(KeyboardInterrupt):
        ofs.commit(dst, progress=stop)
    ofs.commit(dst)
    assert text(dst) == text(ofs)
