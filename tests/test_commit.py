"""Bringing changes elsewhere and forgetting them: what the target is afterwards, and what stands in the way."""

import errno
import os

import pytest
from commit_trials import Failing
from fs.errors import FilesystemClosed, FSError, OperationFailed, PermissionDenied, ResourceLocked
from fs.memoryfs import MemoryFS as PlainFS

from overlayvfs import MemoryFS, OverlayFS
from overlayvfs.faces.errors import CommitConflict
from overlayvfs.testing.hostos import HostOs
from overlayvfs.testing.snapshots import Snapshot, capture
from overlayvfs.testing.trees import OLD, build, directory, file, hardlink, symlink

LOWER = {
    "/a": "lower",
    "/d/e/f": "lower",
    "/d/g": file("lower", mode=0o600, xattrs={"user.k": b"v"}),
    "/gone/x/y": "lower",
    "/was/dir/f": "lower",
    "/s": symlink("a"),
}


def layer(tree: dict = LOWER) -> MemoryFS:
    made = MemoryFS()
    build(made.os, "", tree, prefix="user.overlay.")
    return made


@pytest.fixture(params=["memory", "host", "overlay"])
def dst(request, tmp_path):
    if request.param == "memory":
        return layer()
    if request.param == "overlay":
        return OverlayFS([layer()], MemoryFS())
    build(HostOs(), str(tmp_path), LOWER, prefix="user.overlay.")
    return str(tmp_path)


@pytest.fixture
def ofs():
    with OverlayFS([layer()], MemoryFS(), redirect_dir=True) as ofs:
        yield ofs


def change_everything(ofs: OverlayFS) -> None:
    ofs.writetext("/n", "new")
    ofs.os.link("/n", "/d/n2")
    ofs.os.chmod("/d", 0o711)
    ofs.removetree("/gone")
    ofs.writetext("/a", "changed")
    ofs.removetree("/d/e")
    ofs.writetext("/d/e", "a file now")
    ofs.remove("/s")
    ofs.makedirs("/s/dir")
    ofs.os.rename("/was", "/is")
    ofs.os.symlink("nowhere", "/is/link")
    ofs.os.mkfifo("/fifo") if hasattr(ofs.os, "mkfifo") else ofs.os.mknod("/fifo", 0o010644)
    ofs.os.chown("/d/g", 7, 7)
    ofs.os.setxattr("/d/g", "user.q", b"w")


def shown(fs: object) -> Snapshot:
    """Return all a tree shows but its root's own attributes and numbers of links, which overlays count otherwise."""
    snapshot = capture(HostOs(), fs) if isinstance(fs, str) else capture(fs.os, "")
    return {path: entry._replace(nlink=0) for path, entry in snapshot.items() if path}


def text(fs: object) -> dict[str, str]:
    return {path: fs.readtext(path) for path in sorted(fs.walk.files())}


def test_target_equals_the_merged_tree_after_commit(ofs, dst):
    change_everything(ofs)
    ofs.commit(dst)
    assert shown(dst) == shown(ofs)
    assert ofs.commit(dst) == ofs.changes()


def test_commit_keeps_old_times(ofs, dst):
    ofs.os.chmod("/a", 0o600)
    ofs.writetext("/d/new", "x")
    ofs.os.utime("/d/new", ns=(5, 5))
    ofs.os.utime("/d", ns=(6, 6))
    ofs.commit(dst)
    found = shown(dst)
    assert (found["/a"].mtime, found["/d/new"].mtime, found["/d"].mtime) == (OLD, 5, 6)


def test_commit_to_a_plain_filesystem_keeps_what_that_holds(ofs):
    plain = PlainFS()
    for path, node in LOWER.items():
        if path != "/s":
            plain.makedirs(os.path.dirname(path), recreate=True)
            plain.writetext(path, "lower" if node else "")
    ofs.remove("/s")
    ofs.removetree("/gone")
    ofs.writetext("/d/n", "new")
    ofs.os.chown("/d/g", 7, 7)
    ofs.commit(plain)
    assert text(plain) == text(ofs)
    assert sorted(plain.listdir("/")) == ["a", "d", "was"]


def test_what_a_target_can_not_hold_is_refused_before_anything_is_written(ofs):
    plain = PlainFS()
    plain.writetext("/a", "lower")
    ofs.writetext("/a", "changed")
    ofs.os.symlink("a", "/link")
    with pytest.raises(PermissionDenied):
        ofs.commit(plain)
    assert text(plain) == {"/a": "lower"}
    assert plain.listdir("/") == ["a"]
    ofs.commit(plain, paths=["/a"])
    assert text(plain) == {"/a": "changed"}


def test_commit_of_some_paths_leaves_the_others(ofs, dst):
    before = shown(dst)
    change_everything(ofs)
    done = ofs.commit(dst, paths=["/d/e", "/is/dir", "/gone/x"])
    assert [one.path for one in done] == ["/d/e", "/d/e/f", "/gone/x", "/gone/x/y", "/is", "/is/dir", "/is/dir/f"]
    after = shown(dst)
    assert after["/a"] == before["/a"]
    assert after["/d/e"] == shown(ofs)["/d/e"]
    assert "/is/link" not in after
    assert "/gone" in after and "/gone/x" not in after


def test_dry_run_writes_nothing_and_tells_all(ofs, dst):
    before = shown(dst)
    change_everything(ofs)
    assert ofs.commit(dst, dry_run=True) == ofs.changes(content=True)
    assert shown(dst) == before


def test_progress_is_told_after_each_step(ofs):
    told: list[tuple[int, int, str]] = []
    ofs.writetext("/n", "x")
    ofs.remove("/a")
    ofs.commit(layer(), progress=lambda *args: told.append(args))
    assert told == [(1, 2, "/a"), (2, 2, "/n")]


def test_commit_breaks_no_hard_link_of_the_target_that_is_none_here():
    tree = {"/x": "lower", "/y": hardlink("/x")}
    ofs, dst = OverlayFS([layer(tree)], MemoryFS()), layer(tree)
    ofs.writetext("/x", "changed")
    ofs.commit(dst)
    assert text(dst) == {"/x": "changed", "/y": "lower"}


def test_new_link_of_an_unchanged_file_is_one_in_the_target(ofs, dst):
    ofs.os.link("/a", "/z")
    ofs.commit(dst)
    found = shown(dst)
    assert found["/z"].group == found["/a"].group == "/a"


# What stands in the way


CONFLICTING = {
    "changed": (lambda fs: fs.writetext("/a", "by another"), "/a", "it was changed"),
    "removed": (lambda fs: fs.remove("/a"), "/a", "it was removed"),
    "added": (lambda fs: fs.writetext("/n", "by another"), "/n", "it was added"),
    "added below": (lambda fs: fs.writetext("/gone/x/z", "by another"), "/gone/x", "z was added in it"),
}


@pytest.mark.parametrize("case", CONFLICTING)
def test_change_by_another_is_a_conflict_found_before_anything_is_written(ofs, case):
    disturb, path, why = CONFLICTING[case]
    dst = layer()
    disturb(dst)
    before = shown(dst)
    change_everything(ofs)
    with pytest.raises(CommitConflict) as caught:
        ofs.commit(dst)
    assert [(one.path, one.why) for one in caught.value.conflicts] == [(path, why)]
    assert path in str(caught.value) and caught.value.exc.errno == errno.ESTALE
    assert shown(dst) == before


@pytest.mark.parametrize("case", CONFLICTING)
def test_overwrite_makes_the_target_what_it_is_here(ofs, case):
    dst = layer()
    CONFLICTING[case][0](dst)
    change_everything(ofs)
    ofs.commit(dst, on_conflict="overwrite")
    assert shown(dst) == shown(ofs)


@pytest.mark.parametrize("case", CONFLICTING)
def test_skip_leaves_what_another_changed(ofs, case):
    disturb, path, _ = CONFLICTING[case]
    dst = layer()
    disturb(dst)
    before = shown(dst)
    change_everything(ofs)
    ofs.commit(dst, on_conflict="skip")
    after = shown(dst)
    assert after.get(path) == before.get(path)
    assert after["/d/e"] == shown(ofs)["/d/e"]


def test_same_change_by_another_is_no_conflict(ofs):
    dst = layer()
    for fs in (ofs, dst):
        fs.writetext("/a", "the same")
        fs.removetree("/gone")
    ofs.commit(dst)
    assert text(dst) == text(ofs)


def test_unknown_on_conflict_is_einval(ofs):
    with pytest.raises(OperationFailed) as caught:
        ofs.commit(layer(), on_conflict="perhaps")
    assert caught.value.exc.errno == errno.EINVAL


# Into a lower


def test_commit_into_the_only_lower_empties_the_upper(tmp_path):
    build(HostOs(), str(tmp_path), LOWER, prefix="user.overlay.")
    for lower in (layer(), str(tmp_path)):
        upper = MemoryFS()
        ofs = OverlayFS([lower], upper)
        ofs.writetext("/a", "changed")
        ofs.removetree("/gone")
        merged = shown(ofs)
        ofs.commit(lower)
        assert upper.listdir("/") == []
        assert ofs.changes() == []
        assert shown(ofs) == shown(lower) == merged


def test_commit_into_a_plain_lower_is_seen_through_it():
    plain, upper = PlainFS(), MemoryFS()
    plain.writetext("/a", "lower")
    plain.writetext("/b", "lower")
    ofs = OverlayFS([plain], upper)
    ofs.writetext("/a", "changed!")
    ofs.remove("/b")
    ofs.commit(plain)
    assert text(ofs) == text(plain) == {"/a": "changed!"}
    assert (upper.listdir("/"), plain.listdir("/")) == ([], ["a"])


def test_commit_of_some_paths_into_a_lower_leaves_the_rest_in_the_upper():
    lower, upper = layer(), MemoryFS()
    ofs = OverlayFS([lower], upper)
    ofs.writetext("/a", "changed")
    ofs.removetree("/gone")
    merged = shown(ofs)
    ofs.commit(lower, paths=["/a"])
    assert upper.listdir("/") == ["gone"]
    assert shown(ofs) == merged


def test_what_is_skipped_stays_in_the_upper():
    lower, upper = layer(), MemoryFS()
    ofs = OverlayFS([lower], upper)
    for path in ("/a", "/d/g", "/d/e/f"):
        ofs.writetext(path, "changed")
    ofs.os.chmod("/d", 0o700)
    lower.writetext("/d/g", "behind its back")
    ofs.commit(lower, on_conflict="skip")
    assert text(upper) == {"/d/g": "changed"}
    assert (ofs.readtext("/a"), lower.readtext("/d/e/f"), lower.readtext("/d/g")) == (
        "changed",
        "changed",
        "behind its back",
    )


def test_root_among_paths_means_all():
    lower, upper = layer(), MemoryFS()
    ofs = OverlayFS([lower], upper)
    ofs.writetext("/a", "changed")
    ofs.commit(lower, paths=["/", "/d"])
    ofs.writetext("/a", "again")
    ofs.discard(["/"])
    assert upper.listdir("/") == []
    assert ofs.readtext("/a") == "changed"


def test_commit_into_a_lower_that_failed_half_way_is_gone_on_with():
    lower, upper = layer(), MemoryFS()
    ofs = OverlayFS([lower], upper)
    change_everything_plainly(ofs)
    merged = shown(ofs)
    failing = Failing()
    failing.fail_at = 60
    with pytest.raises(FSError):
        ofs.commit(failing.wrapped(lower._overlayvfs_layer("")))
    assert lower.exists("/.overlayvfs-commit/journal")
    ofs.commit(lower)
    assert shown(ofs) == shown(lower) == merged
    assert upper.listdir("/") == []


@pytest.mark.parametrize("resumed", [True, False], ids=["gone on with", "rolled back"])
@pytest.mark.parametrize("how", ["before", "crash"])
def test_files_that_become_directories_and_the_other_way_round_survive_a_failure_at_any_call(how, resumed):
    tree = {"/was/dir/f": "lower", "/was/g": "lower", "/file": "lower"}
    ofs = OverlayFS([layer(tree)], MemoryFS())
    ofs.removetree("/was")
    ofs.writetext("/was", "a file now")
    ofs.remove("/file")
    ofs.makedirs("/file/dir").writetext("f", "new")
    before, merged = text(layer(tree)), text(ofs)
    point, failed = 0, True
    while failed:
        failing, dst = Failing(how), layer(tree)
        failing.fail_at, failed = point, False
        try:
            ofs.commit(failing.wrapped(dst._overlayvfs_layer("")))
        except FSError:
            failed = True
        if failed and not resumed:
            OverlayFS.roll_back_commit(dst)
            # All may have been done but for the cleaning up.
            assert text(dst) in (before, merged)
        ofs.commit(dst)
        assert text(dst) == merged
        point += 1
    assert point > 30


def change_everything_plainly(ofs: OverlayFS) -> None:
    for number in range(6):
        ofs.writetext(f"/n{number}", "new")
    ofs.writetext("/a", "changed")
    ofs.removetree("/gone")


def test_commit_into_the_top_lower_hides_what_lies_below_it():
    top, bottom = layer({"/d/f": "top"}), layer({"/d/f": "bottom", "/d/g": "bottom", "/e/h": "bottom"})
    ofs = OverlayFS([top, bottom], MemoryFS())
    ofs.remove("/d/f")
    ofs.removetree("/e")
    ofs.writetext("/d/n", "new")
    merged = shown(ofs)
    ofs.commit(top)
    assert shown(ofs) == merged
    assert text(OverlayFS([top, bottom])) == {"/d/g": "bottom", "/d/n": "new"}
    assert text(bottom) == {"/d/f": "bottom", "/d/g": "bottom", "/e/h": "bottom"}


def test_commit_over_a_whiteout_of_the_top_lower_shows_nothing_from_below():
    top, bottom = layer({}), layer({"/d/old": "bottom"})
    top.os.mknod("/d", 0o020000, 0)
    ofs = OverlayFS([top, bottom], MemoryFS())
    ofs.makedir("/d")
    ofs.writetext("/d/new", "new")
    ofs.commit(top)
    assert text(ofs) == text(OverlayFS([top, bottom])) == {"/d/new": "new"}


def test_commit_into_the_top_lower_makes_the_directories_it_has_not():
    top, bottom = layer({"/a": "top"}), layer({"/d/": directory(mode=0o750), "/d/e/f": "bottom", "/d/e/g": "bottom"})
    ofs = OverlayFS([top, bottom], MemoryFS())
    ofs.writetext("/d/e/f", "changed")
    ofs.remove("/d/e/g")
    ofs.commit(top)
    assert text(ofs) == text(OverlayFS([top, bottom])) == {"/a": "top", "/d/e/f": "changed"}
    assert top.os.stat("/d").st_mode & 0o777 == 0o750


def test_commit_into_the_top_lower_keeps_its_marks():
    top, bottom = layer({"/d/": directory(opaque=True), "/d/f": "top"}), layer({"/d/hidden": "bottom"})
    ofs = OverlayFS([top, bottom], MemoryFS())
    ofs.os.chmod("/d", 0o700)
    ofs.os.setxattr("/d", "user.k", b"v")
    ofs.commit(top)
    assert text(ofs) == text(OverlayFS([top, bottom])) == {"/d/f": "top"}
    assert sorted(top.os.listxattr("/d")) == ["user.k", "user.overlay.opaque"]


def test_directory_over_a_file_of_the_top_lower_shows_nothing_from_below_it():
    top, bottom = layer({"/d": "a file"}), layer({"/d/hidden": "bottom"})
    ofs = OverlayFS([top, bottom], MemoryFS())
    ofs.remove("/d")
    ofs.makedir("/d")
    ofs.commit(top)
    assert text(ofs) == text(OverlayFS([top, bottom])) == {}


def test_symlink_where_the_other_has_a_directory_leads_nowhere():
    lower = layer({"/d/f": "lower", "/e/f": "other"})
    ofs, dst = OverlayFS([lower], MemoryFS()), layer({"/d/f": "lower", "/e/f": "other"})
    ofs.removetree("/d")
    ofs.os.symlink("e", "/d")
    ofs.commit(dst)
    assert shown(dst) == shown(ofs)
    back = OverlayFS([lower], MemoryFS())
    back.writetext("/d/f", "changed")
    with pytest.raises(CommitConflict):
        back.commit(dst)
    assert dst.readtext("/e/f") == "other"


def test_commit_into_a_lower_that_another_hides_is_a_conflict():
    ofs = OverlayFS([layer({"/a": "top"}), bottom := layer()], MemoryFS())
    ofs.writetext("/a", "changed")
    with pytest.raises(CommitConflict) as caught:
        ofs.commit(bottom)
    assert [one.why for one in caught.value.conflicts] == ["lower 1 hides it"]


def test_lower_changed_since_it_was_stacked_is_a_conflict():
    lower = layer()
    ofs = OverlayFS([lower], MemoryFS())
    ofs.writetext("/a", "changed")
    lower.writetext("/a", "behind its back")
    with pytest.raises(CommitConflict):
        ofs.commit(lower)


def test_commit_into_a_lower_of_another_live_overlay_is_busy_and_names_it():
    lower = layer()
    ofs, other = OverlayFS([lower], MemoryFS()), OverlayFS([MemoryFS(), lower])
    ofs.writetext("/a", "changed")
    for still_live in (other, ofs.fork()):
        with pytest.raises(ResourceLocked) as caught:
            ofs.commit(lower)
        assert caught.value.exc.errno == errno.EBUSY
        assert "lowerdir=memory" in str(caught.value.exc)
        still_live.close()
        other.close()
    ofs.commit(lower)
    assert lower.readtext("/a") == "changed"


def test_commit_into_a_live_upper_is_busy(ofs):
    upper = MemoryFS()
    with OverlayFS([layer()], upper), pytest.raises(ResourceLocked):
        ofs.commit(upper)


def test_commit_into_a_directory_of_a_lower_is_refused():
    lower = layer()
    ofs = OverlayFS([lower], MemoryFS())
    ofs.writetext("/d/g", "changed")
    with pytest.raises(OperationFailed) as caught:
        ofs.commit(lower.opendir("/d"))
    assert caught.value.exc.errno == errno.EINVAL


def test_commit_to_a_closed_overlay_is_refused(ofs):
    parent = OverlayFS([layer()], MemoryFS())
    parent.close()
    with pytest.raises(FilesystemClosed):
        ofs.commit(parent)


# Forgetting


def test_discard_shows_the_lowers_again(ofs):
    before = shown(OverlayFS([layer()]))
    change_everything(ofs)
    ofs.discard()
    assert shown(ofs) == before
    assert ofs.changes() == []


def test_discard_of_some_paths_keeps_the_others(ofs):
    ofs.writetext("/a", "changed")
    ofs.writetext("/d/g", "changed")
    ofs.writetext("/n", "new")
    ofs.removetree("/gone")
    ofs.discard(["/d", "/gone", "/n"])
    assert [one.path for one in ofs.changes()] == ["/a"]
    assert ofs.readtext("/gone/x/y") == "lower"


def test_discard_below_a_directory_made_anew_copies_back(ofs):
    ofs.removetree("/d")
    ofs.makedirs("/d/e")
    ofs.discard(["/d/e/f", "/d/g"])
    assert ofs.changes(content=True) == []
    assert ofs.readtext("/d/e/f") == "lower"


def test_discard_of_what_did_not_change_is_nothing(ofs):
    ofs.writetext("/a", "changed")
    ofs.discard(["/d/g", "/not/there"])
    assert [one.path for one in ofs.changes()] == ["/a"]
