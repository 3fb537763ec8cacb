import gc
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from overlayvfs.layers.cow import Radix

keys = st.one_of(st.integers(0, 200), st.integers(0, 70_000), st.sampled_from([63, 64, 4095, 4096, 1 << 40, 1 << 62]))
steps = st.lists(st.tuples(st.sampled_from(["set", "set", "discard", "cut", "fork"]), keys), max_size=60)


def items(tree: Radix[Any]) -> dict[int, Any]:
    return dict(tree.items(0, 1 << 63))


@settings(max_examples=200, deadline=None)
@given(steps)
def test_any_sequence_leaves_what_a_dict_would_hold_in_every_fork(plan: list[tuple[str, int]]) -> None:
    tree: Radix[Any] = Radix()
    model: dict[int, Any] = {}
    left: list[tuple[Radix[Any], dict[int, Any]]] = []
    for verb, key in plan:
        if verb == "set":
            model[key] = item = object()
            tree.set(key, item)
        elif verb == "discard" and key in model:
            del model[key]
            tree.discard(key)
        elif verb == "cut":
            model = {number: item for number, item in model.items() if number < key}
            tree.cut(key)
        elif verb == "fork":
            left.append((tree, model.copy()))
            tree = tree.fork()
        assert tree.get(key) is model.get(key)
        assert list(tree.items(0, 1 << 63)) == sorted(model.items())
        near = [key, key + 1, 0, 1 << 62, *model]
        assert tree.get_all(near) == [model.get(number) for number in near]
        assert list(tree.items(key, key + 100)) == [
            pair for pair in sorted(model.items()) if key <= pair[0] < key + 100
        ]
    for old, then in left:
        assert items(old) == then


def test_fork_does_not_follow_its_parent_either() -> None:
    tree: Radix[str] = Radix()
    tree.set(5, "before")
    twin = tree.fork()
    tree.set(5, "parent")
    twin.set(6, "child")
    assert (items(tree), items(twin)) == ({5: "parent"}, {5: "before", 6: "child"})


def test_a_missing_item_is_none_however_far_out() -> None:
    tree: Radix[str] = Radix()
    assert (tree.get(0), tree.get(1 << 60)) == (None, None)
    tree.set(1 << 60, "far")
    assert (tree.get(0), tree.get(1 << 60), tree.get((1 << 60) - 1)) == (None, "far", None)


def test_a_write_after_a_fork_copies_one_path_and_the_next_writes_nothing() -> None:
    tree: Radix[int] = Radix()
    for key in range(5000):
        tree.set(key, key + 1)
    twin = tree.fork()
    twin.set(1000, -1)
    root = twin.top[0]
    shared = [mine is theirs for mine, theirs in zip(root[:64], tree.top[0][:64], strict=True)]
    assert shared.count(False) == 1
    leaf = root[0][1000 >> 6]
    twin.set(1001, -1)
    assert twin.top[0] is root
    assert root[0][1000 >> 6] is leaf


def test_nodes_go_with_their_last_item() -> None:
    tree: Radix[int] = Radix()
    gc.collect()
    before = len(gc.get_objects())
    for key in range(20_000):
        tree.set(key, key + 1)
        tree.discard(key)
    assert len(gc.get_objects()) - before < 20
