"""What `scripts/bench` understands: a comparison unless a word says otherwise."""

from __future__ import annotations

import signal
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final

from bench import cluster, compare, growth, members, path, revocation
from overlay.errors import OverlayError

DESCRIPTION: Final = """\
Muslin beside no overlay, kernel VXLAN and compiled userspace overlays, in network namespaces.

  scripts/bench            compare them: medians of interleaved rounds, ratios, targets
  scripts/bench growth     how Muslin's cost grows with nodes, routes and lanes
  scripts/bench cluster    whole simulated clusters: join, traffic, news, deaths, slow nodes
  scripts/bench members    memory and time of one engine as the cluster grows, without a kernel
  scripts/bench revocation how soon nobody has a session with a removed node, across partitions
  scripts/bench path       microseconds per packet of the packet path, without a kernel

Each has a --help of its own."""

_ENDING: Final = (signal.SIGINT, signal.SIGTERM)

EXAMPLES: Final = """\
examples:
  scripts/bench --json run.json --picture bench.svg
  scripts/bench --rounds 1 --seconds 1 --only none,vxlan,muslin --workloads tcp1 --underlay veth
  scripts/bench --from run.json --markdown"""


def main(argv: Sequence[str]) -> int:
    """Run a command line; returns the exit code."""
    try:
        with _one_interrupt():
            _run(argv)
    except OverlayError as error:
        fix = getattr(error, "fix", "")
        print(f"bench: {error}" + (f": {fix}" if fix else ""), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted; everything was taken down", file=sys.stderr)
        return 130
    return 0


@contextmanager
def _one_interrupt() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does, and let neither disturb the cleaning up that follows."""
    before = {number: signal.getsignal(number) for number in _ENDING}

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in _ENDING:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in _ENDING:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(argv: Sequence[str]) -> None:
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
