"""Attachments as Hypothesis makes them: every field, within its bounds."""

from __future__ import annotations

from hypothesis import strategies as st

from overlay.attachment import MAX_RATE, MIN_RATE, Attachment, HostPort, Rate

TEXT = st.text(max_size=12).filter(str.isprintable)
RATES = st.none() | st.builds(
    Rate, st.integers(MIN_RATE, MAX_RATE), st.integers(MIN_RATE, MAX_RATE)
)
PORTS = st.builds(
    HostPort,
    protocol=st.sampled_from(["tcp", "udp", "sctp"]),
    host_port=st.integers(1, 65535),
    port=st.integers(1, 65535),
    host=st.sampled_from(["", "192.0.2.1", "2001:db8::1"]),
)
ATTACHMENTS = st.builds(
    Attachment,
    container=st.text("0123456789abcdef", max_size=64),
    interface=st.from_regex(r"[a-z][a-z0-9._-]{0,14}", fullmatch=True),
    network=TEXT,
    labels=st.dictionaries(TEXT, TEXT, max_size=3).map(lambda pairs: tuple(pairs.items())),
    ingress=RATES,
    egress=RATES,
    ports=st.lists(PORTS, max_size=3).map(tuple),
    handed=st.booleans(),
)
