"""An exported layer, stacked on the same lowers, shows what the overlay showed."""

import errno
import os
import random
import stat
import tarfile

import pytest
from fs.errors import FSError

from overlayvfs import MemoryFS, OverlayFS
from overlayvfs.abi import makedev
from overlayvfs.layers.tar import TarLayer
from overlayvfs.marks import USER
from overlayvfs.testing.conformance.trees import raises_errno


def shown(ofs):
    """All a merged tree shows but what a layer does not hold: the root's attributes, atimes, ctimes, sockets."""
    tree, numbers = {}, {}
    for path, dirs, files in ofs.os.walk("/"):
        for name in (*dirs, *files):
            at = os.path.join(path, name)
            st = ofs.os.lstat(at)
            if stat.S_ISSOCK(st.st_mode):
                continue
            content = None
            if stat.S_ISREG(st.st_mode):
                content = ofs.readbytes(at)
            elif stat.S_ISLNK(st.st_mode):
                content = ofs.os.readlink(at)
            keys = ofs.os.listxattr(at, follow_symlinks=False)
            xattrs = {key: ofs.os.getxattr(at, key, follow_symlinks=False) for key in keys}
            first = at if stat.S_ISDIR(st.st_mode) else numbers.setdefault((st.st_dev, st.st_ino), at)
            mtime = None if stat.S_ISDIR(st.st_mode) else st.st_mtime_ns
            tree[at] = st.st_mode, st.st_uid, st.st_gid, mtime, st.st_rdev, content, xattrs, first
    return tree


def exported(lowers, ofs, path):
    """What the lowers show under the exported layer."""
    ofs.export_layer(path)
    return OverlayFS([TarLayer(str(path), whiteouts=True, marks=[USER]), *lowers])


@pytest.fixture
def lower():
    lower = MemoryFS()
    lower.makedirs("d/sub").writetext("f", "deep")
    lower.writetext("d/g", "g")
    lower.writetext("a", "lower a")
    lower.writetext("gone", "x")
    lower.makedir("old").writetext("f", "f")
    return lower


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.zst"])
def test_a_layer_shows_the_same_tree_on_the_same_lowers(lower, tmp_path, suffix):
    ofs = OverlayFS([lower], MemoryFS())
    ofs.remove("gone")
    ofs.removetree("old")
    ofs.makedir("old").writetext("new", "n")
    ofs.appendtext("a", "!")
    ofs.os.symlink("a", "/link")
    ofs.os.link("/a", "/d/a-too")
    ofs.os.mknod("/null", stat.S_IFCHR | 0o666, makedev(1, 3))
    ofs.os.mknod("/socket", stat.S_IFSOCK | 0o666)
    ofs.os.setxattr("/a", "user.k", b"\xff\0")
    ofs.os.chown("/a", 1000, 1001)
    ofs.os.chmod("/a", 0o4711)
    ofs.os.utime("/a", ns=(5, 1_600_000_000_123_456_789))
    assert shown(exported([lower], ofs, tmp_path / f"layer.{suffix}")) == shown(ofs)


def test_whiteouts_are_wh_names_before_their_siblings(lower, tmp_path):
    ofs = OverlayFS([lower], MemoryFS())
    ofs.remove("gone")
    ofs.removetree("old")
    ofs.makedir("old").writetext("new", "n")
    ofs.touch("a-file")
    ofs.export_layer(tmp_path / "layer.tar")
    with tarfile.open(tmp_path / "layer.tar") as archive:
        assert archive.getnames() == [".wh.gone", "a-file", "old", "old/.wh..wh..opq", "old/new"]
        marks = [member for member in archive if member.name.rpartition("/")[2].startswith(".wh.")]
        assert all(member.isreg() and member.size == 0 for member in marks)


def test_no_mark_leaves_the_overlay(lower, tmp_path):
    ofs = OverlayFS([lower], MemoryFS(), redirect_dir="on", metacopy=True)
    ofs.os.chmod("/a", 0o600)
    ofs.os.setxattr("/a", "user.overlay.mine", b"nested")
    ofs.os.rename("/d", "/moved")
    ofs.export_layer(tmp_path / "layer.tar")
    with tarfile.open(tmp_path / "layer.tar") as archive:
        records = {key for member in archive for key in member.pax_headers}
    assert {key for key in records if "overlay" in key} == {"SCHILY.xattr.user.overlay.mine"}


def test_a_renamed_directory_comes_whole(lower, tmp_path):
    ofs = OverlayFS([lower], MemoryFS(), redirect_dir="on")
    ofs.os.rename("/d", "/moved")
    ofs.os.rename("/moved/sub", "/old/sub")
    ofs.writetext("moved/new", "n")
    layer = exported([lower], ofs, tmp_path / "layer.tar")
    assert shown(layer) == shown(ofs)
    assert layer.readtext("old/sub/f") == "deep"


def test_a_metacopy_file_comes_with_its_data(lower, tmp_path):
    ofs = OverlayFS([lower], MemoryFS(), metacopy=True)
    ofs.os.chmod("/a", 0o600)
    assert exported([lower], ofs, tmp_path / "layer.tar").readtext("a") == "lower a"


def test_a_host_upper_is_exported_as_any(lower, tmp_path):
    (tmp_path / "upper").mkdir()
    ofs = OverlayFS([lower], str(tmp_path / "upper"))
    ofs.remove("gone")
    ofs.appendtext("a", "!")
    assert shown(exported([lower], ofs, tmp_path / "layer.tar")) == shown(ofs)


@pytest.mark.parametrize("seed", range(20))
def test_after_random_changes_the_layer_shows_the_same_tree(lower, tmp_path, seed):
    chance = random.Random(seed)
    ofs = OverlayFS([lower], MemoryFS(), redirect_dir=chance.choice(["on", "off"]))
    names = ["/a", "/d", "/d/sub", "/d/sub/f", "/d/g", "/gone", "/old", "/old/f", "/n", "/d/n", "/n/m"]
    verbs = [
        lambda: ofs.os.unlink(chance.choice(names)),
        lambda: ofs.removetree(chance.choice(names)),
        lambda: ofs.os.mkdir(chance.choice(names)),
        lambda: ofs.os.rename(chance.choice(names), chance.choice(names)),
        lambda: ofs.os.link(chance.choice(names), chance.choice(names)),
        lambda: ofs.os.symlink("/a", chance.choice(names)),
        lambda: ofs.appendtext(chance.choice(names), "more"),
        lambda: ofs.os.chmod(chance.choice(names), chance.choice([0o700, 0o755, 0o644])),
        lambda: ofs.os.setxattr(chance.choice(names), "user.k", b"v"),
    ]
    for _ in range(25):
        try:
            chance.choice(verbs)()
        except (OSError, FSError):
            pass
    assert shown(exported([lower], ofs, tmp_path / "layer.tar")) == shown(ofs)


def test_the_same_changes_make_the_same_bytes(lower, tmp_path):
    ofs = OverlayFS([lower], MemoryFS())
    for name in "zyx":
        ofs.writetext(name, name)
        ofs.os.utime(f"/{name}", ns=(1, 1))
    again = ofs.fork()
    again.readtext("x")
    ofs.export_layer(tmp_path / "one.tar.gz")
    again.export_layer(tmp_path / "two.tar.gz")
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()


def test_a_name_that_would_be_a_whiteout_is_refused(lower, tmp_path):
    ofs = OverlayFS([lower], MemoryFS())
    ofs.touch(".wh.mine")
    with raises_errno(errno.EINVAL):
        ofs.export_layer(tmp_path / "layer.tar")
    assert os.listdir(tmp_path) == []


def test_without_an_upper_there_is_no_layer(lower, tmp_path):
    with raises_errno(errno.EROFS):
        OverlayFS([lower]).export_layer(tmp_path / "layer.tar")
