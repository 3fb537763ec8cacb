"""Overlays as mount(8) spells them: `from_options`, `str(ofs)` and the `overlay://` opener."""

import errno
import itertools
import os
import stat
import sys
from pathlib import Path

import pytest
from fs import open_fs
from fs.opener import registry
from fs.opener.errors import NotWriteable

from overlayvfs import MemoryFS, MountFailed, OverlayFS
from overlayvfs.faces.opener import OverlayOpener
from overlayvfs.testing import Stack
from overlayvfs.testing.bodies import EngineOnHost

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
    assert text.endswith(f"workdir={place}/w,redirect_dir=on,index=on,xino=on,metacopy=on,userxattr")
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
        ("lowerdir=/,fsync=strict", "fsync"),
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


OPTION_VALUES = {
    "redirect_dir": (None, "on", "off", "follow", "nofollow"),
    "metacopy": (None, "on", "off"),
    "index": (None, "on", "off"),
    "xino": (None, "on", "off", "auto"),
    "volatile": (None, "on"),
}
OPTION_SETS = [
    {name: value for name, value in zip(OPTION_VALUES, chosen, strict=True) if value is not None}
    for chosen in itertools.product(*OPTION_VALUES.values())
]


def refusal(mount, stack):
    try:
        mount(stack)
    except OSError as error:
        return error
    return None


@pytest.mark.kernel
@pytest.mark.parametrize("upper", [{}, None], ids=["with an upper", "read-only"])
def test_any_set_of_options_is_refused_as_the_kernel_refuses_it_and_says_which(oracle, upper):
    if oracle.kind != "root":
        pytest.skip("a user namespace's overlay has few options (KB 1.10)")
    for options in OPTION_SETS:
        stack = Stack([{"/f": "x"}, {"/g": "y"}], upper, options)
        box = EngineOnHost()
        ours, theirs = refusal(box.start, stack), refusal(lambda one: oracle.mount(one).close(), stack)
        box.finish()
        assert (ours and ours.errno) == (theirs and theirs.errno), options
        if ours is not None:
            assert f"metacopy=on needs redirect_dir=on, not {options['redirect_dir']}" in str(ours)


def shown_by_the_kernel(oracle, stack):
    """Return what /proc/mounts shows of a mount after its layers, less what says nothing of ours."""
    mount = oracle.mount(stack)
    try:
        lines = Path(f"/proc/{oracle.pid}/mounts").read_text().splitlines()
        line = [line for line in lines if line.startswith("overlay ") and "/merged overlay" in line][-1]
        words = line.split()[3].partition("workdir=")[2].split(",")[1:]
    finally:
        mount.close()
    return [word.removeprefix("fsync=") for word in words if not word.startswith("uuid=")]


@pytest.mark.kernel
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"redirect_dir": "nofollow"},
        {"redirect_dir": "on", "index": "on", "metacopy": "on", "xino": "on", "volatile": "on"},
        {"metacopy": "on"},
        {"index": "on", "xino": "on"},
    ],
    ids=lambda options: ",".join(options) or "none",
)
def test_str_says_the_options_in_the_words_and_order_of_proc_mounts(oracle, place, options):
    if oracle.kind != "root":
        pytest.skip("a user namespace's overlay has few options (KB 1.10)")
    # The kernel shows xino only where layers are on several file systems, and its own default, "off", never.
    expected = shown_by_the_kernel(oracle, Stack([{"/f": "x"}], {}, {"xino": "off", **options}, True))
    with OverlayFS([place / "a"], place / "u", workdir=place / "w", userxattr=False, **options) as ofs:
        assert str(ofs).partition("workdir=")[2].split(",")[1:] == expected


def test_volatile_may_be_spelt_as_newer_kernels_show_it(place):
    text = f"lowerdir={place}/a,upperdir={place}/u,workdir={place}/w,fsync=volatile"
    with OverlayFS.from_options(text) as ofs:
        assert str(ofs) == text.replace("fsync=", "")


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
        assert str(ofs) == f"lowerdir={place}/a,upperdir=memory,volatile,userxattr"
