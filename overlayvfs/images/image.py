"""An image as it was shipped, as layers to stack (image-spec: image-layout.md, manifest.md, config.md, image-index.md).

An OCI image layout (a directory or a tar of it), what `docker save` writes, and a plain root file system tar are told
apart by what they hold. Every blob is checked against its digest and every layer against the image's own list of
unpacked digests (`diff_ids`) before anything is stacked: two reads of each layer, one if it is not compressed. Layers
stay where they are and are read there; compressed ones are unpacked into a temporary file (see `layers/tar.py`).
"""

import errno
import hashlib
import io
import json
import platform
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, BinaryIO, Final, cast

from overlayvfs.abi import O_RDONLY, oserror
from overlayvfs.engine.file import File
from overlayvfs.engine.overlay import Overlay
from overlayvfs.images.reference import same_image
from overlayvfs.layers.adapt import LayerSpec, open_layer
from overlayvfs.layers.base import Layer
from overlayvfs.layers.tar import TarLayer
from overlayvfs.marks import USER, MarkNames

_CHUNK: Final = 1 << 20
_JSON_MAX: Final = 4 << 20
"""Bytes a manifest, index or config may have, as registries bound them."""

_DIGEST: Final = re.compile(r"(sha256):([0-9a-f]{64})|(sha512):([0-9a-f]{128})")
_INDEXES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS: Final = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_LAYERS: Final = re.compile(
    r"application/vnd\.(oci\.image\.layer(\.nondistributable)?\.v1\.tar(\+gzip|\+zstd)?"
    r"|docker\.image\.rootfs\.(diff|foreign\.diff)\.tar(\.gzip|\.zstd)?)"
)
_ARCHITECTURES: Final = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64", "i686": "386"}

Json = Any
"""What json.loads returns; each use checks what it takes out."""


class Image:
    """The layers of an image, highest first, as lowers; `close` lets go of them and of what they are read from."""

    def __init__(self, layers: Sequence[Layer], closing: ExitStack) -> None:
        self.layers = layers
        self._closing = closing

    def close(self) -> None:
        """Close everything; idempotent."""
        self._closing.close()


def open_image(where: LayerSpec, ref: str | None = None, *, marks: MarkNames = USER) -> Image:
    """Open the image at a path (an FS or FS URL, too); `ref` is its name or digest where there are several.

    What its layers hide is spelt in `marks`.

    Among platforms it is that of this machine, unless there is only one.

    Raises:
        EINVAL: no image, a malformed one, one of a kind that is not known, or `ref` names none or several (the message
            says which there are).
        EIO: a blob is not what its digest says.
        ENOENT: a blob is missing; else as `open_layer` and TarLayer.

    """
    with ExitStack() as closing:
        container = open_layer(where, "image")
        closing.callback(container.close)
        store = _Store(container, marks, closing)
        layers = _layers(store, container, ref)
        return Image(layers, closing.pop_all())


def _layers(store: "_Store", container: Layer, ref: str | None) -> list[Layer]:
    if store.has("manifest.json"):
        return _docker_layers(store, ref)
    if store.has("index.json"):
        return _oci_layers(store, ref)
    if not isinstance(container, TarLayer):
        raise store.malformed("it is no image: it has neither index.json (OCI) nor manifest.json (docker save)")
    if ref is not None:
        raise store.malformed(f"it is a root file system and has no image {ref!r}")
    return [container]


# docker save


def _docker_layers(store: "_Store", ref: str | None) -> list[Layer]:
    """Return the layers of an archive with a manifest.json: image by image its config, names and layer files."""
    images = store.json("manifest.json", list)
    named = [(image, _strings(image, "RepoTags", store)) for image in images]
    config_of = {id(image): _text(image, "Config", store) for image in images}
    chosen = [
        image
        for image, names in named
        if ref is None or any(same_image(ref, name) for name in names) or _is_id(ref, config_of[id(image)])
    ]
    if len(chosen) != 1:
        raise store.choose(ref, [name for _, names in named for name in names] or list(config_of.values()))
    image = chosen[0]
    config = store.json(config_of[id(image)], dict)
    return store.stack([(path, None) for path in _strings(image, "Layers", store)], _diff_ids(config, store))


def _is_id(ref: str, config: str) -> bool:
    """Tell whether `ref` is the image's id, which the name of its config holds."""
    return len(ref) >= 12 and ref.removeprefix("sha256:") in config


# OCI image layout


def _oci_layers(store: "_Store", ref: str | None) -> list[Layer]:
    descriptors = _dicts(store.json("index.json", dict), "manifests", store)
    chosen = [each for each in descriptors if ref is None or _is_named(each, ref)]
    chosen = list({_text(each, "digest", store): each for each in chosen}.values())
    if len(chosen) != 1:
        raise store.choose(ref, [name for each in descriptors for name in _names(each)])
    manifest = _manifest(store, chosen[0])
    config = store.blob(_dict(manifest, "config", store))
    layers = []
    for descriptor in _dicts(manifest, "layers", store):
        kind = descriptor.get("mediaType")
        if not isinstance(kind, str) or not _LAYERS.fullmatch(kind):
            raise store.malformed(f"a layer of media type {kind!r} can't be stacked")
        layers.append((store.place(descriptor), descriptor))
    return store.stack(layers, _diff_ids(config, store))


def _manifest(store: "_Store", descriptor: Json) -> Json:
    """Return the image manifest a descriptor leads to, through indexes by platform."""
    # Indexes can be nested, but nobody nests them deeper than this.
    for _ in range(4):
        content = store.blob(descriptor)
        kind = content.get("mediaType", descriptor.get("mediaType"))
        if kind in _MANIFESTS:
            return content
        if kind not in _INDEXES:
            raise store.malformed(f"media type {kind!r} is no image")
        descriptor = _for_this_machine(_dicts(content, "manifests", store), store)
    raise store.malformed("its indexes are nested too deeply")


def _for_this_machine(descriptors: list[Json], store: "_Store") -> Json:
    """Choose by platform; what is about an image (attestations) has the platform "unknown"."""
    by_platform: dict[tuple[str, str], Json] = {}
    for each in descriptors:
        about = each.get("platform") or {}
        where = str(about.get("os", "linux")), str(about.get("architecture", "any"))
        if where[0] != "unknown":
            by_platform.setdefault(where, each)
    if len(by_platform) == 1:
        return next(iter(by_platform.values()))
    machine = platform.machine().lower()
    here = "linux", _ARCHITECTURES.get(machine, machine)
    if here not in by_platform:
        there = ", ".join("/".join(each) for each in sorted(by_platform))
        raise store.malformed(f"it has no image for {'/'.join(here)}, only for {there or 'nothing'}")
    return by_platform[here]


def _names(descriptor: Json) -> list[str]:
    notes = descriptor.get("annotations") or {}
    keys = "io.containerd.image.name", "org.opencontainers.image.ref.name"
    names = [notes[key] for key in keys if isinstance(notes.get(key), str)]
    return names[:1] or [str(descriptor.get("digest"))]


def _is_named(descriptor: Json, ref: str) -> bool:
    notes = descriptor.get("annotations") or {}
    if ref in (descriptor.get("digest"), notes.get("org.opencontainers.image.ref.name")):
        return True
    return any(same_image(ref, name) for name in _names(descriptor))


def _diff_ids(config: Json, store: "_Store") -> list[str]:
    return _strings(_dict(config, "rootfs", store), "diff_ids", store)


class _Store:
    """The files of an image, found as `open` finds them (docker makes symlinks), never outside of it."""

    def __init__(self, container: Layer, marks: MarkNames, closing: ExitStack) -> None:
        self.name = container.name
        self._marks = marks
        self._closing = closing
        # One layer, read-only: for its paths and symlinks.
        self._tree = Overlay.mount([container], None)
        closing.callback(self._tree.close)

    def malformed(self, why: str) -> OSError:
        """Return the EINVAL that refuses this image."""
        return oserror(errno.EINVAL, self.name, reason=why)

    def choose(self, ref: str | None, names: list[str]) -> OSError:
        """Return the EINVAL for a `ref` that names none or several of these."""
        there = ", ".join(sorted(set(names))) or "none"
        why = "it holds several images; choose one by ref" if ref is None and names else f"no single image is {ref!r}"
        return self.malformed(f"{why}: {there}")

    def has(self, path: str) -> bool:
        """Tell whether there is such a regular file."""
        try:
            return stat.S_ISREG(self._tree.stat(f"/{path}").st_mode)
        except OSError:
            return False

    def json(self, path: str, shape: type) -> Json:
        """Return the content of a JSON file, a list or an object. EINVAL."""
        file = self._open(path)
        size = file.stat().st_size
        if size > _JSON_MAX:
            raise self.malformed(f"{path} has {size} bytes, which is too much")
        return self._parsed(file.pread(size, 0), path, shape)

    def blob(self, descriptor: Json) -> Json:
        """Return the JSON object a descriptor leads to, checked. EINVAL EIO."""
        path = self.place(descriptor)
        content = self.json(path, dict)
        self._check(path, descriptor)
        return content

    def place(self, descriptor: Json) -> str:
        """Return the path of a blob. EINVAL."""
        digest = _text(descriptor, "digest", self)
        if not _DIGEST.fullmatch(digest):
            raise self.malformed(f"{digest[:80]!r} is no digest of a kind that is known")
        return f"blobs/{digest.replace(':', '/')}"

    def stack(self, blobs: Sequence[tuple[str, Json]], diff_ids: list[str]) -> list[Layer]:
        """Return the layers in these files (the lowest first, with descriptors if there are any), the highest first."""
        if len(blobs) != len(diff_ids):
            raise self.malformed(f"it has {len(blobs)} layers and {len(diff_ids)} diff_ids")
        layers: list[Layer] = []
        for (path, descriptor), diff_id in zip(blobs, diff_ids, strict=True):
            if descriptor is not None:
                self._check(path, descriptor)
            layer = TarLayer(self._stream(path), name=f"{self.name}@{diff_id}", whiteouts=True, marks=[self._marks])
            self._closing.callback(layer.close)
            if descriptor is None or descriptor["digest"] != diff_id:
                self._compare(path, diff_id, layer.content())
            layers.append(layer)
        return layers[::-1]

    def _check(self, path: str, descriptor: Json) -> None:
        """Compare a blob with its descriptor. EIO."""
        file = self._open(path)
        size = file.stat().st_size
        if size != descriptor.get("size"):
            raise oserror(errno.EIO, self.name, reason=f"{path} has {size} bytes, not {descriptor.get('size')}")
        self._compare(path, descriptor["digest"], _pieces(file))

    def _compare(self, path: str, digest: str, pieces: Iterator[bytes]) -> None:
        algorithm, _, expected = digest.partition(":")
        if not _DIGEST.fullmatch(digest):
            raise self.malformed(f"{digest[:80]!r} is no digest of a kind that is known")
        hashed = hashlib.new(algorithm)
        for piece in pieces:
            hashed.update(piece)
        if hashed.hexdigest() != expected:
            raise oserror(errno.EIO, self.name, reason=f"{path} is not what its digest {digest} says")

    def _parsed(self, data: bytes, path: str, shape: type) -> Json:
        try:
            content = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self.malformed(f"{path} is no JSON: {error}") from None
        if not isinstance(content, shape):
            raise self.malformed(f"{path} is no JSON {'list' if shape is list else 'object'}")
        return content

    def _open(self, path: str) -> File:
        try:
            file = self._tree.open(f"/{path}", O_RDONLY)
        except OSError as error:
            raise oserror(error.errno or errno.EIO, self.name, reason=path) from error
        self._closing.callback(file.close)
        return file

    def _stream(self, path: str) -> BinaryIO:
        return cast(BinaryIO, _FileStream(self._open(path)))


class _FileStream(io.RawIOBase):
    """An open file of the store as a file object that can be read and sought in."""

    def __init__(self, file: File) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any, /) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _pieces(file: File) -> Iterator[bytes]:
    offset = 0
    while piece := file.pread(_CHUNK, offset):
        yield piece
        offset += len(piece)


# What JSON has to hold


def _text(content: Json, key: str, store: _Store) -> str:
    value = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(value, str):
        raise store.malformed(f"{key!r} is missing or no text")
    return value


def _strings(content: Json, key: str, store: _Store) -> list[str]:
    value = content.get(key) if isinstance(content, Mapping) else ()
    # Docker writes null for an image without names.
    values = [] if value is None else value
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise store.malformed(f"{key!r} is missing or no list of texts")
    return values


def _dict(content: Json, key: str, store: _Store) -> Json:
    value = content.get(key)
    if not isinstance(value, dict):
        raise store.malformed(f"{key!r} is missing or no object")
    return value


def _dicts(content: Json, key: str, store: _Store) -> list[Json]:
    value = content.get(key)
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise store.malformed(f"{key!r} is missing or no list of objects")
    return value
