"""Who may do what (overlayfs.rst, "Permission model"; fs/namei.c, fs/attr.c).

The caller is checked against the merged tree's mode bits; what the overlay then does in its layers it
does with its own rights. The superuser (uid 0, the default) has all capabilities.
"""

import errno
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from overlayvfs.abi import Stat, oserror
from overlayvfs.engine.dentry import Dentry
from overlayvfs.engine.inode import attributes
from overlayvfs.engine.mount import Credentials, Mount

READ, WRITE, EXEC = 4, 2, 1


@contextmanager
def acting_as(mnt: Mount, who: Credentials) -> Iterator[None]:
    """Let the verbs of the block act as somebody else; other threads wait until it ends."""
    with mnt.lock:
        caller, mnt.credentials = mnt.credentials, who
        try:
            yield
        finally:
            mnt.credentials = caller


def allowed(who: Credentials, st: Stat, mask: int) -> bool:
    """Tell whether `who` may access an object with these attributes (generic_permission)."""
    if who.uid == 0:
        # The superuser may do all, but runs only what somebody may run.
        return not mask & EXEC or stat.S_ISDIR(st.st_mode) or bool(st.st_mode & 0o111)
    if who.uid == st.st_uid:
        granted = st.st_mode >> 6
    elif who.is_member(st.st_gid):
        granted = st.st_mode >> 3
    else:
        granted = st.st_mode
    return mask & ~granted & 7 == 0


def may(mnt: Mount, dentry: Dentry, mask: int) -> None:
    """Raise EACCES unless the caller has `mask` on the object (inode_permission)."""
    if mnt.credentials.uid == 0 and not mask & EXEC:
        return
    if not allowed(mnt.credentials, attributes(mnt, dentry), mask):
        raise oserror(errno.EACCES)


def may_search(mnt: Mount, directory: Dentry) -> None:
    """Raise EACCES unless the caller may look names up in the directory."""
    if mnt.credentials.uid != 0:
        may(mnt, directory, EXEC)


def may_create(mnt: Mount, parent: Dentry) -> None:
    """Raise ENOENT if the directory was removed, EACCES unless the caller may add names to it (may_create)."""
    if parent.unlinked:
        raise oserror(errno.ENOENT)
    if mnt.credentials.uid != 0:
        may(mnt, parent, WRITE | EXEC)


def may_link(mnt: Mount, source: Dentry) -> None:
    """Raise EPERM unless the caller may give an object further names (may_linkat).

    The rule is that of fs.protected_hardlinks=1, which systems are set up with: what is not one's own only if it is a
    regular file one may read and write, and nobody gains rights by it.
    """
    st = attributes(mnt, source)
    if owns(mnt, st):
        return
    mode = st.st_mode
    gives_rights = bool(mode & stat.S_ISUID) or mode & (stat.S_ISGID | stat.S_IXGRP) == stat.S_ISGID | stat.S_IXGRP
    if not source.is_file or gives_rights or not allowed(mnt.credentials, st, READ | WRITE):
        raise oserror(errno.EPERM)


def may_delete(mnt: Mount, parent: Dentry, victim: Dentry, *, is_dir: bool) -> None:
    """Check that a name may be removed or replaced by a directory (`is_dir`) or another object (may_delete).

    Raises:
        EACCES: the parent is not the caller's to change.
        EPERM: a sticky parent and somebody else's object.
        ENOTDIR, EISDIR: the victim is of the other kind.
        EBUSY: the root.

    """
    who = mnt.credentials
    if who.uid != 0:
        may(mnt, parent, WRITE | EXEC)
        directory = attributes(mnt, parent)
        if directory.st_mode & stat.S_ISVTX and who.uid not in (directory.st_uid, attributes(mnt, victim).st_uid):
            raise oserror(errno.EPERM)
    if is_dir and not victim.is_dir:
        raise oserror(errno.ENOTDIR)
    if is_dir and victim.parent is None:
        raise oserror(errno.EBUSY)
    if not is_dir and victim.is_dir:
        raise oserror(errno.EISDIR)


def owns(mnt: Mount, st: Stat) -> bool:
    """Tell whether the caller may change the object's attributes (inode_owner_or_capable)."""
    return mnt.credentials.uid in (0, st.st_uid)


def check_chmod(mnt: Mount, st: Stat, mode: int) -> int:
    """Return the permission bits the caller may set; EPERM if it is not the owner (setattr_prepare)."""
    if not owns(mnt, st):
        raise oserror(errno.EPERM)
    who = mnt.credentials
    if who.uid != 0 and not who.is_member(st.st_gid):
        mode &= ~stat.S_ISGID
    return mode & 0o7777


def check_chown(mnt: Mount, st: Stat, uid: int, gid: int) -> None:
    """Raise EPERM unless the caller may give the object this owner and group (-1: as it is) (setattr_prepare)."""
    who = mnt.credentials
    if who.uid == 0:
        return
    if who.uid != st.st_uid and mode_after_chown(who, st) is not None:
        # Even where nothing else changes, set-id bits go, and that takes the owner.
        raise oserror(errno.EPERM)
    keeps_owner = uid == -1 or (uid == st.st_uid and who.uid == st.st_uid)
    takes_own_group = gid == -1 or (who.uid == st.st_uid and (gid == st.st_gid or who.is_member(gid)))
    if not (keeps_owner and takes_own_group):
        raise oserror(errno.EPERM)


def check_utime(mnt: Mount, dentry: Dentry, st: Stat, *, now: bool) -> None:
    """Raise unless the caller may set times: the owner any, a writer the present (utimensat(2))."""
    if owns(mnt, st):
        return
    if not now:
        raise oserror(errno.EPERM)
    may(mnt, dentry, WRITE)


def mode_after_write(who: Credentials, st: Stat) -> int | None:
    """Return a file's mode after somebody without privilege changed its data, None if unchanged (file_remove_privs)."""
    if who.uid == 0 or not stat.S_ISREG(st.st_mode):
        return None
    mode = stat.S_IMODE(st.st_mode) & ~stat.S_ISUID
    if mode & stat.S_ISGID and (mode & stat.S_IXGRP or not who.is_member(st.st_gid)):
        mode &= ~stat.S_ISGID
    return mode if mode != stat.S_IMODE(st.st_mode) else None


def mode_after_chown(who: Credentials, st: Stat) -> int | None:
    """Return the mode after a change of owner, which drops set-id bits; None if unchanged (chown_common)."""
    if stat.S_ISDIR(st.st_mode) or stat.S_ISLNK(st.st_mode):
        return None
    mode = stat.S_IMODE(st.st_mode) & ~stat.S_ISUID
    if mode & stat.S_ISGID and (mode & stat.S_IXGRP or (who.uid != 0 and not who.is_member(st.st_gid))):
        mode &= ~stat.S_ISGID
    return mode if mode != stat.S_IMODE(st.st_mode) else None
