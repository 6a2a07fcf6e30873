"""A small cluster as an engine would show it, and a daemon that only remembers what was asked."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from ipaddress import ip_address, ip_network

from node.control.present import DaemonFacts
from node.errors import NodeError
from node.machine import MachineFacts
from node.state import StateFolder
from overlay.attachment import NOTHING_SAID, Attachment
from overlay.audit import Finding
from overlay.effects import (
    BenchAnswered,
    Effect,
    FactsTold,
    Left,
    Persist,
    ProbeAnswered,
    Report,
)
from overlay.errors import RefusedError
from overlay.keys import SigningKey
from overlay.types import Address, Endpoint, NodeId, Prefix
from overlay.views import (
    AuthorityView,
    BlockView,
    LedgerView,
    NodeState,
    NodeView,
    PodView,
    Problem,
    ReservationView,
    RouteView,
    SessionView,
    Snapshot,
    TokenView,
)
from overlay.wire.certificate import Certificate
from overlay.wire.control import decode_untrusted
from overlay.wire.messages import FactsRequest, Message
from overlay.wire.offline import CertificateRequest
from tests.support.clusters import make_cluster, make_identity

NODE1 = NodeId(bytes([1]) * 32)
NODE2 = NodeId(bytes([2]) * 32)
EXPIRES = 1_707_776_000
"""When certificates end: 90 days after FACTS' epoch."""
PEER = Endpoint("192.0.2.2", 6875)

PROBLEM = Problem("no-block", "no address block", "no member gave one", "wait, or look at status")


def node_view(number: int, **changes: object) -> NodeView:
    """Node `number`; 1 is the local one."""
    view = NodeView(
        id=NodeId(bytes([number]) * 32),
        name=f"node{number}",
        state=NodeState.READY,
        local=number == 1,
        address=ip_address(f"10.244.{number - 1}.1"),
        address6=ip_address(f"fd00:0:0:{number - 1}::1"),
        endpoint=None if number == 1 else PEER,
        blocks=(ip_network(f"10.244.{number - 1}.0/24"),),
        pods=1,
        version="0.1.0",
        path="local" if number == 1 else "direct",
        rtt=None if number == 1 else 0.0004217,
        loss=None if number == 1 else 0.0,
        seen=0.0 if number == 1 else 1.25,
        expires=EXPIRES,
    )
    return replace(view, **changes)


def pod_view(name: str, number: int, host: int = 2) -> PodView:
    """A pod of node `number`."""
    return PodView(
        name=name,
        node=f"node{number}",
        address=ip_address(f"10.244.{number - 1}.{host}"),
        address6=ip_address(f"fd00:0:0:{number - 1}::{host:x}"),
        netns=f"/run/netns/muslin-node1-{name}" if number == 1 else "",
        state="ready",
        since=1_700_000_000.0,
        local=number == 1,
    )


def snapshot(**changes: object) -> Snapshot:
    """Two nodes with one pod each."""
    shot = Snapshot(
        now=100.0,
        name="node1",
        cluster="00112233aabbccdd",
        cidr=ip_network("10.244.0.0/16"),
        cidr6=ip_network("fd00::/48"),
        address=ip_address("10.244.0.1"),
        address6=ip_address("fd00::1"),
        nodes=(node_view(1), node_view(2)),
        pods=(pod_view("web", 1), pod_view("db", 2)),
        routes=(
            RouteView(ip_network("10.244.1.0/24"), "node2", PEER, "block", 40.0),
            RouteView(ip_network("fd00:0:0:1::/64"), "node2", PEER, "block", 40.0),
        ),
        sessions=(
            SessionView(
                "node2",
                PEER,
                "aes-256-gcm",
                established=50.0,
                rekeyed=90.0,
                mtu=1400,
                tx_bytes=5000,
                rx_bytes=700,
                drops={"replayed": 2},
                id="02" * 32,
            ),
        ),
        blocks=(
            BlockView(ip_network("10.244.0.0/24"), None, "node1", 1, "in-use", 1),
            BlockView(ip_network("10.244.2.0/23"), None, "node1", 2, "free", 0),
        ),
        own_prefixes=(ip_network("10.244.0.0/24"),),
        ledger=LedgerView(10, 7, 1, {"no_route": 2, "bad_tag": 0}),
        expires=EXPIRES,
        gossip={"awareness": 0, "damped": 3, "refuted": 1},
    )
    return replace(shot, **changes)


FACTS = DaemonFacts(
    epoch=1_700_000_000.0,
    started=10.0,
    pid=42,
    version="0.1.0",
    offloads=("udp_gso",),
    mtu=1420,
)


class FakeEngine:
    """Keeps pods and answers with effects; records what was called."""

    def __init__(self) -> None:
        self.shot = snapshot()
        self.calls: list[tuple[object, ...]] = []
        self.said: list[tuple[NodeId, Message]] = []
        self.machines: dict[NodeId, str] = {}
        self.findings: tuple[Finding, ...] = ()
        self.authority_views: tuple[AuthorityView, ...] = ()
        self.no_authority = False
        self.token_views: tuple[TokenView, ...] = ()
        self.held: dict[Address, ReservationView] = {}
        self.unready: RefusedError | None = None
        self.answer: Effect | None = None
        """What comes of whatever is said."""

    def snapshot(self, now: float) -> Snapshot:
        return replace(self.shot, now=now)

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
        self.calls.append(("add_pod", name, netns, address))
        name = name or f"{owner}-{attachment.container}"
        if any(pod.name == name and pod.local for pod in self.shot.pods):
            raise RefusedError("pod-exists", f"pod {name} exists", "choose another name")
        pod = replace(pod_view(name, 1, 9), netns=netns, owner=owner, attachment=attachment)
        self.shot = replace(self.shot, pods=(*self.shot.pods, pod))
        return pod, [Persist(((b"added", b""),))]

    def remove_pod(self, name: str, now: float) -> tuple[PodView, list[Effect]]:
        self.calls.append(("remove_pod", name))
        pod = next(pod for pod in self.shot.pods if pod.name == name and pod.local)
        pods = tuple(other for other in self.shot.pods if other is not pod)
        self.shot = replace(self.shot, pods=pods)
        return pod, [Persist(((b"removed", b""),))]

    def seeks_block(self) -> bool:
        return any(problem.code == "no-free-address" for problem in self.shot.problems)

    def own_pods(self) -> tuple[PodView, ...]:
        return tuple(pod for pod in self.shot.pods if pod.local)

    def pod_of(self, container: str, interface: str) -> PodView | None:
        for pod in self.shot.pods:
            said = pod.attachment
            if container and (said.container, said.interface) == (container, interface):
                return pod
        return None

    def is_pair(self, address: Address, address6: Address) -> bool:
        return int(address) & 0xFF == int(address6) & 0xFF

    def check_ready(self, now: float) -> None:
        if self.unready is not None:
            raise self.unready

    def reserve(
        self, owner: str, address: Address | None, now: float
    ) -> tuple[ReservationView, list[Effect]]:
        self.calls.append(("reserve", owner, address))
        address = address or ip_address("10.244.0.77")
        if address in self.held:
            raise RefusedError("address-taken", f"{address} is reserved", "choose another")
        self.held[address] = ReservationView(owner, address, None, 1_700_000_000.0, "")
        return self.held[address], [Persist(((b"reserved", b""),))]

    def release_reserved(
        self, owner: str, address: Address, now: float
    ) -> tuple[bool, list[Effect]]:
        self.calls.append(("release_reserved", owner, address))
        there = self.held.pop(address, None)
        return there is not None, [Persist(((b"released", b""),))] if there else []

    def reserved(self) -> tuple[ReservationView, ...]:
        return tuple(self.held.values())

    def release_lost(
        self, present: Collection[str], now: float, *, at_start: bool = False
    ) -> list[Effect]:
        self.calls.append(("release_lost", sorted(present)))
        return [Persist(((b"released", b""),))]

    def audit(self, present: Collection[str], now: float) -> tuple[Finding, ...]:
        lost = [pod.name for pod in self.shot.pods if pod.local and pod.name not in present]
        leaked = [Finding("pod-lost", f"pod {pod} is gone", "why", "fix", pod) for pod in lost]
        return (*self.findings, *leaked)

    def claim(self, now: float) -> list[Effect]:
        self.calls.append(("claim",))
        return [Persist(((b"claimed", b""),))]

    def mint_token(
        self, ttl: float, now: float, routes: tuple[Prefix, ...] = ()
    ) -> tuple[str, list[Effect]]:
        self.calls.append(("mint_token", ttl, *map(str, routes)))
        return f"muslin1-{ttl:g}", [Persist(((b"token", b""),))]

    def tokens(self, now: float) -> tuple[TokenView, ...]:
        return self.token_views

    def revoke_token(self, token: str, now: float) -> tuple[TokenView, list[Effect]]:
        self.calls.append(("revoke_token", token))
        found = [view for view in self.token_views if view.id.hex().startswith(token)]
        if not found:
            raise RefusedError("no-such-token", f"no token {token!r}", "see muslin token list")
        return found[0], [Persist(((b"revoked", b""),))]

    def sign_request(
        self,
        request: str,
        now: float,
        *,
        lifetime: float | None = None,
        routes: tuple[Prefix, ...] | None = None,
    ) -> tuple[str, list[Effect]]:
        CertificateRequest.parse(request)
        self.calls.append(("sign_request", lifetime, routes))
        return "muslin-cert1-x", [Persist(((b"names", b""),))]

    def certificate(self, name: str | None) -> Certificate:
        number = {None: 1, "node1": 1, "node2": 2}.get(name)
        if number is None:
            raise RefusedError("no-such-node", f"no node {name} is known", "see muslin get nodes")
        return make_identity(number).certificate

    def install_certificate(self, certificate: bytes, now: float) -> list[Effect]:
        self.calls.append(("install_certificate", certificate))
        return [Persist(((b"certificate", certificate),))]

    def authorities(self) -> tuple[AuthorityView, ...]:
        return self.authority_views

    def install_authority(self, key: bytes, now: float) -> list[Effect]:
        self.calls.append(("install_authority", key))
        if self.no_authority:
            raise RefusedError("not-authority", "no key of an authority", "run it elsewhere")
        return [Persist(((b"link", b""),))]

    def use_authority(self, key: bytes, now: float) -> list[Effect]:
        self.calls.append(("use_authority", key))
        return [Persist(((b"link", b""),))]

    def remove_authority(self, key: bytes, now: float, *, force: bool = False) -> list[Effect]:
        self.calls.append(("remove_authority", key, force))
        if not force:
            raise RefusedError("members-left", "node2 would be cut off", "wait, or use --force")
        return [Persist(((b"link", b""),))]

    def hold_authority_key(self, key: SigningKey, now: float) -> list[Effect]:
        self.calls.append(("hold_authority_key", key.public))
        self.shot = replace(self.shot, notices=())
        return [Persist(((b"held", b""),))]

    def fingerprint(self) -> bytes:
        return make_cluster().authority_fingerprint

    def leave(self, now: float) -> list[Effect]:
        return [Persist(((b"leaving", b""),)), Left(1)]

    def remove(self, name: str, now: float, *, force: bool) -> list[Effect]:
        self.calls.append(("remove", name, force))
        if name == "node2" and not force:
            raise RefusedError("node-alive", "node2 is ready", "use --force")
        return [Persist(((b"removal", b""),))]

    def say(self, node: NodeId, message: bytes, now: float) -> list[Effect]:
        said = decode_untrusted(message)
        self.said.append((node, said))
        if isinstance(said, FactsRequest) and node in self.machines:
            return [FactsTold(node, said.request, self.machines[node])]
        return [answer for answer in [self.answer] if answer is not None]

    def probe(self, node: NodeId, token: int, now: float) -> list[Effect]:
        return [ProbeAnswered(node, token, 0.0005)] if node == NODE2 else []


class FakeDaemon:
    """A daemon without a machine around it."""

    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.folder = StateFolder("/nowhere")
        self.handlers: object = None
        self.disk_full = False
        self.attach_error: NodeError | None = None
        self.attached: list[str] = []
        self.checked: list[str] = []
        self.kept: list[bytes] = []
        self.echo: float | None = 0.001
        self.stopping = False
        self.lose_probes = False
        self.serving = True
        self.refreshed = 0
        self.strays: tuple[str, ...] = ()

    def now(self) -> float:
        return 100.0

    def facts(self) -> DaemonFacts:
        return FACTS

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Persist(changes):
                    if self.disk_full:
                        raise NodeError("no space left on device", code="not-stored")
                    self.kept.append(changes[0][0])
                case ProbeAnswered():
                    if not self.lose_probes:
                        self.handlers.probe_answered(effect)
                case Left():
                    self.handlers.left(effect)
                case BenchAnswered() | FactsTold():
                    self.handlers.heard(effect)
                case Report():
                    pass

    async def stored(self, effects: list[Effect]) -> None:
        self.perform(effects)

    async def refresh(self) -> None:
        self.refreshed += 1

    async def attach_pod(self, pod: PodView) -> None:
        if self.attach_error is not None:
            raise self.attach_error
        self.attached.append(pod.name)

    async def check_pod(self, pod: PodView) -> None:
        if self.attach_error is not None:
            raise self.attach_error
        self.checked.append(pod.name)

    async def detach_pod(self, name: str) -> None:
        if name in self.attached:
            self.attached.remove(name)

    async def present_pods(self) -> frozenset[str]:
        return frozenset(self.attached)

    async def stray_links(self) -> tuple[str, ...]:
        return self.strays

    async def ping_address(self, address: Address, timeout: float) -> float | None:  # noqa: ASYNC109
        return self.echo

    def machine(self) -> MachineFacts:
        return {"version": "0.1.0", "mtu": 1500, "ip_forward": 1, "time": 0.0}

    def serves_bench(self) -> bool:
        return self.serving

    def request_stop(self) -> None:
        self.stopping = True
