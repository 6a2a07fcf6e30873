"""The version of the software, as installed: what records and `muslin --version` show."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "muslin"


@cache
def software_version() -> str:
    """The version of the installed distribution; `unknown` when run from a bare source tree.

    Looked up once: it is a file to be parsed, and every request is answered with it in hand.
    """
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"
