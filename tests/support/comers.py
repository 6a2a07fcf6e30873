"""Pods of one node that come and go all the time, whether its daemon runs or not.

Every change is asked for until it is done, as a runtime does: a request may meet no daemon, be cut
off with its daemon, or meet one that has just started. Who was cut off does not know whether it was
done; asking again must find out. What is kept here is the truth that tables are compared with.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from node.errors import NodeError
from node.kernel import netns
from tests.support.machines import Machine

MOST = 5
"""Pods at a time, apart from those whose namespace has vanished."""

AGAIN = 0.1
"""Seconds between two requests for the same change."""

PATIENCE = 60.0
"""Seconds in which every change must be done, however often the daemon is killed meanwhile."""

TYPED = 0.1
"""So many of the changes are asked for by the installed program, the others by the socket alone."""

LATER = ("just-started", "no-block", "no-free-address", "limit-reached")
"""What is refused for now."""

UNSURE = ("connection-lost", "timeout")
"""What leaves open whether it was done."""

LIMIT = {"bits": 1_000_000_000, "burst": 8_000_000}


@dataclass(frozen=True)
class Comer:
    """A pod that is there, or whose namespace is gone."""

    name: str
    node: str
    netns: str
    address: str
    address6: str
    container: str
    own: bool
    """Whether the daemon made its namespace."""

    def at(self, family: int) -> str:
        """Its address of IP version 4 or 6."""
        return self.address if family == 4 else self.address6


class Comers:
    """Changes of one node's pods, in a thread of their own for the time of a `with` block.

    Args:
        machine: the node.
        rng: decides everything that is left to chance.
        pace: seconds between two changes, on average.

    Attributes:
        held: the pods that must be there, by name.
        vanished: those whose namespace was removed and that nobody has deleted.
        figures: how many were `made`, `removed`, `vanished`; and how many requests were `refused`
            by a daemon that was down, `cut off`, or put off until `later`.
        failures: what must not happen, as text.
    """

    def __init__(self, machine: Machine, rng: random.Random, pace: float) -> None:
        self.machine = machine
        self.held: dict[str, Comer] = {}
        self.vanished: dict[str, Comer] = {}
        self.figures: Counter[str] = Counter()
        self.failures: list[str] = []
        self._rng = rng
        self._pace = pace
        self._numbers = 0
        self._made: set[str] = set()
        self._over = threading.Event()
        self._given_up = False
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._given_up = error is not None
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._over.wait(min(self._rng.expovariate(1 / self._pace), 4 * self._pace)):
            try:
                self.change()
            except (NodeError, AssertionError, OSError) as error:
                self.failures.append(f"{self.machine.name}: {error}")

    def change(self) -> None:
        """One change, whichever chance decides."""
        gone = self._rng.choice(sorted(self.vanished)) if self.vanished else ""
        if gone and self._rng.random() < 0.1:
            self._forget(gone)
        elif not self.held or (len(self.held) < MOST and self._rng.random() < 0.5):
            self.add()
        else:
            name = self._rng.choice(sorted(self.held))
            if self._rng.random() < 0.15 and not self.held[name].own:
                self._vanish(name)
            else:
                self.remove(name)

    # -- changes -----------------------------------------------------------------------------------

    def add(self, **said: Any) -> None:
        """Another pod: in a namespace of its own or in one that is there, with and without limits.

        Args:
            said: what is asked for in any case.
        """
        self._numbers += 1
        number, kind = self._numbers, self._rng.choice(("own", "given", "container"))
        name = f"{self.machine.name}x{number}"
        asked: dict[str, Any] = {"name": name}
        typed = ["pod", "add", name] if not said and self._rng.random() < TYPED else []
        if kind != "own":
            self._made.add(name)
            asked["netns"] = str(netns.create(f"t{os.getpid()}-{name}"))
            typed += ["--netns", asked["netns"]] if typed else []
        if not typed:
            asked |= self._said(number) | said
            if kind == "container":
                asked |= {"container": f"{name}-container", "owner": "cni", "network": "pods"}
        self._insist("pod.add", asked, ("pod-exists",), typed)
        row = self._insist("pod.get", {"name": name})
        self.held[name] = Comer(
            name,
            self.machine.name,
            row["netns"],
            row["address"],
            row["address6"],
            str(asked.get("container", "")),
            own=kind == "own",
        )
        self.figures["made"] += 1

    def _said(self, number: int) -> dict[str, Any]:
        """Limits and a port of the node, for some."""
        said: dict[str, Any] = {}
        if self._rng.random() < 0.25:
            said |= {"ingress": LIMIT, "egress": LIMIT}
        if self._rng.random() < 0.25:
            said["ports"] = [{"protocol": "tcp", "host_port": 20_000 + number, "port": 80}]
        return said

    def remove(self, name: str) -> None:
        """One pod fewer."""
        pod = self.held[name]
        typed = ["pod", "del", name] if self._rng.random() < TYPED else []
        self._delete(pod, typed)
        del self.held[name]
        self._drop_namespace(pod)
        self.figures["removed"] += 1

    def _vanish(self, name: str) -> None:
        """Nobody says that the pod has ended: its namespace is simply gone."""
        self.vanished[name] = self.held.pop(name)
        self._drop_namespace(self.vanished[name])
        self.figures["vanished"] += 1

    def _forget(self, name: str) -> None:
        """The runtime says it after all; a daemon that was started since has freed it already."""
        self._delete(self.vanished[name], [], "no-such-pod")
        del self.vanished[name]

    def _delete(self, pod: Comer, typed: list[str], *fine: str) -> None:
        asked = {"container": pod.container} if pod.container else {"name": pod.name}
        self._insist("pod.del", asked, ("no-such-pod",), typed, fine)

    def _drop_namespace(self, pod: Comer) -> None:
        if pod.name in self._made:
            netns.delete(f"t{os.getpid()}-{pod.name}")
            self._made.discard(pod.name)

    def clear(self) -> None:
        """Remove everything."""
        for name in sorted(self.held):
            self.remove(name)
        for name in sorted(self.vanished):
            self._forget(name)

    def drop(self) -> None:
        """Remove the namespaces that were made here and are left."""
        while self._made:
            netns.delete(f"t{os.getpid()}-{self._made.pop()}")

    # -- asking until it is done -------------------------------------------------------------------

    def _insist(
        self,
        method: str,
        asked: dict[str, Any],
        done: tuple[str, ...] = (),
        typed: list[str] | None = None,
        fine: tuple[str, ...] = (),
    ) -> Any:
        """What the daemon answers in the end; None if it says that an earlier request was done.

        Args:
            method, asked: the request.
            done: codes of that, once a request was cut off.
            typed: the first time it is typed so, unless empty.
            fine: codes that say so from the first request on.
        """
        deadline = time.monotonic() + PATIENCE
        is_done = bool(typed) and self._types(*typed or ())
        unsure = bool(typed)
        while True:
            try:
                answer = self.machine.ask(method, **asked)
            except NodeError as error:
                if error.code in fine or (unsure and error.code in done):
                    return None
                for_now = error.code in (*LATER, *UNSURE, "not-running") and "\n" not in str(error)
                if not for_now or self._given_up or time.monotonic() > deadline:
                    raise NodeError(f"{method} {asked}: {error}", code=error.code) from error
                self._count(error.code)
                unsure |= error.code in UNSURE
            else:
                anew = answer.get("removed", True)  # a container's deletion is fine twice
                assert not (is_done and anew), f"{method} {asked}: was done, and forgotten"
                return answer
            time.sleep(AGAIN)

    def _types(self, *words: str) -> bool:
        """Ask by the installed program; whether it was done. If not, it says so in one line."""
        done = self.machine.types(*words, timeout=PATIENCE)
        if done.returncode == 0:
            return True
        said = done.stderr.splitlines()
        assert done.returncode == 1, f"{words}: exit code {done.returncode}"
        assert len(said) == 1, f"{words}: {done.stderr}"
        assert said[0].startswith("muslin: "), f"{words}: {done.stderr}"
        down = "no daemon is running" in said[0]
        self._count("not-running" if down else "connection-lost")
        return False

    def _count(self, code: str) -> None:
        kind = "refused" if code == "not-running" else "cut off" if code in UNSURE else "later"
        self.figures[kind] += 1
