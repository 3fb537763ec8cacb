"""What differs from the lowers, from a checkpoint or from a fork: which paths, in what, and at what cost."""

import errno
import os
import stat

import pytest
from fs.errors import OperationFailed
from fs.memoryfs import MemoryFS as PlainFS

from overlayvfs import MemoryFS, OverlayFS
from overlayvfs.layers.memory import MemoryLayer
from overlayvfs.testing.trees import OLD, build, directory, file, hardlink, symlink

LOWER = {
    "/a": "lower",
    "/d/f": "lower",
    "/d/e/g": "lower",
    "/big": file(b"x" * 200_000, xattrs={"user.k": b"v"}),
    "/s": symlink("a"),
}


def stacked(upper: object = None, lower: dict = LOWER, **options: object) -> OverlayFS:
    below = MemoryFS()
    build(below.os, "", lower, prefix="user.overlay.")
    return OverlayFS([below], MemoryFS() if upper is None else upper, **options)


def listed(ofs: OverlayFS, *args: object, **kwargs: object) -> list[str]:
    """Return changes as one would type them: "C /a content mode"."""
    return [" ".join((one.kind, one.path, *one.what)) for one in ofs.changes(*args, **kwargs)]


def test_fresh_overlay_has_no_changes():
    assert listed(stacked()) == []


def test_new_objects_are_added_with_all_in_them():
    ofs = stacked()
    ofs.makedirs("/n/m")
    ofs.writetext("/n/m/f", "x")
    ofs.os.symlink("a", "/t")
    assert listed(ofs) == ["A /n", "A /n/m", "A /n/m/f", "A /t"]
    assert [one.is_dir for one in ofs.changes()] == [True, True, False, False]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda ofs: ofs.writetext("/a", "UPPER"), "content times"),
        (lambda ofs: ofs.writetext("/a", "longer than before"), "content times"),
        (lambda ofs: ofs.os.chmod("/a", 0o600), "mode"),
        (lambda ofs: ofs.os.chown("/a", 7, 7), "owner"),
        (lambda ofs: ofs.os.utime("/a", ns=(1, 1)), "times"),
        (lambda ofs: ofs.os.setxattr("/a", "user.k", b"v"), "xattrs"),
    ],
)
def test_changed_file_says_what_differs(change, what):
    ofs = stacked()
    change(ofs)
    assert listed(ofs) == [f"C /a {what}"]


def test_changed_symlink_and_kind():
    ofs = stacked()
    ofs.remove("/s")
    ofs.os.symlink("b", "/s")
    ofs.remove("/a")
    ofs.makedir("/a")
    found = {one.path: one.what for one in ofs.changes()}
    assert found["/s"] == ("content", "times")
    assert found["/a"][0] == "type"


def test_file_opened_for_writing_and_not_written_has_not_changed():
    ofs = stacked()
    for path in ("/a", "/big"):
        ofs.os.close(ofs.os.open(path, os.O_RDWR))
    assert sorted(ofs.os.listdir("/")) == ["a", "big", "d", "s"]
    assert listed(ofs) == []


def test_file_written_with_what_it_held_differs_in_its_mtime_only():
    ofs = stacked()
    ofs.writetext("/a", "lower")
    assert listed(ofs) == ["C /a times"]


def test_content_finds_what_hides_behind_an_old_mtime():
    ofs = stacked()
    ofs.writetext("/a", "UPPER")
    ofs.os.utime("/a", ns=(OLD, OLD))
    assert listed(ofs) == []
    assert listed(ofs, content=True) == ["C /a content"]


def test_removed_directory_is_deleted_with_all_that_was_in_it():
    ofs = stacked()
    ofs.removetree("/d")
    assert listed(ofs) == ["D /d", "D /d/e", "D /d/e/g", "D /d/f"]


def test_directory_made_anew_is_expanded_into_what_it_hides():
    ofs = stacked()
    ofs.removetree("/d")
    ofs.makedir("/d")
    ofs.writetext("/d/f", "upper")
    ofs.writetext("/d/new", "upper")
    ofs.os.utime("/d", ns=(OLD, OLD))
    assert listed(ofs) == ["D /d/e", "D /d/e/g", "C /d/f content times", "A /d/new"]


def test_directory_whose_mtime_alone_differs_is_listed_only_if_asked():
    ofs = stacked()
    ofs.writetext("/d/new", "x")
    assert listed(ofs) == ["A /d/new"]
    assert listed(ofs, directory_times=True) == ["C /d times", "A /d/new"]


def test_directory_of_another_mode_has_changed():
    ofs = stacked()
    ofs.os.chmod("/d", 0o700)
    assert listed(ofs) == ["C /d mode"]


def test_rename_tells_where_a_file_and_a_directory_were_before():
    ofs = stacked(redirect_dir=True)
    ofs.os.rename("/a", "/b")
    ofs.os.rename("/d", "/moved")
    renamed = {one.path: one.renamed_from for one in ofs.changes() if one.kind == "A"}
    assert renamed == {
        "/b": "/a",
        "/moved": "/d",
        "/moved/e": "/d/e",
        "/moved/e/g": "/d/e/g",
        "/moved/f": "/d/f",
    }
    assert [one.path for one in ofs.changes() if one.kind == "D"] == ["/a", "/d", "/d/e", "/d/e/g", "/d/f"]


def test_change_of_an_indexed_hard_link_shows_under_all_its_names():
    ofs = stacked(lower={"/d/x": "lower", "/y": hardlink("/d/x")}, index=True)
    ofs.writetext("/y", "UPPER")
    assert listed(ofs) == ["C /d/x content times", "C /y content times"]


def test_metacopy_of_a_file_has_changed_in_its_mode_only():
    ofs = stacked(metacopy=True)
    ofs.os.chmod("/big", 0o600)
    ofs.os.utime("/big", ns=(1, 1))
    assert listed(ofs, content=True) == ["C /big mode times"]


@pytest.mark.parametrize("kind", ["memory", "host", "plain"])
def test_changes_are_found_again_when_the_upper_is_opened_anew(kind, tmp_path):
    upper = {"memory": MemoryFS, "host": lambda: str(tmp_path), "plain": PlainFS}[kind]()
    with stacked(upper) as ofs:
        ofs.remove("/d/f")
        ofs.writetext("/a", "upper!")
        ofs.makedir("/n")
        before = listed(ofs)
    with stacked(upper) as again:
        assert listed(again, content=True) == before


def test_changes_since_a_checkpoint_are_those_after_it():
    ofs = stacked()
    ofs.writetext("/n", "then")
    ofs.remove("/d/f")
    kept = ofs.checkpoint()
    ofs.writetext("/n", "now!")
    ofs.writetext("/d/f", "back")
    ofs.os.chmod("/", 0o700)
    assert listed(ofs, kept) == ["C / mode", "A /d/f", "C /n content times"]
    ofs.rollback(kept)
    assert listed(ofs, kept, content=True, directory_times=True) == []


def test_changes_since_a_fork_are_what_tells_the_two_apart():
    ofs = stacked()
    fork = ofs.fork()
    assert listed(fork, ofs, directory_times=True) == []
    fork.os.rename("/a", "/b")
    assert listed(fork, ofs) == ["D /a", "A /b"]
    assert [one.renamed_from for one in fork.changes(ofs)] == [None, "/a"]
    assert listed(ofs, fork) == ["A /a", "D /b"]


def test_changes_since_what_has_other_lowers_is_einval():
    with pytest.raises(OperationFailed) as caught:
        stacked().changes(stacked().checkpoint())
    assert caught.value.exc.errno == errno.EINVAL


def test_read_only_overlay_has_no_changes():
    below = MemoryFS()
    build(below.os, "", LOWER, prefix="user.overlay.")
    assert listed(OverlayFS([below, MemoryFS()])) == []


def test_changes_look_only_at_what_the_upper_holds(monkeypatch):
    lower = {f"/d{number}/f{one}": "x" for number in range(20) for one in range(20)}
    ofs = stacked(lower=lower)
    ofs.writetext("/d7/f7", "changed")
    calls: list[str] = []

    def counted(verb, original):
        return lambda *args, **kwargs: calls.append(verb) or original(*args, **kwargs)

    for verb in ("lstat", "listdir", "names", "open", "getxattr"):
        monkeypatch.setattr(MemoryLayer, verb, counted(verb, getattr(MemoryLayer, verb)))
    assert listed(ofs) == ["C /d7/f7 content times"]
    assert len(calls) < 60


EDITS = {
    "a new file": lambda ofs: ofs.writetext("/new", "x"),
    "a removal": lambda ofs: ofs.remove("/a"),
    "a first write": lambda ofs: ofs.writetext("/d/f", "x"),
    "a write through an open file": lambda ofs: ofs.held.write(b"more"),
    "a cut through an open file": lambda ofs: ofs.held.truncate(1),
    "a mode by descriptor": lambda ofs: ofs.os.fchmod(ofs.held_fd, 0o600),
    "an attribute": lambda ofs: ofs.os.setxattr("/d/e/g", "user.new", b"1"),
    "a rename": lambda ofs: ofs.os.rename("/d/e/g", "/moved"),
    "a whiteout put by hand": lambda ofs: ofs.upper.os.mknod("/d/e", stat.S_IFCHR, 0),
    "going back": lambda ofs: ofs.rollback(ofs.point),
    "forgetting all": lambda ofs: ofs.discard(),
    "a merge": lambda ofs: ofs.merge(ofs.child),
}


@pytest.mark.parametrize("edit", EDITS)
def test_changes_asked_for_again_show_what_was_changed_in_between(edit):
    upper = MemoryFS()
    ofs = stacked(upper)
    ofs.upper, ofs.point = upper, ofs.checkpoint()
    ofs.child = ofs.fork()
    ofs.child.writetext("/from the fork", "x")
    ofs.held = ofs.openbin("/d/f", "r+")
    ofs.held_fd = ofs.os.open("/d/f", os.O_RDONLY)
    ofs.writetext("/big", "edited")
    for options in ({}, {"content": True}, {"directory_times": True}):
        ofs.changes(**options)
    before = ofs.changes()
    assert ofs.changes() == before
    EDITS[edit](ofs)
    after = ofs.changes()
    assert after != before
    # A fork knows nothing of what its parent remembers.
    assert after == ofs.fork().changes()


def test_changes_asked_for_again_are_a_list_of_the_callers_own():
    ofs = stacked()
    ofs.writetext("/new", "x")
    ofs.changes().clear()
    assert listed(ofs) == listed(ofs) == ["A /new"]


def test_nothing_is_compared_again_while_nothing_changes(monkeypatch):
    ofs = stacked()
    ofs.writetext("/new", "x")
    expected = listed(ofs)
    monkeypatch.setattr(MemoryLayer, "listdir", lambda *_: pytest.fail("a layer was asked"))
    assert ofs.exists("/a")
    assert listed(ofs) == expected


def test_changes_after_a_commit_into_a_lower_are_gone():
    below, ofs = MemoryFS(), None
    below.writetext("/a", "lower")
    ofs = OverlayFS([below], MemoryFS())
    ofs.writetext("/a", "upper")
    assert listed(ofs) == ["C /a content times"]
    ofs.commit(below)
    assert listed(ofs) == []


def test_whiteouts_and_marks_are_no_changes_of_their_own():
    ofs = stacked(lower={"/d/f": "x", "/p/": directory(mode=0o700)})
    ofs.os.chmod("/d", 0o711)
    ofs.os.chmod("/d", 0o755)
    ofs.remove("/d/f")
    ofs.writetext("/d/f", "x")
    ofs.os.utime("/d/f", ns=(OLD, OLD))
    assert listed(ofs, content=True) == []
    assert stat.S_ISREG(ofs.os.lstat("/d/f").st_mode)
