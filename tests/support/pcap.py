"""Frames from classic pcap files, as food for parsers.

    file    magic 4, version 4, zone 4, sigfigs 4, snaplen 4, link type 4
    record  seconds 4, fraction 4, captured length 4, original length 4, the captured bytes

References:
    draft-ietf-opsawg-pcap: the file format and its link types.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from struct import Struct

_ORDERS = {
    bytes.fromhex("a1b2c3d4"): ">",
    bytes.fromhex("a1b23c4d"): ">",
    bytes.fromhex("d4c3b2a1"): "<",
    bytes.fromhex("4d3cb2a1"): "<",
}
_FILE_HEADER_SIZE = 24
_ETHERNET = 1
_ETHERNET_HEADER_SIZE = 14


def read_frames(path: Path) -> Iterator[bytes]:
    """The frames of one file, without their Ethernet header; nothing if it is no classic pcap.

    A record that claims more than the file has ends the file.
    """
    data = path.read_bytes()
    order = _ORDERS.get(data[:4])
    if order is None or len(data) < _FILE_HEADER_SIZE:
        return
    link_type = Struct(order + "I").unpack_from(data, 20)[0] & 0xFFFF
    record = Struct(order + "4I")
    position = _FILE_HEADER_SIZE
    while position + record.size <= len(data):
        captured = record.unpack_from(data, position)[2]
        position += record.size
        if captured > len(data) - position:
            return
        frame = data[position : position + captured]
        yield frame[_ETHERNET_HEADER_SIZE:] if link_type == _ETHERNET else frame
        position += captured


@lru_cache(maxsize=1)
def all_frames(folder: Path) -> tuple[bytes, ...]:
    """Every different frame of every capture in `folder`, in the order of the file names.

    Raw link types (101, 228, 229) start with the IP header as they are; other link types are kept
    whole, because a parser has to survive those as well.
    """
    frames = (frame for path in sorted(folder.glob("*.pcap")) for frame in read_frames(path))
    return tuple(dict.fromkeys(frames))
