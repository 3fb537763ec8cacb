"""A host directory as a layer: the conformance suite on it."""

from pathlib import Path

import pytest

from overlayvfs.layers.local import LocalLayer
from overlayvfs.testing.conformance import UpperConformance


class TestBesideRoot(UpperConformance):
    def make_upper(self, where: Path) -> LocalLayer:
        (where / "root").mkdir()
        return LocalLayer(where / "root")
