"""Any PyFilesystem as a layer: fs.memoryfs, ZipFS, FTPFS, a subclassed OSFS, ...

As a lower it shows what the FS tells, asked as rarely as possible. As an upper it keeps what the FS keeps,
holds marks in OCI's `.wh.` spelling (spelling.py), and each verb happens or leaves the tree as it was
(steps.py). Read in this order: backend, attributes, spelling, tree, steps, rename, layer.
"""

from overlayvfs.layers.pyfs.layer import PyFsLayer

__all__ = ["PyFsLayer"]
