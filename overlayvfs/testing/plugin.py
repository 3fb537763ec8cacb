"""The pytest plugin of the test kit: the `box` fixture, the oracle's line in the header, seeds and seconds.

    pytest_plugins = ["overlayvfs.testing.plugin"]

A test that takes `box` runs once on every body. Where this machine can't make an overlay mount the kernel's turn is
skipped with the reason (it fails under CI=true: a green run there means the kernel was asked).
"""

import os
import random
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack

import pytest

from overlayvfs.testing.bodies import Box
from overlayvfs.testing.kernel import Kernel, NoOracle
from overlayvfs.testing.registry import BODIES
from overlayvfs.testing.trees import Unsupported


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the kit."""
    group = parser.getgroup("overlayvfs")
    group.addoption(
        "--bodies",
        default=",".join(BODIES),
        help=f"comma-separated bodies that `box` tests run on (default: all: {', '.join(BODIES)})",
    )
    group.addoption(
        "--kernel-seconds",
        type=float,
        default=0.0,
        help="how long to try fresh random sequences against the kernel beyond the fixed share (default: 0)",
    )
    group.addoption(
        "--seed", type=int, default=None, help="seed of the fresh random sequences (default: a new one, printed)"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Check the options, choose a seed, declare the marker."""
    unknown = set(_body_names(config)) - set(BODIES)
    if unknown:
        raise pytest.UsageError(f"--bodies: unknown {', '.join(sorted(unknown))}; there are {', '.join(BODIES)}")
    config.addinivalue_line("markers", "kernel: asks a real overlayfs mount")
    if config.option.seed is None:
        # Under pytest-xdist the workers are given their controller's options, the seed it chose included.
        config.option.seed = random.SystemRandom().randrange(1 << 32)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say which oracle answers and which seed is used."""
    try:
        oracle = Kernel.find().description
    except NoOracle as error:
        oracle = f"none ({error})"
    return [f"overlayvfs oracle: {oracle}", f"overlayvfs seed: {config.option.seed} (--seed)"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give every test with `box` or `make_box` one turn per body."""
    if "body" in metafunc.fixturenames:
        names = _body_names(metafunc.config)
        metafunc.parametrize("body", [_parameter(name) for name in names], ids=names, scope="session")


@pytest.fixture(scope="session")
def oracle() -> Kernel:
    """The kernel as oracle; the test is skipped, with the reason, where there is none (under CI=true it fails)."""
    return _oracle_or_skip()


@pytest.fixture
def make_box(body: str) -> Iterator[Callable[[], Box]]:
    """A function that returns a new box of the test's body each time; all are finished at the end."""
    if BODIES[body].is_kernel:
        _oracle_or_skip()
    with ExitStack() as boxes:

        def make() -> Box:
            box = BODIES[body]()
            boxes.callback(box.finish)
            return box

        yield make


@pytest.fixture
def box(make_box: Callable[[], Box]) -> Box:
    """One overlay to arrange, act on and look at. Its lowers are compared before and after the test."""
    return make_box()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, object, object]:
    """Skip a test that asks for what its body can't have, with the reason."""
    try:
        return (yield)
    except Unsupported as error:
        pytest.skip(str(error))


def _oracle_or_skip() -> Kernel:
    try:
        return Kernel.find()
    except NoOracle as error:
        reason = f"no overlay mount can be made here: {error}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


def _body_names(config: pytest.Config) -> list[str]:
    return [name for name in config.option.bodies.split(",") if name]


def _parameter(name: str) -> object:
    return pytest.param(name, marks=pytest.mark.kernel) if BODIES[name].is_kernel else name
