"""`ofs.os`: the os module's names, types and errors, over a merged tree."""

import errno
import gc
import inspect
import io
import os
import stat
import sys
import weakref
from pathlib import Path

import pytest

from overlayvfs import MemoryFS, OverlayFS
from overlayvfs.testing import raises_errno

CALLS = [
    *("open", "read", "write", "pread", "pwrite", "lseek", "ftruncate", "fsync", "fstat", "close", "dup"),
    *("stat", "lstat", "listdir", "scandir", "walk", "mkdir", "makedirs", "rmdir", "unlink", "remove", "rename"),
    *("replace", "symlink", "readlink", "truncate", "fchmod", "chown", "fchown", "lchown", "access", "mknod"),
    *("statvfs", "getxattr", "setxattr", "listxattr", "removexattr", "umask", "seteuid", "setegid", "setgroups"),
]
"""Without fdopen (as open()), link (different on purpose), utime and chmod (signatures Python itself cannot tell)."""


@pytest.fixture
def ofs():
    lower = MemoryFS()
    lower.makedirs("d/sub")
    lower.writebytes("d/f", b"lower")
    lower.os.symlink("d", "/link")
    lower.os.symlink("nowhere", "/dangling")
    with OverlayFS([lower], MemoryFS()) as tree:
        yield tree


def write_file(osmod, path, data=b""):
    fd = osmod.open(path, os.O_CREAT | os.O_WRONLY)
    osmod.write(fd, data)
    osmod.close(fd)


@pytest.mark.skipif(sys.platform != "linux", reason="compares with Linux's os")
@pytest.mark.parametrize("name", CALLS)
def test_signature_is_that_of_os_without_dir_fd(ofs, name):
    real = inspect.signature(getattr(os, name)).parameters.values()
    wanted = [(p.name, p.default) for p in real if "dir_fd" not in p.name and p.kind is not p.POSITIONAL_ONLY]
    ours = inspect.signature(getattr(ofs.os, name)).parameters
    assert [(p, ours[p].default) for p, _ in wanted if p in ours] == wanted
    assert len(ours) == len([p for p in real if "dir_fd" not in p.name])


def test_a_descriptor_is_no_descriptor_of_the_process(ofs):
    fd = ofs.os.open("/d/f", os.O_RDONLY)
    assert fd >= 2**30
    with raises_errno(errno.EBADF):
        os.read(fd, 1)


def test_a_descriptor_of_one_tree_means_nothing_to_another(ofs):
    fd = ofs.os.open("/d/f", os.O_RDONLY)
    with MemoryFS() as other, raises_errno(errno.EBADF):
        other.os.read(fd, 1)


@pytest.mark.parametrize(
    "call", ["read", "pread", "write", "fstat", "close", "dup", "fsync", "ftruncate", "lseek", "fchmod"]
)
def test_a_closed_descriptor_is_ebadf(ofs, call):
    fd = ofs.os.open("/d/f", os.O_RDONLY)
    ofs.os.close(fd)
    arguments = {"read": [1], "pread": [1, 0], "write": [b""], "ftruncate": [0], "lseek": [0, 0], "fchmod": [0]}
    with raises_errno(errno.EBADF):
        getattr(ofs.os, call)(fd, *arguments.get(call, []))


def test_dup_shares_the_position_and_outlives_the_original(ofs):
    fd = ofs.os.open("/d/f", os.O_RDONLY)
    copy = ofs.os.dup(fd)
    assert ofs.os.read(fd, 2) == b"lo"
    ofs.os.close(fd)
    assert ofs.os.read(copy, 9) == b"wer"


@pytest.mark.parametrize("size", [-1, -9])
def test_a_negative_size_is_einval(ofs, size):
    fd = ofs.os.open("/d/f", os.O_RDONLY)
    with raises_errno(errno.EINVAL):
        ofs.os.read(fd, size)


def test_fdopen_gives_a_text_file_that_closes_the_descriptor(ofs):
    fd = ofs.os.open("/t", os.O_RDWR | os.O_CREAT)
    with ofs.os.fdopen(fd, "w+", encoding="utf-8") as file:
        assert isinstance(file, io.TextIOWrapper)
        assert (file.fileno(), file.mode, file.name) == (fd, "w+", fd)
        file.write("one\ntwo\n")
        file.seek(0)
        assert file.readlines() == ["one\n", "two\n"]
    with raises_errno(errno.EBADF):
        ofs.os.fstat(fd)


@pytest.mark.parametrize(
    ("mode", "buffering", "kind"),
    [
        ("rb", -1, io.BufferedReader),
        ("wb", -1, io.BufferedWriter),
        ("r+b", -1, io.BufferedRandom),
        ("rb", 0, io.RawIOBase),
    ],
)
def test_fdopen_builds_what_open_builds(ofs, mode, buffering, kind):
    with ofs.os.fdopen(ofs.os.open("/d/f", os.O_RDWR), mode, buffering) as file:
        assert isinstance(file, kind)


def test_fdopen_without_closefd_leaves_the_descriptor(ofs):
    fd = ofs.os.open("/d/f", os.O_RDONLY)
    ofs.os.fdopen(fd, closefd=False).close()
    assert ofs.os.read(fd, 9) == b"lower"


def test_fdopen_reads_ebadf_once_its_descriptor_is_closed(ofs):
    fd = ofs.os.open("/d/f", os.O_RDONLY)
    file = ofs.os.fdopen(fd, "rb", 0, closefd=False)
    ofs.os.close(fd)
    with raises_errno(errno.EBADF):
        file.read()


def test_fdopen_refuses_what_open_refuses(ofs):
    fd = ofs.os.open("/d/f", os.O_RDONLY)
    for mode, buffering in [("rw", -1), ("", -1), ("rbt", -1), ("x+r", -1), ("r", 0)]:
        with pytest.raises(ValueError, match=r"mode|unbuffered"):
            ofs.os.fdopen(fd, mode, buffering)
    with raises_errno(errno.EISDIR):
        ofs.os.fdopen(ofs.os.open("/d", os.O_RDONLY))


@pytest.mark.skipif(sys.platform != "linux", reason="compares with Linux's os")
def test_stat_has_every_field_of_a_host_stat(ofs, tmp_path):
    (tmp_path / "f").write_bytes(b"lower")
    os.utime(tmp_path / "f", ns=(1_600_000_000_123_456_789, -1))
    ofs.os.utime("/d/f", ns=(1_600_000_000_123_456_789, -1))
    ours, host = ofs.os.stat("/d/f"), os.stat(tmp_path / "f")
    assert type(ours) is os.stat_result
    for name in ("st_size", "st_blksize", "st_rdev", "st_atime", "st_mtime", "st_atime_ns", "st_mtime_ns"):
        assert getattr(ours, name) == getattr(host, name), name
    assert ours[7:9] == host[7:9]
    assert {name: type(getattr(ours, name)) for name in dir(ours) if name.startswith(("st_", "n_"))} == {
        name: type(getattr(host, name)) for name in dir(host) if name.startswith(("st_", "n_"))
    }


def test_statvfs_tells_of_the_whole_tree(ofs):
    fd = ofs.os.open("/d/f", os.O_RDONLY)
    assert ofs.os.statvfs("/d").f_namemax == ofs.os.statvfs(fd).f_namemax == 255


@pytest.mark.parametrize("path", [b"/d/f", None, 1.5, ["/d/f"]])
def test_a_path_of_another_type_is_a_type_error(ofs, path):
    with pytest.raises(TypeError, match=r"^lstat: path should be string or os.PathLike, not "):
        ofs.os.lstat(path)


def test_paths_may_be_pathlike_and_relative_to_the_root(ofs):
    assert ofs.os.stat(Path("d/f")) == ofs.os.stat("/d/f") == ofs.os.stat("d/f")
    assert ofs.os.listdir() == ofs.os.listdir("/")


def test_a_path_that_no_kernel_takes_is_refused_as_os_does(ofs):
    with pytest.raises(ValueError, match="embedded null"):
        ofs.os.stat("a\0b")
    with pytest.raises(UnicodeEncodeError):
        ofs.os.mkdir("\ud800")


def test_a_name_that_is_no_utf8_comes_back_surrogateescaped(ofs):
    name = os.fsdecode(b"caf\xe9")
    ofs.os.mkdir(name)
    assert name in ofs.os.listdir("/")


def test_an_error_carries_the_callers_own_paths(ofs):
    with pytest.raises(FileNotFoundError) as one:
        ofs.os.stat("d//nothing")
    with pytest.raises(FileNotFoundError) as two:
        ofs.os.rename(Path("nothing"), "/x")
    assert (one.value.filename, two.value.filename, two.value.filename2) == ("d//nothing", "nothing", "/x")


def test_link_gives_the_symlink_itself_a_name_unless_told_to_follow(ofs):
    ofs.os.symlink("d/f", "/s")
    ofs.os.link("/s", "/s2")
    ofs.os.link("/s", "/f2", follow_symlinks=True)
    assert ofs.os.readlink("/s2") == "d/f"
    assert stat.S_ISREG(ofs.os.lstat("/f2").st_mode)


def test_follow_symlinks_false_acts_on_the_link(ofs):
    ofs.os.chown("/link", 5, 6, follow_symlinks=False)
    ofs.os.utime("/link", ns=(7, 8), follow_symlinks=False)
    st = ofs.os.stat("/link", follow_symlinks=False)
    assert (st.st_uid, st.st_gid, st.st_atime_ns, st.st_mtime_ns) == (5, 6, 7, 8)
    assert ofs.os.stat("/link").st_uid == 0


def test_descriptors_serve_where_os_takes_both(ofs):
    fd = ofs.os.open("/d/f", os.O_RDWR)
    ofs.os.chmod(fd, 0o600)
    ofs.os.chown(fd, 5, 6)
    ofs.os.truncate(fd, 3)
    ofs.os.utime(fd, ns=(7, 8))
    ofs.os.setxattr(fd, "user.a", b"1")
    st = ofs.os.stat(fd)
    assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, st.st_size, st.st_mtime_ns) == (0o600, 5, 6, 3, 8)
    assert (ofs.os.getxattr(fd, "user.a"), ofs.os.listxattr(fd)) == (b"1", ["user.a"])
    ofs.os.removexattr(fd, "user.a")
    assert ofs.os.listxattr("/d/f") == []


@pytest.mark.parametrize(
    "call", ["stat", "chmod", "chown", "utime", "getxattr", "setxattr", "listxattr", "removexattr"]
)
def test_a_descriptor_with_follow_symlinks_false_is_a_value_error(ofs, call):
    fd = ofs.os.open("/d/f", os.O_RDONLY)
    more = {
        "chmod": [0],
        "chown": [0, 0],
        "getxattr": ["user.a"],
        "setxattr": ["user.a", b""],
        "removexattr": ["user.a"],
    }
    with pytest.raises(ValueError, match="cannot use fd and follow_symlinks together"):
        getattr(ofs.os, call)(fd, *more.get(call, []), follow_symlinks=False)


def test_utime_takes_seconds_or_nanoseconds_but_not_both(ofs):
    ofs.os.utime("/d/f", (1.5, -0.25))
    st = ofs.os.stat("/d/f")
    assert (st.st_atime_ns, st.st_mtime_ns) == (1_500_000_000, -250_000_000)
    with pytest.raises(ValueError, match="both"):
        ofs.os.utime("/d/f", (1, 1), ns=(1, 1))
    with pytest.raises(TypeError, match="tuple"):
        ofs.os.utime("/d/f", 1)
    with pytest.raises(TypeError, match="tuple"):
        ofs.os.utime("/d/f", ns=(1, 2, 3))


def test_access_answers_and_never_raises_an_oserror(ofs):
    assert ofs.os.access("/d/f", os.R_OK | os.W_OK)
    assert not ofs.os.access("/d/f", os.X_OK)
    assert not ofs.os.access("/nothing", os.F_OK)
    assert not ofs.os.access("/dangling", os.F_OK)
    assert ofs.os.access("/dangling", os.F_OK, follow_symlinks=False)


def test_scandir_says_what_each_name_is(ofs):
    with ofs.os.scandir("/") as entries:
        found = {entry.name: entry for entry in entries}
    assert {name: (e.is_symlink(), e.is_dir(), e.is_file()) for name, e in found.items()} == {
        "d": (False, True, False),
        "link": (True, True, False),
        "dangling": (True, False, False),
    }
    assert not found["link"].is_dir(follow_symlinks=False)
    assert found["d"].inode() == found["d"].stat().st_ino == ofs.os.stat("/d").st_ino
    assert found["link"].stat(follow_symlinks=False) == ofs.os.lstat("/link")
    assert (os.fspath(found["d"]), repr(found["d"])) == ("/d", "<DirEntry 'd'>")


def test_scandir_of_a_descriptor_names_entries_alone_and_still_finds_them(ofs):
    fd = ofs.os.open("/d", os.O_RDONLY)
    ofs.os.mkdir("/d/new")
    entry = next(entry for entry in ofs.os.scandir(fd) if entry.name == "f")
    assert (entry.path, entry.stat().st_size) == ("f", 5)


def test_a_closed_scandir_ends(ofs):
    entries = ofs.os.scandir("/")
    entries.close()
    assert list(entries) == []


def test_listing_a_descriptor_twice_shows_what_is_there_each_time(ofs):
    fd = ofs.os.open("/d", os.O_RDONLY)
    assert sorted(ofs.os.listdir(fd)) == ["f", "sub"]
    ofs.os.unlink("/d/f")
    assert ofs.os.listdir(fd) == ["sub"]


@pytest.mark.parametrize("topdown", [True, False])
@pytest.mark.parametrize("followlinks", [True, False])
def test_walk_yields_what_os_walk_yields(ofs, tmp_path, topdown, followlinks):
    (tmp_path / "d/sub").mkdir(parents=True)
    (tmp_path / "d/f").touch()
    (tmp_path / "link").symlink_to("d")
    (tmp_path / "dangling").symlink_to("nowhere")

    def steps(osmod, top):
        walk = osmod.walk(top, topdown=topdown, followlinks=followlinks)
        return [(at.removeprefix(top), sorted(dirs), sorted(files)) for at, dirs, files in walk]

    ours, real = steps(ofs.os, "/d/.."), steps(os, str(tmp_path))
    assert sorted(ours) == sorted(real)
    assert [at.count("/") for at, _, _ in ours] == [at.count("/") for at, _, _ in real]


def test_walk_leaves_out_what_the_caller_takes_from_dirs(ofs):
    seen = []
    for at, dirs, _ in ofs.os.walk("/"):
        seen.append(at)
        dirs[:] = [name for name in dirs if name != "sub"]
    assert seen == ["/", "/d"]


def test_walk_hands_errors_to_onerror(ofs):
    failures = []
    assert list(ofs.os.walk("/nothing", onerror=failures.append)) == []
    assert [error.errno for error in failures] == [errno.ENOENT]


def test_makedirs_makes_parents_with_the_default_mode_and_the_last_with_its_own(ofs):
    ofs.os.makedirs("/a/b/c/", 0o700)
    assert [stat.S_IMODE(ofs.os.stat(path).st_mode) for path in ("/a", "/a/b", "/a/b/c")] == [0o755, 0o755, 0o700]
    with raises_errno(errno.EEXIST):
        ofs.os.makedirs("/a/b")
    ofs.os.makedirs("/a/b", exist_ok=True)
    with raises_errno(errno.EEXIST):
        ofs.os.makedirs("/d/f", exist_ok=True)


def test_renameat2_swaps_and_refuses_to_replace(ofs):
    write_file(ofs.os, "/x", b"x")
    write_file(ofs.os, "/y", b"y")
    with raises_errno(errno.EEXIST):
        ofs.os.renameat2("/x", "/y", ofs.os.RENAME_NOREPLACE)
    ofs.os.renameat2("/x", "/y", ofs.os.RENAME_EXCHANGE)
    assert ofs.readbytes("x") == b"y"


def test_the_caller_is_root_with_umask_022_until_told_otherwise(ofs):
    assert (ofs.os.geteuid(), ofs.os.getegid(), ofs.os.getgroups()) == (0, 0, [])
    assert ofs.os.umask(0o077) == 0o022
    write_file(ofs.os, "/f")
    assert stat.S_IMODE(ofs.os.stat("/f").st_mode) == 0o777 & ~0o077


def test_another_user_makes_files_of_its_own_and_may_only_go_back_to_root(ofs):
    ofs.os.chmod("/", 0o777)
    ofs.os.setgroups([7])
    ofs.os.setegid(1001)
    ofs.os.seteuid(1000)
    write_file(ofs.os, "/mine")
    st = ofs.os.stat("/mine")
    assert (st.st_uid, st.st_gid, ofs.os.getgroups()) == (1000, 1001, [7])
    for call, argument in [("seteuid", 1001), ("setegid", 5), ("setgroups", [])]:
        with raises_errno(errno.EPERM):
            getattr(ofs.os, call)(argument)
    with raises_errno(errno.EINVAL):
        ofs.os.seteuid(-1)
    ofs.os.seteuid(0)
    assert ofs.os.geteuid() == 0


def test_os_keeps_the_tree_open_when_the_fs_is_dropped():
    osmod = OverlayFS([MemoryFS()], MemoryFS()).os
    write_file(osmod, "/f", b"x")
    assert osmod.listdir("/") == ["f"]


def test_an_open_file_keeps_the_tree_open_when_all_else_is_dropped():
    file = OverlayFS([MemoryFS()], MemoryFS()).openbin("f", "w+")
    file.write(b"x")
    file.seek(0)
    assert file.read() == b"x"


def test_what_nobody_refers_to_goes_at_once():
    gc.disable()
    try:
        upper = MemoryFS()
        ofs = OverlayFS([MemoryFS()], upper)
        osmod = ofs.os
        file = ofs.openbin("f", "w")
        gone = weakref.ref(ofs._overlay)
        del ofs
        assert gone() is not None
        del osmod
        assert gone() is not None
        del file
        assert gone() is None
        OverlayFS([MemoryFS()], upper).close()
    finally:
        gc.enable()


def test_after_close_every_call_is_ebadf(ofs):
    fd = ofs.os.open("/d/f", os.O_RDONLY)
    ofs.close()
    for call, *arguments in [("stat", "/d"), ("listdir", "/"), ("open", "/d/f", 0), ("mkdir", "/x"), ("read", fd, 1)]:
        with raises_errno(errno.EBADF):
            getattr(ofs.os, call)(*arguments)
