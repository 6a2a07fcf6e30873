"""JSON by the interpreter's own C functions, without the package around them.

`import json` compiles regular expressions and takes as long as half of the interpreter's start;
`_json` is what does its work, and is builtin. An interpreter without it, or with another one, gets
the package.

Strict: what is not JSON (RFC 8259) is refused, NaN and infinities too.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_SPACE = " \t\n\r"


def decode(text: str) -> object:
    """The value of a JSON text.

    Raises:
        ValueError: it is not JSON, or too deep. Nothing else.

    >>> decode(' {"a": [1, 2.5, null]} ')
    {'a': [1, 2.5, None]}
    """
    start = len(text) - len(text.lstrip(_SPACE))
    try:
        value, end = _scan(text, start)
    except SystemError:  # it has an error to tell, whose class nobody has imported
        return _from_package()[0](text, start)[0]
    except StopIteration as stop:
        raise ValueError("no value where one must be") from stop
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if text[end:].strip(_SPACE):
        raise ValueError("something behind the value")
    return value


def encode(value: object) -> str:
    r"""The JSON text of a value, in one line and ASCII.

    Args:
        value: made of dict with text keys, list, str, int, float, bool and None.

    >>> encode({"a": [1, None, "\u00e9"]})
    '{"a": [1, null, "\\u00e9"]}'
    """
    return "".join(_chunks(value))


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _unknown(value: object) -> object:
    raise TypeError(f"{value!r} has no JSON")


class _Scanning:
    """How `_json` is told what to make of a text: the settings of a `json.JSONDecoder`."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    array_hook = None
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_no_constant)


def _from_package() -> tuple[Callable[[str, int], tuple[object, int]], Callable[[object], object]]:
    import json  # noqa: PLC0415 - slow; only where the quick way is missing

    return (
        json.JSONDecoder(parse_constant=_no_constant).raw_decode,
        json.JSONEncoder(allow_nan=False).iterencode,
    )


def _from_core() -> tuple[Callable[[str, int], tuple[object, int]], Callable[[object], object]]:
    import _json  # noqa: PLC0415 - may be missing

    scan = _json.make_scanner(_Scanning)  # type: ignore[arg-type]
    quote = _json.encode_basestring_ascii
    make = _json.make_encoder(None, _unknown, quote, None, ": ", ", ", False, False, False)
    return scan, lambda value: make(value, 0)


def _ways() -> tuple[Callable[[str, int], tuple[object, int]], Callable[[object], object]]:
    try:
        scan, write = _from_core()
        if scan('{"a": 1}', 0) == ({"a": 1}, 8) and "".join(write({"a": 1})) == '{"a": 1}':  # type: ignore[arg-type]
            return scan, write
    except (ImportError, AttributeError, TypeError):
        pass
    return _from_package()


_scan, _write = _ways()


def _chunks(value: object) -> list[str]:
    return list(_write(value))  # type: ignore[call-overload,no-any-return]
