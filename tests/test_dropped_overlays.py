"""Overlays nobody closed: a collector's run ends them in the middle of whatever its thread does."""

import os
import subprocess
import sys

OVERLAYS = """
import gc
from overlayvfs import MemoryFS, OverlayFS

base, target = MemoryFS(), MemoryFS()
gc.set_threshold(1)
for number in range(40):
    with OverlayFS([target], MemoryFS()) as ofs:
        for _ in range(3):
            dropped = OverlayFS([base], MemoryFS())
            dropped.itself = dropped
            del dropped
        ofs.writetext("f", str(number))
        ofs.commit(target)
print(target.readtext("f"))
"""

FILES = """
import gc, os
from overlayvfs import MemoryFS, OverlayFS

class Dropped:
    pass

with OverlayFS([MemoryFS()], MemoryFS()) as ofs:
    for every in (2, 13):
        gc.set_threshold(every)
        for number in range(400):
            dropped = Dropped()
            dropped.itself = dropped
            dropped.file = ofs.os.fdopen(ofs.os.open(f"/f{number % 7}", os.O_RDWR | os.O_CREAT), "wb")
            dropped.file.write(b"not flushed")
            del dropped
            ofs.os.mkdir(f"/{number}")
            ofs.os.symlink("target", f"/{number}/link")
            ofs.os.unlink(f"/{number}/link")
            ofs.os.rmdir(f"/{number}")
    print(sorted(ofs.listdir("/")))
"""


def output_of(script):
    """Run in a process of its own, which can be ended if it hangs."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "ignore", "-c", script]
    run = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_an_overlay_collected_while_others_are_counted_locks_nobody_out():
    assert output_of(OVERLAYS) == "39\n"


def test_a_file_collected_in_the_middle_of_a_verb_locks_nobody_out():
    assert output_of(FILES) == f"{[f'f{number}' for number in range(7)]}\n"
