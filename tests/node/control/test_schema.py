"""The lines of the control protocol."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.control.schema import (
    ControlError,
    Request,
    decode_answer,
    encode_error,
    encode_result,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=10,
)


def test_a_request_is_the_documented_line() -> None:
    line = Request(7, "pod.add", {"name": "web"}).encode()
    assert line == b'{"v":1,"id":7,"method":"pod.add","params":{"name":"web"}}\n'


def test_answers_are_the_documented_lines() -> None:
    assert encode_result(7, [1]) == b'{"id":7,"result":[1]}\n'
    assert encode_error(7, ControlError("pod-exists", "pod web exists", "choose")) == (
        b'{"id":7,"error":{"code":"pod-exists","message":"pod web exists","fix":"choose"}}\n'
    )


@given(st.integers(), st.text(), st.dictionaries(st.text(), json_values))
def test_a_request_survives_the_line_and_the_line_is_one(request_id, method, params) -> None:
    request = Request(request_id, method, params)
    line = request.encode()
    assert line.count(b"\n") == 1
    assert Request.decode(line) == request


@given(json_values)
def test_a_result_survives_the_line(value) -> None:
    assert decode_answer(encode_result(1, value)) == value


@given(st.text(min_size=1), st.text(), st.text())
def test_an_error_survives_the_line(code, message, fix) -> None:
    with pytest.raises(ControlError) as caught:
        decode_answer(encode_error(1, ControlError(code, message, fix)))
    error = caught.value
    assert (error.code, error.message, error.fix) == (code, message, fix)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_request_or_a_control_error(line) -> None:
    for decode in (Request.decode, decode_answer):
        with suppress(ControlError):
            decode(line)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ({"v": 2, "id": 1, "method": "x"}, "unknown-version"),
        ({"id": 1, "method": "x"}, "unknown-version"),
        ({"v": 1, "method": "x"}, "bad-request"),
        ({"v": 1, "id": "1", "method": "x"}, "bad-request"),
        ({"v": 1, "id": 1, "method": 2}, "bad-request"),
        ({"v": 1, "id": 1, "method": "x", "params": []}, "bad-request"),
        ([1], "bad-request"),
    ],
)
def test_a_malformed_request_is_refused_with_its_code(line, code) -> None:
    with pytest.raises(ControlError) as caught:
        Request.decode(json.dumps(line).encode())
    assert caught.value.code == code


def test_deep_nesting_is_refused_not_a_crash() -> None:
    with pytest.raises(ControlError):
        Request.decode(b"[" * 50_000)


def test_newer_keys_are_ignored() -> None:
    assert Request.decode(b'{"v":1,"id":1,"method":"x","new":1}') == Request(1, "x")


def test_an_answer_without_result_or_error_is_refused() -> None:
    with pytest.raises(ControlError, match="neither"):
        decode_answer(b'{"id":1}')
