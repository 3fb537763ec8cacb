"""Who may do what: the caller's mode bits first, the mounter's rights after (overlayfs.rst, "Permission model")."""

import errno
import itertools
import os
import stat

import pytest

from overlayvfs import MemoryFS, OverlayFS
from overlayvfs.testing import DIR, Kernel, Slot, Stack, call, directory, file, raises_errno, symlink
from overlayvfs.testing.bodies import EngineOnMemory
from overlayvfs.testing.lockstep import diverges
from overlayvfs.testing.minimise import Trial

USER, GROUP, OTHER = 7, 5, 8
CREATE = os.O_CREAT | os.O_WRONLY
OPEN = {"/": directory(mode=0o777)}
"""Roots anybody may write in: the merged root is the upper's."""


def mode(box, path):
    return stat.S_IMODE(box.os.lstat(path).st_mode)


def arrange(box, tree, upper=OPEN):
    """Put `tree` into a lower below a root that is everybody's, and become USER."""
    box.require_root()
    box.lower({**OPEN, **tree})
    box.upper({**OPEN, **upper})
    box.os.seteuid(USER)


@pytest.mark.parametrize("mode_bits", range(8))
@pytest.mark.parametrize("asked", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR], ids=["read", "write", "both"])
@pytest.mark.parametrize("who", ["owner", "group", "supplementary group", "other"])
def test_open_goes_by_the_one_class_the_caller_is_in(box, who, asked, mode_bits):
    box.require_root()
    shift = {"owner": 6, "other": 0}.get(who, 3)
    others = 0o777 & ~(7 << shift)
    box.lower({"/f": file("x", mode=others | mode_bits << shift, uid=USER, gid=GROUP)})
    box.os.setgroups([GROUP] if who == "supplementary group" else [])
    box.os.setegid(GROUP if who == "group" else OTHER)
    box.os.seteuid(USER if who == "owner" else OTHER)
    needed = {os.O_RDONLY: 4, os.O_WRONLY: 2, os.O_RDWR: 6}[asked]
    allowed = needed & ~mode_bits == 0
    assert box.run([call("open", "/f", asked, slot=0)])[0].error == (None if allowed else "EACCES")


@pytest.mark.parametrize(
    ("uid", "mode_bits", "error"), [(USER, 0o600, None), (0, 0o644, "EPERM"), (0, 0o600, "EACCES")]
)
@pytest.mark.parametrize("kind", [file, directory])
def test_o_noatime_is_for_the_owner(box, kind, uid, mode_bits, error):
    arrange(box, {"/x": kind(mode=mode_bits, uid=uid)})
    assert box.run([call("open", "/x", os.O_RDONLY | os.O_NOATIME, slot=0)])[0].error == error
    box.os.seteuid(0)
    box.os.close(box.os.open("/x", os.O_RDONLY | os.O_NOATIME))


def test_what_the_caller_may_not_do_copies_nothing_up(box):
    arrange(box, {"/d/f": file("x", mode=0o644), "/d/g": file("x", mode=0o600)})
    errors = [
        outcome.error
        for outcome in box.run(
            [
                call("open", "/d/f", os.O_WRONLY, slot=0),
                call("open", "/d/g", os.O_RDONLY, slot=0),
                call("open", "/d/n", CREATE, slot=0),
                call("truncate", "/d/f", 0),
                call("unlink", "/d/f"),
                call("rename", "/d/f", "/n"),
                call("chmod", "/d/f", 0o777),
                call("chown", "/d/f", USER, -1),
                call("utime", "/d/f"),
                call("utime", "/d/f", ns=(1, 1)),
                call("setxattr", "/d/f", "user.k", b"v"),
                call("removexattr", "/d/f", "user.k"),
                call("mkdir", "/d/n"),
                call("symlink", "t", "/d/n"),
            ]
        )
    ]
    assert errors == ["EACCES"] * 6 + ["EPERM"] * 2 + ["EACCES"] + ["EPERM"] + ["EACCES"] * 4
    assert box.upper_tree() == OPEN


def test_copy_up_is_done_with_the_mounters_rights(box):
    arrange(box, {"/d/": directory(mode=0o755), "/d/f": file("xyz", mode=0o666, gid=GROUP)})
    box.write("/d/f", b"abc", os.O_WRONLY)
    assert box.upper_tree() == {**OPEN, "/d/f": file("abc", mode=0o666, gid=GROUP)}


def test_a_file_that_may_be_written_but_not_read_is_copied_up_whole(box):
    arrange(box, {"/f": file("xyz", mode=0o622)})
    fd = box.os.open("/f", os.O_WRONLY | os.O_APPEND)
    box.os.write(fd, b"!")
    box.os.close(fd)
    box.os.seteuid(0)
    assert box.read("/f") == b"xyz!"


def test_new_objects_belong_to_the_caller(box):
    arrange(box, {"/share/": directory(mode=0o2777, gid=GROUP)})
    box.os.mkdir("/d")
    box.os.symlink("t", "/share/s")
    box.os.close(box.os.open("/share/f", CREATE, 0o666))
    owners = {path: box.os.lstat(path)[stat.ST_UID : stat.ST_GID + 1] for path in ("/d", "/share/s", "/share/f")}
    assert owners == {"/d": (USER, 0), "/share/s": (USER, GROUP), "/share/f": (USER, GROUP)}


def test_a_whiteout_belongs_to_the_mounter(box):
    arrange(box, {"/f": file("x", uid=USER)})
    box.os.unlink("/f")
    box.os.seteuid(0)
    assert box.snapshot("upper")["/f"][:4] == ("whiteout", 0, 0, 0)


def test_a_directory_that_may_be_listed_but_not_searched_shows_names_alone(box):
    arrange(box, {"/d/": directory(mode=0o744), "/d/f": "x"})
    assert box.os.listdir("/d") == ["f"]
    with raises_errno(errno.EACCES):
        box.os.lstat("/d/f")


def test_a_directory_that_may_be_searched_but_not_listed_gives_what_one_knows(box):
    arrange(box, {"/d/": directory(mode=0o711), "/d/f": "x"})
    assert box.read("/d/f") == b"x"
    with raises_errno(errno.EACCES):
        box.os.listdir("/d")


def test_directories_on_the_way_of_a_symlink_are_searched_by_the_caller(box):
    arrange(box, {"/closed/": directory(mode=0o700), "/closed/f": "x", "/s": symlink("closed/f")})
    assert box.os.readlink("/s") == "closed/f"
    with raises_errno(errno.EACCES):
        box.os.stat("/s")


@pytest.mark.parametrize(("owner_of", "error"), [("nobody", "EPERM"), ("directory", None), ("file", None)])
@pytest.mark.parametrize("verb", ["unlink", "rename", "rename over"])
def test_in_a_sticky_directory_only_owners_remove_names(box, verb, owner_of, error):
    uids = {name: USER if name == owner_of else OTHER for name in ("directory", "file")}
    arrange(
        box,
        {
            "/t/": directory(mode=0o1777, uid=uids["directory"]),
            "/t/f": file("x", uid=uids["file"]),
            "/mine": file("y", uid=USER),
        },
    )
    op = {
        "unlink": call("unlink", "/t/f"),
        "rename": call("rename", "/t/f", "/moved"),
        "rename over": call("rename", "/mine", "/t/f"),
    }[verb]
    assert box.run([op])[0].error == error


def test_a_directory_of_somebody_else_is_not_moved_to_another_parent(box):
    arrange(box, {"/to/": directory(mode=0o777)}, upper={"/d/": DIR})
    with raises_errno(errno.EACCES):
        box.os.rename("/d", "/to/d")
    box.os.rename("/d", "/e")


def test_chmod_of_a_file_of_a_foreign_group_drops_setgid(box):
    arrange(box, {"/f": file(mode=0o644, uid=USER, gid=GROUP), "/g": file(mode=0o644, uid=USER)})
    box.os.chmod("/f", 0o2755)
    box.os.chmod("/g", 0o2755)
    assert (mode(box, "/f"), mode(box, "/g")) == (0o755, 0o2755)


@pytest.mark.parametrize(
    ("uid", "gid", "error"),
    [
        (USER, -1, None),
        (-1, GROUP, None),
        (USER, OTHER, "EPERM"),
        (OTHER, -1, "EPERM"),
        (0, 0, "EPERM"),
        (-1, -1, None),
    ],
)
def test_an_owner_gives_a_file_only_to_its_own_groups(box, uid, gid, error):
    arrange(box, {"/f": file(mode=0o6755, uid=USER)})
    box.os.seteuid(0)
    box.os.setgroups([GROUP])
    box.os.seteuid(USER)
    assert box.run([call("chown", "/f", uid, gid)])[0].error == error
    assert mode(box, "/f") == (0o6755 if error else 0o755)


@pytest.mark.parametrize(("bits", "error"), [(0o755, None), (0o4755, "EPERM"), (0o2755, "EPERM")])
def test_chown_that_changes_nothing_is_eperm_where_it_would_take_set_id_bits(box, bits, error):
    arrange(box, {"/f": file(mode=bits)})
    assert box.run([call("chown", "/f", -1, -1)])[0].error == error
    fd = box.os.open("/f", os.O_RDONLY)
    assert box.run([call("fchown", fd, -1, -1)])[0].error == error
    assert mode(box, "/f") == bits


@pytest.mark.parametrize(("before", "after"), [(0o4777, 0o777), (0o2777, 0o777), (0o6767, 0o2767), (0o1777, 0o1777)])
@pytest.mark.parametrize("how", ["write", "truncate", "ftruncate", "O_TRUNC"])
def test_set_id_bits_go_when_somebody_else_writes(box, how, before, after):
    arrange(box, {"/f": file("x", mode=before)})
    ops = {
        "write": [call("open", "/f", os.O_WRONLY, slot=0), call("write", Slot(0), b"y")],
        "truncate": [call("truncate", "/f", 0)],
        "ftruncate": [call("open", "/f", os.O_WRONLY, slot=0), call("ftruncate", Slot(0), 0)],
        "O_TRUNC": [call("open", "/f", os.O_WRONLY | os.O_TRUNC, slot=0)],
    }[how]
    assert [outcome.error for outcome in box.run(ops)] == [None] * len(ops)
    assert mode(box, "/f") == after


def test_a_writer_sets_the_present_time_and_only_the_owner_another(box):
    arrange(box, {"/f": file(mode=0o666), "/mine": file(mode=0, uid=USER)})
    box.os.utime("/f")
    box.os.utime("/mine", ns=(5, 6))
    with raises_errno(errno.EPERM):
        box.os.utime("/f", ns=(5, 6))
    assert box.os.stat("/mine").st_mtime_ns == 6


@pytest.mark.parametrize(
    ("node", "error"),
    [
        (file(uid=USER, mode=0o4000), None),
        (file(mode=0o666), None),
        (file(mode=0o644), "EPERM"),
        (file(mode=0o4666), "EPERM"),
        (file(mode=0o2676), "EPERM"),
        (file(mode=0o2666), None),
        (symlink("t"), "EPERM"),
        (symlink("t", uid=USER), None),
    ],
    ids=repr,
)
def test_links_are_made_only_to_what_one_owns_or_may_write(box, node, error):
    """What fs.protected_hardlinks=1 says, with which systems are set up."""
    if box.is_kernel and not _hardlinks_are_protected():
        pytest.skip("this machine has fs.protected_hardlinks=0")
    arrange(box, {"/x": node})
    assert box.run([call("link", "/x", "/n", follow_symlinks=False)])[0].error == error


def _hardlinks_are_protected():
    with open("/proc/sys/fs/protected_hardlinks", encoding="ascii") as stream:
        return stream.read().strip() == "1"


def test_a_refused_link_is_eperm_even_where_its_directory_is_closed(box):
    if box.is_kernel and not _hardlinks_are_protected():
        pytest.skip("this machine has fs.protected_hardlinks=0")
    arrange(box, {"/x": file(mode=0o600), "/closed/": directory(mode=0o755)})
    with raises_errno(errno.EPERM):
        box.os.link("/x", "/closed/x")


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("user.k", "EACCES"),
        ("trusted.k", "EPERM"),
        ("security.k", "EPERM"),
        ("system.k", "ENOTSUP"),
        ("nonsense", "EACCES"),
        ("foo.bar", "EACCES"),
    ],
)
def test_setxattr_without_rights(box, name, error):
    arrange(box, {"/f": file("x", mode=0o644)})
    assert box.run([call("setxattr", "/f", name, b"")])[0].error == error


def test_system_attributes_are_supported_for_nobody(box):
    box.lower({"/f": "x"})
    ops = [call("setxattr", "/f", "system.k", b""), call("getxattr", "/f", "system.k")]
    assert [outcome.error for outcome in box.run([*ops, call("removexattr", "/f", "system.k")])] == ["ENOTSUP"] * 3


def test_trusted_attributes_are_not_there_for_those_without_privilege(box):
    arrange(box, {"/f": file("x", mode=0o666, xattrs={"trusted.t": b"1", "user.u": b"2"})})
    assert box.os.listxattr("/f") == ["user.u"]
    with raises_errno(errno.ENODATA):
        box.os.getxattr("/f", "trusted.t")


def test_attributes_of_a_foreign_sticky_directory_are_not_set(box):
    arrange(box, {"/t/": directory(mode=0o1777), "/d/": directory(mode=0o777)})
    with raises_errno(errno.EPERM):
        box.os.setxattr("/t", "user.k", b"")
    box.os.setxattr("/d", "user.k", b"")


def test_only_root_makes_devices_and_anybody_fifos(box):
    arrange(box, {})
    with raises_errno(errno.EPERM):
        box.os.mknod("/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    box.os.mknod("/fifo", stat.S_IFIFO | 0o644)


def test_access_asks_for_the_real_user_unless_told_otherwise(box):
    arrange(box, {"/closed/": directory(mode=0o700), "/closed/f": "x", "/run": file(mode=0o644)})
    assert box.os.access("/closed/f", os.W_OK)
    assert not box.os.access("/closed/f", os.R_OK, effective_ids=True)
    assert not box.os.access("/run", os.X_OK)


def test_root_searches_and_writes_everywhere_but_runs_only_programs(box):
    box.lower({"/d/": directory(mode=0), "/d/f": file("x", mode=0, uid=USER)})
    box.require_root()
    assert box.read("/d/f") == b"x"
    assert not box.os.access("/d/f", os.X_OK)


def test_who_calls_is_changed_by_root_or_back_to_root_alone(box):
    arrange(box, {})
    outcomes = box.run(
        [
            call("setgroups", [GROUP]),
            call("setegid", GROUP),
            call("seteuid", OTHER),
            call("setegid", 0),
            call("seteuid", 0),
            call("setegid", GROUP),
            call("seteuid", USER),
            call("geteuid"),
            call("getegid"),
        ]
    )
    assert [outcome.error or outcome.value for outcome in outcomes] == [
        *["EPERM"] * 3,
        *[None] * 4,
        USER,
        GROUP,
    ]


def test_the_umask_is_the_callers_and_limits_what_is_made(box):
    arrange(box, {})
    assert box.os.umask(0o077) == 0o022
    box.os.close(box.os.open("/f", CREATE, 0o666))
    box.os.umask(0)
    box.os.mkdir("/d", 0o777)
    assert (mode(box, "/f"), mode(box, "/d")) == (0o600, 0o777)


def test_an_open_descriptor_keeps_the_rights_it_was_opened_with(box):
    box.require_root()
    box.lower({"/f": file("x", mode=0o600)})
    fd = box.os.open("/f", os.O_RDWR)
    box.os.seteuid(USER)
    assert box.os.write(fd, b"y") == 1
    assert box.os.pread(fd, 9, 0) == b"y"
    with raises_errno(errno.EPERM):
        box.os.fchmod(fd, 0o666)


def test_a_read_only_overlay_says_erofs_before_eacces_to_writers(box):
    box.require_root()
    box.lower({"/f": file("x", mode=0o600)})
    box.lower({"/g": "y"})
    box.upper(None)
    box.os.seteuid(USER)
    outcomes = box.run([call("open", "/f", os.O_WRONLY, slot=0), call("unlink", "/f"), call("chmod", "/f", 0)])
    assert [outcome.error for outcome in outcomes] == ["EROFS"] * 3


def test_an_overlay_below_another_acts_with_the_mounters_rights():
    """Whoever calls the lower overlay at the time is no matter of those who call the upper one ("Nesting")."""
    lower = MemoryFS()
    lower.os.mkdir("/closed", 0o700)
    lower.writebytes("/closed/f", b"x")
    lower.os.setxattr("/closed/f", "trusted.t", b"1")
    inner = OverlayFS([lower], MemoryFS())
    inner.os.seteuid(USER)
    outer = OverlayFS([inner], MemoryFS())
    assert outer.os.listdir("/closed") == ["f"]
    assert outer.readbytes("/closed/f") == b"x"
    assert outer.os.getxattr("/closed/f", "trusted.t") == b"1"
    assert inner.os.geteuid() == USER
    with raises_errno(errno.EACCES):
        inner.os.listdir("/closed")


# Every verb as somebody without privilege, over objects and parents of all owners and telling modes: what Linux says.

PARENTS = [
    *((0o755, USER, 0), (0o755, 0, 0), (0o1777, 0, 0), (0o1777, USER, 0), (0o2777, 0, OTHER), (0o774, 0, GROUP)),
]
MODES = (0, 0o4755, 0o2775, 0o1777, 0o070, 0o707, 0o222, 0o2660)
OWNERS = [(USER, GROUP), (0, GROUP), (0, 0), (USER, OTHER)]


def by_descriptor(flags, *verbs):
    """Return the operations that open the object and make calls through the descriptor."""
    return lambda at, x: [
        call("open", x, flags, 0o6777, slot=0),
        *(call(name, Slot(0), *args) for name, *args in verbs),
        call("fstat", Slot(0)),
        call("close", Slot(0)),
    ]


AS_SOMEBODY = {
    "read": by_descriptor(os.O_RDONLY, ("fchmod", 0o640), ("fchown", -1, GROUP), ("setxattr", "user.k", b"1")),
    "write": by_descriptor(os.O_WRONLY, ("write", b"q"), ("ftruncate", 1)),
    "truncate at open": by_descriptor(os.O_TRUNC),
    "open or create": by_descriptor(os.O_WRONLY | os.O_CREAT, ("write", b"q")),
    "O_NOATIME": by_descriptor(os.O_NOATIME),
    "O_PATH": by_descriptor(os.O_PATH, ("getxattr", "user.k")),
    "create": lambda at, x: by_descriptor(CREATE, ("write", b"q"))(at, f"{at}/new"),
    "O_TMPFILE": lambda at, x: by_descriptor(os.O_TMPFILE | os.O_WRONLY)(at, at),
    "mkdir": lambda at, x: [call("mkdir", f"{at}/new", 0o7777), call("lstat", f"{at}/new")],
    "mknod": lambda at, x: [call("mknod", f"{at}/new", stat.S_IFIFO | 0o7777), call("lstat", f"{at}/new")],
    "devices": lambda at, x: [call("mknod", f"{at}/new", stat.S_IFCHR | 0o600, rdev) for rdev in (0, 0x103)],
    "symlink": lambda at, x: [call("symlink", "t", f"{at}/new"), call("lstat", f"{at}/new")],
    "unlink": lambda at, x: [call("unlink", x)],
    "rmdir": lambda at, x: [call("rmdir", x)],
    "rename": lambda at, x: [call("rename", x, f"{at}/new"), call("lstat", f"{at}/new")],
    "rename out": lambda at, x: [call("rename", x, f"/out{at[1:]}")],
    "rename a file in": lambda at, x: [call("open", f"/in{at[1:]}", CREATE, slot=0), call("rename", f"/in{at[1:]}", x)],
    "rename a directory in": lambda at, x: [call("mkdir", f"/in{at[1:]}"), call("rename", f"/in{at[1:]}", x)],
    "exchange": lambda at, x: [call("renameat2", x, "/mine", 2), call("renameat2", x, "/mine", 2)],
    "link": lambda at, x: [call("link", x, f"/out{at[1:]}"), call("lstat", x)],
    "link in": lambda at, x: [call("link", "/mine", f"{at}/new")],
    "chmod": lambda at, x: [call("chmod", x, 0o7777), call("lstat", x)],
    "chown": lambda at, x: [
        *(call("chown", x, uid, gid) for uid, gid in ((-1, -1), (USER, -1), (-1, GROUP), (USER, OTHER), (OTHER, -1))),
        call("lstat", x),
    ],
    "truncate": lambda at, x: [call("truncate", x, 2), call("lstat", x)],
    "utime": lambda at, x: [call("utime", x), call("utime", x, ns=(5, 5))],
    "setxattr": lambda at, x: [
        call("setxattr", x, name, b"1")
        for name in ("user.n", "trusted.n", "security.n", "system.n", "user.overlay.n", "trusted.overlay.n", "n", "n.n")
    ],
    "getxattr": lambda at, x: [
        call("listxattr", x),
        *(call("getxattr", x, name) for name in ("user.k", "trusted.k", "security.k", "user.absent", "n")),
    ],
    "removexattr": lambda at, x: [
        call("removexattr", x, name) for name in ("user.absent", "trusted.k", "security.k", "user.k")
    ],
    "look": lambda at, x: [call("lstat", x), call("listdir", x), call("listdir", at), call("lstat", f"{x}/.")],
    "access": lambda at, x: [
        call("access", x, mode, effective_ids=effective) for mode in range(8) for effective in (False, True)
    ],
}


@pytest.mark.slow
@pytest.mark.kernel
@pytest.mark.parametrize("where", ["lower", "upper"])
@pytest.mark.parametrize("verb", AS_SOMEBODY)
def test_every_verb_of_somebody_comes_to_what_it_does_in_linux(oracle: Kernel, verb, where):
    if oracle.kind != "root":
        pytest.skip("a user namespace has one user")
    xattrs = {"user.k": b"v", "trusted.k": b"t", "security.k": b"s"}
    tree = {}
    ops = [call("setgroups", [GROUP]), call("setegid", OTHER), call("seteuid", USER)]
    cells = itertools.product((file, directory), PARENTS, MODES, OWNERS)
    for number, (kind, parent, mode_bits, (uid, gid)) in enumerate(cells):
        at, attributes = f"/{number:04}", {"mode": mode_bits, "uid": uid, "gid": gid, "xattrs": xattrs}
        tree[f"{at}/"] = directory(mode=parent[0], uid=parent[1], gid=parent[2])
        tree[f"{at}/x" if kind is file else f"{at}/x/"] = kind(**attributes)
        ops += AS_SOMEBODY[verb](at, f"{at}/x")
    upper = {**OPEN, "/mine": file("mine", uid=USER, gid=OTHER)}
    stack = Stack([{**OPEN, **tree}], upper) if where == "lower" else Stack([OPEN], {**upper, **tree})
    assert diverges(oracle, EngineOnMemory, Trial(stack, (*ops, call("seteuid", 0)))) == []
