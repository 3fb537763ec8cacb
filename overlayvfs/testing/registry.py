"""The bodies by name, the one to make a new test pass on first."""

from collections.abc import Mapping
from typing import Final

from overlayvfs.testing.bodies import Box, EngineOnHost, EngineOnMemory, KernelBox
from overlayvfs.testing.plain import EngineOnPlain
from overlayvfs.testing.rotating import RotatingEngine, RotatingKernel

BODIES: Final[Mapping[str, type[Box]]] = {
    body.name: body
    for body in (KernelBox, EngineOnMemory, EngineOnHost, RotatingKernel, RotatingEngine, EngineOnPlain)
}
