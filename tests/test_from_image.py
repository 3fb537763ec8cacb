"""Images as they are shipped become lowers: every layout, checked digest by digest; errors say what is wrong."""

import gzip
import hashlib
import io
import json
import os
import platform
import shutil
import tarfile
from contextlib import closing

import pytest
import zstandard

from overlayvfs import MemoryFS, MountFailed, OverlayFS
from overlayvfs.images.reference import same_image

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"

PACKED = {"": bytes, "+gzip": gzip.compress, "+zstd": zstandard.compress}


def tar(files, links=None):
    """Return an archive of these files, in this order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return out.getvalue()


BASE = tar({"etc/os": "base", "etc/gone": "x", "opt/tool/old": "x", "bin/sh": "#!"})
TOP = tar({"etc/.wh.gone": "", "etc/os": "top", "opt/tool/.wh..wh..opq": "", "opt/tool/new": "y"})
TREE = {"/etc/os": "top", "/opt/tool/new": "y", "/bin/sh": "#!"}


def sha256(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Layout:
    """An OCI image layout being made in a directory."""

    def __init__(self, where):
        self.where = where
        (where / "blobs" / "sha256").mkdir(parents=True)
        (where / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self.manifests = []

    def path(self, digest):
        return self.where / "blobs" / digest.replace(":", "/")

    def blob(self, data, media_type):
        data = json.dumps(data).encode() if isinstance(data, dict) else data
        self.path(sha256(data)).write_bytes(data)
        return {"mediaType": media_type, "digest": sha256(data), "size": len(data)}

    def image(self, *layers, packing="", diff_ids=None):
        config = {"rootfs": {"type": "layers", "diff_ids": diff_ids or [sha256(layer) for layer in layers]}}
        return self.blob(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": self.blob(config, CONFIG),
                "layers": [self.blob(PACKED[packing](layer), LAYER + packing) for layer in layers],
            },
            MANIFEST,
        )

    def add(self, descriptor, name=None, **more):
        annotations = {"org.opencontainers.image.ref.name": name} if name else {}
        self.manifests.append({**descriptor, "annotations": annotations, **more})
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": self.manifests}
        (self.where / "index.json").write_text(json.dumps(index))


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "layout")


def docker_archive(path, images, legacy=False):
    """Write what `docker save` writes: {name: layers}. `legacy`: the second copy of a layer is a symlink."""
    manifest = []
    with tarfile.open(path, "w") as archive:

        def add(name, data):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))

        held = {}
        for name, layers in images.items():
            config = json.dumps({"rootfs": {"diff_ids": [sha256(layer) for layer in layers]}, "name": name}).encode()
            add(f"{sha256(config)[7:]}.json", config)
            places = []
            for number, layer in enumerate(layers):
                place = f"{sha256(config)[7:19]}-{number}/layer.tar"
                if legacy and layer in held:
                    info = tarfile.TarInfo(place)
                    info.type, info.linkname = tarfile.SYMTYPE, f"../{held[layer]}"
                    archive.addfile(info)
                else:
                    add(place, layer)
                    held[layer] = place
                places.append(place)
            manifest.append({"Config": f"{sha256(config)[7:]}.json", "RepoTags": [name], "Layers": places})
        add("manifest.json", json.dumps(manifest).encode())


def tree(ofs):
    return {path: ofs.readtext(path) for path in ofs.walk.files()}


def refused(path, **options):
    with pytest.raises(MountFailed) as failed:
        OverlayFS.from_image(path, **options)
    return str(failed.value)


@pytest.mark.parametrize("packing", PACKED)
def test_an_oci_layout_is_stacked_with_its_whiteouts(layout, packing):
    layout.add(layout.image(BASE, TOP, packing=packing))
    with OverlayFS.from_image(str(layout.where)) as ofs:
        assert tree(ofs) == TREE


def test_an_oci_layout_in_a_tar_is_read_where_it_is(layout, tmp_path):
    layout.add(layout.image(BASE, TOP, packing="+gzip"))
    shutil.make_archive(str(tmp_path / "image"), "tar", layout.where)
    with OverlayFS.from_image(tmp_path / "image.tar") as ofs:
        assert tree(ofs) == TREE


@pytest.mark.parametrize("legacy", [False, True])
def test_what_docker_save_wrote_is_stacked(tmp_path, legacy):
    docker_archive(tmp_path / "image.tar", {"app:1": [BASE, TOP], "base:1": [BASE]}, legacy=legacy)
    with OverlayFS.from_image(tmp_path / "image.tar", ref="app:1") as ofs:
        assert tree(ofs) == TREE
    with OverlayFS.from_image(tmp_path / "image.tar", ref="base:1") as ofs:
        assert ofs.readtext("etc/gone") == "x"


def test_a_root_file_system_tar_is_one_lower(tmp_path):
    (tmp_path / "rootfs.tar.gz").write_bytes(gzip.compress(tar({"etc/os": "base", "etc/.wh.name": "a name"})))
    with OverlayFS.from_image(tmp_path / "rootfs.tar.gz") as ofs:
        assert tree(ofs) == {"/etc/os": "base", "/etc/.wh.name": "a name"}
    assert "root file system" in refused(tmp_path / "rootfs.tar.gz", ref="x")


def test_an_upper_makes_it_writable(layout):
    layout.add(layout.image(BASE, TOP))
    upper = MemoryFS()
    with OverlayFS.from_image(str(layout.where), upper=upper) as ofs:
        ofs.appendtext("etc/os", "!")
        ofs.remove("bin/sh")
        assert ofs.readtext("etc/os") == "top!"
    assert sorted(upper.os.listdir("/")) == ["bin", "etc"]


def test_no_mark_of_a_layer_shows(layout):
    layout.add(layout.image(BASE, TOP))
    with OverlayFS.from_image(str(layout.where)) as ofs:
        assert ofs.os.listxattr("/opt/tool") == []


def test_the_same_layer_twice_is_stacked_twice(layout):
    layout.add(layout.image(BASE, TOP, BASE))
    with OverlayFS.from_image(str(layout.where)) as ofs:
        assert ofs.readtext("etc/gone") == "x"


def test_a_fork_outlives_what_it_was_forked_from(layout):
    layout.add(layout.image(BASE, TOP, packing="+gzip"))
    ofs = OverlayFS.from_image(str(layout.where), upper=MemoryFS())
    with ofs.fork() as fork:
        ofs.close()
        assert tree(fork) == TREE


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
def test_close_lets_go_of_every_descriptor(layout):
    layout.add(layout.image(BASE, TOP, packing="+gzip"))
    before = len(os.listdir("/proc/self/fd"))
    with closing(OverlayFS.from_image(str(layout.where))) as ofs:
        assert tree(ofs) == TREE
        assert len(os.listdir("/proc/self/fd")) > before
    assert len(os.listdir("/proc/self/fd")) == before


# Choosing


def test_ref_chooses_by_name_or_digest(layout):
    layout.add(layout.image(BASE), "one")
    both = layout.image(BASE, TOP)
    layout.add(both, "two")
    for ref in ("two", both["digest"]):
        with OverlayFS.from_image(str(layout.where), ref=ref) as ofs:
            assert tree(ofs) == TREE


def test_several_images_without_ref_are_named(layout, tmp_path):
    layout.add(layout.image(BASE), "one")
    layout.add(layout.image(BASE, TOP), "two")
    assert "choose one by ref: one, two" in refused(str(layout.where))
    assert "no single image is 'three': one, two" in refused(str(layout.where), ref="three")
    docker_archive(tmp_path / "image.tar", {"app:1": [BASE], "app:2": [TOP]})
    assert "choose one by ref: app:1, app:2" in refused(tmp_path / "image.tar")


def test_one_image_under_two_names_needs_no_ref(layout):
    image = layout.image(BASE, TOP)
    layout.add(image, "one")
    layout.add(image, "two")
    with OverlayFS.from_image(str(layout.where)) as ofs:
        assert tree(ofs) == TREE


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("alpine", "docker.io/library/alpine:latest", True),
        ("user/app:1", "docker.io/user/app:1", True),
        ("localhost/app", "localhost/app:latest", True),
        ("registry:5000/app", "registry:5000/app:latest", True),
        ("alpine:3", "alpine", False),
        ("quay.io/alpine", "alpine", False),
    ],
)
def test_names_of_images_are_compared_as_docker_reads_them(one, other, same):
    assert same_image(one, other) is same


def test_of_several_platforms_that_of_this_machine_is_taken(layout, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    index = {
        "schemaVersion": 2,
        "manifests": [
            {**layout.image(BASE), "platform": {"os": "linux", "architecture": "amd64"}},
            {**layout.image(BASE, TOP), "platform": {"os": "linux", "architecture": "arm64"}},
            {**layout.image(TOP), "platform": {"os": "unknown", "architecture": "unknown"}},
        ],
    }
    layout.add(layout.blob(index, INDEX))
    with OverlayFS.from_image(str(layout.where)) as ofs:
        assert tree(ofs) == TREE
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert "no image for linux/riscv64, only for linux/amd64, linux/arm64" in refused(str(layout.where))


# What is wrong


def test_a_blob_that_is_not_what_its_digest_says_is_refused(layout):
    layout.add(layout.image(BASE, TOP))
    blob = layout.path(sha256(TOP))
    blob.write_bytes(TOP[:-1] + b"\1")
    assert f"is not what its digest {sha256(TOP)} says" in refused(str(layout.where))
    blob.write_bytes(TOP[:-512])
    assert f"has {len(TOP) - 512} bytes, not {len(TOP)}" in refused(str(layout.where))


def test_a_layer_that_unpacks_to_something_else_is_refused(layout):
    layout.add(layout.image(BASE, TOP, packing="+gzip", diff_ids=[sha256(BASE), sha256(BASE)]))
    assert f"is not what its digest {sha256(BASE)} says" in refused(str(layout.where))


def test_a_docker_layer_that_is_not_its_diff_id_is_refused(tmp_path):
    docker_archive(tmp_path / "image.tar", {"app:1": [BASE]})
    data = (tmp_path / "image.tar").read_bytes()
    (tmp_path / "image.tar").write_bytes(data.replace(b"#!", b"!!"))
    assert f"is not what its digest {sha256(BASE)} says" in refused(tmp_path / "image.tar")


def test_a_missing_blob_is_named(layout):
    layout.add(layout.image(BASE))
    layout.path(sha256(BASE)).unlink()
    assert sha256(BASE).replace(":", "/") in refused(str(layout.where))


def test_a_digest_that_leads_out_of_the_layout_is_refused(layout, tmp_path):
    (tmp_path / "secret").write_text("{}")
    layout.add({"mediaType": MANIFEST, "digest": "sha256:../../../secret", "size": 2})
    assert "is no digest" in refused(str(layout.where))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda layout: layout.add(layout.blob({"layers": []}, "text/plain")), "media type 'text/plain' is no image"),
        (lambda layout: layout.add(layout.blob({"mediaType": MANIFEST}, MANIFEST)), "'config' is missing"),
        (lambda layout: layout.add(layout.image(BASE, diff_ids=["x", "y"])), "1 layers and 2 diff_ids"),
        (lambda layout: (layout.where / "index.json").write_text("{"), "index.json is no JSON"),
        (lambda layout: (layout.where / "index.json").write_text("[]"), "index.json is no JSON object"),
        (lambda layout: (layout.where / "index.json").write_text('{"manifests": [1]}'), "'manifests' is missing"),
        (lambda layout: (layout.where / "index.json").write_text('{"manifests": []}'), "none"),
        (lambda layout: layout.where.joinpath("index.json").write_bytes(b" " * (5 << 20)), "too much"),
    ],
)
def test_a_malformed_layout_is_refused_with_what_is_wrong(layout, change, message):
    change(layout)
    assert message in refused(str(layout.where))


def test_a_layer_of_an_unknown_kind_is_refused(layout):
    config = layout.blob({"rootfs": {"diff_ids": [sha256(BASE)]}}, CONFIG)
    layer = layout.blob(BASE, LAYER + "+encrypted")
    layout.add(layout.blob({"mediaType": MANIFEST, "config": config, "layers": [layer]}, MANIFEST))
    assert "+encrypted' can't be stacked" in refused(str(layout.where))


def test_a_directory_that_is_no_image_is_refused(tmp_path):
    assert "it is no image" in refused(str(tmp_path))
