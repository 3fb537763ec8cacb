"""Linux's OverlayFS as a library: read-only lowers and one writable upper, any PyFilesystem each, seen as one tree.

>>> from overlayvfs import MemoryFS, OverlayFS
>>> ofs = OverlayFS(["/usr/share/doc"], MemoryFS())
>>> ofs.removetree("/")  # the lower keeps every file
"""

# First, so that every other module may import `fs` plainly.
from overlayvfs import _fscompat  # noqa: F401
from overlayvfs.faces.errors import MountFailed
from overlayvfs.faces.osmod import OsModule
from overlayvfs.faces.pyfs import MemoryFS, OverlayFS
from overlayvfs.workspace.limits import limited
from overlayvfs.workspace.watch import audit_log

__version__ = "0.1.0"

__all__ = ["OverlayFS", "MemoryFS", "OsModule", "MountFailed", "limited", "audit_log", "__version__"]
