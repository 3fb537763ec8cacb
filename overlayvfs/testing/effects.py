"""What an operation did to an upper, in one line: `/ ~mtime; +n dir{opaque=y}; x: file(3) -> WH`.

`+p K` a new entry p of kind K; `-p` the entry is gone; `p: A -> B` it changed; `p ~a,b` these attributes changed.
Braces hold marks (without `impure`, which says how to read a directory, not what is in it), `[hard link group g]`
says that the object has more names, or an index entry; `WH` is a whiteout, `(n)` a size.
"""

from overlayvfs.testing.snapshots import Entry, Snapshot

_SILENT_MARKS = frozenset({"impure"})
_MARKS_WITHOUT_VALUE = frozenset({"origin", "metacopy"})


def effect(before: Snapshot, after: Snapshot) -> str:
    """Return the difference of two snapshots of one upper; "" if there is none."""
    parts = [_difference(path, before.get(path), after.get(path)) for path in sorted({*before, *after})]
    return "; ".join(part for part in parts if part)


def _difference(path: str, old: Entry | None, new: Entry | None) -> str:
    name = path[1:] or "/"
    if old is None or new is None:
        return f"+{name} {_described(new)}" if new is not None else f"-{name}"
    was, now = _described(old), _described(new)
    changed = ",".join(_changed_attributes(old, new)) if old.kind == new.kind else ""
    if was == now:
        return f"{name} ~{changed}" if changed else ""
    return f"{name}: {was} -> {now}" + (f" ~{changed}" if changed else "")


def _described(entry: Entry) -> str:
    if entry.kind == "whiteout":
        return "WH"
    size = f"({entry.size})" if entry.kind == "file" else ""
    group = f"[hard link group {entry.group[1:]}]" if entry.nlink > 1 and entry.kind != "dir" else ""
    told = [
        name if name in _MARKS_WITHOUT_VALUE else f"{name}={value.decode(errors='backslashreplace')}"
        for name, value in entry.marks
        if name not in _SILENT_MARKS
    ]
    return entry.kind + size + group + (f"{{{','.join(told)}}}" if told else "")


def _changed_attributes(old: Entry, new: Entry) -> list[str]:
    pairs = {
        "mode": (old.mode, new.mode),
        "owner": ((old.uid, old.gid), (new.uid, new.gid)),
        "mtime": (old.mtime, new.mtime),
        "data": (old.data, new.data),
        "target": (old.target, new.target),
        "xattr": (old.xattrs, new.xattrs),
    }
    return [name for name, (left, right) in pairs.items() if left != right]
