"""README.md tells the truth: its examples run as printed, and CI runs its two commands."""

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def examples():
    """Yield each `pycon` block, named by the heading above it."""
    for match in re.finditer(r"^#+ (?P<title>[^\n]+)$|^```pycon\n(?P<code>.*?)^```$", README, re.MULTILINE | re.DOTALL):
        if match["title"]:
            title = match["title"]
        else:
            yield pytest.param(match["code"], id=title)


@pytest.mark.parametrize("example", list(examples()))
def test_readme_example_prints_what_it_says(example, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    test = doctest.DocTestParser().get_doctest(example, {}, "README.md", str(ROOT / "README.md"), 0)
    results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
    assert results.attempted > 0
    assert not results.failed, capsys.readouterr().out


def test_ci_runs_the_two_commands_of_the_readme():
    commands = re.findall(r"^```sh\n(python3 [^\n]*)\n```$", README, re.MULTILINE)
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert len(commands) == 2
    assert re.findall(r"^  (python3 .*)$", script, re.MULTILINE) == commands
