"""The reference model: an overlay as nested dicts, by the kernel's rules and by nothing else.

Written from what the kernel was seen to do, with no line of the engine: where the two agree, two readings of the same
rules do. It is slow and keeps nothing it could work out again, so that each rule can be read where it stands. The
kernel remains the judge: the model is held to it by the same random sequences as the engine, and stands in for it
where there is none to ask.

What it does not claim:

- callers without privilege (`seteuid` and its kin);
- the options `index`, `metacopy`, `volatile`, `nfs_export` and `userxattr`;
- inode numbers and devices, beyond which objects are the same, and d_ino; sizes of directories;
- atime and ctime as side effects;
- positions in a directory of one layer;
- two ways to one lower file (KB 2.10); whiteouts that are attributes (KB 3.17);
- running out of space, what drivers of devices and fifos do, the paths in an error.

What it can tell it is asked of these it refuses (`Unsupported`), by name.
"""

from overlayvfs.testing.model.inodes import Inode, directory
from overlayvfs.testing.model.osmodule import ModelOs
from overlayvfs.testing.model.union import Union

__all__ = ["Inode", "ModelOs", "Union", "directory"]
