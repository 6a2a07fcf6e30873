"""What a runtime does with a CNI plugin, and a control socket that answers as a test says."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from node.control.schema import ControlError, Request, encode_error, encode_result

VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")

POD = {
    "name": "shop-web-0",
    "address": "10.244.1.5",
    "address6": None,
    "netns": "/run/netns/web",
    "interface": "eth0",
    "link": "mus0123456789",
    "mac": "02:00:00:00:00:05",
    "link_mac": "02:00:00:00:00:06",
    "mtu": 1500,
    "gateway": "169.254.1.1",
    "gateway6": None,
}
"""What a daemon says of a pod, as far as the plugin looks at it."""

POD6 = {**POD, "address6": "fd00::5", "gateway6": "fe80::1"}

Respond = Callable[[str, dict[str, object]], object]


@contextmanager
def answering(state: Path, respond: Respond) -> Iterator[list[tuple[str, dict[str, object]]]]:
    """A daemon for the folder `state` that answers with what `respond` returns or raises.

    Yields what it was asked, in order.
    """
    asked: list[tuple[str, dict[str, object]]] = []
    state.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(state / "control.sock"))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, connection.makefile("rb") as lines:
                    request = Request.decode(lines.readline())
                    asked.append((request.method, request.params))
                    try:
                        line = encode_result(1, respond(request.method, request.params))
                    except ControlError as error:
                        line = encode_error(1, error)
                    connection.sendall(line)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield asked
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def refusing(code: str, message: str = "it is so", fix: str = "") -> Respond:
    """A daemon that refuses everything."""

    def respond(method: str, params: dict[str, object]) -> object:
        raise ControlError(code, message, fix)

    return respond


def config(version: str = "1.1.0", **more: object) -> dict[str, object]:
    """A network configuration as a runtime hands it to the plugin."""
    return {"cniVersion": version, "name": "pods", "type": "muslin-cni", **more}


def environment(verb: str, **more: str) -> dict[str, str]:
    """The variables of a verb for one attachment."""
    return {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": "c0ffee01",
        "CNI_NETNS": "/run/netns/web",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/opt/cni/bin",
        **more,
    }


def reading(value: object) -> Callable[[], bytes]:
    """Standard input that has this value."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return lambda: text
