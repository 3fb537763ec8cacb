"""Random changes on both sides of a fork: what a merge makes of them is what a three-way merge path by path says."""

from random import Random

import pytest

from overlayvfs import OverlayFS
from overlayvfs.faces.errors import CommitConflict
from overlayvfs.testing.bodies import EngineOnHost, EngineOnMemory
from overlayvfs.testing.lockstep import MakeBox
from overlayvfs.testing.ops import Runner
from overlayvfs.testing.random_stacks import Profile, random_stack
from overlayvfs.testing.sequences import Operations
from overlayvfs.testing.snapshots import Entry, Snapshot, capture

pytestmark = pytest.mark.slow

BEFORE, AFTER = 8, 7
"""Operations before the fork, and on each side of it."""


def shown(ofs: OverlayFS) -> Snapshot:
    """Return what a merge decides on: neither times nor numbers of links."""
    return {
        path: entry._replace(mtime=0, nlink=0, group="") for path, entry in capture(ofs.os, "").items() if path
    }


def act(ofs: OverlayFS, rng: Random, stack, profile: Profile, count: int) -> None:
    operations, runner = Operations(rng, stack, profile), Runner(ofs.os)
    for _ in range(count):
        op = operations.draw()
        operations.learn(op, runner.run(op))
    runner.close()


def changed(side: Snapshot, base: Snapshot) -> dict[str, Entry | None]:
    """Return what a side has at each path that differs, None where it has nothing."""
    return {path: side.get(path) for path in {*side, *base} if side.get(path) != base.get(path)}


def merge(make_box: MakeBox, seed: int) -> str:
    """Fork, change both, merge, and check; return how it went."""
    rng, box = Random(seed), make_box()
    profile = Profile(options={"redirect_dir": "on"} if seed % 3 == 0 else {})
    stack = random_stack(rng, profile)
    try:
        box.start(stack)
        ofs = box._overlay
        act(ofs, rng, stack, profile, BEFORE)
        fork, base = ofs.fork(), shown(ofs)
        act(ofs, rng, stack, profile, AFTER)
        act(fork, rng, stack, profile, AFTER)
        ours, theirs = shown(ofs), shown(fork)
        wanted, mine = changed(theirs, base), changed(ours, base)
        both = {path for path in wanted if path in mine and wanted[path] != mine[path]}
        try:
            ofs.merge(fork)
        except CommitConflict as error:
            assert shown(ofs) == ours, seed
            found = {one.path for one in error.conflicts}
            assert both <= found, seed
            return _settle(ofs, fork, found, rng.choice(("skip", "overwrite")), seed)
        assert both == set(), seed
        expected = {path: entry for path, entry in {**ours, **wanted}.items() if entry is not None}
        assert shown(ofs) == expected, seed
        assert shown(fork) == theirs, seed
        return "merged" if wanted else "nothing to merge"
    finally:
        box.finish()


def _settle(ofs: OverlayFS, fork: OverlayFS, conflicts: set[str], how: str, seed: int) -> str:
    """Merge in spite of conflicts: at their paths there is what one of the sides had."""
    side = shown(ofs if how == "skip" else fork)
    ofs.merge(fork, on_conflict=how)
    found = shown(ofs)
    assert {path: found.get(path) for path in conflicts} == {path: side.get(path) for path in conflicts}, seed
    return how


@pytest.mark.parametrize("on", [EngineOnMemory, EngineOnHost])
def test_merge_is_what_a_three_way_merge_path_by_path_says(on: MakeBox):
    told = [merge(on, seed) for seed in range(60)]
    for way in ("merged", "skip", "overwrite"):
        assert told.count(way) >= 5
