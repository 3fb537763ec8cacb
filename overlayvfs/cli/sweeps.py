"""Contenders that do one thing to each of many paths."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from overlayvfs.cli.race import Contender


def fresh(paths: Iterable[str]) -> list[str]:
    """Return equal strings that are new objects, whose hash nobody has computed yet."""
    return [path[:1] + path[1:] for path in paths]


def sweep(
    name: str,
    operation: Callable[[str], object],
    model: Mapping[str, object],
    *,
    see: Callable[[str], object] | None = None,
    prefix: str = "",
) -> Contender:
    """Return a contender that calls `operation` with each path of `model` (below `prefix`), all strings fresh.

    Its answer is what `see` (or else `operation`) returns for each path, which has to be the model's value.
    """
    look = see or operation

    def work(given: list[str]) -> None:
        for path in given:
            operation(path)

    def answer(given: list[str]) -> dict[str, object]:
        return {path.removeprefix(prefix): look(path) for path in given}

    return Contender(
        name, work, answer, dict(model), len(model), prepare=lambda: fresh(prefix + path for path in model)
    )


def cold(
    name: str,
    make: Callable[[], Any],
    operation: Callable[[Any], Callable[[str], object]],
    model: Mapping[str, object],
    *,
    prefix: str = "",
) -> Contender:
    """Return a contender that does one operation to each path (below `prefix`) of a tree made anew for each go."""

    def work(given: tuple[Any, list[str]]) -> None:
        act = operation(given[0])
        for path in given[1]:
            act(path)

    def answer(given: tuple[Any, list[str]]) -> dict[str, object]:
        return {path.removeprefix(prefix): operation(given[0])(path) for path in given[1]}

    return Contender(
        name, work, answer, dict(model), len(model), prepare=lambda: (make(), fresh(prefix + path for path in model))
    )


def reader(openbin: Callable[[str], Any]) -> Callable[[str], bytes]:
    """Return what opens a file, reads 100 bytes and closes it."""

    def read(path: str) -> bytes:
        file = openbin(path)
        data: bytes = file.read(100)
        file.close()
        return data

    return read
