"""OverlayFS and MemoryFS as PyFilesystems: what they promise beyond FSTestCases, and how layers are given."""

import errno
import inspect
import io
import os
import pickle
import stat
import sys
import zipfile

import fs.copy
import fs.move
import fsspec
import pytest
from fs import errors, open_fs
from fs.memoryfs import MemoryFS as PlainMemoryFS
from fs.osfs import OSFS
from fs.permissions import Permissions
from fs.subfs import SubFS
from fs.tempfs import TempFS
from fs.walk import Walker
from fs.wrap import read_only
from fsspec.implementations.dirfs import DirFileSystem

from overlayvfs import MemoryFS, MountFailed, OverlayFS
from overlayvfs.faces.errors import IllegalDestination, fs_error
from overlayvfs.layers.pyfs import PyFsLayer

linux = pytest.mark.skipif(sys.platform != "linux", reason="host directories as layers need Linux")
OPAQUE = "user.overlay.opaque"


@pytest.fixture
def lower():
    layer = MemoryFS()
    layer.makedirs("d/sub")
    layer.writebytes("d/f", b"lower")
    layer.writebytes("d/sub/g", b"deep")
    layer.os.symlink("d", "/link")
    layer.os.symlink("nowhere", "/dangling")
    layer.os.symlink("loop", "/loop")
    return layer


@pytest.fixture
def upper():
    return MemoryFS()


@pytest.fixture
def ofs(lower, upper):
    with OverlayFS([lower], upper) as tree:
        yield tree


def files(tree, path="/"):
    """Every path of a tree with a file's bytes, a link's target, or None for a directory."""
    found = {}
    for at, dirs, names in tree.os.walk(path):
        for name in dirs + names:
            one = f"{at.rstrip('/')}/{name}"
            mode = tree.os.lstat(one).st_mode
            is_link, is_dir = stat.S_ISLNK(mode), stat.S_ISDIR(mode)
            found[one] = tree.os.readlink(one) if is_link else None if is_dir else tree.readbytes(one)
    return found


LOWER_TREE = {
    "/d": None,
    "/d/f": b"lower",
    "/d/sub": None,
    "/d/sub/g": b"deep",
    "/link": "d",
    "/dangling": "nowhere",
    "/loop": "loop",
}

# Links


def test_exists_and_getinfo_follow_links(ofs):
    assert [ofs.exists(name) for name in ("link", "link/f", "dangling", "loop", "x" * 300, "d/f/x")] == [
        *(True, True),
        *(False, False, False, False),
    ]
    assert [ofs.isdir(name) for name in ("link", "link/f", "loop")] == [True, False, False]
    assert [ofs.isfile(name) for name in ("link", "link/f", "dangling")] == [False, True, False]
    info = ofs.getinfo("link", ["details", "link", "lstat", "stat"])
    assert info.is_dir
    assert info.target == "d"
    assert stat.S_ISLNK(info.raw["lstat"]["st_mode"])
    assert stat.S_ISDIR(info.raw["stat"]["st_mode"])


def test_islink_sees_a_dangling_link(ofs):
    assert [ofs.islink(name) for name in ("link", "dangling", "d")] == [True, True, False]


def test_scandir_and_walk_see_the_link_itself(ofs):
    found = {info.name: (info.is_dir, info.is_link, info.type.name) for info in ofs.scandir("/", ["details", "link"])}
    assert found == {
        "d": (True, False, "directory"),
        "link": (False, True, "symlink"),
        "dangling": (False, True, "symlink"),
        "loop": (False, True, "symlink"),
    }
    assert sorted(ofs.walk.dirs()) == ["/d", "/d/sub"]
    assert sorted(ofs.walk.files()) == ["/d/f", "/d/sub/g", "/dangling", "/link", "/loop"]


@pytest.mark.parametrize("path", ["", "/", "d", "/d", "d/", "d/../d"])
def test_walk_spells_paths_as_pyfilesystem_does(path):
    lower = PlainMemoryFS()
    lower.makedirs("d/sub")
    lower.writetext("d/sub/f", "x")
    with OverlayFS([lower], MemoryFS()) as ofs:
        assert list(ofs.walk.files(path)) == list(Walker().files(lower, path))
        assert list(ofs.walk.dirs(path)) == list(Walker().dirs(lower, path))


@pytest.mark.parametrize("verb", ["copy", "move"])
def test_an_existing_destination_is_told_before_a_missing_or_wrong_source(verb):
    with OverlayFS([MemoryFS()], MemoryFS()) as ofs:
        ofs.makedir("d")
        ofs.touch("f")
        for source in ("missing", "d"):
            with pytest.raises(errors.DestinationExists):
                getattr(ofs, verb)(source, "f")
        for directory in ("d", "/"):
            with pytest.raises(errors.FileExpected):
                getattr(ofs, verb)("f", directory, overwrite=True)


def test_removetree_never_empties_what_a_link_points_to(ofs):
    ofs.makedir("victim").writebytes("keep", b"1")
    ofs.os.symlink("../victim", "/d/out")
    ofs.removetree("d")
    assert ofs.readbytes("victim/keep") == b"1"
    with pytest.raises(errors.DirectoryExpected):
        ofs.removetree("link")


def test_trees_may_be_deeper_than_pythons_stack(ofs):
    path = ""
    for _ in range(300):
        path += "/n"
        ofs.os.mkdir(path)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        ofs.copydir("n", "copy", create=True)
        ofs.movedir("copy", "moved", create=True)
        assert sum(1 for _ in ofs.os.walk("/moved")) == 300
        ofs.removetree("/")
    finally:
        sys.setrecursionlimit(limit)
    assert ofs.listdir("/") == []


def test_copydir_copies_links_as_links_and_keeps_hard_links(ofs):
    ofs.os.symlink("../elsewhere", "/d/out")
    ofs.os.link("/d/f", "/d/f2")
    ofs.os.mknod("/d/fifo", stat.S_IFIFO | 0o600)
    ofs.copydir("d", "copy", create=True)
    assert ofs.os.readlink("/copy/out") == "../elsewhere"
    assert ofs.os.stat("/copy/f").st_ino == ofs.os.stat("/copy/f2").st_ino != ofs.os.stat("/d/f").st_ino
    assert stat.S_ISFIFO(ofs.os.stat("/copy/fifo").st_mode)


def test_copydir_replaces_a_link_instead_of_writing_through_it(ofs):
    ofs.writebytes("victim", b"untouched")
    ofs.makedir("copy")
    ofs.os.symlink("/victim", "/copy/f")
    ofs.copydir("d", "copy")
    assert (ofs.readbytes("victim"), ofs.readbytes("copy/f")) == (b"untouched", b"lower")
    ofs.makedir("copy3")
    ofs.os.symlink("/d", "/copy3/sub")
    with pytest.raises(errors.DirectoryExpected):
        ofs.copydir("d", "copy3")


def test_copydir_with_preserve_time_keeps_the_times_of_directories_too(ofs):
    for path in ("/d/f", "/d/sub", "/d/sub/g"):
        ofs.os.utime(path, ns=(1, 2))
    ofs.copydir("d", "copy", create=True, preserve_time=True)
    assert [ofs.os.stat(path).st_mtime_ns for path in ("/copy/f", "/copy/sub", "/copy/sub/g")] == [2, 2, 2]


# Moving and copying


def test_move_renames_a_link_and_replaces_none_unasked(ofs):
    ofs.move("link", "moved")
    assert ofs.os.readlink("/moved") == "d"
    with pytest.raises(errors.DestinationExists):
        ofs.move("d/f", "dangling")
    with pytest.raises(errors.FileExpected):
        ofs.move("d", "elsewhere")


def test_copy_onto_another_name_of_the_same_file_is_refused(ofs):
    ofs.os.link("/d/f", "/d/f2")
    for other in ("d/f", "d/f2", "link/f"):
        with pytest.raises(IllegalDestination):
            ofs.copy("d/f", other, overwrite=True)
    assert ofs.readbytes("d/f") == b"lower"


def test_movedir_copies_what_rename_can_not_move(ofs, lower):
    ofs.os.chmod("/d/f", 0o600)
    ofs.os.chown("/d/f", 5, 6)
    ofs.os.setxattr("/d/f", "user.a", b"1")
    ofs.os.utime("/d/f", ns=(1, 2))
    with pytest.raises(OSError, match="Invalid cross-device link"):
        ofs.os.rename("/d", "/e")
    ofs.movedir("d", "e", create=True)
    st = ofs.os.stat("/e/f")
    assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns) == (0o600, 5, 6, 2)
    assert ofs.os.getxattr("/e/f", "user.a") == b"1"
    assert files(ofs, "/e") == {"/e/f": b"lower", "/e/sub": None, "/e/sub/g": b"deep"}
    assert not ofs.exists("d")
    assert files(lower) == LOWER_TREE


def test_movedir_merges_into_a_directory_with_names(ofs):
    ofs.makedirs("e/sub")
    ofs.writebytes("e/sub/old", b"old")
    ofs.writebytes("e/f", b"replaced")
    ofs.movedir("d", "e")
    assert files(ofs, "/e") == {"/e/f": b"lower", "/e/sub": None, "/e/sub/g": b"deep", "/e/sub/old": b"old"}
    assert not ofs.exists("d")


def test_movedir_into_itself_is_refused_and_onto_itself_does_nothing(ofs):
    with pytest.raises(IllegalDestination):
        ofs.movedir("d", "d/sub")
    with pytest.raises(IllegalDestination):
        ofs.copydir("d", "d/sub")
    ofs.movedir("d", "d")
    assert files(ofs) == LOWER_TREE


def test_nothing_is_moved_out_of_a_lower_by_system_path(lower, tmp_path):
    (tmp_path / "lower").mkdir()
    (tmp_path / "lower/f").write_bytes(b"1")
    (tmp_path / "out").mkdir()
    with OverlayFS([OSFS(str(tmp_path / "lower"))], MemoryFS()) as ofs:
        with pytest.raises(errors.NoSysPath):
            ofs.getsyspath("f")
        fs.move.move_file(ofs, "f", OSFS(str(tmp_path / "out")), "f")
        assert not ofs.exists("f")
    assert (tmp_path / "lower/f").read_bytes() == (tmp_path / "out/f").read_bytes() == b"1"


# Files


def test_an_open_file_is_raw_io_and_sees_later_writes(ofs):
    reader = ofs.openbin("d/f")
    assert isinstance(reader, io.RawIOBase)
    assert reader.read(2) == b"lo"
    ofs.writebytes("d/f", b"LOWERED")
    assert (reader.read(), reader.readable(), reader.writable(), reader.mode) == (b"WERED", True, False, "rb")


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("r", io.BufferedReader), ("w", io.BufferedWriter), ("a", io.BufferedWriter), ("r+", io.BufferedRandom)],
)
def test_a_buffer_is_there_for_the_asking(ofs, mode, kind):
    with ofs.openbin("d/f", mode, buffering=64) as file:
        assert type(file) is kind


def test_readline_keeps_to_lines_longer_than_it_reads_at_once(ofs):
    lines = [b"a" * 1023 + b"\n", b"b" * 5000 + b"\n", b"\n", b"end"]
    ofs.writebytes("lines", b"".join(lines))
    with ofs.openbin("lines") as file:
        assert file.readline(3) == b"aaa"
        assert file.readline(0) == b""
        assert [*file] == [lines[0][3:], *lines[1:]]
        assert file.tell() == sum(map(len, lines))


def test_a_file_takes_any_buffer_and_no_text(ofs):
    with ofs.openbin("f", "w+") as file:
        assert file.write(memoryview(b"abcdefgh").cast("I")) == 8
        with pytest.raises(TypeError):
            file.write("text")
        file.seek(0)
        buffer = bytearray(5)
        assert (file.readinto(buffer), bytes(buffer)) == (5, b"abcde")


def test_a_closed_file_is_a_value_error(ofs):
    file = ofs.openbin("d/f", "r+")
    file.close()
    file.close()
    for call in (file.read, file.readline, file.tell, file.truncate, file.readable, lambda: file.write(b"")):
        with pytest.raises(ValueError, match="closed file"):
            call()


def test_fileno_is_not_for_sale(ofs):
    with ofs.openbin("d/f") as file, pytest.raises(io.UnsupportedOperation):
        file.fileno()


def test_open_leaves_line_ends_alone_and_buffers_lines_if_asked(ofs):
    ofs.writebytes("crlf", b"a\r\nb\n")
    with ofs.open("crlf") as file:
        assert file.readlines() == ["a\r\n", "b\n"]
    with ofs.open("lines", "w", buffering=1) as file:
        file.write("one\n")
        assert ofs.readtext("lines") == "one\n"


def test_a_copied_file_keeps_its_permissions(ofs):
    ofs.os.chmod("/d/f", 0o640)
    ofs.copy("d/f", "copy", preserve_time=True)
    assert stat.S_IMODE(ofs.os.stat("/copy").st_mode) == 0o640
    assert ofs.os.stat("/copy").st_mtime_ns == ofs.os.stat("/d/f").st_mtime_ns


def test_touch_copies_up_and_writes_nothing(ofs, upper):
    ofs.os.utime("/d/f", ns=(1, 2))
    ofs.touch("d/f")
    assert ofs.readbytes("d/f") == upper.readbytes("d/f") == b"lower"
    assert ofs.os.stat("/d/f").st_mtime_ns > 2


# Info


def test_getinfo_tells_what_os_tells(ofs):
    ofs.os.chown("/d/f", 5, 6)
    ofs.os.chmod("/d/f", 0o4750)
    info = ofs.getinfo("d/f", ["details", "access", "stat", "lstat", "link"])
    st = ofs.os.stat("/d/f")
    assert info.raw["stat"] == info.raw["lstat"] == {name: getattr(st, name) for name in dir(st) if name[:3] == "st_"}
    assert (info.uid, info.gid, info.permissions) == (5, 6, Permissions(mode=0o4750))
    assert (info.size, info.raw["details"]["modified"], info.is_link) == (5, st.st_mtime, False)
    assert ofs.getinfo("d/f").namespaces == {"basic"}


def test_setinfo_sets_what_it_is_given_and_leaves_the_rest(ofs):
    ofs.os.utime("/d/f", ns=(1_000_000_000, 2_000_000_000))
    ofs.setinfo("d/f", {"access": {"permissions": ["u_r", "setuid"], "gid": 7}, "details": {"modified": 3.5}})
    st = ofs.os.stat("/d/f")
    assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid) == (0o4400, 0, 7)
    assert (st.st_atime_ns, st.st_mtime_ns) == (1_000_000_000, 3_500_000_000)


def test_meta_says_what_can_be_done(ofs, lower):
    assert ofs.getmeta()["read_only"] is False
    assert OverlayFS([lower, MemoryFS()]).getmeta()["read_only"] is True
    assert ofs.getmeta()["case_insensitive"] is ofs.getmeta()["supports_rename"] is False


def test_pages_of_scandir_are_slices_of_one_listing(ofs):
    names = ofs.listdir("/")
    pages = [[info.name for info in ofs.scandir("/", page=(start, start + 3))] for start in (0, 3, 6)]
    assert pages == [names[:3], names[3:], []]


# Errors


@pytest.mark.parametrize(
    ("number", "as_file", "as_directory"),
    [
        (errno.ENOENT, errors.ResourceNotFound, errors.ResourceNotFound),
        (errno.ENOTDIR, errors.ResourceNotFound, errors.DirectoryExpected),
        (errno.EEXIST, errors.FileExists, errors.DirectoryExists),
        (errno.EISDIR, errors.FileExpected, errors.FileExpected),
        (errno.ENOTEMPTY, errors.DirectoryNotEmpty, errors.DirectoryNotEmpty),
        (errno.EROFS, errors.ResourceReadOnly, errors.ResourceReadOnly),
        (errno.EPERM, errors.PermissionDenied, errors.PermissionDenied),
        (errno.ENOSPC, errors.InsufficientStorage, errors.InsufficientStorage),
        (errno.EBUSY, errors.ResourceLocked, errors.ResourceLocked),
        (errno.ENAMETOOLONG, errors.InvalidPath, errors.InvalidPath),
        (errno.EOPNOTSUPP, errors.Unsupported, errors.Unsupported),
        (errno.EXDEV, errors.OperationFailed, errors.OperationFailed),
        (errno.EINVAL, errors.OperationFailed, errors.OperationFailed),
    ],
)
def test_an_errno_becomes_an_fs_error_that_keeps_it(number, as_file, as_directory):
    error = OSError(number, "reason", "/p")
    for kind, translated in ((as_file, fs_error(error, "p")), (as_directory, fs_error(error, "p", directory=True))):
        assert type(translated) is kind
        assert (translated.exc, translated.path) == (error, "p")
        assert "p" in str(translated)


def test_an_error_names_the_path_as_it_was_given(ofs):
    with pytest.raises(errors.ResourceNotFound, match=r"^resource 'd//none' not found$") as caught:
        ofs.readbytes("d//none")
    assert caught.value.exc.errno == errno.ENOENT


def test_a_full_memory_fs_is_insufficient_storage():
    with MemoryFS(size=8192) as tree:
        with pytest.raises(errors.InsufficientStorage):
            tree.writebytes("big", b"x" * 10_000)
        tree.writebytes("fits", b"x" * 4096)
    with MemoryFS(nr_inodes=2) as tree:
        tree.makedir("one")
        with pytest.raises(errors.InsufficientStorage):
            tree.makedir("two")


@pytest.mark.parametrize(
    "call",
    [
        lambda tree: tree.writebytes("f", b""),
        lambda tree: tree.makedir("new"),
        lambda tree: tree.remove("d/f"),
        lambda tree: tree.removetree("d"),
        lambda tree: tree.move("d/f", "f"),
        lambda tree: tree.setinfo("d/f", {"details": {"modified": 1}}),
        lambda tree: tree.touch("d/f"),
    ],
)
def test_without_an_upper_everything_is_read_only(lower, call):
    with OverlayFS([lower]) as tree, pytest.raises(errors.ResourceReadOnly):
        call(tree)


def test_names_that_can_not_be_are_invalid(ofs):
    for path in ("a\0b", "\ud800"):
        with pytest.raises(errors.InvalidCharsInPath):
            ofs.makedir(path)
    with pytest.raises(TypeError):
        ofs.exists(b"d")
    with pytest.raises(errors.IllegalBackReference):
        ofs.exists("../d")
    with pytest.raises(errors.InvalidPath):
        ofs.makedir("x" * 256)


# Life


@pytest.mark.parametrize(
    "call",
    [
        *(lambda tree: tree.exists("/"), lambda tree: tree.getinfo("/"), lambda tree: tree.listdir("/")),
        *(lambda tree: tree.isfile("f"), lambda tree: tree.open("f"), lambda tree: tree.readbytes("f")),
        *(lambda tree: tree.makedir("x"), lambda tree: tree.movedir("d", "e"), lambda tree: tree.setinfo("d", {})),
        *(lambda tree: list(tree.scandir("/")), lambda tree: tree.islink("d"), lambda tree: tree.touch("d")),
        lambda tree: OverlayFS([tree]),
    ],
)
def test_a_closed_tree_says_so(ofs, call):
    ofs.close()
    with pytest.raises((errors.FilesystemClosed, MountFailed), match="closed"):
        call(ofs)


def test_close_ends_open_files_and_frees_the_upper_but_closes_no_layer(lower, upper):
    ofs = OverlayFS([lower], upper)
    file = ofs.openbin("new", "w")
    ofs.close()
    ofs.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.write(b"late")
    assert not lower.isclosed()
    with OverlayFS([lower], upper) as again:
        assert again.readbytes("new") == b""


def test_close_layers_closes_them_too(lower, upper):
    OverlayFS([lower], upper, close_layers=True).close()
    assert lower.isclosed()
    assert upper.isclosed()


def test_dropping_a_layers_fs_leaves_the_overlay_whole(lower):
    ofs = OverlayFS([lower], MemoryFS())
    ofs.writebytes("d/f", b"new")
    assert ofs.readbytes("d/f") == b"new"


@linux
def test_a_temp_fs_lives_as_long_as_a_tree_that_stands_on_it(lower):
    osmod = OverlayFS([lower], TempFS()).os
    osmod.mkdir("/new")
    assert "new" in osmod.listdir("/")


def test_a_memory_fs_shows_at_once_what_an_overlay_writes_to_it(ofs, upper):
    assert not upper.exists("d/f")
    ofs.writebytes("d/f", b"new")
    assert upper.readbytes("d/f") == b"new"
    ofs.remove("d/f")
    assert stat.S_ISCHR(upper.os.lstat("/d/f").st_mode)
    ofs.makedir("d/f")
    assert upper.os.getxattr("/d/f", OPAQUE) == b"y"


# Layers


@linux
@pytest.mark.parametrize("kind", ["path", "pathlike", "url", "osfs", "subfs"])
def test_a_host_directory_is_used_with_all_it_can_hold_however_it_is_given(lower, tmp_path, kind):
    place = tmp_path / "u"
    place.mkdir()
    given = {
        "path": str(place),
        "pathlike": place,
        "url": f"osfs://{place}",
        "osfs": OSFS(str(place)),
        "subfs": OSFS(str(tmp_path)).opendir("u"),
    }
    with OverlayFS([lower], given[kind]) as ofs:
        ofs.remove("d/f")
        ofs.removetree("d/sub")
        ofs.makedir("d/sub")
    st = os.lstat(place / "d/f")
    assert stat.S_ISCHR(st.st_mode)
    assert st.st_rdev == 0
    assert os.getxattr(place / "d/sub", OPAQUE) == b"y"


@linux
def test_a_subclass_of_osfs_is_an_ordinary_pyfilesystem(lower, tmp_path):
    class Mine(OSFS):
        pass

    with OverlayFS([lower], Mine(str(tmp_path))) as ofs:
        ofs.remove("d/f")
        assert not ofs.exists("d/f")
    assert not os.path.lexists(tmp_path / "d/f")


def test_a_directory_of_a_memory_fs_is_a_layer_of_the_same_file_system(lower):
    place = MemoryFS()
    place.makedirs("l")
    place.writebytes("l/f", b"1")
    with OverlayFS([place.opendir("l")], place.makedir("u")) as ofs:
        ofs.remove("f")
        assert ofs.os.stat("/").st_ino == place.os.stat("/u").st_ino
    assert place.os.lstat("/u/f").st_rdev == 0
    assert stat.S_ISCHR(place.os.lstat("/u/f").st_mode)


def test_an_overlay_is_a_lower_of_another_and_no_upper(ofs, lower):
    ofs.remove("d/f")
    ofs.writebytes("new", b"1")
    with OverlayFS([ofs], MemoryFS()) as above:
        above.remove("new")
        above.appendbytes("d/sub/g", b"er")
        assert files(above) == {k: v for k, v in LOWER_TREE.items() if k != "/d/f"} | {"/d/sub/g": b"deeper"}
    assert ofs.readbytes("new") == b"1"
    with OverlayFS([SubFS(ofs, "d")]) as below_d:
        assert below_d.listdir("/") == ["sub"]
    with pytest.raises(MountFailed, match="can't hold whiteouts") as caught:
        OverlayFS([lower], ofs)
    assert caught.value.errno == errno.EINVAL


def test_a_plain_pyfilesystem_and_a_url_are_layers(upper, tmp_path):
    plain = PlainMemoryFS()
    plain.writetext("plain", "1")
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("sub/zipped", "2")
    with OverlayFS([read_only(plain), f"zip://{tmp_path}/z.zip!/sub"], upper) as ofs:
        assert sorted(ofs.listdir("/")) == ["plain", "zipped"]
        assert ofs.readtext("zipped") == "2"
    assert not plain.isclosed()


def test_an_fsspec_file_system_and_a_url_only_fsspec_knows_are_layers(upper):
    store = fsspec.filesystem("memory")
    store.pipe({"/overlayvfs-face/a/f": b"1", "/overlayvfs-face/b/g": b"2"})
    with OverlayFS([DirFileSystem("/overlayvfs-face/a", store), "memory://overlayvfs-face/b"], upper) as ofs:
        ofs.writebytes("f", b"new")
        assert (ofs.listdir("/"), ofs.readbytes("g")) == (["g", "f"], b"2")
    assert store.cat("/overlayvfs-face/a/f") == b"1"


def test_a_layer_may_be_given_as_it_is_and_is_left_open(lower, upper):
    layer = PyFsLayer(PlainMemoryFS())
    with OverlayFS([layer], upper) as ofs:
        ofs.makedir("new")
    assert layer.listdir("") == []


# Bad input


@pytest.mark.parametrize("lowers", ["/", b"/", PlainMemoryFS(), None, 7])
def test_lowers_have_to_be_a_sequence_of_layers(lowers):
    with pytest.raises(TypeError, match=r"^lowers: expected a sequence of layers, highest first, not "):
        OverlayFS(lowers)


def test_what_is_no_layer_is_a_type_error_that_names_it(lower, upper):
    with pytest.raises(TypeError, match=r"^lower 2: expected an FS, an FS URL or a path, not int$"):
        OverlayFS([lower, 7], upper)
    with pytest.raises(TypeError, match=r"^workdir: "):
        OverlayFS([lower], upper, workdir=7)


def closed():
    layer = PlainMemoryFS()
    layer.close()
    return layer


def within(make):
    place = make()
    place.makedirs("a/b")
    return place


@pytest.mark.parametrize(
    ("lowers", "upper", "workdir", "number", "text"),
    [
        ([], None, None, errno.EINVAL, "at least one layer"),
        (["/no/where"], None, None, errno.ENOENT, r"lower 1.*/no/where"),
        (["osfs:///no/where"], None, None, errno.ENOENT, "lower 1.*osfs:///no/where"),
        (["nosuch://x"], None, None, errno.EINVAL, "nosuch.*lower 1"),
        ([closed()], None, None, errno.EBADF, "closed.*lower 1"),
        ([MemoryFS()], closed(), None, errno.EBADF, "closed.*upper"),
        ([MemoryFS()], read_only(PlainMemoryFS()), None, errno.EROFS, "upper"),
        ([MemoryFS()], "/no/where", None, errno.ENOENT, "upper"),
        ([MemoryFS()], MemoryFS(), MemoryFS(), errno.EINVAL, "workdir.*same file system"),
        ([MemoryFS()], MemoryFS(), "/no/where", errno.ENOENT, "workdir"),
    ],
)
def test_a_layer_that_can_not_be_used_is_refused_by_name(lowers, upper, workdir, number, text):
    with pytest.raises(MountFailed, match=text) as caught:
        OverlayFS(lowers, upper, workdir=workdir)
    assert isinstance(caught.value, errors.CreateFailed)
    assert isinstance(caught.value, OSError)
    assert caught.value.errno == caught.value.exc.errno == number
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("make", [MemoryFS, pytest.param(TempFS, marks=linux), PlainMemoryFS])
def test_overlapping_layers_are_eloop_and_overlapping_workdirs_einval(make):
    place = within(make)
    a, b, c = place.opendir("a"), place.opendir("a/b"), place.makedir("c")
    for lowers, upper, workdir, number in [
        ([a], a, None, errno.ELOOP),
        ([a, a], c, None, errno.ELOOP),
        ([a, b], c, None, errno.ELOOP),
        ([b], a, None, errno.ELOOP),
        ([a], b, None, errno.ELOOP),
        ([c], a, b, errno.EINVAL),
        ([c], b, a, errno.EINVAL),
    ]:
        with pytest.raises(MountFailed) as caught:
            OverlayFS(lowers, upper, workdir=workdir)
        assert caught.value.errno == number, (lowers, upper, workdir)


def test_the_upper_of_a_live_overlay_is_busy(ofs, lower, upper):
    with pytest.raises(MountFailed, match="close that first") as caught:
        OverlayFS([lower], upper)
    assert caught.value.errno == errno.EBUSY


@pytest.mark.parametrize(
    "option", [{"redirect_dir": "maybe"}, {"index": "yes"}, {"xino": 3}, {"metacopy": True, "redirect_dir": "off"}]
)
def test_an_option_mount_does_not_know_is_einval_by_name(lower, upper, option):
    with pytest.raises(MountFailed, match=next(iter(option))) as caught:
        OverlayFS([lower], upper, **option)
    assert caught.value.errno == errno.EINVAL
    OverlayFS([lower], upper).close()


# Other doors


def test_the_tree_can_be_copied_out_by_pyfilesystems_own_tools(ofs):
    ofs.os.unlink("/link")
    ofs.os.unlink("/dangling")
    ofs.os.unlink("/loop")
    out = open_fs("mem://")
    fs.copy.copy_fs(ofs, out)
    assert out.readbytes("d/sub/g") == b"deep"


def test_names_and_layers_show_in_text(ofs):
    assert str(ofs) == "lowerdir=memory,upperdir=memory,userxattr"
    assert repr(ofs) == "<OverlayFS lowerdir=memory,upperdir=memory,userxattr>"
    assert repr(MemoryFS(4096)) == "MemoryFS(4096, None)"
