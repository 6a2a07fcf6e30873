r"""The two lines of the control protocol, and nothing but the standard library.

    request   {"v": 1, "id": 7, "method": "pod.add", "params": {"name": "web"}}\n
    answer    {"id": 7, "result": {...}}\n
    refusal   {"id": 7, "error": {"code": "pod-exists", "message": "...", "fix": "..."}}\n

JSON text has no raw newline, so a line is a message. Requests of one connection are answered in
order. Unknown top-level keys are ignored (a newer sender), an unknown version is refused. Codes are
stable and dashed; programs may depend on them, messages are for people.

References:
    JSON Lines, and JSON-RPC 2.0 for the shape; the envelope differs where theirs has no use here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Final

VERSION: Final = 1

LONGEST_REQUEST: Final = 512 << 10
"""The longest is a runtime's list of all its attachments (`pod.gc`), 90 bytes each; a node's record
has room for some three thousand. More is no request but an attempt to make the daemon hold memory.
"""

LONGEST_ANSWER: Final = 64 << 20
"""Every pod of a full cluster fits (65,536 blocks of pods is a few hundred bytes each)."""

SOCKET_PATH_MAX: Final = 107
"""Longest path that fits sockaddr_un with its closing zero byte (unix(7))."""


class ControlError(Exception):
    """A request failed, here or in the daemon.

    Attributes:
        code: stable, lower case, dashed.
        message: why, one clause.
        fix: what to do about it, one clause, or empty.
    """

    def __init__(self, code: str, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks."""

    id: int
    method: str
    params: dict[str, object] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The line, newline included."""
        line = {"v": VERSION, "id": self.id, "method": self.method, "params": self.params}
        return _line(line)

    @classmethod
    def decode(cls, line: bytes) -> Request:
        """Read a line.

        Raises:
            ControlError: not a request (`bad-request`), or of another version
                (`unknown-version`). Nothing else.
        """
        value = _object(line)
        if value.get("v") != VERSION:
            raise ControlError(
                "unknown-version",
                f"the daemon speaks version {VERSION} of the control protocol",
                "use the muslin command of the daemon's version",
            )
        request_id, method, params = value.get("id"), value.get("method"), value.get("params", {})
        if not isinstance(request_id, int) or not isinstance(method, str):
            raise ControlError("bad-request", "a request needs an id and a method")
        if not isinstance(params, dict):
            raise ControlError("bad-request", "params must be an object")
        return cls(request_id, method, params)


def encode_result(request_id: int, result: object) -> bytes:
    """The line that answers a request."""
    return _line({"id": request_id, "result": result})


def encode_error(request_id: int | None, error: ControlError) -> bytes:
    """The line that refuses a request; `request_id` is None when the request had none."""
    details = {"code": error.code, "message": error.message, "fix": error.fix}
    return _line({"id": request_id, "error": details})


def decode_answer(line: bytes) -> object:
    """The result in an answer line.

    Raises:
        ControlError: the one inside, or `bad-answer`. Nothing else.
    """
    value = _object(line)
    if "result" in value:
        return value["result"]
    error = value.get("error")
    if not isinstance(error, dict):
        raise ControlError("bad-answer", "the daemon's answer has neither result nor error")
    code, message, fix = (str(error.get(key, "")) for key in ("code", "message", "fix"))
    raise ControlError(code or "failed", message, fix)


def _line(value: dict[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _object(line: bytes) -> dict[str, object]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ControlError("bad-request", "the line is not JSON") from error
    if not isinstance(value, dict):
        raise ControlError("bad-request", "the line is not a JSON object")
    return value
