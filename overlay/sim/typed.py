"""From tables as TOML has them to frozen dataclasses: typed, complete, nothing unknown.

A dataclass says what a table may hold: its fields are the keys, their types are checked, fields
without a default must be there. An error's `key` is the way to what is wrong: `event[2].nodes`.

Types understood: `bool`, `int`, `float` (finite; whole numbers too), `str`, enumerations of text,
other dataclasses, `X | None`, `tuple[X, ...]`, `Mapping[str, X]`, and every class with a
classmethod `read(value, path)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import StrEnum
from math import isfinite
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from overlay.errors import ConfigError

T = TypeVar("T")


def build(kind: type[T], raw: object, path: str = "") -> T:
    """An instance of a dataclass from a table.

    Args:
        kind: the dataclass.
        raw: the table.
        path: the way to it, for errors; empty for the whole file.

    Raises:
        ConfigError: the table does not fit; `key` is the way to what is wrong. Nothing else.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Point:
    ...     x: float
    ...     y: float = 0.0
    >>> build(Point, {"x": 1})
    Point(x=1.0, y=0.0)
    >>> build(Point, {"x": 1, "z": 2}, "point")
    Traceback (most recent call last):
    overlay.errors.ConfigError: no such key; there are x, y
    """
    given = partial_of(kind, raw, path)
    for field in fields(cast("Any", kind)):
        if field.name not in given and _is_required(field):
            raise _wrong(_join(path, field.name), "is missing")
    try:
        return kind(**given)
    except ConfigError as error:
        raise _wrong(_join(path, error.key), str(error)) from error


def partial_of(kind: type[Any], raw: object, path: str) -> dict[str, Any]:
    """The typed values of the keys that are there, for a table that need not be complete.

    Raises:
        ConfigError: as `build`.
    """
    if not isinstance(raw, dict):
        raise _wrong(path, "must be a table")
    hints = get_type_hints(kind)
    known = [field.name for field in fields(kind) if field.init]
    given = {}
    for key, value in raw.items():
        if key not in known:
            raise _wrong(_join(path, key), f"no such key; there are {', '.join(known)}")
        given[key] = _convert(hints[key], value, _join(path, key))
    return given


def _is_required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _convert(kind: Any, value: object, path: str) -> Any:  # noqa: ANN401 - types are data here
    if hasattr(kind, "read"):  # see the module
        return kind.read(value, path)
    origin, arguments = get_origin(kind), get_args(kind)
    if type(None) in arguments:
        (inner,) = (one for one in arguments if one is not type(None))
        return _convert(inner, value, path)
    if origin is tuple:
        return tuple(_items(arguments[0], value, path))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise _wrong(path, "must be a table")
        return {key: _convert(arguments[1], one, _join(path, key)) for key, one in value.items()}
    return _plain(kind, value, path)


def _plain(kind: type[Any], value: object, path: str) -> object:
    if not is_dataclass(kind):
        return _scalar(kind, value, path)
    if isinstance(value, kind):
        return value  # made by the caller
    return build(cast("type[Any]", kind), value, path)


def _items(kind: Any, value: object, path: str) -> list[Any]:  # noqa: ANN401 - as above
    if not isinstance(value, list):
        raise _wrong(path, "must be a list")
    return [_convert(kind, one, f"{path}[{number}]") for number, one in enumerate(value, 1)]


_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _scalar(kind: type[Any], value: object, path: str) -> object:
    if issubclass(kind, StrEnum):
        try:
            return kind(cast("str", value))
        except ValueError as error:
            raise _wrong(path, f"must be one of {', '.join(kind)}") from error
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        with suppress(OverflowError):  # TOML's integers have any length
            value = float(value)
    if type(value) is not kind or (isinstance(value, float) and not isfinite(value)):
        raise _wrong(path, f"must be {_NAMES[kind]}")
    return value


def _join(path: str, key: str) -> str:
    return ".".join(part for part in (path, key) if part)


def _wrong(path: str, what: str) -> ConfigError:
    return ConfigError(what, path)
