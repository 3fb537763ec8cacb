"""Making an object of one overlay in another: data with its holes, owner, mode, times and extended attributes.

What the other can't hold of the attributes is left out, as cp -a does; a kind of object it can't hold is refused.
"""

import base64
import errno
import stat
from collections.abc import Callable
from typing import Any

from overlayvfs.abi import O_CREAT, O_EXCL, O_NOFOLLOW, O_RDONLY, O_WRONLY, SEEK_DATA, SEEK_HOLE, Stat
from overlayvfs.engine.file import File
from overlayvfs.engine.overlay import Overlay

Attributes = dict[str, Any]
"""What is set of an object beside its data, as JSON can hold it: mode, uid, gid, atime, mtime, xattrs (base64).

`keep` is the prefix of extended attributes that stay though they are not among `xattrs`: the marks of a lower.
"""

_CHUNK = 1 << 20
_DOES_NOT_FIT = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})


def copy_object(source: Overlay, path: str, target: Overlay, to: str, attributes: Attributes | None = None) -> None:
    """Make at the free name `to` what is at `path`; a directory without what is in it.

    It gets all attributes of what is at `path`, or those given.

    Raises:
        EPERM, EOPNOTSUPP: `target` can't hold an object of this kind.
        ENOSPC, EIO: what is at `to` is then incomplete.

    """
    st = source.stat(path, follow=False)
    if stat.S_ISREG(st.st_mode):
        _copy_file(source, path, target, to, st.st_size)
    elif stat.S_ISDIR(st.st_mode):
        target.mkdir(to, 0o700)
    elif stat.S_ISLNK(st.st_mode):
        target.symlink(source.readlink(path), to)
    else:
        target.mknod(to, st.st_mode, st.st_rdev)
    set_attributes(target, to, attributes_of(source, path) if attributes is None else attributes)


def _copy_file(source: Overlay, path: str, target: Overlay, to: str, size: int) -> None:
    reader = source.open(path, O_RDONLY | O_NOFOLLOW)
    try:
        writer = target.open(to, O_WRONLY | O_CREAT | O_EXCL, 0o600)
        try:
            at = _seek(reader, 0, SEEK_DATA, size)
            while at < size:
                end = _seek(reader, at, SEEK_HOLE, size)
                while at < end and (piece := reader.pread(min(_CHUNK, end - at), at)):
                    at += writer.pwrite(piece, at)
                if at < end:
                    break
                at = _seek(reader, end, SEEK_DATA, size)
            if writer.stat().st_size != size:
                writer.truncate(size)
            writer.sync()
        finally:
            writer.close()
    finally:
        reader.close()


def _seek(file: File, at: int, whence: int, size: int) -> int:
    if at >= size:
        return size
    try:
        return min(file.seek(at, whence), size)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return size


def attributes_of(tree: Overlay, path: str, st: Stat | None = None) -> Attributes:
    """Return an object's attributes."""
    if st is None:
        st = tree.stat(path, follow=False)
    values = {name: tree.getxattr(path, name, follow=False) for name in tree.listxattr(path, follow=False)}
    return {
        "kind": stat.S_IFMT(st.st_mode),
        "mode": stat.S_IMODE(st.st_mode),
        "uid": st.st_uid,
        "gid": st.st_gid,
        "atime": st.st_atime_ns,
        "mtime": st.st_mtime_ns,
        "xattrs": {name: base64.b64encode(value).decode() for name, value in values.items()},
    }


def is_mark(name: str, prefix: str) -> bool:
    """Tell whether an attribute is a mark of the namespace with this prefix; "" is none."""
    return bool(prefix) and name.startswith(prefix) and not name.startswith(prefix + "overlay.")


def times_of(st: Stat) -> Attributes:
    """Return an object's times alone."""
    return {"atime": st.st_atime_ns, "mtime": st.st_mtime_ns}


def set_attributes(tree: Overlay, path: str, wanted: Attributes) -> None:
    """Give an object these attributes, as far as the tree holds them; what is not named stays."""
    if "xattrs" in wanted:
        for name in tree.listxattr(path, follow=False):
            if name not in wanted["xattrs"] and not is_mark(name, wanted.get("keep", "")):
                _if_it_fits(tree.removexattr, path, name)
        for name, value in wanted["xattrs"].items():
            _if_it_fits(tree.setxattr, path, name, base64.b64decode(value))
    if "uid" in wanted:
        # The mode after the owner: a change of owner clears set-id bits.
        _if_it_fits(tree.chown, path, wanted["uid"], wanted["gid"])
    if "mode" in wanted and wanted["kind"] != stat.S_IFLNK:
        _if_it_fits(tree.chmod, path, wanted["mode"])
    _if_it_fits(tree.utime, path, (wanted["atime"], wanted["mtime"]))


def _if_it_fits(verb: Callable[..., None], *args: object) -> None:
    try:
        verb(*args, follow=False)
    except OSError as error:
        if error.errno not in _DOES_NOT_FIT:
            raise
