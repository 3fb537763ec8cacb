"""Marks: the facts an overlay keeps in a layer, and how each dialect spells them.

The engine knows the kernel's spelling only (fs/overlayfs/overlayfs.h): extended attributes
`trusted.overlay.*` or, with userxattr, `user.overlay.*`, and character devices 0/0 as whiteouts.
Layers that hold neither translate to the OCI spelling (image-spec, layer.md, "Whiteouts"): `.wh.` names.
"""

import errno
import re
import struct
from dataclasses import dataclass
from typing import Final

from overlayvfs.abi import oserror

WH_PREFIX: Final = ".wh."
WH_OPAQUE: Final = ".wh..wh..opq"

REDIRECT_MAX: Final = 256
"""Longest absolute redirect the kernel makes, in bytes (module parameter redirect_max)."""


@dataclass(frozen=True, slots=True)
class MarkNames:
    """The attribute names of one namespace, "trusted.overlay." or "user.overlay."."""

    prefix: str
    opaque: str
    redirect: str
    metacopy: str
    origin: str
    impure: str
    nlink: str
    uuid: str
    whiteout: str
    upper: str

    def is_private(self, name: str) -> bool:
        """Tell whether `name` is a mark of this namespace, hidden from the merged tree."""
        return name.startswith(self.prefix) and not name.startswith(self.prefix + "overlay.")

    def escape(self, name: str) -> str:
        """Return how a caller's `overlay.X` is stored: `overlay.overlay.X` ("Nesting overlayfs mounts")."""
        return self.prefix + "overlay." + name[len(self.prefix) :] if name.startswith(self.prefix) else name

    def unescape(self, name: str) -> str | None:
        """Return how a stored attribute shows in the merged tree; None if it does not."""
        if not name.startswith(self.prefix):
            return name
        rest = name[len(self.prefix) :]
        return self.prefix + rest[len("overlay.") :] if rest.startswith("overlay.") else None


def _names(prefix: str) -> MarkNames:
    words = ("opaque", "redirect", "metacopy", "origin", "impure", "nlink", "uuid", "whiteout", "upper")
    return MarkNames(prefix, *(prefix + word for word in words))


TRUSTED: Final = _names("trusted.overlay.")
USER: Final = _names("user.overlay.")


def parse_redirect(value: bytes) -> str:
    """Return a redirect mark as text (overlayfs.rst, "renaming directories"; ovl_get_redirect_xattr).

    Raises:
        EINVAL: empty, an empty component, or a relative value with a slash.

    """
    text = value.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
    if text.startswith("/"):
        well_formed = all(text[1:].split("/"))
    else:
        # A name that is nothing but its end is well-formed, and can't be looked up (EACCES).
        well_formed = bool(value) and "/" not in text
    if not well_formed:
        raise oserror(errno.EINVAL, reason=f"malformed redirect {text!r}")
    return text


_NLINK: Final = re.compile(rb"([UL])([+-][0-9]+)\n?")
_NLINK_MAX: Final = 12
"""Longest nlink mark the kernel reads, in bytes."""


def format_nlink(delta: int) -> bytes:
    """Return the nlink mark for overlay nlink minus the upper inode's own (ovl_set_nlink_upper)."""
    return f"U{delta:+d}".encode()


def parse_nlink(value: bytes) -> tuple[str, int] | None:
    """Return ("U" or "L", difference) of an nlink mark, None where it is malformed (ovl_get_nlink falls back)."""
    match = _NLINK.fullmatch(value.split(b"\0", 1)[0]) if len(value) <= _NLINK_MAX else None
    if match is None:
        return None
    difference = int(match[2])
    return (match[1].decode(), difference) if abs(difference) < 1 << 31 else None


@dataclass(frozen=True, slots=True)
class FileHandle:
    """Which object of which file system: what an origin mark holds (struct ovl_fb)."""

    uuid: bytes
    kind: int
    body: bytes

    _HEAD = struct.Struct("=BBBBB16s")

    def encode(self, *, of_upper: bool = False) -> bytes:
        """Return the mark's value: version 0, magic 0xfb, length, flags (CPU endian, of_upper), type, uuid, handle."""
        length = self._HEAD.size + len(self.body)
        flags = _CPU_ENDIAN | (_PATH_UPPER if of_upper else 0)
        return self._HEAD.pack(0, 0xFB, length, flags, self.kind, self.uuid) + self.body

    @classmethod
    def decode(cls, value: bytes) -> "FileHandle | None":
        """Return the handle in an origin mark; None where there is none to use (empty, another version, malformed)."""
        if len(value) < cls._HEAD.size:
            return None
        version, magic, length, flags, kind, uuid = cls._HEAD.unpack_from(value)
        # Linux logs an unknown version and goes on as if there were no origin (ovl_check_fb_len, ovl_get_fh).
        if version != 0 or magic != 0xFB or length > len(value) or flags & ~_KNOWN_FLAGS:
            return None
        if flags & _BIG_ENDIAN != _CPU_ENDIAN & _BIG_ENDIAN:
            return None
        return cls(uuid, kind, value[cls._HEAD.size : length])


_BIG_ENDIAN = 1
_PATH_UPPER = 4
_KNOWN_FLAGS = 0b111
_CPU_ENDIAN = _BIG_ENDIAN if struct.pack("=H", 1) == b"\0\1" else 0
