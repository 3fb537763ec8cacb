"""Overlays nobody closed: a collector's run ends them in the middle of whatever its thread does."""

import os
import subprocess
import sys

COLLECT_EVERYWHERE = """
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


def test_an_overlay_collected_while_others_are_counted_locks_nobody_out():
    # In a process of its own, which can be ended if it hangs.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", COLLECT_EVERYWHERE]
    run = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=120)
    assert (run.returncode, run.stdout) == (0, "39\n"), run.stderr
