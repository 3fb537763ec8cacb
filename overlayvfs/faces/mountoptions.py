r"""A mount spelt as mount(8) takes it and /proc/mounts shows it: "lowerdir=/a:/b,upperdir=/u,workdir=/w" (params.c).

A backslash takes the meaning from the comma, the colon or the backslash after it, so any path can be spelt,
and an FS URL too ("lowerdir=mem\://").
"""

import errno
import re
from collections.abc import Sequence
from typing import Any, Final

from overlayvfs.abi import oserror
from overlayvfs.engine.mount import Options

_OPTION: Final = re.compile(r"(?:[^,\\]|\\.|\\$)+", re.DOTALL)
_LOWER: Final = re.compile(r"(?:[^:\\]|\\.|\\$)+", re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_SPECIAL: Final = re.compile(r"[\\,:]")

_FLAGS: Final = ("volatile", "userxattr")
_SWITCHES: Final = ("redirect_dir", "index", "metacopy", "xino")


def parse(text: str) -> dict[str, Any]:
    """Return OverlayFS's arguments for mount options. As for mount(8), marks are trusted.* unless "userxattr" is there.

    Raises:
        EINVAL: an option unknown or out of scope, one without its value, or no lowerdir.

    """
    lowers: list[str] = []
    data_only: list[str] = []
    spelling: set[str] = set()
    arguments: dict[str, Any] = {"userxattr": False}
    for option in _OPTION.findall(text):
        name, has_value, value = option.partition("=")
        if name in _FLAGS and not has_value:
            arguments[name] = True
        elif option == "fsync=volatile":
            # How newer kernels show "volatile".
            arguments["volatile"] = True
        elif name == "lowerdir" and value:
            lowers, data_only = _split_lowers(value)
            spelling.add(name)
        elif name in ("lowerdir+", "datadir+") and value:
            if name == "lowerdir+" and data_only:
                raise oserror(errno.EINVAL, reason=f"{option} comes after a datadir+: data-only lowers are the last")
            (lowers if name == "lowerdir+" else data_only).append(value)
            spelling.add("lowerdir+")
        elif name in ("upperdir", "workdir") and value:
            arguments["upper" if name == "upperdir" else name] = _unescaped(value)
        elif name in _SWITCHES and value:
            arguments[name] = value
        else:
            raise oserror(errno.EINVAL, reason=f"mount option {option!r} is none of this overlay's")
    if not lowers:
        raise oserror(errno.EINVAL, reason="no lowerdir among the mount options")
    if len(spelling) > 1:
        raise oserror(errno.EINVAL, reason="lowerdir= and lowerdir+=, datadir+= are two ways to say it: use one")
    return {"lowers": lowers, "data_only": data_only, **arguments}


def spelt(
    lowers: Sequence[str], data_only: Sequence[str], upper: str | None, workdir: str | None, options: Options
) -> str:
    """Return the mount as /proc/mounts shows it: what differs from mount(8)'s defaults (ovl_show_options)."""
    words = ["lowerdir=" + "::".join([":".join(map(_escaped, lowers)), *map(_escaped, data_only)])]
    if upper is not None:
        words.append(f"upperdir={_escaped(upper)}")
    if workdir is not None:
        words.append(f"workdir={_escaped(workdir)}")
    if options.redirect_dir != "off":
        words.append(f"redirect_dir={options.redirect_dir}")
    if options.index:
        words.append("index=on")
    if options.xino != "auto":
        words.append(f"xino={options.xino}")
    if options.metacopy:
        words.append("metacopy=on")
    words += [name for name in _FLAGS if getattr(options, name)]
    return ",".join(words)


def _split_lowers(value: str) -> tuple[list[str], list[str]]:
    """Return the lowers and, each after "::", the data-only ones (overlayfs.rst, "Data-only lower layers")."""
    found = _LOWER.findall(value)
    separators = _LOWER.sub("\0", value).split("\0")
    first_data = separators.index("::") if "::" in separators else len(found)
    expected = ["", *[":"] * (first_data - 1), *["::"] * (len(found) - first_data), ""]
    if separators != expected:
        raise oserror(
            errno.EINVAL, reason=f"lowerdir={value}: no empty names, and after the first data-only layer (::) only such"
        )
    names = [_unescaped(name) for name in found]
    return names[:first_data], names[first_data:]


def _escaped(name: str) -> str:
    return _SPECIAL.sub(r"\\\g<0>", name)


def _unescaped(value: str) -> str:
    return _ESCAPED.sub(r"\1", value)
