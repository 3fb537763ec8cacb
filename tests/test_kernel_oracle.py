"""The test kit's own proof: the oracle really mounts, sees everything it should, and fails loudly."""

import errno
import os
import stat

import pytest

from overlayvfs.testing import (
    DIR,
    WHITEOUT,
    OracleError,
    Slot,
    Stack,
    call,
    device,
    differences,
    directory,
    fifo,
    file,
    hardlink,
    raises_errno,
    symlink,
    whiteout,
)
from overlayvfs.testing.kernel import Kernel, NoOracle
from overlayvfs.testing.snapshots import nodes_of, without_marks
from overlayvfs.testing.trees import literal, normal

EVERYTHING = {
    "/a": "text",
    "/b": b"\xff\0",
    "/c": file("x", mode=0o4711, xattrs={"user.k": b"v"}),
    "/d/": DIR,
    "/e/f": hardlink("/a"),
    "/g/": directory(mode=0o2770),
    "/h": symlink("nowhere"),
    "/i": fifo(mode=0o600),
    "/j/k/l": "deep",
}


def test_a_lower_shows_as_the_literal_it_was_built_from(box):
    box.lower(EVERYTHING)
    assert box.tree() == EVERYTHING


def test_an_upper_shows_as_the_literal_it_was_built_from(box):
    box.lower({})
    box.upper({**EVERYTHING, "/w": WHITEOUT, "/x": whiteout(mode=0o600), "/y/z": "1", "/y/": directory(opaque=True)})
    assert box.upper_tree() == {
        **EVERYTHING,
        "/w": WHITEOUT,
        "/x": whiteout(mode=0o600),
        "/y/z": "1",
        "/y/": directory(opaque=True),
    }


def test_lower_trees_are_told_topmost_first(box):
    box.lower({"/a": "1"})
    box.lower({"/a": "2"})
    assert box.lower_trees() == [{"/a": "1"}, {"/a": "2"}]


def test_a_printed_tree_evaluates_to_itself():
    tree = {
        **EVERYTHING,
        "/m": WHITEOUT,
        "/n/": directory(opaque=True, redirect="/d", marks={"impure": b"y"}),
        "/o": device(stat.S_IFBLK, 0x801, uid=3),
        "/p": file(metacopy=True, origin=True),
    }
    printed = repr(literal(normal(tree)))
    helpers = (device, directory, fifo, file, hardlink, symlink, whiteout)
    scope = {helper.__name__: helper for helper in helpers} | {"DIR": DIR, "WHITEOUT": WHITEOUT, "stat": stat}
    assert normal(eval(printed, scope)) == normal(tree)


def test_run_returns_an_outcome_per_operation_and_keeps_descriptors_in_slots(box):
    box.lower({"/f": "abc"})
    outcomes = box.run(
        [
            call("open", "/f", os.O_RDWR, slot=0),
            call("pwrite", Slot(0), b"X", 1),
            call("open", "/missing", os.O_RDONLY, slot=0),
            call("read", Slot(0), 3),
            call("mkdir", "/d"),
            call("mkdir", "/d"),
            call("listdir", "/"),
        ]
    )
    assert [repr(outcome) for outcome in outcomes] == ["'fd'", "1", "ENOENT", "EBADF", "None", "EEXIST", "['d', 'f']"]
    assert box.read("/f") == b"aXc"


def test_stat_outcomes_tell_identity_by_the_order_of_meeting_and_fresh_times(box):
    box.require_kept_upper()
    box.lower({"/f": "abc", "/g": "x"})
    outcomes = box.run(
        [
            call("lstat", "/f"),
            call("lstat", "/g"),
            call("chmod", "/f", 0o600),
            call("truncate", "/f", 1),
            call("stat", "/f"),
        ]
    )
    assert [outcomes[index].value["object"] for index in (0, 1, 4)] == [0, 1, 0]
    assert [outcomes[index].value["mtime"] for index in (0, 4)] == [10**18, "fresh"]
    assert outcomes[4].value["mode"] == "600"


def test_layers_rotate_after_each_change_once_nothing_is_open_and_only_on_rotating_bodies(box):
    box.lower({"/f": "x"})
    box.os.listdir("/")
    counts = [box.lower_count()]
    box.os.mkdir("/d")
    counts.append(box.lower_count())
    fd = box.os.open("/f", os.O_RDWR)
    box.os.write(fd, b"y")
    counts.append(box.lower_count())
    box.os.close(fd)
    counts.append(box.lower_count())
    assert box.read("/f") == b"y"
    assert counts == ([1, 1, 1, 1] if box.keeps_upper else [1, 2, 2, 3])


def test_an_absolute_symlink_resolves_inside_the_tree(box):
    box.lower({"/etc/here": "ours", "/l": symlink("/etc/here")})
    assert box.read("/l") == b"ours"


def test_relative_paths_start_at_the_root_of_the_tree(box):
    box.lower({"/d/f": "x"})
    assert box.os.listdir("d") == ["f"]


def test_remount_shows_the_same_tree(box):
    box.lower({"/d/f": "x", "/g": "y"})
    box.os.unlink("/g")
    box.write("/d/f", b"changed")
    box.remount()
    assert box.tree() == {"/d/f": "changed"}


def test_renameat2_refuses_an_existing_target_when_told(box):
    box.lower({"/f": "x", "/g": "y"})
    with raises_errno(errno.EEXIST):
        box.os.renameat2("/f", "/g", 1)


def test_errors_carry_the_callers_own_paths(box):
    box.lower({"/d/f": "x"})
    with pytest.raises(OSError, match="cross-device") as caught:
        box.os.rename("/d", "/e")
    assert (caught.value.errno, caught.value.filename, caught.value.filename2) == (errno.EXDEV, "/d", "/e")


@pytest.mark.kernel
def test_a_transcript_is_what_single_calls_tell(oracle):
    stack = Stack([{"/d/f": "x"}, {"/d/g": "y"}], {"/d/g": WHITEOUT})
    transcript = oracle.transcript(stack, [call("unlink", "/d/f"), call("rmdir", "/d"), call("listdir", "/")])
    assert [repr(outcome) for outcome in transcript.outcomes] == ["None", "None", "[]"]
    assert literal(nodes_of(without_marks(transcript.snapshots["upper"], ["impure"]))) == {"/d": WHITEOUT}
    assert literal(nodes_of(transcript.snapshots["merged"])) == {}
    assert literal(nodes_of(transcript.snapshots[1])) == {"/d/g": "y"}


@pytest.mark.kernel
def test_stacks_are_mounted_side_by_side(oracle):
    one, two = oracle.mount(Stack([{"/f": "1"}])), oracle.mount(Stack([{"/f": "2"}]))
    one.os.unlink("/f")
    assert (one.os.listdir("/"), two.os.listdir("/")) == ([], ["f"])
    one.close()
    two.close()


@pytest.mark.kernel
def test_a_stack_without_lowers_is_a_plain_directory(oracle):
    plain = oracle.mount(Stack((), {"/d/f": "x"}))
    plain.os.rename("/d", "/e")
    assert literal(nodes_of(plain.snapshot("merged"))) == {"/e/f": "x"}
    plain.close()


@pytest.mark.kernel
def test_separate_layers_have_devices_of_their_own(oracle):
    stack = Stack(
        [{"/f": "1"}, {"/g": "2"}], {"/h": "3"}, {"xino": "off"} if oracle.kind == "root" else {}, separate=True
    )
    mount = oracle.mount(stack)
    assert len({mount.os.stat(path).st_dev for path in ("/f", "/g", "/h", "/")}) == 4
    mount.close()


@pytest.mark.kernel
def test_a_refused_mount_is_the_kernels_errno_and_leaves_the_worker_usable(oracle):
    with raises_errno(errno.EINVAL):
        oracle.mount(Stack([{"/f": "x"}], upper=None))
    oracle.mount(Stack([{"/f": "x"}])).close()


@pytest.mark.kernel
def test_credentials_and_umask_belong_to_one_stack(oracle):
    if oracle.kind != "root":
        pytest.skip("a user namespace maps one user only")
    one, two = oracle.mount(Stack([{"/f": file("1", mode=0o600)}])), oracle.mount(Stack([{}]))
    one.os.umask(0o077)
    one.os.seteuid(1000)
    two.os.mkdir("/d")
    assert stat.S_IMODE(two.os.stat("/d").st_mode) == 0o755
    with raises_errno(errno.EACCES):
        one.os.open("/f", os.O_RDONLY)
    one.close()
    two.close()


@pytest.mark.kernel
def test_a_worker_that_dies_is_reported_with_the_request(oracle):
    with Kernel(oracle.kind) as own:
        mount = own.mount(Stack([{}]))
        with pytest.raises(OracleError, match=r"died at call.*_exit"):
            mount.os._exit(3)
        assert own.lost


@pytest.mark.kernel
def test_a_worker_that_hangs_is_killed_and_reported(oracle):
    with Kernel(oracle.kind, answer_seconds=0.5) as own:
        mount = own.mount(Stack([{"/pipe": fifo()}]))
        with pytest.raises(OracleError, match="did not answer"):
            mount.os.open("/pipe", os.O_RDONLY)
        assert own.lost


@pytest.mark.kernel
def test_the_user_namespace_answers_like_the_root_mount_at_default_options(oracle):
    stack = Stack([{"/d/f": "x", "/e/": DIR}, {"/d/g": "y"}], {"/d/g": WHITEOUT})
    ops = [
        call("rename", "/d/f", "/h"),
        call("mkdir", "/d/g"),
        call("rename", "/d", "/k"),
        call("rmdir", "/e"),
        call("chmod", "/h", 0o600),
    ]
    try:
        namespace = Kernel("userns")
    except NoOracle as error:
        pytest.skip(f"no second oracle: {error}")
    with namespace:
        theirs, ours = namespace.transcript(stack, ops), oracle.transcript(stack, ops)
    assert theirs.outcomes == ours.outcomes
    assert differences(ours.snapshots["merged"], theirs.snapshots["merged"]) == []


def test_raises_errno_fails_on_another_errno_and_on_success():
    with pytest.raises(AssertionError, match="expected ENOENT, not EEXIST"), raises_errno(errno.ENOENT):
        raise FileExistsError(errno.EEXIST, "there")
    with pytest.raises(AssertionError, match="succeeded"), raises_errno(errno.ENOENT):
        pass
