"""Random stacks for the lockstep test: layers that meet in a few names, and states planted on purpose.

Everything is drawn from a `random.Random`, so that a seed reproduces it and Hypothesis can drive it (`st.randoms`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Final

from overlayvfs.testing.stacks import Stack
from overlayvfs.testing.states import STATES, arranged
from overlayvfs.testing.trees import (
    DIR,
    WHITEOUT,
    Directory,
    File,
    Node,
    Tree,
    Whiteout,
    device,
    directory,
    fifo,
    file,
    hardlink,
    normal,
    symlink,
)

NAMES: Final = ("a", "b", "d", "e", "f", "x")
"""Few names, so that layers and operations meet in them."""

PLANTED: Final = ("p", "q", "r", "s")
"""Names at which a state of the kernel's tables may have been arranged."""

IDS: Final = (0, 5, 7)
"""Users and groups of the objects and, with `credentials`, of those who call."""

DEPTH: Final = 3


@dataclass(frozen=True, slots=True)
class Profile:
    """What kind of stacks and operations to draw."""

    options: Mapping[str, str | bool] = field(default_factory=dict)
    separate: bool | None = None
    hostile: bool = False
    """Pass arguments that no sane program passes."""
    marks: bool = False
    """Put redirects and other hand-made marks into the layers."""
    read_only: bool = False
    credentials: bool = False
    """Change who calls on the way, over objects of several owners and modes."""
    closing: bool = False
    """Close descriptors soon: layers that rotate wait for that."""
    data_only: bool = False
    """Put layers of contents alone at the bottom, and files without contents that lead there."""
    remounts: bool = False
    """Unmount and mount again every few operations."""


def random_stack(rng: Random, profile: Profile) -> Stack:
    """Return 1 to 4 lowers and a pre-populated upper, with whiteouts and opaque directories in any layer."""
    lowers = [_random_tree(rng, profile) for _ in range(rng.choice((1, 1, 2, 2, 3, 4)))]
    hidden: list[dict[str, Node]] = []
    if profile.read_only:
        while len(lowers) < 2:
            lowers.append(_random_tree(rng, profile))
        _plant(rng, lowers, None)
        _redirect(rng, profile, lowers)
        if profile.data_only:
            hidden = _take_contents_out(rng, profile, lowers)
        return Stack([*lowers, *hidden], None, profile.options, profile.separate, len(hidden))
    upper = _random_tree(rng, profile, sparse=True) if rng.random() < 0.5 else {}
    _plant(rng, lowers, upper)
    _redirect(rng, profile, [upper, *lowers])
    if profile.data_only:
        hidden = _take_contents_out(rng, profile, [upper, *lowers])
    shown = without_unlisted_whiteouts(lowers, upper)
    return Stack([*lowers, *hidden], shown, profile.options, profile.separate, len(hidden))


def _random_tree(rng: Random, profile: Profile, *, sparse: bool = False) -> dict[str, Node]:
    tree: dict[str, Node] = {}
    if profile.credentials:
        tree["/"] = directory(mode=rng.choice((0o777, 0o777, 0o1777, 0o2775, 0o755)), gid=rng.choice(IDS))
    _fill(rng, profile, tree, "", 1, sparse)
    return tree


def _fill(rng: Random, profile: Profile, tree: dict[str, Node], parent: str, depth: int, sparse: bool) -> None:
    likely = (0.3 if sparse else 0.5) / (1 if depth == 1 else 1.3)
    for name in NAMES:
        if rng.random() > likely:
            continue
        path = f"{parent}/{name}"
        # Names lean to a kind, so that layers often agree; often enough they don't.
        wants_dir = (name in "abde") == (rng.random() < 0.8)
        if rng.random() < 0.15:
            tree[path] = WHITEOUT
        elif wants_dir and depth < DEPTH:
            tree[path] = _random_directory(rng, profile)
            _fill(rng, profile, tree, path, depth + 1, sparse)
        else:
            tree[path] = _random_object(rng, profile, tree)


def _random_directory(rng: Random, profile: Profile) -> Node:
    mode = rng.choice((0o755,) * 6 + (0o700, 0o2775, 0o1777))
    owner: dict[str, Any] = {"gid": rng.choice((0, 5))} if mode & 0o2000 else {}
    if profile.credentials:
        mode = rng.choice((0o777, 0o777, 0o755, 0o775, 0o700, 0o711, 0o733, 0o557, 0o1777, 0o3777, 0o2775, 0o070))
        owner = {"uid": rng.choice(IDS), "gid": rng.choice(IDS)}
    xattrs = {"user.k": b"v"} if rng.random() < 0.1 else {}
    marks: dict[str, Any] = {"opaque": True} if rng.random() < 0.15 else {}
    return directory(mode=mode, xattrs=xattrs, **owner, **marks)


def _random_object(rng: Random, profile: Profile, tree: Mapping[str, Node]) -> Node:
    files = [path for path, node in tree.items() if node.CALL == "file"]
    if files and rng.random() < 0.15:
        return hardlink(rng.choice(files))
    draw = rng.random()
    if draw < 0.2:
        return symlink(rng.choice(("a", "f", "d", "../f", "/d", "/a/f", "d/e", "nowhere", ".", "x")))
    if draw < 0.25:
        return fifo()
    if draw < 0.28:
        return device()
    data = rng.choice((b"", b"abc", b"0123456789", b"x" * 300))
    xattrs = {"user.k": b"v"} if rng.random() < 0.3 else {}
    if profile.credentials:
        mode = rng.choice((0o666, 0o644, 0o600, 0o664, 0o444, 0o006, 0o4777, 0o6755, 0o2766, 0o2775, 0o070, 0o755))
        return file(data, mode=mode, uid=rng.choice(IDS), gid=rng.choice(IDS), xattrs=xattrs)
    return file(data, mode=rng.choice((0o644, 0o644, 0o600, 0o4755)), uid=rng.choice((0, 0, 7)), xattrs=xattrs)


_OFTEN: Final = {"lower symlink to file": 5, "lower file": 3}
_LIKELY: Final = [state for state in STATES for _ in range(_OFTEN.get(state, 2 if state.endswith(" file") else 3))]
"""The states: those most often that few others turn into; files come into theirs also by chance."""


def _plant(rng: Random, lowers: Sequence[dict[str, Node]], upper: dict[str, Node] | None) -> None:
    """Bring a few names into states of the kernel's tables, which chance alone hardly ever makes."""
    states = [state for state in _LIKELY if upper is not None or not arranged(state).upper]
    for name in PLANTED[: rng.choice((0, 3, 4, 4, 4, 4))]:
        parent = _merged_parent(rng, lowers[0], upper)
        x, y, t = (f"{parent}/{name}{suffix}" for suffix in ("", "-link", "-target"))
        layers = arranged(rng.choice(states), x=x, y=y, t=t)
        # In a directory of the highest lower, or beside the random names of any.
        (rng.choice(lowers) if not parent else lowers[0]).update(layers.lower)
        if upper is not None:
            upper.update(layers.upper)


_MALFORMED: Final = ("", "/", "//d", "d/e", "..", "/a/../d")


def _redirect(rng: Random, profile: Profile, layers: Sequence[dict[str, Node]]) -> None:
    """Let a few directories redirect, as rename(2) would have left them: what they lead to is hidden at its old place.

    Two ways to one lower object are for tests of their own: a directory is ESTALE then, and a file's copy shows at its
    other name for as long as Linux has that cached (KB 2.10).
    """
    used: list[str] = []
    for tree in layers if profile.marks else ():
        nodes = normal(tree)
        directories = [path for path, node in nodes.items() if isinstance(node, Directory) and _may_redirect(path)]
        for path in rng.sample(directories, min(2, len(directories))):
            value = rng.choice(("a", "d", "x", "/a", "/d", "/a/b", "/d/e", "/e/d/a", "/f"))
            target = value if value.startswith("/") else f"{path.rpartition('/')[0]}/{value}"
            # Whether a listing fails on a name that can't be looked up depends on where "." and ".." are in the layer's
            # own order: first of all on tmpfs, anywhere on ext4.
            if rng.random() < 0.1 and profile.hostile:
                value = rng.choice(_MALFORMED)
            elif any(_overlap(target, one) for one in [path, *used]) or not _is_free(nodes, target):
                continue
            else:
                used.append(target)
                tree[target] = WHITEOUT
            node = nodes[path]
            tree[path] = replace(node, marks={**node.marks, "redirect": value.encode()})


def _may_redirect(path: str) -> bool:
    """Tell whether a directory is no root and has no state planted in it, which a redirect would undo."""
    return bool(path) and not any(name in PLANTED for name in path.split("/"))


_LEADING_NOWHERE: Final = ("/nowhere", "nowhere", "/blob", "", "//f", "/../f", "/blob/../blob/x", "/blob-link")
"""Redirects that lead to no contents, in one or another way. (None to what shows: see `_redirect`.)"""


def _take_contents_out(rng: Random, profile: Profile, layers: Sequence[dict[str, Node]]) -> list[dict[str, Node]]:
    """Put the contents of a few files into data-only layers, returned, to which redirects lead; some lead nowhere."""
    hidden = [_random_tree(rng, profile, sparse=True) for _ in range(rng.choice((1, 1, 2)))]
    hidden[0]["/blob-link"] = symlink("blob")
    for tree in layers:
        files = [path for path, node in tree.items() if isinstance(node, File)]
        for path in rng.sample(files, min(4, len(files))):
            node = tree[path]
            assert isinstance(node, File)
            blob = f"/blob/{rng.choice(NAMES)}"
            rng.choice(hidden)[blob] = file(rng.choice((node.data, node.data, node.data, b"of another size")))
            value = rng.choice(_LEADING_NOWHERE) if rng.random() < 0.15 else blob
            marks = {**node.marks, "metacopy": b"", "redirect": value.encode()}
            tree[path] = replace(node, data=bytes(len(node.data)), marks=marks)
    return hidden


def _overlap(path: str, other: str) -> bool:
    """Tell whether one of two paths is the other, or leads through it."""
    return f"{path}/".startswith(f"{other}/") or f"{other}/".startswith(f"{path}/")


def _is_free(nodes: Mapping[str, Node], path: str) -> bool:
    """Tell whether nothing of a tree is in the way of an entry at `path`."""
    parents = ["/".join(path.split("/")[:count]) for count in range(1, path.count("/") + 1)]
    return path not in nodes and all(isinstance(nodes.get(parent, DIR), Directory) for parent in parents)


def _merged_parent(rng: Random, lower: Tree, upper: Tree | None) -> str:
    """Return a directory in which what `lower` holds shows: mostly the root."""
    nodes, above = normal(lower), normal(upper or {})
    parent = rng.choice([path for path, node in nodes.items() if isinstance(node, Directory)])
    if rng.random() < 0.6 or "redirect" in nodes[parent].marks:
        return ""
    at = parent
    while at:
        if at in above and (not isinstance(above[at], Directory) or above[at].marks):
            return ""
        at = at.rpartition("/")[0]
    return parent


def without_unlisted_whiteouts(lowers: Sequence[Tree], upper: Tree) -> Tree:
    """Return `upper` without whiteouts in directories that only it contributes to.

    There Linux counts them as entries and we don't (the design's first difference on purpose), which is for tests of
    its own and would only make every later step differ here.
    """
    nodes = normal(upper)
    layers = [normal(tree) for tree in lowers]
    return {
        path: node
        for path, node in nodes.items()
        if not path or not (isinstance(node, Whiteout) and not _contributors(layers, nodes, path.rpartition("/")[0]))
    }


def _contributors(lowers: list[dict[str, Node]], upper: dict[str, Node], path: str) -> list[dict[str, Node]]:
    """Return the lowers merged with the upper's directory at `path`, as far as no redirect leads elsewhere."""
    if not path:
        return lowers
    if upper[path].marks.get("opaque") == b"y" or "redirect" in upper[path].marks:
        return []
    merged: list[dict[str, Node]] = []
    for nodes in _contributors(lowers, upper, path.rpartition("/")[0]):
        node = nodes.get(path)
        if node is None:
            continue
        if not isinstance(node, Directory):
            break
        merged.append(nodes)
        if node.marks.get("opaque") == b"y" or "redirect" in node.marks:
            break
    return merged


def planted_paths(stack: Stack) -> list[str]:
    """Return the paths at which states were planted; none in some stacks."""
    trees = [*stack.lowers, *([] if stack.upper is None else [stack.upper])]
    paths = dict.fromkeys(path for tree in trees for path in normal(tree) if path.rpartition("/")[2] in PLANTED)
    return list(paths)
