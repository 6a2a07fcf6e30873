"""What goes wrong outside the core: the machine, a file, or the daemon does not do its part.

`overlay.errors` covers bytes, settings and requests. `NodeError` is its sibling for everything
`node/` touches, and carries the three clauses that an operator reads:

    muslin: what failed: why: what to do
"""

from __future__ import annotations

import errno
import os
from typing import Final

from overlay.errors import CapacityError, ConfigError, OverlayError, RefusedError

_HINTS: Final = {
    errno.ENOSPC: "free some disk space",
    errno.EDQUOT: "free some of the disk quota",
    errno.EROFS: "remount it writable",
    errno.EACCES: "run as root",
    errno.EPERM: "run as root",
    errno.ENOTDIR: "choose another folder",
    errno.EADDRINUSE: "stop what uses it, or choose another address",
}


class NodeError(OverlayError):
    """The machine or the daemon did not do what was asked.

    Attributes:
        why: one clause, without a full stop.
        fix: what the operator can do about it, one clause, or empty.
        code: stable, lower case, dashed; programs may depend on it.
    """

    def __init__(self, why: str, fix: str = "", code: str = "failed") -> None:
        super().__init__(why)
        self.why = why
        self.fix = fix
        self.code = code

    @classmethod
    def of(cls, doing: str, error: OSError) -> NodeError:
        """The error of a system call as clauses: what was being done, and why it did not work.

        >>> print(NodeError.of("writing /x/state", OSError(28, "No space left on device")))
        writing /x/state: no space left on device
        """
        reason = os.strerror(error.errno) if error.errno else str(error)
        return cls(
            f"{doing}: {reason[:1].lower()}{reason[1:]}",
            _HINTS.get(error.errno or 0, ""),
            code=errno.errorcode.get(error.errno or 0, "failed").lower(),
        )


def clauses(error: OverlayError | OSError) -> tuple[str, str, str]:
    """The stable code, the reason and the remedy of an error: what every surface shows of it.

    >>> clauses(ConfigError("must be 1 to 65535", "listen"))
    ('bad-setting', 'listen: must be 1 to 65535', '')
    """
    match error:
        case NodeError():
            return error.code, error.why, error.fix
        case RefusedError():
            return error.code, str(error), error.fix
        case ConfigError():
            return "bad-setting", f"{error.key}: {error}" if error.key else str(error), ""
        case CapacityError():
            return "limit-reached", str(error), ""
        case OSError():
            return _of_system(error)
        case _:
            return "failed", str(error), ""


def _of_system(error: OSError) -> tuple[str, str, str]:
    wrapped = NodeError.of(str(error.filename or ""), error)
    return wrapped.code, wrapped.why.removeprefix(": "), wrapped.fix
