"""Contents of lower files that were read whole, for whoever reads them next: no layer is asked again."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from overlayvfs.engine.lowers import LowerFile

CONTENTS_MAX: Final = 64 << 20
"""How many bytes are remembered unless the overlay is told otherwise."""

CONTENT_MAX: Final = 256 << 10
"""A file larger than this is not remembered: reading it again costs little beside what is done with it."""


class ContentCache:
    """Contents of lower files, at most `bytes_max` of them together; shared by all who share the lowers."""

    __slots__ = ("_bytes", "_files", "bytes_max")

    def __init__(self) -> None:
        self.bytes_max = CONTENTS_MAX
        self._bytes = 0
        self._files: list[LowerFile] = []

    def takes(self, size: int) -> bool:
        """Tell whether a file of this size would be kept."""
        return size <= CONTENT_MAX and size <= self.bytes_max

    def keep(self, file: "LowerFile", content: bytes) -> None:
        """Keep a file's contents; when there are too many, all others go."""
        if self._bytes + len(content) > self.bytes_max:
            self.flush()
        file.content = content
        self._files.append(file)
        self._bytes += len(content)

    def flush(self) -> None:
        """Forget all contents."""
        files, self._files, self._bytes = self._files, [], 0
        for file in files:
            file.content = None
