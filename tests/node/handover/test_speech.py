from __future__ import annotations

import fcntl
import json
import os
import resource
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from node.errors import NodeError
from node.handover.capsule import FORMAT
from node.handover.speech import (
    Ended,
    Hello,
    Line,
    as_message,
    hello_of,
    this_namespace,
    wait_for_end,
)

HELLO = Hello("aa" * 32, (4, 4026531840), {"listen": "[::]:6875", "lanes": "one"}, port=6875)
SOON = 10.0


@pytest.fixture
def pair() -> Iterator[tuple[Line, Line]]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with Line(near) as one, Line(far) as other:
        yield one, other


def test_messages_stay_apart_and_descriptors_come_along_under_their_names(pair) -> None:
    near, far = pair
    reading, writing = os.pipe()
    null = os.open(os.devnull, os.O_WRONLY)
    near.send("given", {"null": null, "pipe": writing}, more=1)
    near.send("again")
    message, descriptors = far.receive(SOON)
    assert (message["say"], message["more"]) == ("given", 1)
    assert list(descriptors) == ["null", "pipe"]
    os.write(descriptors["pipe"], b"through")
    assert os.read(reading, 100) == b"through"
    assert far.expect("again", SOON)[1] == {}
    assert not any(map(os.get_inheritable, descriptors.values()))
    for handle in (reading, writing, null, *descriptors.values()):
        os.close(handle)


def test_one_with_thousands_of_open_files_can_listen(pair) -> None:
    near, far = pair
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        high = fcntl.fcntl(far.fileno(), fcntl.F_DUPFD_CLOEXEC, 2000)
        with Line(socket.socket(fileno=high)) as line:
            near.send("hello")
            assert line.receive(SOON)[0]["say"] == "hello"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_both_know_from_the_kernel_who_the_other_is(pair) -> None:
    assert {(line.pid, line.uid) for line in pair} == {(os.getpid(), os.geteuid())}


def test_a_refusal_is_raised_where_it_is_read(pair) -> None:
    near, far = pair
    near.refuse(NodeError("no", "later", "busy"))
    with pytest.raises(NodeError, match="no") as caught:
        far.receive(SOON)
    assert (caught.value.fix, caught.value.code) == ("later", "busy")


def test_silence_and_the_end_are_told_from_words(pair) -> None:
    near, far = pair
    with pytest.raises(Ended, match="does not answer"):
        far.receive(0.0)
    near.close()
    with pytest.raises(Ended, match="closed the connection"):
        far.receive(SOON)
    with pytest.raises(Ended, match="is gone"):
        far.send("anything")
    far.refuse(NodeError("nobody hears it"))


@pytest.mark.parametrize(
    "data", [b"no json", b"[]", b"{}", b'{"say": 1, "descriptors": []}', b'{"say": "given"}']
)
def test_what_is_no_message_is_refused(pair, data: bytes) -> None:
    near, far = pair
    near._socket.send(data)
    with pytest.raises(NodeError, match="cannot be read"):
        far.receive(SOON)


def test_descriptors_of_a_message_that_is_refused_are_closed(pair) -> None:
    near, far = pair
    reading, writing = os.pipe()
    socket.send_fds(near._socket, [b'{"say": "given", "descriptors": ["a", "b"]}'], [writing])
    os.close(writing)
    with pytest.raises(NodeError, match="not whole"):
        far.receive(SOON)
    assert os.read(reading, 1) == b""  # nobody has the other end any more
    os.close(reading)


def test_another_word_than_the_expected_one_is_refused(pair) -> None:
    near, far = pair
    near.send("give")
    with pytest.raises(NodeError, match="'give' instead of 'taken'"):
        far.expect("taken", SOON)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"node": "bb" * 32}, "other-node"),
        ({"namespace": (4, 1)}, "other-namespace"),
        ({"settings": {"listen": "[::]:7000", "lanes": "one"}}, "other-settings"),
        ({"settings": {}}, "other-settings"),
        ({"format": FORMAT + 1}, "other-version"),
        ({"port": 0}, ""),
        ({"notify": "/run/systemd/notify"}, ""),
    ],
)
def test_only_the_same_node_in_the_same_place_may_follow(changes, code: str) -> None:
    why_not = HELLO.why_not(replace(HELLO, **changes))
    assert (why_not.code if why_not else "") == code
    assert why_not is None or why_not.fix


def test_who_is_looked_after_is_followed_by_who_is_looked_after_by_the_same() -> None:
    looked_after = replace(HELLO, notify="/run/systemd/notify")
    assert looked_after.why_not(looked_after) is None
    for other in (HELLO, replace(HELLO, notify="/run/other")):
        why_not = looked_after.why_not(other)
        assert why_not is not None
        assert why_not.code == "supervised"


def test_a_hello_goes_through_json() -> None:
    assert hello_of(json.loads(json.dumps({"who": as_message(HELLO)}))) == HELLO


def test_of_another_format_nothing_else_is_believed() -> None:
    said = {"who": {"format": FORMAT + 1, "whatever": None}}
    assert hello_of(said).format == FORMAT + 1


@pytest.mark.parametrize("said", [{}, {"who": None}, {"who": {}}, {"who": {"format": FORMAT}}])
def test_who_does_not_say_who_he_is_is_refused(said) -> None:
    with pytest.raises(NodeError, match="does not say who it is"):
        hello_of(said)


def test_the_namespace_is_that_of_the_process() -> None:
    assert this_namespace()[1] == os.stat("/proc/self/ns/net").st_ino


def test_the_end_of_a_process_is_waited_for() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        pidfd = os.pidfd_open(process.pid)
        assert not wait_for_end(pidfd, 0.01)
        process.communicate()
        assert wait_for_end(pidfd, SOON)
        os.close(pidfd)
