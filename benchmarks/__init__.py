"""How quick the union is, against its peers, in one run: `python -m benchmarks --help`."""
