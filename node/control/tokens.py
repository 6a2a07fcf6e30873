"""Join tokens through the control socket.

    token          ttl, routes?   a fresh one
    token.list              all that are remembered; never a secret
    token.revoke   id       one of them admits nobody any more

Whatever changes is stored before it is answered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from node.control.params import Params, number, routes, text, wrong_ttl
from node.control.ports import DaemonPort
from node.control.present import present_token
from node.control.schema import ControlError

DEFAULT_TTL: Final = 3600.0


class Tokens:
    """These methods.

    Args:
        daemon: what they act on.

    Attributes:
        methods: by name.
    """

    def __init__(self, daemon: DaemonPort) -> None:
        self._daemon = daemon
        self.methods: dict[str, Callable[[Params], Awaitable[object]]] = {
            "token": self._token,
            "token.list": self._list,
            "token.revoke": self._revoke,
        }

    async def _token(self, params: Params) -> object:
        ttl = number(params, "ttl", DEFAULT_TTL)
        if why := wrong_ttl(ttl):
            raise ControlError("bad-request", f"ttl {why}")
        allowed = routes(params) or ()
        token, effects = self._daemon.engine.mint_token(ttl, self._daemon.now(), allowed)
        await self._daemon.stored(effects)  # shown only when stored: else it could be used twice
        return {"token": token, "ttl": ttl}

    async def _list(self, _: Params) -> object:
        return [present_token(token) for token in self._daemon.engine.tokens(self._daemon.now())]

    async def _revoke(self, params: Params) -> object:
        """What the token was before: whether it was too late is for its reader to see."""
        token = text(params, "id")
        before, effects = self._daemon.engine.revoke_token(token, self._daemon.now())
        await self._daemon.stored(effects)
        return present_token(before)
