"""`overlayvfs demo` shows what it says it shows, on this machine's own Python library."""

import os
import re
import subprocess
import sys

import pytest
from fs.osfs import OSFS

from overlayvfs.cli import demo, main
from overlayvfs.cli.fingerprint import fingerprint
from overlayvfs.cli.page import Page


@pytest.fixture(scope="module")
def page():
    ran = subprocess.run([sys.executable, "-m", "overlayvfs", "demo"], capture_output=True, text=True, check=True)
    assert ran.stderr == ""
    return ran.stdout


def number(pattern, page):
    found = re.search(pattern, page)
    assert found, f"{pattern} is not in\n{page}"
    return int(found[1].replace(",", ""))


def test_demo_stacks_hundreds_of_real_files_at_the_least(page):
    # Some systems ship the library without its tests: 700 files instead of 2,500.
    assert number(r"lower 1 .* ([\d,]+) files", page) > 500
    assert number(r"lower 2 .* ([\d,]+) files", page) > 10


def test_demo_reads_from_a_lower_and_lists_both(page):
    assert number(r"ofs\.readtext\('this\.py'\).*\n +(\d+) characters", page) > 500
    assert number(r"ofs\.listdir\('/'\).*\n +(\d+) names", page) > 100


def test_demo_explains_why_a_directory_rename_is_refused(page):
    assert re.search(r"ofs\.os\.rename\('/json', '/yaml'\).*\n +EXDEV, ", page)


@pytest.mark.parametrize(
    ("mode", "size", "path", "meaning"),
    [
        ("c---------", "0, 0", "/antigravity.py", "whiteout: hides the name below"),
        ("c---------", "0, 0", "/this.py", "whiteout: hides the name below"),
        (r"drwx\S+", r"\S+", "/email", "opaque: user.overlay.opaque=y"),
        (r"-rw\S+", "15", "/email/README", "new"),
        (r"drwx\S+", r"\S+", "/json", "merged with the directory below"),
        (r"-rw\S+", r"\S+", "/json/__init__.py", "copied up"),
        (r"-rw\S+", r"\S+", "/zen.py", "copied up, then moved"),
    ],
)
def test_demo_lists_the_upper_in_the_kernels_terms(page, mode, size, path, meaning):
    assert re.search(rf"^  {mode} +{size}  {path} +{meaning}$", page, re.MULTILINE), page


def test_demo_lists_nothing_else_in_the_upper(page):
    listing = page.split("in the kernel's own terms\n")[1].split("\n\nThe lowers again")[0]
    assert len(listing.strip().splitlines()) == 7


@pytest.mark.parametrize(
    ("path", "layer"),
    [
        ("/zen.py", "the upper"),
        ("/json/decoder.py", "lower 1"),
        ("/email/README", "the upper"),
        (r"/\S+", "lower 2"),
    ],
)
def test_demo_says_which_layer_shows_a_path(page, path, layer):
    assert re.search(rf"^{path}: {layer} has the file$", page, re.MULTILINE), page


def test_demo_is_typed_into_the_shell_from_where_on(page):
    typed = re.findall(r"^/(\+?)> (.*)$", page, re.MULTILINE)
    assert [line for _, line in typed[1:]] == demo.SCRIPT.splitlines()[1:]
    assert [depth for depth, _ in typed] == ["", "", "", "+", "+", ""]
    assert "+# edited\n" in page
    in_the_fork, after = re.findall(r"^/json/decoder.py: (.*)$", page, re.MULTILINE)[1:]
    assert in_the_fork == "the directory /json in the upper hides it; lower 1 has a file"
    assert after == "lower 1 has the file"


def test_demo_proves_that_the_lowers_are_untouched(page):
    proofs = re.findall(r"^  lower \d +(\w{16}) before, (\w{16}) after +(.*)$", page, re.MULTILINE)
    assert len(proofs) == 2
    assert all(before == after and verdict == "untouched" for before, after, verdict in proofs)


def test_demo_tells_of_a_lower_that_changed(monkeypatch, tmp_path, capsys):
    def change_a_lower_too(page, ofs):
        change(page, ofs)
        (tmp_path / "intruder").touch()

    change = demo.change
    monkeypatch.setattr(demo, "change", change_a_lower_too)
    for file in ("this.py", "antigravity.py", "json/__init__.py", "json/decoder.py", "email/errors.py"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    wheel = demo.wheel()
    with OSFS(str(tmp_path)) as library, wheel.layer:
        assert not demo.tell(Page(), [demo.Lower("library", library, str(tmp_path)), wheel])
    assert re.findall("untouched|CHANGED", capsys.readouterr().out) == ["CHANGED", "untouched"]


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.write_text("yonder"),
        lambda file: file.chmod(0o600),
        lambda file: os.utime(file, ns=(0, 1)),
        lambda file: file.rename(file.with_name("g")),
        lambda file: file.unlink(),
        lambda file: file.with_name("empty").mkdir(),
    ],
    ids=["bytes", "mode", "mtime", "name", "gone", "new directory"],
)
def test_fingerprint_sees_a_change_of(change, tmp_path):
    file = tmp_path / "f"
    file.write_text("hither")
    os.utime(file, ns=(0, 0))
    before = fingerprint(str(tmp_path))
    change(file)
    assert fingerprint(str(tmp_path)) != before


def test_command_line_that_makes_no_sense_exits_with_2(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["dance"])
    assert exit_.value.code == 2
    assert "dance" in capsys.readouterr().err


def test_a_reader_who_leaves_early_gets_no_complaint():
    command = [sys.executable, "-m", "overlayvfs", "demo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 1
