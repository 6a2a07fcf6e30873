"""What a request says of its pod is what is stored, and is shown under the same names."""

from __future__ import annotations

from hypothesis import given

from node.control.attachments import SHORTEST_BURST, attachment_of, present_attachment
from overlay.attachment import Attachment, HostPort, Rate
from overlay.errors import ConfigError
from tests.support.attachments import ATTACHMENTS


def test_nothing_said_is_nothing_stored() -> None:
    assert attachment_of({}) == Attachment()
    nothing = dict.fromkeys(present_attachment(Attachment()))
    assert attachment_of(nothing | {"handed": False}) == Attachment()


@given(ATTACHMENTS)
def test_what_is_shown_can_be_said_again(said: Attachment) -> None:
    try:
        said.check()
    except ConfigError:
        return
    assert attachment_of(present_attachment(said)) == said


def test_a_rate_has_a_burst_of_a_tenth_of_a_second_and_of_two_super_packets_at_least() -> None:
    said = attachment_of({"ingress": 100_000_000, "egress": {"bits": 8_000}})
    assert said.ingress == Rate(100_000_000, 10_000_000)
    assert said.egress == Rate(8_000, SHORTEST_BURST)


def test_addresses_and_protocols_are_stored_as_they_are_compared() -> None:
    port = {"protocol": "UDP", "host_port": 53, "port": 53, "host": "2001:DB8:0::1"}
    assert attachment_of({"ports": [port]}).ports == (HostPort("udp", 53, 53, "2001:db8::1"),)
