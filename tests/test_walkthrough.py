"""The walkthrough of every overlayfs tutorial, on host directories; then the kernel mounts what it left."""

import os
import stat
import subprocess

import pytest

from overlayvfs import OverlayFS


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Three lowers, lower1 on top, and the directories a mount needs; the current directory."""
    monkeypatch.chdir(tmp_path)
    for directory in ("lower1", "lower2", "lower3", "upper", "work", "merged"):
        os.mkdir(directory)
    for file in ("lower1/both", "lower2/both", "lower2/two", "lower3/three"):
        (tmp_path / file).write_text(f"I am {file}\n")
    os.utime("lower3/three", ns=(1, 2))
    return tmp_path


def stack():
    return OverlayFS(["lower1", "lower2", "lower3"], "upper", workdir="work")


def walk_through():
    """Do what the tutorials do: `touch merged/new; rm merged/two; echo edited >> merged/three`."""
    with stack() as merged:
        merged.touch("new")
        merged.remove("two")
        merged.appendtext("three", "edited\n")


def contents(directory):
    """Return the text of each file of a host directory, None for what is no regular file."""
    return {path.name: path.read_text() if path.is_file() else None for path in directory.iterdir()}


def test_the_highest_layer_wins(here):
    with stack() as merged:
        assert {name: merged.readtext(name) for name in merged.listdir("/")} == {
            "both": "I am lower1/both\n",
            "two": "I am lower2/two\n",
            "three": "I am lower3/three\n",
        }
    assert contents(here / "upper") == {}


def test_every_change_goes_to_the_upper(here):
    walk_through()
    assert contents(here / "upper") == {"new": "", "two": None, "three": "I am lower3/three\nedited\n"}


def test_the_lowers_stay_as_they_were(here):
    walk_through()
    assert contents(here / "lower1") == {"both": "I am lower1/both\n"}
    assert contents(here / "lower2") == {"both": "I am lower2/both\n", "two": "I am lower2/two\n"}
    assert contents(here / "lower3") == {"three": "I am lower3/three\n"}
    assert os.lstat("lower3/three").st_mtime_ns == 2


def test_a_removed_name_is_a_character_device_0_0(here):
    walk_through()
    two = os.lstat("upper/two")
    assert stat.S_ISCHR(two.st_mode)
    assert (os.major(two.st_rdev), os.minor(two.st_rdev)) == (0, 0)


def test_reopened_it_shows_the_same(here):
    walk_through()
    with stack() as merged:
        assert sorted(merged.listdir("/")) == ["both", "new", "three"]
        assert merged.readtext("three") == "I am lower3/three\nedited\n"


@pytest.mark.kernel
def test_the_kernel_mounts_the_upper_and_shows_the_same(here):
    walk_through()
    shown = in_a_kernel_mount("for name in $(ls -A merged); do echo \"$name: $(tr '\\n' '|' <merged/$name)\"; done")
    assert shown.splitlines() == ["both: I am lower1/both|", "new: ", "three: I am lower3/three|edited|"]


@pytest.mark.kernel
def test_the_kernel_itself_leaves_the_same_upper(here):
    in_a_kernel_mount("touch merged/new; rm merged/two; echo edited >> merged/three")
    theirs = {name: os.lstat(f"upper/{name}") for name in os.listdir("upper")}
    for name in theirs:
        os.unlink(f"upper/{name}")
    walk_through()
    ours = {name: os.lstat(f"upper/{name}") for name in os.listdir("upper")}
    assert {name: (st.st_mode, st.st_rdev, st.st_size, st.st_uid) for name, st in ours.items()} == {
        name: (st.st_mode, st.st_rdev, st.st_size, st.st_uid) for name, st in theirs.items()
    }


def in_a_kernel_mount(script):
    """Return what `script` prints where `merged` is a real overlay mount, in a mount namespace of its own."""
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--user", "--map-root-user"]
    options = "userxattr,lowerdir=lower1:lower2:lower3,upperdir=upper,workdir=work"
    mount = f"mount -t overlay overlay -o {options} merged"
    try:
        subprocess.run([*namespace, "sh", "-ec", mount], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no overlay mount to be had here: {error} {getattr(error, 'stderr', '')}".strip())
    ran = subprocess.run([*namespace, "sh", "-ec", f"{mount}; {script}"], check=True, capture_output=True, text=True)
    return ran.stdout
