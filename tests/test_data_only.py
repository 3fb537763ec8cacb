"""Data-only lowers: contents for metacopy files above them, and no names (overlayfs.rst, "Data-only lower layers")."""

import errno

import pytest

from overlayvfs import MemoryFS, MountFailed, OverlayFS
from overlayvfs.testing import DIR, file, raises_errno, symlink
from overlayvfs.testing.trees import build

BLOB = "/blobs/ab/cdef"


def memory(tree):
    fs = MemoryFS()
    build(fs.os, "", tree, prefix="trusted.overlay.")
    return fs


def leads_to(path, size=4, **attributes):
    return file(bytes(size), metacopy=True, redirect=path, **attributes)


def stacked(lower, *data, **options):
    """Return an overlay over one lower with these data-only layers beneath it."""
    upper = MemoryFS() if options else None
    return OverlayFS([memory(lower)], upper, data_only=[memory(tree) for tree in data], userxattr=False, **options)


def test_a_file_without_contents_has_those_its_redirect_leads_to():
    ofs = stacked({"/f": leads_to(BLOB, mode=0o600, uid=5)}, {BLOB: "data"})
    st = ofs.os.stat("/f")
    assert (ofs.readbytes("f"), st.st_size, st.st_mode & 0o777, st.st_uid) == (b"data", 4, 0o600, 5)


def test_no_name_of_a_data_only_lower_shows():
    ofs = stacked({"/f": leads_to(BLOB), "/blobs/own": "x"}, {BLOB: "data", "/other": "y"})
    assert sorted(ofs.walk.files("/")) == ["/blobs/own", "/f"]
    assert not ofs.exists(BLOB)


def test_the_first_data_only_lower_that_has_the_path_gives_the_contents():
    ofs = stacked({"/f": leads_to("/one"), "/g": leads_to("/two")}, {"/one": "1st."}, {"/one": "2nd.", "/two": "2nd."})
    assert (ofs.readbytes("f"), ofs.readbytes("g")) == (b"1st.", b"2nd.")


@pytest.mark.parametrize(
    ("data", "number"),
    [
        ({"/x": DIR}, errno.ENOENT),
        ({BLOB + "/": DIR}, errno.ENOENT),
        ({BLOB: symlink("/x"), "/x": "data"}, errno.ENOENT),
        ({"/blobs": symlink("b"), "/b/ab/cdef": "data"}, errno.ELOOP),
        ({"/blobs": "file"}, errno.ENOTDIR),
    ],
    ids=["absent", "directory", "symlink", "symlink on the way", "file on the way"],
)
def test_contents_that_are_not_there_are_an_error_when_they_are_needed(data, number):
    ofs = stacked({"/f": leads_to(BLOB)}, data, metacopy=True)
    assert ofs.os.lstat("/f").st_size == 4
    for use in (lambda: ofs.os.open("/f", 0), lambda: ofs.os.truncate("/f", 1), lambda: ofs.os.chmod("/f", 0o600)):
        with raises_errno(number):
            use()


def test_a_write_brings_the_contents_up_and_a_chmod_does_not():
    ofs = stacked({"/f": leads_to(BLOB)}, {BLOB: "data"}, metacopy=True)
    ofs.os.chmod("/f", 0o600)
    assert ofs.readbytes("f") == b"data"
    with ofs.openbin("f", "r+") as opened:
        opened.write(b"D")
    assert ofs.readbytes("f") == b"Data"


def test_data_only_lowers_alone_are_einval():
    with pytest.raises(MountFailed) as caught:
        OverlayFS([], MemoryFS(), data_only=[MemoryFS()])
    assert caught.value.errno == errno.EINVAL
