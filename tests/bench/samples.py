"""Rounds of an imaginary run, for tests of what is made of them."""

from __future__ import annotations

from bench.summary import Sample

TITLES = {"none": "no overlay", "vxlan": "kernel VXLAN", "nebula": "nebula", "muslin": "Muslin"}

TCP1 = {"none": (12.0, 10.0, 14.0), "vxlan": (10.0, 10.0, 9.0), "muslin": (5.0, 4.0, 6.0)}


def samples(underlay: str = "veth") -> list[Sample]:
    """Three rounds of three contestants: TCP, and CPU of the one that has daemons."""
    return [
        Sample(
            underlay,
            number + 1,
            name,
            {"tcp1": values[number]} | ({"cpu": 2.0} if name == "muslin" else {}),
        )
        for number in range(3)
        for name, values in TCP1.items()
    ]
