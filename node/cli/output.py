"""Answers as tables, JSON, YAML or names. Pure: values in, text out.

Tables are for people: upper-case headers, columns as wide as their widest cell, three spaces
between, nothing ever cut off. JSON and YAML are for programs and carry the objects unchanged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Final

FORMATS: Final = ("wide", "json", "yaml", "name")

_GAP: Final = "   "
_MISSING: Final = "-"
_GROUP: Final = 4
"""Hex digits of a fingerprint that are read at once."""


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns, one line per row, headers first.

    >>> print(table(["name", "pods"], [["node1", "2"], ["a", "10"]]))
    NAME    PODS
    node1   2
    a       10
    """
    lines = [
        [header.upper() for header in headers],
        *([cell or _MISSING for cell in row] for row in rows),
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    return "\n".join(
        _GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def to_json(value: object, *, compact: bool = False) -> str:
    """Indented JSON, or one line of it."""
    if compact:
        return json.dumps(value, separators=(",", ":"))
    return json.dumps(value, indent=2)


_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
_RESERVED: Final = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})


def to_yaml(value: object) -> str:
    """The value in YAML's block style.

    Only lists, objects and scalars of JSON occur, so a few lines do what a dependency would:
    every JSON scalar is a YAML scalar, and text that could be read as anything else is quoted.

    >>> print(to_yaml([{"name": "web", "blocks": [], "since": "2026-01-01", "rtt": None}]))
    - name: web
      blocks: []
      since: "2026-01-01"
      rtt: null
    """
    return "\n".join(_yaml_lines(value))


def _yaml_lines(value: object) -> list[str]:
    if isinstance(value, dict) and value:
        lines = []
        for key, item in value.items():
            lines += _yaml_entry(f"{_yaml_scalar(str(key))}:", item)
        return lines
    if isinstance(value, list) and value:
        lines = []
        for item in value:
            first, *rest = _yaml_lines(item)
            lines += [f"- {first}", *(f"  {line}" for line in rest)]
        return lines
    return [_yaml_scalar(value)]


def _yaml_entry(head: str, item: object) -> list[str]:
    if isinstance(item, dict | list) and item:
        return [head, *(f"  {line}" for line in _yaml_lines(item))]
    return [f"{head} {_yaml_scalar(item)}"]


def _yaml_scalar(value: object) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _RESERVED:
        return value
    return json.dumps(value)


# -- values as people read them --------------------------------------------------------------------


def duration(seconds: object) -> str:
    """Two units at most: what matters of an age.

    >>> [duration(s) for s in (None, 0.4, 42, 312, 7384, 200000)]
    ['', '0s', '42s', '5m12s', '2h3m', '2d7h']
    """
    if not isinstance(seconds, int | float):
        return ""
    whole = int(seconds)
    for size, unit, smaller, small_unit in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size}{unit}" + (f"{rest}{small_unit}" if rest else "")
    return f"{whole}s"


def milliseconds(seconds: object) -> str:
    """A round trip.

    >>> milliseconds(0.00042), milliseconds(0.0423), milliseconds(None)
    ('0.42ms', '42.3ms', '')
    """
    if not isinstance(seconds, int | float):
        return ""
    value = seconds * 1000
    return f"{value:.2f}ms" if value < 10 else f"{value:.1f}ms"


def size(count: object) -> str:
    """Bytes, in binary units.

    >>> size(512), size(1536), size(5 << 30)
    ('512B', '1.5KiB', '5.0GiB')
    """
    if not isinstance(count, int | float):
        return ""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f}{unit}" if unit == "B" else f"{value:.1f}{unit}"
        value /= 1024
    return f"{value:.1f}TiB"


def share(value: object) -> str:
    """A share of one as per cent.

    >>> share(0.25), share(None)
    ('25%', '')
    """
    return f"{value:.0%}" if isinstance(value, int | float) else ""


def grouped(fingerprint: object) -> str:
    """Hex digits as people compare them.

    >>> grouped("3fa2c81d00ff")
    '3fa2-c81d-00ff'
    """
    digits = plain(fingerprint)
    return "-".join(digits[at : at + _GROUP] for at in range(0, len(digits), _GROUP))


def plain(value: object) -> str:
    """Anything else: lists with commas, objects as `key=value`, null as nothing."""
    match value:
        case None:
            return ""
        case list():
            return ",".join(map(plain, value))
        case dict():
            return ",".join(f"{key}={plain(item)}" for key, item in value.items())
        case _:
            return str(value)
