"""`fs.open_fs("overlay://lowerdir=/a:/b,upperdir=/u,workdir=/w")`: mount options as an FS URL."""

from fs.opener import Opener
from fs.opener.errors import NotWriteable
from fs.opener.parse import ParseResult

from overlayvfs.faces.pyfs import OverlayFS


class OverlayOpener(Opener):
    """Opens `overlay://` followed by mount options, percent-encoded where a URL needs it ("@", "?", "!", "%")."""

    protocols = ["overlay"]  # noqa: RUF012 (as Opener declares it)

    def open_fs(self, fs_url: str, parse_result: ParseResult, writeable: bool, create: bool, cwd: str) -> OverlayFS:
        """Open an overlay; paths are relative to the process's directory, whatever `cwd` is.

        Raises:
            NotWriteable: it has to be writable and has no upperdir.
            MountFailed: as OverlayFS, and for mount options it does not know.

        """
        tree = OverlayFS.from_options(parse_result.resource)
        if writeable and tree.getmeta()["read_only"]:
            tree.close()
            raise NotWriteable(f"{fs_url}: an overlay without upperdir can't be written")
        return tree
