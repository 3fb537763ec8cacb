"""Peers that need not be installed."""

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType


def sandfs() -> ModuleType | None:
    """Return the module `sandfs`, None where it is not installed."""
    return None if find_spec("sandfs") is None else import_module("sandfs")
