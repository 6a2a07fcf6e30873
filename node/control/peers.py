"""Who is at the other end of the control socket, and what they may ask.

    root, the daemon's user          everything
    members of `control_group`       to look: what `READING` lists, and nothing else
    everybody else                   nothing; the modes of folder and socket keep them out as well

The kernel's word is taken for who it is (SO_PEERCRED, SO_PEERGROUPS): what the peer was when it
connected.

Members of the group look and do no more, because whoever may attach a pod has the daemon enter any
network namespace of the machine, and whoever may make tokens admits nodes: either is as good as
root. Without `control_group` nobody but root and the daemon's user comes near the socket.

References:
    unix(7), SO_PEERCRED; Linux net/core/sock.c, SO_PEERGROUPS: an array of group ids.
    chown(2): the owner of a file may give it to a group that the process is in.
"""

from __future__ import annotations

import errno
import grp
import os
import socket
from array import array
from enum import Enum, auto
from pathlib import Path
from struct import Struct
from typing import Final

from node.errors import NodeError

READING: Final = frozenset(
    {"status", "metrics", "get", "pod.get", "ping", "doctor", "cert.show", "authority.list"}
)
"""Methods that change nothing and tell no secret."""

SOCKET_OF_OWNER: Final = 0o600
SOCKET_OF_GROUP: Final = 0o660

FOLDER_OF_OWNER: Final = 0o700
FOLDER_OF_GROUP: Final = 0o710
"""The group may pass through to the socket; it may not list the folder, nor open what is in it."""

_SO_PEERGROUPS: Final = 59
_CREDENTIALS: Final = Struct("3i")  # struct ucred: pid, uid, gid
_MOST_GROUPS: Final = 256
"""Of a peer that are looked at: 1,024 bytes are all that Python reads of an option."""


class Rights(Enum):
    """What one peer may ask."""

    ALL = auto()
    READING = auto()
    NONE = auto()


def group_id(name: str) -> int | None:
    """The id of a group of this machine; None for the empty name.

    Raises:
        NodeError: there is no such group. Nothing else.
    """
    if not name:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        fix = f"make it with groupadd {name}, or leave control_group out"
        raise NodeError(f"there is no group {name!r} on this machine", fix) from None


def rights_of(connection: socket.socket, group: int | None) -> Rights:
    """What the peer of a connection may ask.

    Args:
        connection: a connected Unix socket.
        group: id of the group that may look; None: nobody but the owner.
    """
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, gid = _CREDENTIALS.unpack(raw)
    if uid in {0, os.geteuid()}:
        return Rights.ALL
    if group is not None and group in {gid, *_groups_of(connection)}:
        return Rights.READING
    return Rights.NONE


def _groups_of(connection: socket.socket) -> array[int]:
    groups = array("I")
    try:
        raw = connection.getsockopt(
            socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_GROUPS * groups.itemsize
        )
    except OSError as error:
        if error.errno not in (errno.ERANGE, errno.ENOPROTOOPT):
            raise
        return groups  # in too many, or a kernel before 4.13: then its main group decides
    groups.frombytes(raw)
    return groups


def let_in(folder: Path, name: str) -> None:
    """Let a group pass through the state folder, or no group any more.

    To be called before privileges are dropped. The process enters the group, so that it may still
    give it the socket afterwards.

    Args:
        folder: the state folder.
        name: of the group; empty: nobody but the owner passes.

    Raises:
        NodeError: there is no such group, or it cannot be let in. Nothing else.
    """
    group = group_id(name)
    try:
        mode = folder.stat().st_mode & 0o7777
        if group is None:
            if mode & ~FOLDER_OF_OWNER:
                folder.chmod(FOLDER_OF_OWNER)
            return
        if group != os.getegid() and group not in os.getgroups():
            os.setgroups([*os.getgroups(), group])
        os.chown(folder, -1, group)
        folder.chmod(FOLDER_OF_GROUP)
    except OSError as error:
        doing = f"letting group {name} in" if name else "closing the state folder"
        fix = f"run as root, or with SupplementaryGroups={name} in the unit" if name else ""
        raise NodeError(NodeError.of(doing, error).why, fix) from error


def hand_over(path: Path, group: int | None) -> None:
    """Give the socket at `path` to those who may ask. Until then its mode is the owner's alone.

    Raises:
        OSError: this process is not in the group. Nothing else.
    """
    if group is not None:
        os.chown(path, -1, group)
        path.chmod(SOCKET_OF_GROUP)
