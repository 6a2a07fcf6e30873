"""The version of the software, as installed: what records and `muslin --version` show."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "muslin"


def software_version() -> str:
    """The version of the installed distribution; `unknown` when run from a bare source tree."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"
