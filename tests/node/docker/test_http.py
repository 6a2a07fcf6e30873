from __future__ import annotations

from http import HTTPStatus

import pytest

from node.docker.http import BODY_MAX, Head, HttpError, decode_head, encode_answer

DOCKER = (
    b"POST /NetworkDriver.Join HTTP/1.1\r\n"
    b"Host: %2Frun%2Fdocker%2Fplugins%2Fmuslin.sock\r\n"
    b"User-Agent: Go-http-client/1.1\r\n"
    b"Content-Length: 12\r\n"
    b"Accept: application/vnd.docker.plugins.v1.2+json\r\n"
    b"Accept-Encoding: gzip\r\n"
    b"\r\n"
)


def test_what_docker_sends_is_read():
    assert decode_head(DOCKER) == Head("NetworkDriver.Join", 12)


def test_a_request_without_a_length_has_no_body():
    assert decode_head(b"POST /Plugin.Activate HTTP/1.1\r\nHost: x\r\n\r\n").length == 0


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"POST /x HTTP/1.1\r\n", HTTPStatus.BAD_REQUEST),
        (b"POST /x HTTP/2\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"POST x HTTP/1.1\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"POST /\xc3\xa9 HTTP/1.1\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET /x HTTP/1.1\r\n\r\n", HTTPStatus.METHOD_NOT_ALLOWED),
        (b"POST /x HTTP/1.1\r\nno field\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"POST /x HTTP/1.1\r\nA: 1\nB: 2\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"POST /x HTTP/1.1\r\nContent-Length: -1\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"POST /x HTTP/1.1\r\nContent-Length: 1e3\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"POST /x HTTP/1.1\r\nContent-Length: " + b"9" * 99 + b"\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (
            b"POST /x HTTP/1.1\r\nContent-Length: 1\r\ncontent-length: 2\r\n\r\n",
            HTTPStatus.BAD_REQUEST,
        ),
        (
            b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            HTTPStatus.LENGTH_REQUIRED,
        ),
    ],
)
def test_anything_unclear_is_refused(head: bytes, status: HTTPStatus):
    with pytest.raises(HttpError) as raised:
        decode_head(head)
    assert raised.value.status is status


def test_a_body_has_a_longest_size():
    head = b"POST /x HTTP/1.1\r\nContent-Length: %d\r\n\r\n"
    assert decode_head(head % BODY_MAX).length == BODY_MAX
    with pytest.raises(HttpError) as raised:
        decode_head(head % (BODY_MAX + 1))
    assert raised.value.status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE


def test_an_answer_says_its_length_and_that_it_is_the_last():
    head, _, body = encode_answer(HTTPStatus.NOT_FOUND, b'{"Err": ""}').partition(b"\r\n\r\n")
    assert body == b'{"Err": ""}'
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 404 Not Found"
    assert {b"Content-Length: 11", b"Connection: close"} <= {*lines}
