"""Pods of this node: made, taken back, and found again after a restart.

A pod is whose it is (`owner`) and of one boot of the machine (`boot_id`): network namespaces do not
survive a reboot, so neither do pods. When the daemon starts, it says which namespaces there are:

    stored pod --+-- of an earlier boot ------------> released: its addresses rest, everyone is told
                 +-- its namespace is gone ---------> released
                 '-- its namespace is there --------> kept, and connected again

A namespace that vanishes while the daemon runs is found, too, but its pod stays until somebody says
otherwise: its owner may be about to make it again.

A reservation stays in all of these cases (`overlay.tenants`): it has no namespace to be gone, and
whoever asked for it remembers it across reboots and gives it back itself, as Docker does when it
starts. If we forgot it first, the address could be a stranger's by then.

Nothing is stored or announced here; `overlay.steward` does that with the effects it returns.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from overlay.attachment import NOTHING_SAID, Attachment, choose_name
from overlay.effects import Effect, Report
from overlay.errors import CapacityError, RefusedError
from overlay.snapshots import pod_view, reservation_view
from overlay.state import StoredPod
from overlay.steward import Steward
from overlay.types import Address
from overlay.views import PodView, Problem, ReservationView

NAMED: Final = 5
"""So many pods are named in the notice of those that were gone."""

CLI: Final = "cli"
"""Owner of the pods that a person made."""


class PodKeeper:
    """The pods of one node.

    Args:
        steward: stores and announces what changes here.
        boot_id: of the machine's present boot; empty where pods survive everything (simulations).
    """

    def __init__(self, steward: Steward, boot_id: str) -> None:
        self._steward = steward
        self._parts = steward.parts
        self._boot_id = boot_id
        self._freed: dict[str, str] = {}  # pods that were gone at the start -> why

    def add(
        self,
        name: str,
        netns: str,
        address: Address | None,
        owner: str,
        now: float,
        *,
        attachment: Attachment = NOTHING_SAID,
    ) -> tuple[PodView, list[Effect]]:
        """Give a pod its addresses and announce it; the caller attaches it to the kernel.

        Args:
            name: within the node; empty to have one chosen (`overlay.attachment.choose_name`).
            netns: path of its namespace; may be empty for a pod that is handed over.
            address: the wanted one, of either family; None for any.
            owner: who asks.
            now: monotonic seconds.
            attachment: what its runtime says of it.

        Raises:
            RefusedError, CapacityError, ConfigError: see `Holdings.add_pod`; `not-stored`,
                `identity-conflict`, `just-started`.
        """
        self._steward.check_may_give()
        holdings = self._parts.holdings
        name = name or choose_name(attachment, owner, holdings.pods)
        wall = self._parts.wall.at(now)
        if name not in holdings.pods:
            self._steward.conflict.check_met(now)
            if not self._parts.record.has_room(name, wall):
                what = f"{len(holdings.pods)} pods leave the node's record no room for one more"
                raise CapacityError(what, "record")
        try:
            pod = holdings.add_pod(
                name,
                netns,
                address,
                wall,
                now,
                owner=owner,
                boot_id=self._boot_id,
                attachment=attachment,
            )
        except RefusedError as refused:
            raise self._explained(refused) from refused
        self._freed.pop(name, None)
        effects = self._steward.own_changed(now, wait=0.0)
        return self._view(pod), effects + self._steward.tidy(now)

    def _explained(self, refused: RefusedError) -> RefusedError:
        """The same, and why there is no other block if that is the reason."""
        seeker = self._parts.seeker
        if refused.code != "no-free-address" or not seeker.seeking:
            return refused
        why = f"{refused}, and there is no other block: {seeker.why}"
        return RefusedError(refused.code, why, refused.fix)

    def own(self) -> tuple[PodView, ...]:
        """All pods of this node, by name."""
        return tuple(self._view(pod) for _, pod in sorted(self._parts.holdings.pods.items()))

    def find(self, container: str, interface: str) -> PodView | None:
        """The pod that a runtime knows under its container's id and interface; None if none."""
        pod = self._parts.holdings.tenants.pod_of(container, interface)
        return None if pod is None else self._view(pod)

    def check_ready(self, now: float) -> None:
        """Whether a pod could be given an address now.

        Raises:
            RefusedError: what `add` would raise for a pod without wishes. Nothing else.
        """
        self._steward.check_may_give()
        self._steward.conflict.check_met(now)
        try:
            self._parts.holdings.check_room(now)
        except RefusedError as refused:
            raise self._explained(refused) from refused

    # -- addresses that are reserved -----------------------------------------------------------

    def reserve(
        self, owner: str, address: Address | None, now: float
    ) -> tuple[ReservationView, list[Effect]]:
        """Hold an address for an owner, who gives it to one of his pods later.

        Raises:
            RefusedError: `just-started`, `not-stored`, `identity-conflict`; see
                `Holdings.check_room` and `Tenants.reserve`.
            ConfigError: no name of an owner.
        """
        self._steward.check_may_give()
        self._steward.conflict.check_met(now)
        holdings, wall = self._parts.holdings, self._parts.wall.at(now)
        try:
            holdings.prepare(address, now)
            held = holdings.tenants.reserve(owner, address, wall, now)
        except RefusedError as refused:
            raise self._explained(refused) from refused
        effects = [self._steward.persist(), *self._steward.tidy(now)]
        return reservation_view(held, holdings.tenants, self._parts.plan), effects

    def release_reserved(
        self, owner: str, address: Address, now: float
    ) -> tuple[bool, list[Effect]]:
        """End a reservation; whether there was one of this owner's."""
        if not self._parts.holdings.tenants.release(owner, address, now):
            return False, []
        return True, [self._steward.persist(), *self._steward.tidy(now)]

    def reserved(self) -> tuple[ReservationView, ...]:
        """Every reservation, by address."""
        tenants, plan = self._parts.holdings.tenants, self._parts.plan
        held = [one for _, one in sorted(tenants.reserved.items())]
        return tuple(reservation_view(one, tenants, plan) for one in held)

    def remove(self, name: str, now: float) -> tuple[PodView, list[Effect]]:
        """Take a pod's addresses back and announce it; the caller detaches it.

        Raises:
            RefusedError: `no-such-pod`. Nothing else.
        """
        pod = self._parts.holdings.remove_pod(name, now)
        effects = self._steward.own_changed(now, wait=0.0)
        return self._view(pod), effects + self._steward.tidy(now)

    def lost(self, present: Collection[str]) -> dict[str, str]:
        """Pods that cannot be reached any more, and why.

        Args:
            present: names of the pods whose namespace exists.
        """
        why = {}
        for name, pod in self._parts.holdings.pods.items():
            if pod.boot_id != self._boot_id:
                why[name] = "the machine has been restarted"
            elif name not in present:
                why[name] = "its namespace is gone"
        return why

    def release(self, lost: dict[str, str], now: float, *, at_start: bool = False) -> list[Effect]:
        """Take the addresses of these pods back: name -> why. Unknown names are passed over.

        Args:
            lost: as `lost` says.
            now: monotonic seconds.
            at_start: nobody asked for it, so the operator is told (`notice`).
        """
        holdings = self._parts.holdings
        known = {name: why for name, why in lost.items() if name in holdings.pods}
        gone = [(holdings.remove_pod(name, now), why) for name, why in known.items()]
        if not gone:
            return []
        if at_start:
            self._freed |= known
        reports = [
            Report("pod.reconciled", {"pod": pod.name, "owner": pod.owner, "why": why})
            for pod, why in gone
        ]
        return [*self._steward.own_changed(now), *reports, *self._steward.tidy(now)]

    def notice(self) -> Problem | None:
        """What the start freed and nobody has added again; None if there is nothing of that."""
        if not self._freed:
            return None
        names = sorted(self._freed)
        more = ", ..." if len(names) > NAMED else ""
        pods = "1 pod was" if len(names) == 1 else f"{len(names)} pods were"
        return Problem(
            "pods-freed",
            f"{pods} gone when the daemon started: {', '.join(names[:NAMED])}{more}",
            "; ".join(sorted(set(self._freed.values()))),
            "add them again if their runtime does not; their addresses rest, then they are free",
        )

    def _view(self, pod: StoredPod) -> PodView:
        return pod_view(pod, self._steward.identity.name, self._parts.plan)
