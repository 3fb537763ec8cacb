"""The families of benchmarks: each module's `run` takes a Lab and races one kind of work."""
