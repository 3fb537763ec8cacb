"""`import overlayvfs` and memory layers work where Linux's own calls are missing, as on Windows and macOS."""

import subprocess
import sys

ELSEWHERE = """
import os, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in ("fcntl", "grp", "pwd", "resource"):
            raise ModuleNotFoundError(name)

import fs.osfs  # PyFilesystem's own business
for name in ("fcntl", "grp", "pwd", "resource"):
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Missing())
for name in (
    "O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK O_PATH O_TMPFILE SEEK_DATA SEEK_HOLE XATTR_CREATE XATTR_REPLACE"
    " chown copy_file_range getegid geteuid getgid getgroups getuid getxattr lchown link listxattr major makedev minor"
    " mkfifo mknod posix_fallocate pread pwrite removexattr sendfile setxattr statvfs umask"
).split():
    if hasattr(os, name):
        delattr(os, name)

from overlayvfs import MemoryFS, OverlayFS
lower, upper = MemoryFS(), MemoryFS()
lower.writetext("f", "below")
ofs = OverlayFS([lower], upper)
ofs.appendtext("f", " and above")
ofs.os.symlink("/f", "/link")
ofs.os.mknod("/fifo", 0o10600)
ofs.remove("fifo")
print(ofs.readtext("link"), lower.readtext("f"), sorted(upper.listdir("/")))
"""


def test_memory_layers_work_without_linux(tmp_path):
    ran = subprocess.run([sys.executable, "-c", ELSEWHERE], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.returncode) == ("below and above below ['f', 'link']\n", 0), ran.stderr
