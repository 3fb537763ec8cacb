"""PyFilesystem, importable on every Python: `fs` 2.4 asks for pkg_resources, which setuptools 82 dropped.

`overlayvfs/__init__.py` imports this before anything else, so all other modules say `from fs import …`
plainly. `fs-next`, the fork with the same import name, needs none of it and is not disturbed.
"""

import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pkgutil import extend_path
from types import ModuleType


class _PkgResources(ModuleType):
    """As much of pkg_resources as `fs` uses."""

    @staticmethod
    def declare_namespace(name: str) -> None:
        """Let other distributions add modules to the package `name`."""
        package = sys.modules[name]
        package.__path__ = extend_path(package.__path__, name)

    @staticmethod
    def iter_entry_points(group: str, name: str | None = None) -> Iterator[EntryPoint]:
        """Yield what installed distributions offer in `group`, or only what they offer as `name`."""
        return iter(entry_points(group=group) if name is None else entry_points(group=group, name=name))


def _import_fs() -> None:
    """Import `fs` with the stand-in in place of pkg_resources.

    Also where the real one could be had: it is slow to import and warns about itself. It is put
    back afterwards, so nobody else's `import pkg_resources` finds ours; `fs` keeps what it got.
    """
    real = sys.modules.get("pkg_resources")
    sys.modules["pkg_resources"] = real or _PkgResources("pkg_resources")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import fs.opener  # noqa: F401 (what matters is that it is in sys.modules)
    finally:
        if real is None:
            del sys.modules["pkg_resources"]


_import_fs()
