"""Certificates through the control socket.

    cert.sign      request, lifetime?, routes?   sign a request that came by hand
    cert.install   certificate                   use one that was made for this node (hex digits)
    cert.show      node?                         what a node's certificate says; this one's without

What is signed is stored before it is answered. Fingerprints are 16 bytes, in hex digits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from node.control.params import Params, number, routes, text
from node.control.ports import DaemonPort
from node.control.present import Json, moment
from node.control.schema import ControlError
from overlay.offline import LONGEST_LIFETIME
from overlay.wire.certificate import Certificate
from overlay.wire.cluster import fingerprint_of
from overlay.wire.offline import CertificateRequest

SHORTEST_LIFETIME: Final = 60.0


class Certificates:
    """These methods.

    Args:
        daemon: what they act on.

    Attributes:
        methods: by name.
    """

    def __init__(self, daemon: DaemonPort) -> None:
        self._daemon = daemon
        self.methods: dict[str, Callable[[Params], Awaitable[object]]] = {
            "cert.sign": self._sign,
            "cert.install": self._install,
            "cert.show": self._show,
        }

    async def _sign(self, params: Params) -> object:
        request = text(params, "request")
        lifetime = number(params, "lifetime", 0.0) or None
        if lifetime is not None and not SHORTEST_LIFETIME <= lifetime <= LONGEST_LIFETIME:
            raise ControlError("bad-request", f"lifetime must not be {lifetime:g} s")
        line, effects = self._daemon.engine.sign_request(
            request, self._daemon.now(), lifetime=lifetime, routes=routes(params)
        )
        await self._daemon.stored(effects)
        return {"certificate": line, **present_request(request, self._daemon.engine.fingerprint())}

    async def _install(self, params: Params) -> object:
        """Checked here as well: the command that opened it may be of another version."""
        given = text(params, "certificate")
        try:
            certificate = bytes.fromhex(given)
        except ValueError as error:
            raise ControlError("bad-request", "certificate must be hex digits") from error
        engine = self._daemon.engine
        await self._daemon.stored(engine.install_certificate(certificate, self._daemon.now()))
        return await self._show({})

    async def _show(self, params: Params) -> object:
        engine = self._daemon.engine
        certificate = engine.certificate(text(params, "node", "") or None)
        wall = self._daemon.facts().epoch + self._daemon.now()
        return present_certificate(certificate, engine.fingerprint(), wall)


def present_request(request: str, authority: bytes) -> Json:
    """What people compare before they hand a signed request on, and where it is installed."""
    asked = CertificateRequest.parse(request)
    return {
        "name": asked.name,
        "fingerprint": asked.fingerprint.hex(),
        "authority": authority.hex(),
    }


def present_certificate(certificate: Certificate, authority: bytes, wall: float) -> Json:
    """What `cert show` shows.

    Args:
        certificate: of a node.
        authority: fingerprint of the cluster's authorities.
        wall: the present, in Unix seconds.
    """
    return {
        "name": certificate.name,
        "id": certificate.node.hex(),
        "cluster": certificate.cluster.hex(),
        "serial": certificate.serial,
        "issuer": fingerprint_of(certificate.issuer).hex(),
        "not_before": moment(certificate.not_before),
        "not_after": moment(certificate.not_after),
        "remaining": round(certificate.not_after - wall, 3),
        "routes": [str(prefix) for prefix in certificate.routes],
        "authority": authority.hex(),
    }
