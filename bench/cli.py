"""What `scripts/bench` understands: a comparison unless a word says otherwise."""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from typing import Final

from bench import cluster, compare, growth, members, path, revocation
from bench.scripts import ended

DESCRIPTION: Final = """\
Muslin beside no overlay, kernel VXLAN and compiled userspace overlays, in network namespaces.

  scripts/bench            compare them: medians of interleaved rounds, ratios, targets
  scripts/bench growth     how Muslin's cost grows with nodes, routes and lanes
  scripts/bench cluster    whole simulated clusters: join, traffic, news, deaths, slow nodes
  scripts/bench members    memory and time of one engine as the cluster grows, without a kernel
  scripts/bench revocation how soon nobody has a session with a removed node, across partitions
  scripts/bench path       microseconds per packet of the packet path, without a kernel

Each has a --help of its own."""

EXAMPLES: Final = """\
examples:
  scripts/bench --json run.json --picture bench.svg
  scripts/bench --rounds 1 --seconds 1 --only none,vxlan,muslin --workloads tcp1 --underlay veth
  scripts/bench --from run.json --markdown"""


def main(argv: Sequence[str]) -> int:
    """Run a command line; returns the exit code."""
    return ended("bench", lambda: _run(argv))


def _run(argv: Sequence[str]) -> int:
    word, *rest = argv or [""]
    commands: dict[str, tuple[Callable[[ArgumentParser], None], Callable[..., None], str]] = {
        "compare": (compare.add_options, compare.compare, DESCRIPTION),
        "growth": (growth.add_options, growth.growth, growth.DESCRIPTION),
        "cluster": (cluster.add_options, cluster.cluster, cluster.DESCRIPTION),
        "members": (members.add_options, members.members, members.DESCRIPTION),
        "revocation": (revocation.add_options, revocation.revocation, revocation.DESCRIPTION),
        "path": (path.add_options, path.path, path.DESCRIPTION),
    }
    if word not in commands:
        word, rest = "compare", list(argv)
    add_options, command, description = commands[word]
    parser = ArgumentParser(
        prog="scripts/bench" if word == "compare" else f"scripts/bench {word}",
        description=description,
        epilog=EXAMPLES if word == "compare" else None,
        formatter_class=RawDescriptionHelpFormatter,
    )
    add_options(parser)
    command(parser.parse_args(rest))
    return 0
