"""Overlays as mount(8) spells them: `from_options`, `str(ofs)` and the `overlay://` opener."""

import errno
import os
import stat
import sys

import pytest
from fs import open_fs
from fs.opener import registry
from fs.opener.errors import NotWriteable

from overlayvfs import MemoryFS, MountFailed, OverlayFS
from overlayvfs.faces.opener import OverlayOpener

linux = pytest.mark.skipif(sys.platform != "linux", reason="host directories as layers need Linux")
pytestmark = linux


@pytest.fixture
def place(tmp_path):
    for name in ("a", "b:c", "b,d", "b\\e", "u", "w"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"in {name}").touch()
    return tmp_path


def test_from_options_takes_mounts_own_spelling(place):
    text = f"lowerdir={place}/a:{place}/b\\:c:{place}/b\\,d,upperdir={place}/u,workdir={place}/w,redirect_dir=follow"
    with OverlayFS.from_options(text) as ofs:
        assert sorted(ofs.listdir("/")) == ["in a", "in b,d", "in b:c", "in u"]
        assert str(ofs) == text
        ofs.remove("in a")
    assert stat.S_ISCHR(os.lstat(place / "u/in a").st_mode)


def test_what_str_says_opens_the_same_overlay_again(place):
    lowers = [str(place / name) for name in ("a", "b:c", "b,d", "b\\e")]
    options = {"metacopy": True, "index": True, "xino": "on"}
    with OverlayFS(lowers, place / "u", workdir=place / "w", **options) as ofs:
        text, names = str(ofs), ofs.listdir("/")
    assert text.endswith(f"workdir={place}/w,redirect_dir=on,index=on,metacopy=on,xino=on,userxattr")
    with OverlayFS.from_options(text) as again:
        assert (str(again), again.listdir("/")) == (text, names)


def test_lowerdir_plus_adds_one_lower_with_its_name_as_it_is(place):
    with OverlayFS.from_options(f"lowerdir+={place}/a,lowerdir+={place}/b:c") as ofs:
        assert sorted(ofs.listdir("/")) == ["in a", "in b:c"]


def test_names_of_data_only_lowers_never_show(place):
    spellings = (
        f"lowerdir={place}/a::{place}/b\\:c::{place}/u",
        f"lowerdir+={place}/a,datadir+={place}/b:c,datadir+={place}/u",
    )
    for text in spellings:
        with OverlayFS.from_options(text) as ofs:
            assert ofs.listdir("/") == ["in a"]
            assert str(ofs) == f"{spellings[0]}"


def test_a_layer_may_be_an_fs_url(place):
    with OverlayFS.from_options(f"lowerdir={place}/a:osfs\\://{place}/u,upperdir=mem\\://") as ofs:
        ofs.remove("in a")
        assert ofs.listdir("/") == ["in u"]
        assert str(ofs) == f"lowerdir={place}/a:osfs\\://{place}/u,upperdir=mem\\://"


def test_marks_are_trusted_unless_userxattr_is_there():
    for flag, namespace in (("", "trusted"), (",userxattr", "user")):
        ofs = OverlayFS.from_options(f"lowerdir=mem\\://{flag}")
        assert str(ofs).endswith(flag or "://")
        assert ofs._overlay.options.userxattr is (namespace == "user")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        *(("", "lowerdir"), ("upperdir=/u", "lowerdir"), ("lowerdir=", "lowerdir"), ("lowerdir", "lowerdir")),
        *(
            ("lowerdir=/:", "no empty names"),
            ("lowerdir=:/", "no empty names"),
            ("lowerdir=/:::/usr", "no empty names"),
        ),
        *(("lowerdir=::/", "data-only"), ("lowerdir=/::", "data-only"), ("lowerdir=/::/usr:/bin", "data-only")),
        *(("datadir+=/", "lowerdir"), ("lowerdir+=/,datadir+=/usr,lowerdir+=/bin", "data-only")),
        *(("lowerdir=/,lowerdir+=/usr", "two ways"), ("lowerdir=/::/usr,datadir+=/bin", "two ways")),
        *(("lowerdir=/,verity=on", "verity"), ("lowerdir=/,index", "index"), ("lowerdir=/,uuid=on", "uuid")),
        *(
            ("lowerdir=/,index=maybe", "index"),
            ("lowerdir=/,volatile=on", "volatile"),
            ("lowerdir=/,nfs_export=on", "nfs_export"),
        ),
    ],
)
def test_options_it_does_not_know_are_einval_by_name(text, named):
    with pytest.raises(MountFailed, match=named) as caught:
        OverlayFS.from_options(text)
    assert caught.value.errno == errno.EINVAL


@pytest.fixture
def opener(monkeypatch):
    # As installed, the entry point in pyproject.toml does this; a bare checkout has none.
    monkeypatch.setattr(registry, "_protocols", dict(registry._protocols))
    registry.install(OverlayOpener)


def test_open_fs_opens_an_overlay(opener, place):
    with open_fs(f"overlay://lowerdir={place}/a:{place}/b%5C:c,upperdir={place}/u,workdir={place}/w") as ofs:
        assert isinstance(ofs, OverlayFS)
        assert ofs.exists("in b:c")


def test_open_fs_refuses_to_call_a_read_only_overlay_writable(opener, place):
    with pytest.raises(NotWriteable):
        open_fs(f"overlay://lowerdir={place}/a", writeable=True)


def test_the_entry_point_names_the_opener():
    import tomllib
    from importlib import import_module
    from pathlib import Path

    project = tomllib.loads(Path(__file__).parent.parent.joinpath("pyproject.toml").read_text())
    module, _, name = project["project"]["entry-points"]["fs.opener"]["overlay"].partition(":")
    assert getattr(import_module(module), name) is OverlayOpener


def test_a_memory_upper_and_flags_show_in_the_options(place):
    with OverlayFS([place / "a"], MemoryFS(), volatile=True) as ofs:
        assert str(ofs) == f"lowerdir={place}/a,upperdir=memory,userxattr,volatile"
