"""`python -m overlayvfs` is the `overlayvfs` command."""

import sys

from overlayvfs.cli import main

sys.exit(main())
