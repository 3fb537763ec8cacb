"""The conformance suite has teeth: each promise broken on purpose fails the test that is about it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import broken_layers
import pytest

BROKEN = {name: suite for name, suite in vars(broken_layers).items() if name.startswith("Test")}


@pytest.fixture(scope="module")
def failures() -> set[tuple[str, str]]:
    """(class, test) of all that failed when the tests named in broken_layers.py were run."""
    path = Path(broken_layers.__file__)
    chosen = [f"{path}::{name}::{suite.found_by}" for name, suite in BROKEN.items()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "--tb=no", "-p", "no:cacheprovider", *chosen]
    run = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, cwd=path.parents[1])
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout + run.stderr
    return set(re.findall(r"^(?:FAILED|ERROR) \S+::(Test\w+)::(test_\w+)", run.stdout, re.MULTILINE))


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_found(failures: set[tuple[str, str]], name: str) -> None:
    assert (name, BROKEN[name].found_by) in failures


def test_importing_overlayvfs_needs_no_pytest() -> None:
    script = "import sys; sys.modules['pytest'] = None; import overlayvfs"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    run = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
