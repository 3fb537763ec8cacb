"""Bugs to plant in the engine: one changed line each, as somebody might really write it.

A bug names a function, a piece of its source and what stands there instead. Planting swaps the function's code, so that
whoever imported it gets the bug too; where the piece is gone from the source, the bug is to be planted anew.
"""

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType

from overlayvfs.engine import (
    attr,
    copy_up,
    create,
    file,
    inode,
    lookup,
    lowers,
    permission,
    readdir,
    redirect,
    remove,
    rename,
    resolve,
    xattr,
)
from overlayvfs.marks import MarkNames
from overlayvfs.testing.random_stacks import Profile

PLAIN = Profile()
HOSTILE = Profile(hostile=True)
MARKS = Profile(marks=True)


@dataclass(frozen=True)
class Bug:
    """`right` in the source of `function` becomes `wrong`; `profile` draws what can show it."""

    function: Callable
    right: str
    wrong: str
    profile: Profile = PLAIN

    def code(self) -> CodeType:
        """Return the code of the function with the bug in it."""
        source = textwrap.dedent(inspect.getsource(self.function))
        if source.count(self.right) != 1:
            raise LookupError(f"{self.function.__qualname__} has {self.right!r} {source.count(self.right)} times")
        namespace: dict[str, Callable] = {}
        exec(source.replace(self.right, self.wrong), self.function.__globals__, namespace)
        return namespace[self.function.__name__].__code__


BUGS = {
    "mkdir over a whiteout is not opaque": Bug(create._make_over_whiteout, "set_opaque(mnt, upper, temp)", "pass"),
    "a directory moved into a merged one is not opaque": Bug(
        rename._mark_directory, "set_opaque(mnt, upper, dentry.path)", "pass"
    ),
    "opaque in the upper is overlooked": Bug(
        lookup._upper_dir, 'if get_mark(upper, path, mnt.marks.opaque) == b"y":', "if False:"
    ),
    "opaque in a lower is overlooked": Bug(
        lowers.LowerStack._look_up_single, 'if get_mark(layer, path, self.marks.opaque) == b"y":', "if False:"
    ),
    "a whiteout in a lower hides nothing below": Bug(
        lowers.LowerStack._look_up_single,
        "if self.is_whiteout(layer, path, st):\n        search.stop = True",
        "if self.is_whiteout(layer, path, st):\n        search.stop = False",
    ),
    "no whiteout where an upper object goes": Bug(
        remove._remove, "if shows_below(mnt, dentry):", "if not dentry.has_upper:"
    ),
    "a whiteout where nothing would show": Bug(
        remove.shows_below,
        "parent.lower_dir is not None and mnt.lowers.positive(parent.lower_dir, dentry.name)",
        "parent.lower_dir is not None",
    ),
    "rename leaves no whiteout": Bug(rename._replace, "RENAME_WHITEOUT if leaves_whiteout else 0", "0"),
    "rename says EXDEV before what comes first": Bug(
        rename.rename,
        "    _check_may_move(",
        "    if not can_move(mnt, old):\n        raise _immovable(old)\n    _check_may_move(",
    ),
    "rename moves merged directories": Bug(redirect.can_move, "not dentry.is_merge_or_lower", "True"),
    "two lower hard links are one to rename": Bug(
        inode.inode_key, "if lower.stat.st_nlink == 1 or mnt.has_index:", "if True:"
    ),
    "the old name still shows after rename": Bug(rename._replace, "old_parent.children[old.name] = None", "pass"),
    "the replaced object still shows after rename": Bug(
        rename._move_dentry,
        "new_parent.children[new_name] = dentry",
        "new_parent.children.setdefault(new_name, dentry)",
    ),
    "a name found missing stays missing after create": Bug(
        create._create, "parent.children[name] = dentry", "parent.children.setdefault(name, dentry)"
    ),
    "rmdir looks at the highest layer's names only": Bug(
        readdir.shows_nothing, "_places(mnt, dentry)", "_places(mnt, dentry)[:1]"
    ),
    "a name in two layers is listed twice": Bug(
        readdir._merge,
        "return [entry for entry in order.values() if entry is not None]",
        "return [one for place in places for name, one in _entries(mnt, place).items() if one and order[name]]",
    ),
    "a whiteout does not hide a name from listings": Bug(
        readdir._entries,
        "entries[entry.d_name] = None if hidden else (number, entry)",
        "entries.update({} if hidden else {entry.d_name: (number, entry)})",
    ),
    "copy up loses the times": Bug(
        copy_up._copy_attributes, "keep_what_fits(upper.utime, temp, st.st_atime_ns, st.st_mtime_ns)", "pass"
    ),
    "copy up loses set-id bits": Bug(
        copy_up._copy_attributes, "stat.S_IMODE(st.st_mode)", "stat.S_IMODE(st.st_mode) & 0o1777"
    ),
    "copy up loses attributes": Bug(copy_up._copy_attributes, "if not marks.is_private(name):", "if False:"),
    "copy up loses the owner": Bug(copy_up._create_file, "temp, mode, st.st_uid, st.st_gid", "temp, mode, 0, 0"),
    "copy up loses the end of the data": Bug(copy_up._fill, "length = min(has, size)", "length = min(has, size, 256)"),
    "copy up notes no origin of files": Bug(
        copy_up._copy_up_one, "dentry.is_dir or st.st_nlink == 1 or entry is not None", "dentry.is_dir"
    ),
    "copy up makes the parent's mtime fresh": Bug(
        copy_up._show, "upper.utime(parent.path, before.st_atime_ns, before.st_mtime_ns)", "pass"
    ),
    "a descriptor opened for reading does not see the copy": Bug(
        copy_up._hand_over,
        "inode.replace(handle, inode.data if dentry.metacopy else handle, writable=not dentry.metacopy)",
        "inode.in_upper, inode.writable = True, True\n    handle.close()",
    ),
    "the umask is ignored": Bug(create._ownership, "bits &= ~who.umask", "pass"),
    "a new object does not take a set-gid directory's group": Bug(create._ownership, "gid = parent.st_gid", "pass"),
    "a new directory does not take the set-gid bit": Bug(create._ownership, "bits |= stat.S_ISGID", "pass"),
    "chown keeps set-id bits": Bug(permission.mode_after_chown, " & ~stat.S_ISUID", ""),
    "a caller's overlay attribute is not escaped": Bug(
        MarkNames.escape,
        'return self.prefix + "overlay." + name[len(self.prefix) :] if name.startswith(self.prefix) else name',
        "return name",
    ),
    "XATTR_CREATE replaces": Bug(xattr.set_value, "stored, value, flags)", "stored, value, 0)"),
    "O_TRUNC keeps the mtime": Bug(attr.resize, "time.time_ns()", "st.st_mtime_ns"),
    "O_APPEND writes where the position is": Bug(
        file.File.write, "if self.flags & O_APPEND and len(data):", "if False:"
    ),
    "an absolute symlink starts where it lies": Bug(
        resolve._walk, 'at = mnt.root if path.startswith("/") else start', "at = start"
    ),
    "`..` of the root leads nowhere": Bug(
        resolve._walk, "at = at.parent or at", "at = at.parent or Dentry('', None, False, None, stat.S_IFDIR)", HOSTILE
    ),
    "a trailing slash is ignored": Bug(resolve._walk, 'path.endswith("/"), budget)', "False, budget)", HOSTILE),
    "a redirect in a lower is ignored": Bug(
        lowers.LowerStack._take_redirect, "search.redirect = search.name = redirect + rest", "pass", MARKS
    ),
    "a redirect in the upper is ignored": Bug(lookup._upper_dir, "if value is not None:", "if False:", MARKS),
}
