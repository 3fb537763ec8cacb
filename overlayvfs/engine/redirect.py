"""Redirect marks: where in the lowers a moved object's contents are (overlayfs.rst, "renaming directories"; KB 10)."""

import errno

from overlayvfs.abi import oserror
from overlayvfs.engine.dentry import Dentry
from overlayvfs.engine.inode import is_metacopy
from overlayvfs.engine.lowers import get_mark
from overlayvfs.engine.mount import Mount
from overlayvfs.layers.base import UpperLayer
from overlayvfs.marks import REDIRECT_MAX, parse_redirect


def can_move(mnt: Mount, dentry: Dentry) -> bool:
    """Tell whether an object can be renamed: a directory with lower contents only by a redirect (ovl_can_move)."""
    return mnt.options.redirect_dir == "on" or not dentry.is_dir or not dentry.is_merge_or_lower


def set_redirect(mnt: Mount, upper: UpperLayer, dentry: Dentry, *, same_dir: bool) -> None:
    """Mark an object about to be renamed with the place of its lower contents (ovl_set_redirect; KB 10.2, 10.3).

    Raises:
        EXDEV: the path is too long, or the upper can't hold the mark: the caller copies, as mv(1) does.

    """
    absolute = not same_dir or _has_other_names(dentry)
    if not dentry.is_dir:
        # Another name of the file may have been moved or linked meanwhile: the mark is of the file, not of a name.
        value = get_mark(upper, dentry.path, mnt.marks.redirect)
        dentry.redirect = None if value is None else parse_redirect(value)
    if dentry.redirect is not None and (not absolute or dentry.redirect.startswith("/")):
        return
    redirect = _absolute(dentry) if absolute else dentry.name
    try:
        upper.setxattr(dentry.path, mnt.marks.redirect, redirect.encode("utf-8", "surrogateescape"))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        raise oserror(errno.EXDEV, reason=f"{upper.name} can't hold the redirect mark") from error
    dentry.redirect = redirect


def set_link_redirect(mnt: Mount, upper: UpperLayer, dentry: Dentry) -> None:
    """Mark a metacopy file about to get a second name (ovl_set_link_redirect; KB 12.8)."""
    if is_metacopy(mnt, dentry):
        set_redirect(mnt, upper, dentry, same_dir=False)


def _has_other_names(dentry: Dentry) -> bool:
    """Tell whether a file has lower hard links: its upper names may come to lie in different directories."""
    return dentry.lower_file is not None and dentry.lower_file.stat.st_nlink > 1


def _absolute(dentry: Dentry) -> str:
    """Return where in the lowers an object is, redirects of the directories above applied (ovl_get_redirect)."""
    parts: list[str] = []
    at = dentry
    while at.parent is not None:
        part = at.redirect or at.name
        parts.append(part.lstrip("/"))
        if part.startswith("/"):
            break
        at = at.parent
    value = "/" + "/".join(reversed(parts))
    if len(value.encode("utf-8", "surrogateescape")) > REDIRECT_MAX:
        raise oserror(errno.EXDEV, reason=f"the redirect {value!r} would be longer than {REDIRECT_MAX} bytes")
    return value
