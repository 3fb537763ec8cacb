from importlib.util import find_spec

pytest_plugins = ["overlayvfs.testing.plugin"]


def pytest_report_header() -> str:
    missing = [name for name in ("moto", "s3fs", "fs_s3fs") if find_spec(name) is None]
    return f"overlayvfs on S3: {f'not tested, for want of {missing} (extra [test])' if missing else 'tested'}"
