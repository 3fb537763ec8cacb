"""`import overlayvfs` where it is not a matter of course: without pkg_resources, with the real one, off Linux."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

NO_PKG_RESOURCES = """
import sys
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pkg_resources":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Gone())
"""

OFF_LINUX = """
import errno, os, sys
for name in dir(os):
    if name.startswith("O_") and name not in "O_RDONLY O_WRONLY O_RDWR O_CREAT O_EXCL O_TRUNC O_APPEND".split():
        delattr(os, name)
for name in ("getxattr", "setxattr", "listxattr", "removexattr", "memfd_create", "geteuid", "fork", "statvfs", "mknod",
             "getgroups", "lchown", "fchown", "chown", "fchmod", "copy_file_range", "sendfile", "statvfs_result"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("fcntl", "pwd", "grp", "resource"):
    sys.modules[name] = None
"""

USE = """
import overlayvfs, sys
upper = overlayvfs.MemoryFS()
with overlayvfs.OverlayFS([overlayvfs.MemoryFS()], upper) as ofs:
    ofs.writetext("f", "1")
    assert ofs.os.stat("/f").st_size == 1
import fs
assert fs.open_fs("mem://").listdir("/") == []
"""


def python(code):
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_works_without_pkg_resources_and_leaves_no_stand_in_behind():
    assert python(NO_PKG_RESOURCES + USE + "print('pkg_resources' in sys.modules)") == "False\n"


@pytest.mark.skipif(find_spec("pkg_resources") is None, reason="this Python has no pkg_resources to leave alone")
def test_leaves_the_real_pkg_resources_alone():
    code = "import warnings\nwarnings.simplefilter('ignore')\nimport pkg_resources\n"
    assert python(code + USE + "print(sys.modules['pkg_resources'] is pkg_resources)") == "True\n"


def test_works_with_memory_layers_on_an_os_that_is_not_linux():
    python(OFF_LINUX + USE)
