"""Which layer shows a path, and why: in fields and in words."""

import pytest
from fs.errors import FilesystemClosed
from fs.memoryfs import MemoryFS as PlainFS

from overlayvfs import MemoryFS, OverlayFS
from overlayvfs.testing.trees import WHITEOUT, build, directory, file, symlink

TOP = {"/a": "top", "/d/f": "top", "/t": WHITEOUT, "/o/": directory(opaque=True), "/o/new": "top"}
BOTTOM = {
    "/a": "bottom",
    "/b": file(b"x" * 300_000, uid=7, gid=8, mode=0o640, xattrs={"user.k": b"v"}),
    "/d/g": "bottom",
    "/t": "bottom",
    "/o/old": "bottom",
    "/s": symlink("a"),
    "/w/x": "bottom",
}


def stacked(upper: object = None, **options: object) -> OverlayFS:
    lowers = []
    for tree in (TOP, BOTTOM):
        lowers.append(MemoryFS())
        build(lowers[-1].os, "", tree, prefix="user.overlay.")
    return OverlayFS(lowers, MemoryFS() if upper is None else upper, **options)


def told(ofs: OverlayFS, path: str) -> str:
    return ofs.where(path).explain


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/a", "lower 1 has the file; it hides lower 2's file"),
        ("/b", "lower 2 has the file"),
        ("/s", "lower 2 has the symlink"),
        ("/d", "merged from lower 1 and lower 2"),
        ("/", "merged from the upper, lower 1 and lower 2"),
        ("/d/nothing", "no layer has it"),
        ("/t", "deleted by a whiteout in lower 1; lower 2 has a file"),
        ("/a/below", "/a is a file in lower 1"),
        ("/not/there", "/not is not there: no layer has it"),
    ],
)
def test_what_the_lowers_show(path, words):
    assert told(stacked(), path) == words


def test_layers_are_listed_highest_first_hidden_ones_included():
    ofs = stacked()
    ofs.writetext("/a", "upper")
    found = ofs.where("/a")
    assert [(one.role, one.what, one.shows) for one in found.layers] == [
        ("the upper", "file", True),
        ("lower 1", "file", False),
        ("lower 2", "file", False),
    ]
    assert (found.metadata, found.data) == (found.layers[0], found.layers[0])
    assert (found.path, found.exists, found.layers[1].path) == ("/a", True, "/a")


def test_copied_up_file_names_where_it_came_from():
    ofs = stacked()
    ofs.appendtext("/d/g", "!")
    assert told(ofs, "/d/g") == "the upper has the file, copied up from lower 2"
    assert told(ofs, "/d") == "merged from the upper, lower 1 and lower 2"


def test_deleted_by_a_whiteout_tells_what_a_lower_has():
    ofs = stacked()
    ofs.remove("/d/g")
    assert told(ofs, "/d/g") == "deleted by a whiteout in the upper; lower 2 has a file"
    assert not ofs.where("/d/g").exists


def test_path_in_a_deleted_directory_names_the_whiteout():
    ofs = stacked()
    ofs.removetree("/w")
    assert told(ofs, "/w/x") == "/w is not there: deleted by a whiteout in the upper; lower 2 has a directory"


def test_opaque_directory_hides_what_lies_below_it():
    ofs = stacked()
    ofs.removetree("/d")
    ofs.makedir("/d")
    assert told(ofs, "/d/g") == "the directory /d in the upper hides it; lower 2 has a file"
    assert told(ofs, "/d").startswith("the upper has the directory; it hides lower 1's directory")
    assert ofs.where("/d").layers[0].what == "opaque directory"


def test_renamed_directory_tells_where_its_lower_contents_are():
    ofs = stacked(redirect_dir=True)
    ofs.os.rename("/d", "/moved")
    assert told(ofs, "/moved") == "merged from the upper, lower 1 and lower 2, where it is d"
    assert told(ofs, "/moved/g") == "lower 2 has the file"
    assert told(ofs, "/d") == "deleted by a whiteout in the upper; lower 1 has a directory; lower 2 has a directory"


def test_metadata_only_copy_has_two_layers():
    ofs = stacked(metacopy=True)
    ofs.os.chmod("/b", 0o600)
    found = ofs.where("/b")
    assert (found.metadata.role, found.data.role) == ("the upper", "lower 2")
    assert found.explain.endswith("without contents; these are in lower 2 at /b")


def test_what_the_upper_could_not_take_over_is_told():
    ofs = stacked(PlainFS())
    ofs.appendbytes("/b", b"!")
    found = ofs.where("/b")
    assert "owner 7:8" in found.lost and "attribute user.k" in found.lost
    assert "could not take over owner 7:8" in found.explain
    assert stacked().where("/b").lost == ()


def test_new_file_is_the_uppers():
    ofs = stacked()
    ofs.writetext("/n", "x")
    assert told(ofs, "/n") == "the upper has the file"


def test_overlay_namespace_of_getinfo_and_scandir():
    ofs = stacked()
    ofs.writetext("/a", "upper")
    raw = ofs.getinfo("/a", ["overlay"]).raw["overlay"]
    assert (raw["metadata"], raw["data"], raw["lost"]) == ("the upper", "the upper", [])
    assert raw["layers"] == [("the upper", "file"), ("lower 1", "file"), ("lower 2", "file")]
    shown = {info.name: info.get("overlay", "metadata") for info in ofs.scandir("/", ["overlay"])}
    assert shown == {"a": "the upper", "b": "lower 2", "d": "lower 1", "o": "lower 1", "s": "lower 2", "w": "lower 2"}


def test_where_of_a_closed_overlay_is_refused():
    ofs = stacked()
    ofs.close()
    with pytest.raises(FilesystemClosed):
        ofs.where("/a")
