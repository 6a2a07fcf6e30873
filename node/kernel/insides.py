"""Looks into the namespaces of pods, and puts right what is missing there.

A pod's owner has root inside and may extend what is there; what is missing of ours comes back: the
address, the way out, the link's attributes. What the owner has put in our place (another default
route, say) stays, and is named.

Looking into a namespace takes a thread and a few dumps, so it is done where something was
announced, and besides for a few pods at a time: settings are not announced, and without
CAP_NET_BROADCAST nothing is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from node.kernel import pods
from node.kernel.errors import KernelError
from node.kernel.model import veth_name
from node.kernel.watch import News
from overlay.views import PodView, Problem

_NO_NAMESPACE: Final = "no-netns"


class Insides:
    """The pods' ends of their veths, of one node.

    Args:
        mtu: what pods see.

    Attributes:
        problems: by pod, as of the last look into it.
    """

    def __init__(self, mtu: int) -> None:
        self._mtu = mtu
        self._last = ""
        self.problems: dict[str, Problem] = {}

    def look(
        self, local: Mapping[str, PodView], namespaces: Mapping[str, int], news: News
    ) -> list[str]:
        """Put right what is missing in those pods of which there is news; says what was.

        Args:
            local: pods of this node that are connected, by name.
            namespaces: numbers of their namespaces, by the host ends' names.
            news: what was heard, and how many others to look at.

        Returns:
            What was put right, in words.
        """
        here = {name: pod for name, pod in local.items() if not pod.attachment.handed}
        for gone in self.problems.keys() - here.keys():
            del self.problems[gone]
        chosen = {
            name
            for name in here
            if news.inside is None
            or namespaces.get(veth_name(name)) in news.inside
            or name in self.problems
        }
        swept = self._next(here.keys() - chosen, news.sweep)
        repaired: list[str] = []
        for name in sorted(chosen | swept):
            repaired += self._look_into(here[name], thorough=name in swept)
        return repaired

    def _next(self, rest: Collection[str], count: int) -> set[str]:
        """Some of those whose turn it is: all of them in the long run."""
        behind = sorted(rest)
        later = [name for name in behind if name > self._last]
        turn = (later + behind[: len(behind) - len(later)])[:count]
        if turn:
            self._last = turn[-1]
        return set(turn)

    def _look_into(self, pod: PodView, *, thorough: bool) -> list[str]:
        self.problems.pop(pod.name, None)
        try:
            done, refused = pods.mend(pods.PodEnd.of(pod), self._mtu, thorough=thorough)
        except KernelError as error:
            if error.code != _NO_NAMESPACE:  # it may have lost its name, and live on
                self._name(pod, error)
            return []
        if refused:
            self._name(pod, refused[0])
        return [f"{what} in pod {pod.name}" for what in done]

    def _name(self, pod: PodView, error: KernelError) -> None:
        self.problems[pod.name] = Problem(
            "pod-changed",
            f"pod {pod.name} lacks a part of its network",
            error.why,
            error.fix or "have whatever runs in the pod leave its interface alone, or add it anew",
        )
