"""Daemons of a build of the test's own: they replace keys often, and write down every nonce.

    sitecustomize.py      what Python runs in every daemon and lane before anything else:
                          changes settings, and wraps the cipher that seals bursts
    nonces-PID            16 bytes per burst: 8 that name the key, the counter

References:
    Python documentation, module `site`: sitecustomize.
"""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path

from node.children import PACKAGES

RECORD = struct.Struct("8sQ")

_CODE = """
import os, struct, sys
from hashlib import blake2s

def modify():
    from overlay import config
    from overlay.session import peer, transport

    config.Timing.__init__.__defaults__ = (
        {rekey_after}, {reject_after}, *config.Timing.__init__.__defaults__[2:]
    )
    if {together}:
        peer.PeerSession._on_rekey_due = lambda session, current, now: session.start(now)
    if not {window}:
        transport.ReplayWindow.check = transport.ReplayWindow.accept = lambda *_: True
    make, log = transport.make_aead, []

    class Watched:
        def __init__(self, suite, key):
            real = make(suite, key)
            self.decrypt_into = real.decrypt_into
            self._seal = real.encrypt_into
            self._name = blake2s(key, digest_size=8).digest()

        def encrypt_into(self, nonce, data, aad, out):
            if not log:
                path = os.path.join({folder!r}, f"nonces-{{os.getpid()}}")
                log.append(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600))
            os.write(log[0], self._name + struct.pack("Q", int.from_bytes(nonce, "big")))
            return self._seal(nonce, data, aad, out)

    transport.make_aead = Watched

if "up" in sys.orig_argv or "node.lanes" in " ".join(sys.orig_argv):
    modify()
"""


def modified(
    folder: Path,
    *,
    rekey_after: float,
    reject_after: float,
    together: bool = False,
    window: bool = True,
) -> dict[str, str]:
    """Variables with which a lab's daemons are of this build.

    Args:
        folder: an empty one, for the code and the nonces.
        rekey_after, reject_after: seconds, as in `Timing`.
        together: whether both ends start a handshake when a rekey is due, not only the initiator.
        window: whether counters are looked at.
    """
    early = folder / "early"
    early.mkdir(parents=True)
    code = _CODE.format(
        rekey_after=rekey_after,
        reject_after=reject_after,
        together=together,
        window=window,
        folder=str(folder),
    )
    (early / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": f"{early}:{PACKAGES}"}


def nonces(folder: Path) -> Counter[tuple[bytes, int]]:
    """How often each (key, counter) was sealed under, by all processes together."""
    found: Counter[tuple[bytes, int]] = Counter()
    for path in folder.glob("nonces-*"):
        data = path.read_bytes()
        found.update(RECORD.iter_unpack(data[: len(data) // RECORD.size * RECORD.size]))
    return found
