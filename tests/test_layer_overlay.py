"""An overlay as a lower of another: every promise of a layer, and three deep with whiteouts at each depth."""

import errno
from pathlib import Path

import pytest

from overlayvfs import MemoryFS, OverlayFS
from overlayvfs.layers.base import Layer
from overlayvfs.layers.memory import MemoryLayer
from overlayvfs.testing.conformance import LowerConformance, Tree, fill, lower, node
from overlayvfs.testing.conformance.lower import MakeLower
from overlayvfs.testing.conformance.trees import contents, directory, raises_errno, whiteout

DECOYS: Tree = {"/decoy": "hidden", "/hiding": directory(), "/hiding/decoy": "hidden"}


class TestOverlayIsALower(LowerConformance):
    """Each tree in the upper over decoys that whiteouts hide; of a merged tree no whiteout shows, and no mark."""

    @pytest.fixture(autouse=True)
    def _no_whiteouts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.overlays: list[OverlayFS] = []
        shown = {path: one for path, one in lower.EVERYTHING.items() if node(one) != whiteout()}
        monkeypatch.setattr(lower, "EVERYTHING", shown)

    def make_lower(self, tree: Tree, where: Path) -> Layer:
        upper, below = MemoryLayer(), MemoryLayer()
        fill(below, DECOYS)
        fill(upper, tree | dict.fromkeys(["/decoy", "/hiding"], whiteout()))
        self.overlays.append(OverlayFS([below], upper))
        return self.overlays[-1]._overlayvfs_layer("")

    def outside(self, layer: Layer) -> dict[str, bytes | None]:
        ofs = next(ofs for ofs in self.overlays if ofs._overlayvfs_layer("").identity() == layer.identity())
        upper = ofs._overlay._mnt.upper
        assert upper is not None
        hidden = ("/decoy", "/hiding", "/d/gone")
        return {path: data for path, data in contents(upper).items() if path not in hidden}

    def test_a_whiteout_shows_as_device_0_0_in_any_spelling(self, lower: MakeLower) -> None:
        layer = lower({"/d": directory(), "/d/gone": whiteout()})
        assert layer.listdir("/d") == []
        with raises_errno(errno.ENOENT):
            layer.lstat("/d/gone")

    def test_marks_are_listed_raw(self, lower: MakeLower) -> None:
        layer = lower({"/d": directory(xattrs={"user.overlay.opaque": b"y", "user.k": b"v"})})
        assert layer.listxattr("/d") == ["user.k"]
        with raises_errno(errno.ENODATA):
            layer.getxattr("/d", "user.overlay.opaque")

    # The overlay resolves symlinks inside itself, as a mount does; whoever stacks it has resolved them before.
    test_no_path_leads_through_a_symlink = None

    def test_listdir_of_what_is_no_directory_is_enotdir(self, lower: MakeLower) -> None:
        layer = lower({"/f": "x"})
        with raises_errno(errno.ENOTDIR):
            layer.listdir("/f")


def test_three_deep_each_depth_hides_what_it_removed_and_shows_what_came_back():
    base = MemoryFS()
    for name in "abcd":
        base.makedir(name).writetext("f", f"{name} at the bottom")
    one = OverlayFS([base], MemoryFS())
    one.removetree("a")
    one.removetree("b")
    two = OverlayFS([one], MemoryFS())
    two.removetree("c")
    two.makedir("a").writetext("new", "of two")
    three = OverlayFS([two], MemoryFS())
    three.remove("d/f")
    three.writetext("a/new", "of three")

    assert {path: three.readtext(path) for path in three.walk.files()} == {"/a/new": "of three"}
    assert (sorted(three.listdir("/")), three.listdir("/a")) == (["a", "d"], ["new"])
    assert (sorted(two.listdir("/")), sorted(one.listdir("/"))) == (["a", "d"], ["c", "d"])


def test_beside_a_nested_overlay_its_whiteouts_and_opaque_directories_hide_nothing():
    # The merged tree is all that the outer mount sees of the inner one; Linux shows the same three names.
    base = MemoryFS()
    for name in "ab":
        base.makedir(name).writetext("f", name)
    inner = OverlayFS([base], MemoryFS())
    inner.removetree("a")
    inner.removetree("b")
    inner.makedir("a").writetext("new", "n")
    assert sorted(OverlayFS([inner, base]).walk.files()) == ["/a/f", "/a/new", "/b/f"]
