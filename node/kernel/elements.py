"""What of the rules comes and goes with pods: elements of sets, and messages that change them.

Most changes of the rules are a pod's: its link's name and its addresses enter the sets of the
guard, or leave them, and nothing else differs. To load all the rules for that, `nft` takes some
15 ms of the processor; the few elements by themselves are one message of a hundred bytes.

    rules before, rules now --difference--> elements to add and to remove --messages--> one batch
                                  |
                                  +--> None: something else differs, all is to be loaded

A batch names the generation of the rules that it was made for: the kernel refuses it if anybody has
changed any rule since. So what was not looked at cannot be built upon.

Numbers are in network order inside of nf_tables' attributes, in the machine's in netlink's headers.

References:
    nft(8), "add element". Linux include/uapi/linux/netfilter/{nfnetlink,nf_tables}.h;
    net/netfilter/nfnetlink.c, nfnetlink_rcv_batch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address
from struct import Struct
from typing import Final, NamedTuple

from node.kernel.frames import NLM_F_ACK, attribute, frame
from node.kernel.model import RULE_TABLE

SetName = tuple[str, str]
"""Family and name of a set in our table."""

POD_SETS: Final = frozenset({"links", "pods4", "pods6", "near6"})
"""Sets whose elements are pods'. All of them are exact: an element overlaps no other."""

MOST: Final = 256
"""Elements that one batch changes at most; loading everything is as cheap for more."""

NFNL_SUBSYS_NFTABLES: Final = 10
NFT_MSG_GETGEN: Final = NFNL_SUBSYS_NFTABLES << 8 | 16

_NFT_MSG_NEWSETELEM: Final = NFNL_SUBSYS_NFTABLES << 8 | 12
_NFT_MSG_DELSETELEM: Final = NFNL_SUBSYS_NFTABLES << 8 | 14
_BATCH_BEGIN: Final = 0x10
_BATCH_END: Final = 0x11
_NLM_F_CREATE: Final = 0x400
_NLA_F_NESTED: Final = 0x8000
_NFNL_BATCH_GENID: Final = 1
_ELEM_LIST_TABLE: Final = 1
_ELEM_LIST_SET: Final = 2
_ELEM_LIST_ELEMENTS: Final = 3
_LIST_ELEM: Final = 1
_SET_ELEM_KEY: Final = 1
_DATA_VALUE: Final = 1

_FAMILIES: Final = {"inet": 1, "arp": 3}
_FAMILY_HEADER: Final = Struct("!BBH")  # nfgenmsg: family, version, resource
_U32: Final = Struct("!I")
_NAME_ROOM: Final = 16
"""IFNAMSIZ: a link's name is padded to it with zeros."""

_LINE: Final = re.compile(rf"add element (\w+) {RULE_TABLE} (\w+) \{{ (.*) \}}\n")


class Difference(NamedTuple):
    """Elements, as nft writes them, by set."""

    gone: Mapping[SetName, frozenset[str]]
    new: Mapping[SetName, frozenset[str]]


def difference(before: str, after: str) -> Difference | None:
    """What must leave the sets and enter them to make of one set of rules another.

    Args:
        before: the rules that stand, from `node.kernel.rules`.
        after: the rules that shall stand.

    Returns:
        None if that is not all, nothing, or too much: then `after` is to be loaded.
    """
    (frame, held), (wanted_frame, wanted) = _split(before), _split(after)
    if frame != wanted_frame:
        return None
    nothing: frozenset[str] = frozenset()
    names = sorted(held.keys() | wanted.keys())
    gone = {name: held.get(name, nothing) - wanted.get(name, nothing) for name in names}
    new = {name: wanted.get(name, nothing) - held.get(name, nothing) for name in names}
    if not 0 < sum(map(len, (*gone.values(), *new.values()))) <= MOST:
        return None
    return Difference(
        {name: some for name, some in gone.items() if some},
        {name: some for name, some in new.items() if some},
    )


def _split(rules: str) -> tuple[list[str], dict[SetName, frozenset[str]]]:
    """The rules without the elements of pods' sets, and those."""
    frame, elements = [], {}
    for line in rules.splitlines(keepends=True):
        said = _LINE.fullmatch(line) if line.startswith("add element ") else None
        if said is not None and said[2] in POD_SETS:
            elements[said[1], said[2]] = frozenset(said[3].split(", "))
        else:
            frame.append(line)
    return frame, elements


def messages(change: Difference, generation: int) -> bytes:
    """The batch that makes a change, if the rules are still of that generation.

    Its messages are numbered from 0; the one before the last asks for an answer.
    """
    steps = [(_NFT_MSG_DELSETELEM, 0, *each) for each in change.gone.items()]
    steps += [(_NFT_MSG_NEWSETELEM, _NLM_F_CREATE, *each) for each in change.new.items()]
    said = [_bound(_BATCH_BEGIN, 0, attribute(_NFNL_BATCH_GENID, _U32.pack(generation)))]
    for kind, flags, (family, name), elements in steps:
        if len(said) == len(steps):
            flags |= NLM_F_ACK
        body = _FAMILY_HEADER.pack(_FAMILIES[family], 0, 0) + _listed(name, elements)
        said.append(frame(kind, flags, len(said), body))
    said.append(_bound(_BATCH_END, len(said), b""))
    return b"".join(said)


def _bound(kind: int, number: int, attributes: bytes) -> bytes:
    header = _FAMILY_HEADER.pack(0, 0, NFNL_SUBSYS_NFTABLES)
    return frame(kind, 0, number, header + attributes)


def _listed(name: str, elements: frozenset[str]) -> bytes:
    nested = b"".join(
        attribute(
            _LIST_ELEM | _NLA_F_NESTED,
            attribute(_SET_ELEM_KEY | _NLA_F_NESTED, attribute(_DATA_VALUE, element_key(element))),
        )
        for element in sorted(elements)
    )
    return (
        attribute(_ELEM_LIST_TABLE, RULE_TABLE.encode() + b"\0")
        + attribute(_ELEM_LIST_SET, name.encode() + b"\0")
        + attribute(_ELEM_LIST_ELEMENTS | _NLA_F_NESTED, nested)
    )


def element_key(element: str) -> bytes:
    """An element of a set as the kernel compares it: the parts, each padded to 4 bytes.

    >>> element_key('"mus1" . 10.1.0.2').hex()
    '6d7573310000000000000000000000000a010002'
    """
    link, _, address = element.partition(" . ")
    name = link.strip('"').encode().ljust(_NAME_ROOM, b"\0")
    return name + (ip_address(address).packed if address else b"")
