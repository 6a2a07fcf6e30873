r"""As much of HTTP/1.1 as Docker's plugin client speaks, as bytes in and bytes out.

    POST /NetworkDriver.Join HTTP/1.1\r\n        HTTP/1.1 200 OK\r\n
    Host: plugin.sock\r\n                        Content-Type: application/vnd.docker...+json\r\n
    Content-Length: 123\r\n                      Content-Length: 45\r\n
    ...\r\n                                      Connection: close\r\n
    \r\n                                         \r\n
    {"NetworkID": ...}                           {"InterfaceName": ...}

One request per connection. Whoever may connect is root, so this is strict to be simple: a length is
required, transfer encodings are refused, and a header that is there twice is an error.

References:
    RFC 9112 (HTTP/1.1): sections 3 (request line), 5 (fields), 6.3 (length of a message).
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final, NamedTuple

HEAD_MAX: Final = 8 << 10
"""Bytes of request line and fields: Go's client sends some 250."""

BODY_MAX: Final = 256 << 10
"""Bytes. A container that publishes a thousand ports says so in 100 KB."""

END_OF_HEAD: Final = b"\r\n\r\n"

MEDIA_TYPE: Final = "application/vnd.docker.plugins.v1.2+json"

_REQUEST_LINE: Final = re.compile(rb"([A-Z]+) (/[!-~]*) HTTP/1\.[01]")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([ -~\t\x80-\xff]*)")
_LENGTH: Final = re.compile(rb"[0-9]{1,9}")


class HttpError(Exception):
    """Bytes that are no request that is taken.

    Attributes:
        status: what to answer.
    """

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class Head(NamedTuple):
    """What is in front of a body.

    Attributes:
        method: what the path names, without its slash: `NetworkDriver.Join`.
        length: bytes of the body that follows, 0 to `BODY_MAX`.
    """

    method: str
    length: int


def decode_head(data: bytes) -> Head:
    """Read request line and fields, up to and with the empty line.

    Raises:
        HttpError: it is none, it is not a POST, or its body's length is missing, unclear or over
            `BODY_MAX`. Nothing else.
    """
    first, *lines = data.removesuffix(END_OF_HEAD).split(b"\r\n")
    request = _REQUEST_LINE.fullmatch(first)
    if request is None or not data.endswith(END_OF_HEAD):
        raise HttpError(HTTPStatus.BAD_REQUEST, "the request line is not HTTP/1.1")
    fields = _fields(lines)
    if request[1] != b"POST":
        raise HttpError(HTTPStatus.METHOD_NOT_ALLOWED, "every method of a plugin is a POST")
    return Head(request[2][1:].decode("ascii"), _length(fields))


def _fields(lines: list[bytes]) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None or field[1].lower() in fields:
            raise HttpError(HTTPStatus.BAD_REQUEST, "a field is malformed or there twice")
        fields[field[1].lower()] = field[2].rstrip(b" \t")
    return fields


def _length(fields: dict[bytes, bytes]) -> int:
    if b"transfer-encoding" in fields:
        raise HttpError(HTTPStatus.LENGTH_REQUIRED, "transfer encodings are not taken")
    said = fields.get(b"content-length", b"0")
    if not _LENGTH.fullmatch(said):
        raise HttpError(HTTPStatus.BAD_REQUEST, "the length of the body is no number")
    if int(said) > BODY_MAX:
        why = f"a body has at most {BODY_MAX} bytes"
        raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, why)
    return int(said)


def encode_answer(status: HTTPStatus, body: bytes) -> bytes:
    """A whole answer, after which the connection is closed."""
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        f"Content-Type: {MEDIA_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: close\r\n"
        "\r\n"
    )
    return head.encode("ascii") + body
