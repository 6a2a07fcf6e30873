"""What the handlers need of the daemon and of its engine, so that tests can bring their own.

`EnginePort` is the part of `overlay.engine.Engine` that control requests use; `DaemonPort` is what
`node.daemon` offers around it. Both are satisfied structurally.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from node.control.present import DaemonFacts
from node.machine import MachineFacts
from node.state import StateFolder
from overlay.attachment import NOTHING_SAID, Attachment
from overlay.audit import Finding
from overlay.effects import Effect
from overlay.keys import SigningKey
from overlay.types import Address, NodeId, Prefix
from overlay.views import AuthorityView, PodView, ReservationView, Snapshot, TokenView
from overlay.wire.certificate import Certificate


class EnginePort(Protocol):
    """The engine, as control requests see it. Errors are those of `overlay.engine`."""

    def snapshot(self, now: float) -> Snapshot:
        """Everything there is to show."""
        ...

    def add_pod(
        self,
        name: str,
        netns: str,
        address: Address | None,
        now: float,
        *,
        owner: str = "cli",
        attachment: Attachment = NOTHING_SAID,
    ) -> tuple[PodView, list[Effect]]:
        """Give a pod its addresses."""
        ...

    def seeks_block(self) -> bool:
        """Whether it wants a block and has not got one yet."""
        ...

    def own_pods(self) -> tuple[PodView, ...]:
        """The pods of this node, by name."""
        ...

    def pod_of(self, container: str, interface: str) -> PodView | None:
        """The pod that a runtime knows under its container's id and interface."""
        ...

    def is_pair(self, address: Address, address6: Address) -> bool:
        """Whether both are addresses of one place for a pod."""
        ...

    def check_ready(self, now: float) -> None:
        """Whether a pod could be added; RefusedError says why not."""
        ...

    def reserve(
        self, owner: str, address: Address | None, now: float
    ) -> tuple[ReservationView, list[Effect]]:
        """Hold an address for an owner."""
        ...

    def release_reserved(
        self, owner: str, address: Address, now: float
    ) -> tuple[bool, list[Effect]]:
        """End that; whether there was one."""
        ...

    def reserved(self) -> tuple[ReservationView, ...]:
        """Every address that is held for an owner."""
        ...

    def remove_pod(self, name: str, now: float) -> tuple[PodView, list[Effect]]:
        """Take them back."""
        ...

    def release_lost(
        self, present: Collection[str], now: float, *, at_start: bool = False
    ) -> list[Effect]:
        """Take back the addresses of pods that are not `present`."""
        ...

    def audit(self, present: Collection[str], now: float) -> tuple[Finding, ...]:
        """What of addresses and blocks is not as it should be."""
        ...

    def claim(self, now: float) -> list[Effect]:
        """This is the only machine with the node's identity."""
        ...

    def mint_token(
        self, ttl: float, now: float, routes: tuple[Prefix, ...] = ()
    ) -> tuple[str, list[Effect]]:
        """A join token, as text."""
        ...

    def tokens(self, now: float) -> tuple[TokenView, ...]:
        """All join tokens that are remembered."""
        ...

    def revoke_token(self, token: str, now: float) -> tuple[TokenView, list[Effect]]:
        """Revoke one by the first digits of its id; what it was before."""
        ...

    def sign_request(
        self,
        request: str,
        now: float,
        *,
        lifetime: float | None = None,
        routes: tuple[Prefix, ...] | None = None,
    ) -> tuple[str, list[Effect]]:
        """The certificate for a request that came by hand, as a line."""
        ...

    def certificate(self, name: str | None) -> Certificate:
        """The certificate of a node; of this one for None."""
        ...

    def install_certificate(self, certificate: bytes, now: float) -> list[Effect]:
        """Use a certificate that the operator has for this node."""
        ...

    def authorities(self) -> tuple[AuthorityView, ...]:
        """Every authority there was, the first one first."""
        ...

    def install_authority(self, key: bytes, now: float) -> list[Effect]:
        """Trust another authority."""
        ...

    def use_authority(self, key: bytes, now: float) -> list[Effect]:
        """Have new certificates signed by it."""
        ...

    def remove_authority(self, key: bytes, now: float, *, force: bool = False) -> list[Effect]:
        """Trust it no more, for ever."""
        ...

    def hold_authority_key(self, key: SigningKey, now: float) -> list[Effect]:
        """Sign with this private key of an authority from now on."""
        ...

    def fingerprint(self) -> bytes:
        """Of the cluster's authorities, 16 bytes."""
        ...

    def leave(self, now: float) -> list[Effect]:
        """Hand everything back; a `Left` effect follows."""
        ...

    def remove(self, name: str, now: float, *, force: bool) -> list[Effect]:
        """Declare a node dead for ever."""
        ...

    def say(self, node: NodeId, message: bytes, now: float) -> list[Effect]:
        """Say an encoded control message to a member."""
        ...

    def probe(self, node: NodeId, token: int, now: float) -> list[Effect]:
        """Probe a member; a `ProbeAnswered` effect with `token` follows, or nothing."""
        ...


class DaemonPort(Protocol):
    """The daemon, as control requests see it."""

    @property
    def engine(self) -> EnginePort:
        """The one engine."""
        ...

    @property
    def folder(self) -> StateFolder:
        """Where the node is stored."""
        ...

    def now(self) -> float:
        """Monotonic seconds, the engine's clock."""
        ...

    def facts(self) -> DaemonFacts:
        """What the status says of the process."""
        ...

    async def refresh(self) -> None:
        """Hear the latest counters of all lanes; does not wait long for one that is silent."""
        ...

    def perform(self, effects: list[Effect]) -> None:
        """Execute effects that nothing is to be stored for."""
        ...

    async def stored(self, effects: list[Effect]) -> None:
        """Execute effects, and return when all of them were, so when all is stored.

        Raises:
            NodeError: a `Persist` failed. What followed it has been discarded and the engine
                told; nothing of the request may be shown as done. Nothing else.
        """
        ...

    async def attach_pod(self, pod: PodView) -> None:
        """Connect the pod's namespace; packets can flow when it returns.

        Raises:
            NodeError: it cannot be connected; nothing of it is left. Nothing else.
        """
        ...

    async def check_pod(self, pod: PodView) -> None:
        """See that a pod is connected, and connect it again where it is not.

        Raises:
            NodeError: it is not, and cannot be; what is left of it stays. Nothing else.
        """
        ...

    async def detach_pod(self, name: str) -> None:
        """Disconnect a pod. One that is not connected is fine.

        Raises:
            NodeError: the kernel refused. Nothing else.
        """
        ...

    async def present_pods(self) -> frozenset[str]:
        """The pods of this node that have a namespace.

        Raises:
            NodeError: the kernel does not answer. Nothing else.
        """
        ...

    async def stray_links(self) -> tuple[str, ...]:
        """What is connected to this node as a pod and is none: names of the pods it was made for.

        Raises:
            NodeError: the kernel does not answer. Nothing else.
        """
        ...

    async def ping_address(
        self,
        address: Address,
        timeout: float,  # noqa: ASYNC109 - a result of its own, not a cancellation
    ) -> float | None:
        """Seconds until an ICMP echo from this node's own address was answered; None: it was not.

        Raises:
            NodeError: no echo could be sent. Nothing else.
        """
        ...

    def machine(self) -> MachineFacts:
        """What this machine is like, for comparing it with others."""
        ...

    def serves_bench(self) -> bool:
        """Whether members may measure the way to here."""
        ...

    def request_stop(self) -> None:
        """Begin a clean stop, after the present request has been answered."""
        ...
