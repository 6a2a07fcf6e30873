"""The Container Runtime Interface: what a kubelet asks of containerd, spoken by curl.

gRPC is HTTP/2 with a five-byte frame before each message, which curl speaks as it is; the messages
have few fields, which are put together here by their numbers. So no library and no generated code
are needed to ask what a kubelet asks.

    frame    u8 compressed (0), u32 length, message
    message  for each field: varint (number << 3 | wire type), value
             wire type 0: varint; 2: varint length, bytes (texts and messages alike)

References:
    kubernetes/cri-api pkg/apis/runtime/v1/api.proto (numbers of the fields); gRPC over HTTP/2;
    Protocol Buffers, "Encoding".
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tests.support import images
from tests.support.hosts import Host

SOCKET = "/run/containerd/containerd.sock"
TCP, UDP = 0, 1

_FRAME = 5
_VARINT, _BYTES = 0, 2


class CriError(AssertionError):
    """The runtime refused; what it said."""


@dataclass(frozen=True)
class Sandbox:
    """A pod as the runtime knows it.

    Args:
        id: the runtime's name of it; the CNI's container id.
        addresses: of the pod, the first family first.
        config: what it was made with; its containers are made with it again.
    """

    id: str
    addresses: tuple[str, ...]
    config: bytes


class Cri:
    """A runtime's CRI on a host.

    Args:
        host: where containerd runs.
    """

    def __init__(self, host: Host) -> None:
        self._host = host

    def call(self, method: str, message: bytes = b"") -> dict[int, list[bytes | int]]:
        """Call a method of the RuntimeService; the fields of its answer.

        Raises:
            CriError: the runtime refused.
        """
        with tempfile.TemporaryDirectory() as folder:
            question, answer = Path(folder, "question"), Path(folder, "answer")
            question.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
            trailers = self._host.run(
                *("curl", "-sS", "--http2-prior-knowledge", "--unix-socket", SOCKET),
                *("-H", "content-type: application/grpc", "-H", "te: trailers"),
                *("--data-binary", f"@{question}", "-o", answer, "-D", "-"),
                f"http://localhost/runtime.v1.RuntimeService/{method}",
                timeout=60,
            )
            if "grpc-status: 0" not in trailers:
                raise CriError(f"{method}: {trailers}")
            return fields(answer.read_bytes()[_FRAME:])

    # -- what a kubelet does -----------------------------------------------------------------------

    def network_ready(self) -> bool:
        """Whether the runtime has found a network."""
        (status,) = self.call("Status")[1]
        assert isinstance(status, bytes)
        conditions = [fields(condition) for condition in _messages(status, 1)]
        return {1: [b"NetworkReady"], 2: [1]} in conditions

    def run_pod(
        self,
        name: str,
        ports: Sequence[tuple[int, int, int]] = (),
        annotations: Mapping[str, str] = MappingProxyType({}),
    ) -> Sandbox:
        """Run a pod's sandbox.

        Args:
            name: of the pod, in the Kubernetes namespace `default`.
            ports: those to publish: protocol, port of the pod, port of the host.
            annotations: of the pod.
        """
        metadata = _text(1, name) + _text(2, f"uid-{name}") + _text(3, "default")
        config = _field(1, metadata) + _text(2, name) + _field(8, b"")
        for protocol, port, host_port in ports:
            config += _field(5, _number(1, protocol) + _number(2, port) + _number(3, host_port))
        for key, value in annotations.items():
            config += _field(7, _text(1, key) + _text(2, value))
        made = self.call("RunPodSandbox", _field(1, config))[1][0]
        assert isinstance(made, bytes)
        return Sandbox(made.decode(), self._addresses(made.decode()), config)

    def pod_status(self, sandbox: str) -> bytes:
        """What the runtime shows of a pod: a PodSandboxStatus."""
        status = self.call("PodSandboxStatus", _text(1, sandbox))[1][0]
        assert isinstance(status, bytes)
        return status

    def _addresses(self, sandbox: str) -> tuple[str, ...]:
        status = self.pod_status(sandbox)
        (network,) = _messages(status, 5)
        first = fields(network).get(1, [])
        more = [fields(other)[1][0] for other in _messages(network, 2)]
        return tuple(text.decode() for text in (*first, *more) if isinstance(text, bytes))

    def run_container(self, sandbox: Sandbox, name: str, *command: str) -> str:
        """Run a container in a pod; its id."""
        config = _field(1, _text(1, name)) + _field(2, _text(1, images.NAME))
        config += b"".join(_text(3, word) for word in command)
        asked = _text(1, sandbox.id) + _field(2, config) + _field(3, sandbox.config)
        made = self.call("CreateContainer", asked)[1][0]
        assert isinstance(made, bytes)
        self.call("StartContainer", _field(1, made))
        return made.decode()

    def execute(self, container: str, *command: str) -> str:
        """What a command in a container prints; it has to succeed."""
        words = b"".join(_text(2, word) for word in command)
        answer = self.call("ExecSync", _text(1, container) + words + _number(3, 20))
        said = b"".join(text for text in answer.get(1, []) if isinstance(text, bytes))
        assert answer.get(3, [0]) == [0], (command, said, answer.get(2))
        return said.decode()

    def stop_pod(self, sandbox: Sandbox) -> None:
        """End a pod: its containers, and its network. Again is fine."""
        self.call("StopPodSandbox", _text(1, sandbox.id))

    def remove_pod(self, sandbox: Sandbox) -> None:
        """End a pod and forget it."""
        self.stop_pod(sandbox)
        self.call("RemovePodSandbox", _text(1, sandbox.id))


# -- Protocol Buffers ------------------------------------------------------------------------------


def fields(message: bytes) -> dict[int, list[bytes | int]]:
    """The values of a message by number, in order."""
    found: dict[int, list[bytes | int]] = {}
    rest = iter(message)
    for key in _varints(rest):
        value: bytes | int = next(_varints(rest))
        if key & 7 == _BYTES:
            assert isinstance(value, int)
            value = bytes(next(rest) for _ in range(value))
        else:
            assert key & 7 == _VARINT, f"wire type {key & 7}"
        found.setdefault(key >> 3, []).append(value)
    return found


def _messages(message: bytes, number: int) -> list[bytes]:
    return [value for value in fields(message).get(number, []) if isinstance(value, bytes)]


def _varints(rest: Iterator[int]) -> Iterator[int]:
    value = shift = 0
    for byte in rest:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield value
            value = shift = 0


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3 | _VARINT) + _varint(value)


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def _text(number: int, value: str) -> bytes:
    return _field(number, os.fsencode(value))
