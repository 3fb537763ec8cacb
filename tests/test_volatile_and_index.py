"""What a mount notes in its upper for later mounts, and what it refuses to take over (KB 1 and 11)."""

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from overlayvfs import MemoryFS, MountFailed, OverlayFS
from overlayvfs.testing.bodies import raises_errno

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="host directories as layers need Linux")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("low", "other", "up", "up2", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "low/x").write_text("low")
    os.link(tmp_path / "low/x", tmp_path / "low/y")
    return tmp_path


def mounted(place: Path, low: str = "low", up: str = "up", **options: bool) -> OverlayFS:
    return OverlayFS([place / low], place / up, workdir=place / "work", **options)


def test_a_volatile_mount_keeps_later_ones_away_until_its_note_is_removed(place: Path) -> None:
    mounted(place, volatile=True).close()
    assert os.listdir(place / "work/work/incompat/volatile") == ["dirty"]
    with pytest.raises(MountFailed, match="work/incompat/volatile") as caught:
        mounted(place)
    assert caught.value.errno == errno.EINVAL
    (place / "work/work/incompat/volatile/dirty").unlink()
    (place / "work/work/incompat/volatile").rmdir()
    mounted(place).close()


def test_an_unknown_incompatible_feature_is_refused_too(place: Path) -> None:
    (place / "work/work/incompat/future").mkdir(parents=True)
    with pytest.raises(MountFailed, match="incompat/future"):
        mounted(place)


def test_a_volatile_mount_of_a_memory_upper_leaves_nothing_to_be_afraid_of() -> None:
    lower, upper = MemoryFS(), MemoryFS()
    OverlayFS([lower], upper, volatile=True).close()
    OverlayFS([lower], upper).close()


class CountedSyncs:
    """Counts fsync(2) on files of the upper while it is in force."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        real = os.fsync

        def fsync(fd: int) -> None:
            self.count += 1
            real(fd)

        for name in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, name, fsync)


@pytest.mark.parametrize(("volatile", "expected"), [(False, 1), (True, 0)])
def test_copy_up_syncs_the_data_unless_volatile(
    place: Path, monkeypatch: pytest.MonkeyPatch, volatile: bool, expected: int
) -> None:
    with mounted(place, volatile=volatile) as ofs:
        syncs = CountedSyncs(monkeypatch)
        ofs.os.chmod("/x", 0o600)
    assert syncs.count == expected


def test_copy_up_syncs_the_data_before_it_shows_them(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def noting(name: str, real: Callable[..., object]) -> Callable[..., object]:
        return lambda *args, **kwargs: (seen.append(name), real(*args, **kwargs))[1]

    for name in ("fsync", "fdatasync", "rename"):
        monkeypatch.setattr(os, name, noting(name, getattr(os, name)))
    (place / "low/z").write_text("low")
    with mounted(place) as ofs:
        seen.clear()
        ofs.os.chmod("/z", 0o600)
        assert (place / "up/z").read_text() == "low"
    assert [name.removeprefix("fdata").removeprefix("f") for name in seen[:2]] == ["sync", "rename"]


@pytest.mark.parametrize(("volatile", "expected"), [(False, 1), (True, 0)])
def test_fsync_reaches_the_upper_unless_volatile(
    place: Path, monkeypatch: pytest.MonkeyPatch, volatile: bool, expected: int
) -> None:
    with mounted(place, volatile=volatile) as ofs:
        fd = ofs.os.open("/new", os.O_WRONLY | os.O_CREAT)
        syncs = CountedSyncs(monkeypatch)
        ofs.os.fsync(fd)
        ofs.os.close(fd)
    assert syncs.count == expected


def test_an_upper_with_an_index_written_for_another_lower_is_stale(place: Path) -> None:
    mounted(place, index=True).close()
    with pytest.raises(MountFailed, match="another lower") as caught:
        mounted(place, low="other", index=True)
    assert caught.value.errno == errno.ESTALE
    mounted(place, low="other").close()


def test_an_index_of_another_upper_is_stale(place: Path) -> None:
    mounted(place, index=True).close()
    with pytest.raises(MountFailed, match="another upper") as caught:
        mounted(place, up="up2", index=True)
    assert caught.value.errno == errno.ESTALE


def test_a_refused_mount_leaves_the_upper_free(place: Path) -> None:
    mounted(place, index=True).close()
    with pytest.raises(MountFailed):
        mounted(place, low="other", index=True)
    mounted(place, index=True).close()


def test_an_index_survives_a_mount_that_does_not_ask_for_one(place: Path) -> None:
    with mounted(place, index=True) as ofs:
        ofs.os.chmod("/x", 0o600)
    mounted(place).close()
    with mounted(place, index=True) as ofs:
        assert ofs.os.stat("/y").st_mode & 0o777 == 0o600


def entry(place: Path) -> Path:
    (found,) = (place / "work/index").iterdir()
    return found


def test_an_entry_without_names_goes_at_the_next_mount(place: Path) -> None:
    with mounted(place, index=True) as ofs:
        ofs.os.chmod("/x", 0o600)
    (place / "up/x").unlink()
    os.setxattr(entry(place), "user.overlay.nlink", b"U-1")
    mounted(place, index=True).close()
    assert os.listdir(place / "work/index") == []


@pytest.mark.parametrize("name", ["junk", "00", "ab" * 33])
def test_an_entry_that_is_no_file_handle_is_refused(place: Path, name: str) -> None:
    mounted(place, index=True).close()
    (place / "work/index" / name).touch()
    with pytest.raises(MountFailed, match="no file handle") as caught:
        mounted(place, index=True)
    assert caught.value.errno == errno.EINVAL


def test_what_a_crash_left_in_the_index_is_cleaned_up(place: Path) -> None:
    mounted(place, index=True).close()
    (place / "work/index/#1").touch()
    mounted(place, index=True).close()
    assert os.listdir(place / "work/index") == []


def test_an_entry_without_origin_is_refused(place: Path) -> None:
    with mounted(place, index=True) as ofs:
        ofs.os.chmod("/x", 0o600)
    os.removexattr(entry(place), "user.overlay.origin")
    with pytest.raises(MountFailed, match="no origin mark") as caught:
        mounted(place, index=True)
    assert caught.value.errno == errno.ENODATA


@pytest.mark.parametrize("make", [lambda path: os.mknod(path, 0o20000, 0), os.mkdir], ids=["whiteout", "directory"])
def test_an_entry_of_another_kind_makes_its_names_eio(place: Path, make) -> None:
    with mounted(place, index=True) as ofs:
        ofs.os.chmod("/x", 0o600)
    path = entry(place)
    path.unlink()
    make(path)
    with mounted(place, index=True) as ofs:
        for name in ("/x", "/y"):
            with raises_errno(errno.EIO):
                ofs.os.stat(name)


@pytest.mark.parametrize(
    ("mark", "nlink"),
    [
        *((b"U+1", 3), (b"U+0", 2), (b"U-1", 1), (b"U-2", 2), (b"U-3", 2), (b"L+0", 2), (b"L-5", 2), (b"L+9", 11)),
        *((b"X", 2), (b"", 2), (b"U+", 2), (b"U1", 2), (b"U+1\n", 3), (b"U+99999999999", 2), (b"U+0x2", 2)),
        *((b"U+1234567890", 1234567892), (b"U+ 1", 2), (b"U++1", 2), (b"U+1\0", 3), (b"U+01", 3)),
    ],
)
def test_nlink_marks_are_read_as_the_kernel_reads_them(place: Path, mark: bytes, nlink: int) -> None:
    # The kernel's answers for an upper file with two links of its own (the index's included) and two lower names.
    with mounted(place, index=True) as ofs:
        ofs.os.chmod("/x", 0o600)
    os.setxattr(place / "up/x", "user.overlay.nlink", mark)
    with mounted(place, index=True) as ofs:
        assert ofs.os.stat("/x").st_nlink == nlink
