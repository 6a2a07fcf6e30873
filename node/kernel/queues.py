"""Limits in the kernel: which are there, and how one is made. What of them is ours has our marks.

    veth   root qdisc   tbf 6d75:            bucket of what goes to the pod
           ingress      u32, preference 109  everything: redirect to ...
    ifb    root qdisc   tbf 6d75:            ... the bucket of what comes from the pod

A limit from the pod is there if all of it is: the bucket, and the way to that very link. A link
that was made anew has another number, and the kernel drops what is redirected to one that is gone.

Where the kernel has no ifb yet, it loads the module when the first link is asked for, and that
makes ifb0 and ifb1 in the machine's own namespace as well. Nobody uses them. The daemon may load no
module itself (`node.privileges`), so it cannot say numifbs=0; `options ifb numifbs=0` in
/etc/modprobe.d can.

Reading takes bytes, as in `node.kernel.packed`; changing goes through pyroute2.

References:
    Linux include/uapi/linux/{rtnetlink,pkt_sched,pkt_cls}.h, tc_act/tc_mirred.h.
    tc(8), tc-tbf(8), tc-u32(8), tc-mirred(8).
"""

# ruff: noqa: ANN401 - pyroute2 has no types
from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from struct import Struct
from typing import Any, Final

from pyroute2.netlink.exceptions import NetlinkError

from node.kernel.errors import KernelError
from node.kernel.frames import attributes
from node.kernel.model import Limit, is_veth_name
from node.kernel.reconcile import DeleteLimit, LimitChange

RTM_GETQDISC: Final = 38
RTM_GETTFILTER: Final = 46

Dump = Callable[[int, bytes], list[bytes]]
"""Asks for all of one kind, by a request's body; the bodies of the answers."""

_HEADER: Final = Struct("=BxxxiIII")  # family, index, handle, parent, info
_ROOT: Final = 0xFFFF_FFFF
_INGRESS: Final = 0xFFFF_FFF1
_HANDLE: Final = 0x6D75_0000
"""Of our buckets: "mu"."""

_COMING_IN: Final = 0xFFFF_FFF2
"""Parent of filters for what comes in: of an ingress qdisc, and of clsact as well."""

_PREFERENCE: Final = 109
"""Of our filters, like the protocol number of our routes."""

_ANY_PROTOCOL: Final = 0x0003
_TCA_OPTIONS: Final = 2
_TBF_PARAMETERS: Final = 1
_TBF: Final = Struct("=8xI12xI")  # rate and room of struct tc_tbf_qopt
_U32_ACTION: Final = 7
_FIRST_ACTION: Final = 1
_ACTION_OPTIONS: Final = 2
_MIRRED_PARAMETERS: Final = 2
_MIRRED: Final = Struct("=24xI")  # target of struct tc_mirred

_WITHOUT_MODULE: Final = (errno.ENOENT, errno.EOPNOTSUPP)
NEEDED: Final = (
    "load the modules sch_tbf, sch_ingress, cls_u32, act_mirred and ifb, or leave the limit out"
)

_DISABLE_IPV6: Final = "/proc/sys/net/ipv6/conf/{}/disable_ipv6"


def read_limits(dump: Dump, names: Mapping[int, str]) -> frozenset[Limit]:
    """The limits that are there and whole.

    Args:
        dump: asks the kernel.
        names: of our links, by number.
    """
    buckets: dict[int, tuple[int, int]] = {}
    entered = []
    for message in _queues(dump):
        _, index, handle, parent, _ = _HEADER.unpack_from(message)
        if index in names and parent == _INGRESS:
            entered.append(index)
        elif index in names and (handle, parent) == (_HANDLE, _ROOT):
            buckets[index] = _bucket(message)
    detours = {_detour(dump, index): index for index in entered}
    found = set()
    for queue, (rate, room) in buckets.items():
        link = detours.get(queue, queue)
        if is_veth_name(names[link]):  # else it is a bucket that no packet finds the way to
            found.add(Limit(names[link], names[queue], rate, 0, room))
    return frozenset(found)


def _queues(dump: Dump) -> list[bytes]:
    try:
        return dump(RTM_GETQDISC, _HEADER.pack(0, 0, 0, 0, 0))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return []  # a kernel without traffic control


def _bucket(message: bytes) -> tuple[int, int]:
    options = attributes(attributes(message, _HEADER.size).get(_TCA_OPTIONS, b""), 0)
    rate, room = _TBF.unpack_from(options[_TBF_PARAMETERS])
    return rate, room


def _detour(dump: Dump, index: int) -> int:
    """The number of the link that our filter sends to what comes in by this one; 0 for none."""
    for message in dump(RTM_GETTFILTER, _HEADER.pack(0, index, 0, _COMING_IN, 0)):
        info = _HEADER.unpack_from(message)[4]
        at = attributes(message, _HEADER.size).get(_TCA_OPTIONS, b"")
        for inside in (_U32_ACTION, _FIRST_ACTION, _ACTION_OPTIONS, _MIRRED_PARAMETERS):
            at = attributes(at, 0).get(inside, b"")
        if info >> 16 == _PREFERENCE and at:
            return int(_MIRRED.unpack_from(at)[0])
    return 0


def apply_limit(ipr: Any, change: LimitChange, index: Callable[[str], int | None]) -> None:
    """Set a limit, whatever there is of it, or take one away.

    Of one that is taken away, a link that is a queue is left: it goes as a link that nobody wants.

    Args:
        ipr: pyroute2's, of the node's namespace.
        change: what to do.
        index: the number of a link; None if there is none of that name.

    Raises:
        KernelError: the kernel has been built without a part that limits need.
        NetlinkError: the kernel refused. Nothing else.
    """
    try:
        _apply(ipr, change, index)
    except NetlinkError as error:
        if error.code not in _WITHOUT_MODULE:
            raise
        raise KernelError(f"{change}: the kernel has no part for it", NEEDED) from error


def _apply(ipr: Any, change: LimitChange, index: Callable[[str], int | None]) -> None:
    limit = change.limit
    link = index(limit.link)
    if isinstance(change, DeleteLimit):
        _drop(ipr, limit, link)
    elif limit.queue == limit.link:
        _set_bucket(ipr, limit, link)
    else:
        queue = index(limit.queue)
        if queue is None:
            ipr.link("add", ifname=limit.queue, kind="ifb")
            queue = index(limit.queue)
            _silence(limit.queue)
            alias = {} if change.alias is None else {"ifalias": change.alias}
            ipr.link("set", index=queue, state="up", **alias)
        _set_bucket(ipr, limit, queue)
        _redirect(ipr, link, queue)


def _set_bucket(ipr: Any, limit: Limit, index: int | None) -> None:
    sizes = {"rate": limit.rate, "burst": limit.burst, "limit": limit.room}
    ipr.tc("replace", "tbf", index, _HANDLE, **sizes)


def _redirect(ipr: Any, link: int | None, queue: int | None) -> None:
    """Send everything that comes in by one link to another, in the place of an earlier way."""
    with _tolerated(errno.EEXIST):
        ipr.tc("add", "ingress", link)
    ours = {"parent": _COMING_IN, "prio": _PREFERENCE, "protocol": _ANY_PROTOCOL, "target": 1}
    with _tolerated(errno.ENOENT):
        ipr.tc("del-filter", "u32", link, **ours)
    action = {"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": queue}
    ipr.tc("add-filter", "u32", link, **ours, keys=["0x0/0x0+0"], action=action)


def _silence(link: str) -> None:
    """Nothing but redirected packets shall leave a link that is a queue."""
    try:
        Path(_DISABLE_IPV6.format(link)).write_text("1")
    except OSError:
        return  # a kernel without IPv6


def _drop(ipr: Any, limit: Limit, link: int | None) -> None:
    with _tolerated(errno.ENOENT, errno.EINVAL, errno.ENODEV):  # it is gone already
        if limit.queue == limit.link:
            ipr.tc("del", index=link, parent=_ROOT, handle=_HANDLE)
        else:
            ipr.tc("del", "ingress", index=link)


@contextmanager
def _tolerated(*codes: int) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        if error.code not in codes:
            raise
