"""`python -m node`: the same as the `muslin` command."""

from __future__ import annotations

import sys

from node.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
