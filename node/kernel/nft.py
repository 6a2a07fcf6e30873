"""Keeps packet filter rules in the kernel: the only module that runs `nft`.

Everything here blocks for some milliseconds and belongs into the netlink thread. Rules go in as
one transaction. Whoever loads rules of his own tends to begin with `flush ruleset`, so `hold` is
called whenever the kernel announces any change of rules.

    the kernel's generation is the one of our own last change?   then the rules stand: no nft
    else what nft lists is what it listed before?                then they do, too
    else                                                         they are loaded anew

Our own changes raise the generation by one each, so it tells others' changes from them. Pods that
come and go are changes of a few elements of sets (`node.kernel.elements`), made without nft on
top of a generation that is known; what nft lists is then found out when it is needed.

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
import weakref
from typing import Final, NamedTuple

from node.kernel.elements import difference
from node.kernel.model import RULE_FAMILIES, RULE_TABLE
from node.kernel.rules import TABLES, removal
from node.kernel.ruleset import RuleSet, following

_PLACES: Final = "/usr/sbin:/sbin:/usr/bin:/bin"
"""Where distributions put it; a service's PATH need not hold them."""

_PATIENCE: Final = 10.0


class _Standing(NamedTuple):
    """The rules that were made to stand last.

    Attributes:
        rules: all of them.
        generation: of the kernel's rules after that; None if it is not known, or if somebody else
            changed rules at the same time.
        listed: what nft lists then; None if it was not asked, or others were at it meanwhile.
    """

    rules: str
    generation: int | None
    listed: str | None


class Firewall:
    """Our tables in the network namespace of the thread that calls.

    Args:
        tool: path of nft; None looks for it, empty is none.

    Attributes:
        why: in one clause, why the rules do not stand; empty while they do.
    """

    def __init__(self, tool: str | None = None) -> None:
        self._tool = _find_tool() if tool is None else tool
        self._standing: _Standing | None = None
        self._ruleset: RuleSet | None = None
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
        if not self._tool:
            return False
        found, undisturbed = self._look(self._standing)
        if undisturbed is not None and self._follow(undisturbed, rules):
            return False
        return self._load(rules, found)

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
        if not self._tool:
            return ""
        done = self._run(*words)
        return "" if done.returncode else done.stdout

    def remove(self) -> None:
        """Take the tables away."""
        if self._tool:
            self._run("-f", "-", given=removal())
            self._standing = None

    def _look(self, standing: _Standing | None) -> tuple[str, _Standing | None]:
        """What is listed, if that had to be asked; what stands, unless somebody has changed it."""
        if standing is None:
            return "", None
        generation = self._generation()
        if generation is not None and generation == standing.generation:
            return "", standing
        found = self._listed()
        if found != standing.listed:
            return found, None
        return found, standing._replace(generation=generation)

    def _follow(self, standing: _Standing, rules: str) -> bool:
        """Get from rules that stand to others by a few elements; whether that is done."""
        self._standing = standing
        if rules == standing.rules:
            return True
        change = difference(standing.rules, rules)
        if change is None or standing.generation is None or self._ruleset is None:
            return False
        if not self._ruleset.change(change, standing.generation):
            return False
        self._standing = _Standing(rules, following(standing.generation), None)
        return True

    def _load(self, rules: str, found: str) -> bool:
        """Load all the rules; whether that has changed something that stood and was listed."""
        before, generation = self._standing, self._generation()
        again = before is not None and before.rules == rules
        self.why = _complaint(self._run("-f", "-", given=rules))
        if self.why:
            self._standing = None
            return False
        after = self._generation()
        alone = generation is not None and after == following(generation)
        listed = None if alone and not again else self._listed()
        # What others did meanwhile may be in the list, and nobody would ever repair it.
        certain = self._generation() == after and (alone or after == generation)
        known = after if alone and certain else None
        self._standing = _Standing(rules, known, listed if certain else None)
        return again and found != listed

    def _generation(self) -> int | None:
        try:
            if self._ruleset is None:
                self._ruleset = RuleSet()
                weakref.finalize(self, self._ruleset.close)
        except OSError:
            return None
        return self._ruleset.generation()

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
