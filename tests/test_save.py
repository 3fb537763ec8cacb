"""An upper saved to one file and loaded again is the same upper, mark for mark."""

import errno
import os
import stat
import subprocess
import tarfile

import pytest
from fs.memoryfs import MemoryFS as PlainMemoryFS

from overlayvfs import MemoryFS, MountFailed, OverlayFS
from overlayvfs.abi import makedev
from overlayvfs.layers.base import INDEX, WORK
from overlayvfs.layers.memory import MemoryLayer
from overlayvfs.testing.conformance.trees import raises_errno, read_tree
from overlayvfs.workspace.save import load


@pytest.fixture
def lower():
    lower = MemoryFS()
    lower.makedirs("d/sub").writetext("f", "deep")
    lower.writetext("a", "lower a")
    lower.writetext("gone", "x")
    lower.makedir("old").writetext("f", "f")
    return lower


def change(ofs):
    """Leave one of everything in the upper."""
    os_ = ofs.os
    ofs.remove("gone")
    ofs.removetree("old")
    ofs.makedir("old")
    ofs.appendtext("a", "!")
    os_.rename("/d", "/moved")
    os_.symlink("../else/where", "/link")
    os_.link("/a", "/moved/a-too")
    os_.mknod("/null", stat.S_IFCHR | 0o666, makedev(1, 3))
    os_.mknod("/fifo", stat.S_IFIFO | 0o640)
    os_.setxattr("/a", "user.bytes", bytes(range(256)))
    os_.setxattr("/a", "user.odd=%3D", b"")
    os_.mkdir("/caf\u00e9 \udcff" + "n" * 150)
    os_.chown("/link", 70000, 3, follow_symlinks=False)
    os_.chmod("/moved", 0o2751)
    with ofs.open("holes", "wb") as file:
        file.write(b"start")
        file.seek(1 << 20)
        file.write(b"middle")
        file.truncate(4 << 20)
    # Made anew when it is loaded: only so it is still the newest name there.
    os_.mknod("/socket", stat.S_IFSOCK | 0o600)
    os_.setxattr("/socket", "trusted.s", b"1")
    os_.utime("/a", ns=(1_600_000_000_123_456_789, -1))
    os_.utime("/moved", ns=(5, 1_700_000_000_000_000_001))


def facts(layer):
    """All a layer shows of each object but its device and ctime."""
    tree = {}
    for path in ["", *read_tree(layer)]:
        st = layer.lstat(path)
        tree[path] = st._replace(st_ino=0, st_dev=0, st_ctime_ns=0), read_tree(layer).get(path)
    return tree


def listings(layer, path=""):
    entries = layer.listdir(path)
    shown = {path: [entry.d_name for entry in entries]}
    for entry in entries:
        if entry.d_type == stat.S_IFDIR:
            shown |= listings(layer, f"{path}/{entry.d_name}")
    return shown


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.zst"])
def test_a_saved_upper_loads_as_it_was(lower, tmp_path, suffix):
    upper = MemoryFS()
    ofs = OverlayFS([lower], upper, redirect_dir="on")
    change(ofs)
    ofs.save(tmp_path / f"layer.{suffix}")
    ofs.close()
    loaded, original = load(tmp_path / f"layer.{suffix}"), upper._overlayvfs_layer("")
    assert facts(loaded) == facts(original)
    assert listings(loaded) == listings(original)
    assert loaded.lstat("/a").st_ino == loaded.lstat("/moved/a-too").st_ino


def test_an_overlay_over_a_saved_upper_shows_the_same_tree(lower, tmp_path):
    saved = str(tmp_path / "layer.tar")
    with OverlayFS([lower], MemoryFS(), redirect_dir="on") as ofs:
        change(ofs)
        shown = read_tree(OverlayFS([ofs])._overlayvfs_layer(""))
        ofs.save(saved)
    again = OverlayFS([lower], saved, redirect_dir="on")
    assert read_tree(again._overlayvfs_layer("")) == shown
    assert again.readtext("moved/f" if again.exists("moved/f") else "moved/sub/f") == "deep"


def test_the_file_changes_only_when_it_is_saved_again(lower, tmp_path):
    saved = str(tmp_path / "layer.tar")
    with OverlayFS([lower], MemoryFS()) as ofs:
        ofs.writetext("mine", "one")
        ofs.save(saved)
    before = (tmp_path / "layer.tar").read_bytes()
    with OverlayFS([lower], saved) as ofs:
        ofs.writetext("mine", "two")
        assert (tmp_path / "layer.tar").read_bytes() == before
        ofs.save(saved)
    assert OverlayFS([lower], saved).readtext("mine") == "two"
    assert os.listdir(tmp_path) == ["layer.tar"]


def test_saving_twice_makes_the_same_bytes(lower, tmp_path):
    ofs = OverlayFS([lower], MemoryFS(), redirect_dir="on")
    change(ofs)
    for name in ("one.tar.gz", "two.tar.gz"):
        ofs.save(tmp_path / name)
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()


def test_the_index_of_hard_links_is_saved_with_the_upper(tmp_path):
    lower = MemoryFS()
    lower.writetext("one", "x")
    lower.os.link("/one", "/two")
    saved = str(tmp_path / "layer.tar")
    with OverlayFS([lower], MemoryFS(), index=True) as ofs:
        ofs.makedir("index")
        ofs.appendtext("one", "y")
        ofs.remove("one")
        ofs.save(saved)
    with OverlayFS([lower], saved, index=True) as ofs:
        assert ofs.readtext("two") == "xy"
        assert sorted(ofs.listdir("/")) == ["index", "two"]
        assert ofs.listdir("index") == []
    assert len(load(saved).listdir(INDEX)) == 1


def test_what_is_being_made_ready_is_not_saved(lower, tmp_path):
    with OverlayFS([lower], MemoryFS()) as ofs:
        ofs.remove("gone")
        ofs.save(tmp_path / "layer.tar")
    with tarfile.open(tmp_path / "layer.tar") as archive:
        assert archive.getnames() == [".", "gone"]
    with raises_errno(errno.ENOENT):
        load(tmp_path / "layer.tar").listdir(WORK)


def test_an_upper_of_wh_names_is_saved_in_the_kernels_terms(lower, tmp_path):
    with OverlayFS([lower], PlainMemoryFS()) as ofs:
        ofs.remove("gone")
        ofs.removetree("old")
        ofs.makedir("old").writetext("new", "n")
        ofs.save(tmp_path / "layer.tar")
    with OverlayFS([lower], str(tmp_path / "layer.tar")) as ofs:
        assert sorted(ofs.listdir("/")) == ["a", "d", "old"]
        assert ofs.listdir("old") == ["new"]
    layer = load(tmp_path / "layer.tar")
    assert (layer.lstat("/gone").st_mode, layer.lstat("/gone").st_rdev) == (stat.S_IFCHR, 0)


@pytest.mark.skipif(os.name != "posix" or not hasattr(os, "mknod") or os.geteuid() != 0, reason="makes device nodes")
def test_tar_extracts_a_saved_upper_as_one_the_kernel_knows(lower, tmp_path):
    with OverlayFS([lower], MemoryFS()) as ofs:
        ofs.remove("gone")
        ofs.appendtext("a", "!")
        ofs.os.truncate("/a", 1 << 20)
        ofs.os.utime("/a", ns=(5, 1_600_000_000_123_456_789))
        ofs.save(tmp_path / "layer.tar")
    upper = tmp_path / "upper"
    upper.mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "layer.tar", "-C", upper], check=True)
    assert stat.S_ISCHR(os.lstat(upper / "gone").st_mode) and os.lstat(upper / "gone").st_rdev == 0
    assert (upper / "a").read_bytes() == b"lower a!".ljust(1 << 20, b"\0")
    assert os.stat(upper / "a").st_mtime_ns == 1_600_000_000_123_456_789
    assert os.stat(upper / "a").st_blocks * 512 < 1 << 20


def test_wh_names_of_a_saved_upper_are_names(tmp_path):
    with OverlayFS([MemoryFS()], MemoryFS()) as ofs:
        ofs.writetext(".wh.f", "mine")
        ofs.save(tmp_path / "layer.tar")
    with OverlayFS([MemoryFS()], str(tmp_path / "layer.tar")) as ofs:
        assert ofs.readtext(".wh.f") == "mine"


def test_a_layer_of_an_image_can_be_an_upper_too(lower, tmp_path):
    with tarfile.open(tmp_path / "layer.tar", "w") as archive:
        for name in (".wh.gone", "old/.wh..wh..opq", "new"):
            archive.addfile(tarfile.TarInfo(name))
    with OverlayFS([lower], str(tmp_path / "layer.tar")) as ofs:
        assert sorted(ofs.listdir("/")) == ["a", "d", "new", "old"]
        assert ofs.listdir("old") == []


def test_a_failed_save_leaves_the_old_file_and_nothing_else(lower, tmp_path, monkeypatch):
    (tmp_path / "layer.tar").write_bytes(b"old")
    ofs = OverlayFS([lower], MemoryFS())
    ofs.writetext("f", "text")

    def fail(self, path, *, writable=False):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(MemoryLayer, "open", fail)
    with raises_errno(errno.EIO):
        ofs.save(tmp_path / "layer.tar")
    assert os.listdir(tmp_path) == ["layer.tar"]
    assert (tmp_path / "layer.tar").read_bytes() == b"old"


@pytest.mark.parametrize(("where", "error"), [("no/x.tar", errno.ENOENT), ("d", errno.EISDIR)])
def test_save_where_it_can_not_be_names_the_path_that_was_given(lower, tmp_path, where, error):
    (tmp_path / "d").mkdir()
    with OverlayFS([lower], MemoryFS()) as ofs, raises_errno(error) as caught:
        ofs.save(tmp_path / where)
    assert (caught.value.filename, caught.value.filename2) == (str(tmp_path / where), None)
    assert os.listdir(tmp_path) == ["d"]


def test_without_an_upper_there_is_nothing_to_save(lower, tmp_path):
    with raises_errno(errno.EROFS):
        OverlayFS([lower]).save(tmp_path / "layer.tar")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("content", "number"), [(b"no archive at all", errno.EINVAL), (b"", errno.EINVAL)])
def test_a_file_that_is_no_archive_is_no_upper(lower, tmp_path, content, number):
    (tmp_path / "layer.tar").write_bytes(content)
    with pytest.raises(MountFailed) as failed:
        OverlayFS([lower], str(tmp_path / "layer.tar"))
    assert failed.value.errno == number


def test_an_archive_as_upper_takes_no_workdir(lower, tmp_path):
    with OverlayFS([lower], MemoryFS()) as ofs:
        ofs.save(tmp_path / "layer.tar")
    with pytest.raises(MountFailed, match="workdir"):
        OverlayFS([lower], str(tmp_path / "layer.tar"), workdir=str(tmp_path))


# Beside the kernel


def in_a_kernel_mount(where, script):
    """Return what `script` prints in a real overlay mount of `where`'s lower, upper and work; root only."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("trusted.* attributes need root")
    mount = "mount -t overlay overlay -o redirect_dir=on,lowerdir=lower,upperdir=upper,workdir=work merged"
    for name in ("upper", "work", "merged"):
        (where / name).mkdir(exist_ok=True)
    run = {"cwd": where, "capture_output": True, "text": True}
    tried = subprocess.run(["unshare", "--mount", "sh", "-ec", mount], check=False, **run)
    if tried.returncode:
        pytest.skip(f"no overlay mount to be had here: {tried.stderr.strip()}")
    return subprocess.run(["unshare", "--mount", "sh", "-ec", f"{mount}; {script}"], check=True, **run).stdout


@pytest.fixture
def host(tmp_path):
    (tmp_path / "lower" / "d" / "sub").mkdir(parents=True)
    (tmp_path / "lower" / "d" / "sub" / "f").write_text("deep")
    (tmp_path / "lower" / "old").mkdir()
    (tmp_path / "lower" / "old" / "f").write_text("old")
    (tmp_path / "lower" / "a").write_text("lower a")
    return tmp_path


@pytest.mark.kernel
def test_the_kernel_mounts_what_tar_extracts_and_shows_the_same(host):
    (host / "upper").mkdir()
    in_a_kernel_mount(host, "true")
    with OverlayFS([str(host / "lower")], MemoryFS(), userxattr=False, redirect_dir="on") as ofs:
        ofs.os.rename("/d", "/moved")
        ofs.removetree("old")
        ofs.makedir("old").writetext("new", "n")
        ofs.appendtext("a", "!")
        ofs.os.link("/a", "/moved/b")
        ofs.save(host / "layer.tar.gz")
        shown = sorted(path for path in ofs.walk.files())
    extract = ["tar", "--xattrs", "--xattrs-include=*", "-xf", "layer.tar.gz", "-C", "upper"]
    subprocess.run(extract, cwd=host, check=True, capture_output=True)
    theirs = in_a_kernel_mount(host, "cd merged; find . -type f | sort; cat moved/sub/f old/new moved/b")
    assert theirs.splitlines() == [*(f".{path}" for path in shown), "deepnlower a!"]


@pytest.mark.kernel
def test_an_upper_the_kernel_left_is_loaded_from_what_tar_packed(host):
    change = "cd merged; mv d moved; rm -r old; mkdir old; echo n > old/new; echo '!' >> a; ln a moved/b; cd ..;"
    theirs = in_a_kernel_mount(host, f"{change} cd merged; find . -mindepth 1")
    pack = ["tar", "--xattrs", "--xattrs-include=*", "-C", "upper", "-cf", "layer.tar", "."]
    subprocess.run(pack, cwd=host, check=True, capture_output=True)
    ofs = OverlayFS([str(host / "lower")], str(host / "layer.tar"), userxattr=False, redirect_dir="on")
    assert sorted(ofs.walk.files()) == ["/a", "/moved/b", "/moved/sub/f", "/old/new"]
    assert ofs.readtext("moved/b") == "lower a!\n"
    assert ofs.readtext("moved/sub/f") == "deep"
    assert sorted(f".{path}" for path in [*ofs.walk.files(), *ofs.walk.dirs()]) == sorted(theirs.splitlines())
