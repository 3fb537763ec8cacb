from pathlib import Path

from overlayvfs.layers.memory import MemoryLayer
from overlayvfs.testing.conformance import SnapshotConformance


class TestConformance(SnapshotConformance):
    def make_upper(self, where: Path) -> MemoryLayer:
        return MemoryLayer()
