"""A host directory as a layer, with full metadata and never through a symlink (Linux).

`layer` turns paths into (directory, name) pairs by way of `beneath`, and acts on them with `names`;
`handle` are open objects, `workarea` is the workdir, `clone` reflinks, `syscalls` what Python lacks.
"""

from overlayvfs.layers.local.layer import LocalLayer

__all__ = ["LocalLayer"]
