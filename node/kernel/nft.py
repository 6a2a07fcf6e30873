"""Keeps packet filter rules in the kernel: the only module that runs `nft`.

Everything here blocks for some milliseconds and belongs into the netlink thread. Rules go in as
one transaction. What `nft` lists afterwards is remembered; as long as it lists the same, the rules
stand. Whoever loads rules of his own tends to begin with `flush ruleset`, so `hold` is called
whenever the kernel announces any change of rules.

A machine without nft, or a kernel without nf_tables, is no error: `why` says so, and what is
promised then is less (see `node.kernel.guard`).

References:
    nft(8), options -s (listings without counters), -f (all or nothing), -c (the kernel is asked,
    and nothing is done).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Final

from node.kernel.model import RULE_FAMILIES, RULE_TABLE
from node.kernel.rules import TABLES, removal

_PLACES: Final = "/usr/sbin:/sbin:/usr/bin:/bin"
"""Where distributions put it; a service's PATH need not hold them."""

_PATIENCE: Final = 10.0


class Firewall:
    """Our tables in the network namespace of the thread that calls.

    Args:
        tool: path of nft; None looks for it, empty is none.

    Attributes:
        why: in one clause, why the rules do not stand; empty while they do.
    """

    def __init__(self, tool: str | None = None) -> None:
        self._tool = _find_tool() if tool is None else tool
        self._standing: tuple[str, str] | None = None
        self.why = "nothing was asked for yet" if self._tool else "there is no nft"

    @property
    def failed(self) -> bool:
        """Whether the rules that were asked for last do not stand, though there is an nft."""
        return bool(self._tool) and self._standing is None

    def hold(self, rules: str) -> bool:
        """Make the rules stand, unless they do; `why` says whether that worked.

        Returns:
            Whether they stood before, and had been changed by somebody else.
        """
        if not self._tool or self._stand(rules):
            return False
        before, done = self._standing, self._run("-f", "-", given=rules)
        self.why = _complaint(done)
        self._standing = None if self.why else (rules, self._listed())
        return not self.why and before is not None and before[0] == rules

    def why_not(self, rules: str) -> str:
        """In one clause, why this kernel would not take these rules; empty if it would."""
        return _complaint(self._run("-c", "-f", "-", given=rules)) if self._tool else self.why

    def counts(self) -> dict[str, int]:
        """What each counter has counted, in packets; empty while the rules do not stand."""
        total: dict[str, int] = {}
        for family in RULE_FAMILIES if self._standing is not None else ():
            listed = self._run("-j", "list", "counters", "table", family, RULE_TABLE).stdout
            for entry in json.loads(listed or "{}").get("nftables", ()):
                counter = entry.get("counter", {})
                # Some versions of nft name those of all tables.
                if (counter.get("family"), counter.get("table")) == (family, RULE_TABLE):
                    name = counter["name"]
                    total[name] = total.get(name, 0) + counter["packets"]
        return total

    def listing(self, *words: str) -> str:
        """What nft answers to a question; empty where it cannot be asked, or refuses."""
        return self._run(*words).stdout if self._tool else ""

    def remove(self) -> None:
        """Take the tables away."""
        if self._tool:
            self._run("-f", "-", given=removal())
            self._standing = None

    def _stand(self, rules: str) -> bool:
        if self._standing is None or self._standing[0] != rules:
            return False
        return self._standing[1] == self._listed()

    def _listed(self) -> str:
        return "".join(self._run("-s", "list", "table", *table.split()).stdout for table in TABLES)

    def _run(self, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        command = [self._tool, *words]
        try:
            return subprocess.run(  # noqa: S603 (a program of the system, and our own words)
                command,
                input=given,
                capture_output=True,
                text=True,
                check=False,
                timeout=_PATIENCE,
                env={"PATH": _PLACES, "LC_ALL": "C"},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return subprocess.CompletedProcess(command, 1, "", f"nft: {error}")


def _complaint(done: subprocess.CompletedProcess[str]) -> str:
    """What nft says is wrong: its first line. In those after it, it shows the rule."""
    said = done.stderr.strip().partition("\n")[0]
    return (said or "nft failed") if done.returncode else ""


def _find_tool() -> str:
    path = os.pathsep.join(filter(None, [os.environ.get("PATH"), _PLACES]))
    return shutil.which("nft", path=path) or ""
