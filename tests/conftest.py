pytest_plugins = ["overlayvfs.testing.plugin"]
