"""How an attachment is stored: inside the entry of its pod (`overlay.state`)."""

from __future__ import annotations

from typing import Final, cast, get_args

from overlay.attachment import (
    MAX_CONTAINER,
    MAX_LABEL,
    MAX_LABELS,
    MAX_NETWORK,
    MAX_PORTS,
    MAX_RATE,
    MIN_RATE,
    Attachment,
    HostPort,
    Protocol,
    Rate,
)
from overlay.errors import WireError
from overlay.wire.packing import U16, Fields

_INTERFACE: Final = 15
_PROTOCOL: Final = 8
_ADDRESS: Final = 64


def attachment_values(said: Attachment) -> list[object]:
    """What msgpack packs of it; `read_attachment` reads it back."""
    rates = [[rate.bits, rate.burst] if rate else [] for rate in (said.ingress, said.egress)]
    ports = [[port.protocol, port.host_port, port.port, port.host] for port in said.ports]
    return [said.container, said.interface, said.network, said.labels, *rates, ports, said.handed]


def read_attachment(values: Fields) -> Attachment:
    """The attachment of what `attachment_values` gave.

    Raises:
        WireError: damaged. Nothing else.
    """
    labels = [Fields(label, "label", 2) for label in values.sequence(3, MAX_LABELS)]
    ports = [Fields(port, "port", 4) for port in values.sequence(6, MAX_PORTS)]
    return Attachment(
        container=values.text(0, MAX_CONTAINER),
        interface=values.text(1, _INTERFACE),
        network=values.text(2, MAX_NETWORK),
        labels=tuple((label.text(0, MAX_LABEL), label.text(1, MAX_LABEL)) for label in labels),
        ingress=_read_rate(values.fields(4, "rate")),
        egress=_read_rate(values.fields(5, "rate")),
        ports=tuple(map(_read_port, ports)),
        handed=values.boolean(7),
    )


def _read_rate(values: Fields) -> Rate | None:
    if not len(values):
        return None
    return Rate(*(values.integer(at, MIN_RATE, MAX_RATE) for at in range(2)))


def _read_port(values: Fields) -> HostPort:
    protocol = values.text(0, _PROTOCOL)
    if protocol not in get_args(Protocol):
        raise WireError("attachment: a port is of no known protocol")
    host_port, port = values.integer(1, 1, U16), values.integer(2, 1, U16)
    return HostPort(cast("Protocol", protocol), host_port, port, values.text(3, _ADDRESS))
