"""Every error Muslin raises on purpose, as one small tree.

    OverlayError
    +-- WireError      bytes from a peer that do not parse
    |   +-- NewerError     of a kind or format that this version does not know
    +-- AuthError      bytes from a peer that parse but do not prove what they claim
    |   +-- ForgedError    a signature that does not hold: no honest node passes that on
    +-- StateError     the caller used a machine in a way it does not allow
    +-- ConfigError    an operator's setting is wrong; `key` says which
    +-- CapacityError  a limit is reached; `limit` names it
    +-- RefusedError   another node, or this one, declined a request; `code` is stable

The packet path does not raise across packets: it counts a `DropReason` instead (see
`overlay.drops`). These errors cover one decode, one handshake, one operator request.
"""

from __future__ import annotations

from overlay.drops import DropReason
from overlay.faults import Fault


class OverlayError(Exception):
    """Base of all errors below; catching it catches nothing else."""


class WireError(OverlayError):
    """Bytes do not have the shape they must have (too short, unknown version, over a limit)."""


class NewerError(WireError):
    """Bytes of a kind or format that this version does not know: nobody is to be blamed."""


class AuthError(OverlayError):
    """Bytes are well formed but fail a key, tag, signature, replay or certificate check.

    Attributes:
        reason: the counter this failure belongs to.
    """

    def __init__(self, message: str, reason: DropReason = DropReason.BAD_HANDSHAKE) -> None:
        super().__init__(message)
        self.reason = reason


class ForgedError(AuthError):
    """A signature that is not its signer's. It never was, whoever looks and whenever.

    Attributes:
        fault: what whoever passes this on is to be called.
    """

    def __init__(
        self, message: str, fault: Fault, reason: DropReason = DropReason.BAD_CERTIFICATE
    ) -> None:
        super().__init__(message, reason)
        self.fault = fault


class StateError(OverlayError):
    """A call that is not allowed in the present state. A defect of the caller, not of a peer."""


class ConfigError(OverlayError):
    """A setting is wrong.

    Attributes:
        key: the setting, as the operator wrote it (`--cidr`, `network.cidr`), or empty.
    """

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.key = key


class CapacityError(OverlayError):
    """A limit is reached.

    Attributes:
        limit: the name of the limit (a field of `overlay.config.Limits`, or what ran out).
    """

    def __init__(self, message: str, limit: str = "") -> None:
        super().__init__(message)
        self.limit = limit


class RefusedError(OverlayError):
    """A request was understood and declined.

    Attributes:
        code: stable, lower case, dashed (`token-used`); programs may depend on it.
        fix: what the operator can do about it, one clause, or empty.
    """

    def __init__(self, code: str, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.fix = fix
