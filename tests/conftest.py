from importlib.util import find_spec
from shutil import which

pytest_plugins = ["overlayvfs.testing.plugin"]


def pytest_report_header() -> list[str]:
    packages = [name for name in ("moto", "s3fs", "fs_s3fs") if find_spec(name) is None]
    commands = [name for name in ("mkfs.ext4", "mkfs.xfs") if which(name) is None]
    s3 = f"not tested, for want of {packages} (extra [test])" if packages else "tested"
    images = f"not tested, for want of {commands}" if commands else "tested, where loop devices are"
    return [f"overlayvfs on S3: {s3}", f"overlayvfs on ext4 and xfs: {images}"]
