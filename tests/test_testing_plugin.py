"""The pytest plugin of the test kit, as somebody else's test suite sees it."""

import pytest

from overlayvfs.testing import BODIES

pytest_plugins = ["pytester"]

ASKING = sum(body.is_kernel for body in BODIES.values())
"""How many bodies ask the kernel."""

ONE_TEST = """
def test_one(box):
    box.lower({"/f": "x"})
    assert box.tree() == {"/f": "x"}
"""


@pytest.fixture
def suite(pytester, monkeypatch):
    """A suite of one box test; returns a function that runs it with these arguments."""
    monkeypatch.delenv("CI", raising=False)
    # Other plugins that happen to be installed only cost time here.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeconftest('pytest_plugins = ["overlayvfs.testing.plugin"]')
    pytester.makepyfile(ONE_TEST)
    return lambda *arguments: pytester.runpytest_inprocess("-p", "no:cacheprovider", "-rs", *arguments)


def test_a_box_test_runs_on_every_body_and_the_header_names_the_oracle(suite, oracle):
    result = suite("-v")
    result.assert_outcomes(passed=len(BODIES))
    result.stdout.fnmatch_lines(
        [
            f"overlayvfs oracle: {oracle.description}",
            "overlayvfs seed: * (--seed)",
            "*test_one?kernel? PASSED*",
            "*test_one?engine-memory? PASSED*",
            "*test_one?engine-local? PASSED*",
            "*test_one?kernel-rotating? PASSED*",
            "*test_one?engine-rotating? PASSED*",
            "*test_one?engine-pyfs? PASSED*",
        ]
    )


def test_without_an_oracle_the_kernels_turn_is_skipped_with_the_reason(suite, monkeypatch):
    monkeypatch.setenv("OVERLAYVFS_ORACLE", "none")
    result = suite()
    result.assert_outcomes(passed=len(BODIES) - ASKING, skipped=ASKING)
    result.stdout.fnmatch_lines(
        ["overlayvfs oracle: none (switched off*", "SKIPPED*no overlay mount can be made here*"]
    )


def test_without_an_oracle_the_kernels_turn_fails_under_ci(suite, monkeypatch):
    monkeypatch.setenv("OVERLAYVFS_ORACLE", "none")
    monkeypatch.setenv("CI", "true")
    result = suite()
    result.assert_outcomes(passed=len(BODIES) - ASKING, errors=ASKING)
    result.stdout.fnmatch_lines(["*no overlay mount can be made here: switched off*"])


def test_bodies_can_be_chosen_and_unknown_ones_are_refused(suite):
    suite("--bodies=engine-memory").assert_outcomes(passed=1)
    result = suite("--bodies=engine-memory,toaster")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--bodies: unknown toaster; there are kernel, *"])


def test_a_given_seed_is_the_one_that_is_printed(suite):
    suite("--bodies=engine-memory", "--seed=77").stdout.fnmatch_lines(["overlayvfs seed: 77 (--seed)"])


def test_a_lower_that_changed_fails_the_test(pytester, suite):
    pytester.makepyfile(
        """
        def test_one(box):
            box.lower({"/d/f": "x"})
            box.os.listdir("/")
            box._layers[0].remove("/d/f")
        """
    )
    result = suite("--bodies=engine-memory")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*AssertionError: lower 0 changed:", "*/d/f: expected file, found nothing"])


def test_what_a_body_cannot_have_is_a_skip_with_the_reason(pytester, suite):
    pytester.makepyfile(
        """
        def test_one(box):
            box.lower({"/f": "x"})
            box.mount(separate=True)
        """
    )
    result = suite("--bodies=engine-local")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*host layers on separate file systems need mounts"])
