"""Look for bytes that break something: coverage-guided fuzzing of every way into the program.

    scripts/fuzz --list                               the targets
    scripts/fuzz --target control --seconds 600       one of them, for ten minutes
    scripts/fuzz --target all --seconds 60            all, a minute each
    scripts/fuzz --target control --replay FILE       one input again: the traceback, or nothing

Inputs that reached new code are kept below --corpus, by target, and are where the next run begins;
so are the seeds, which honest senders send. An input that breaks something, takes too long or too
much memory is written to the folder `found` beside them, and the command that replays it is said.
Once the defect is mended, the input belongs into tests/fuzz/found/TARGET-WHAT, where a test replays
it for ever.

The fuzzer is atheris, libFuzzer for Python. It instruments `overlay` and `node`. Where it cannot be
installed, --replay still works. Exit code 0: nothing was found; 1: something was.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fuzz.target import Target

ROOT = Path(__file__).resolve().parents[1]
SLOW = 20
"""Seconds that no single input may take."""
MEMORY = 2048
"""MiB that the whole process may take: an input that asks for more than bytes shows."""


def load(name: str) -> Target:
    """A target by its name; the program behind it is instrumented if atheris was imported."""
    from tests.fuzz.registry import find  # noqa: PLC0415 - instrumented only now

    return find(name)


def fuzz(name: str, seconds: int, corpus: Path, seed: int) -> int:
    """Run one target in this process; does not return unless atheris is missing."""
    try:
        import atheris  # type: ignore[import-not-found, unused-ignore] # noqa: PLC0415
    except ImportError:
        print("fuzz: atheris is not installed here: run scripts/setup", file=sys.stderr)
        return 2
    with atheris.instrument_imports(include=["overlay", "node", "tests.fuzz.registry"]):
        target = load(name)
    kept, found = corpus / name, corpus / "found"
    for folder in (kept, found):
        folder.mkdir(parents=True, exist_ok=True)
    for data in target.seeds():
        (kept / f"seed-{hashlib.sha256(data).hexdigest()[:16]}").write_bytes(data)
    arguments = [
        sys.argv[0],
        str(kept),
        f"-max_total_time={seconds}",
        f"-max_len={target.longest}",
        f"-timeout={SLOW}",
        f"-rss_limit_mb={MEMORY}",
        f"-artifact_prefix={found}/{name}-",
        "-print_final_stats=1",
        f"-seed={seed}",
    ]
    atheris.Setup(arguments, target.run)
    atheris.Fuzz()
    return 0


def replay(name: str, path: Path) -> int:
    """Give the input in a file to a target once; a defect is a traceback."""
    load(name).run(path.read_bytes())
    print(f"{path}: nothing comes of it")
    return 0


def names(target: str) -> list[str]:
    """The targets that are meant."""
    from tests.fuzz.registry import SELF_TEST, all_targets  # noqa: PLC0415 - see `load`

    known = list(all_targets())
    if target == "all":
        return known
    if target not in {*known, SELF_TEST.name}:
        raise SystemExit(f"fuzz: there is no target {target!r}: see scripts/fuzz --list")
    return [target]


def each(arguments: argparse.Namespace) -> int:
    """Run every target that is meant in a process of its own; says how to replay what was found."""
    broken = 0
    for name in names(arguments.target):
        print(f"fuzz: {name}, {arguments.seconds} s", file=sys.stderr, flush=True)
        before = set(_found(arguments.corpus, name))
        words = ["--target", name, "--seconds", str(arguments.seconds)]
        words += ["--corpus", str(arguments.corpus), "--seed", str(arguments.seed), "--here"]
        ran = subprocess.run([sys.executable, __file__, *words], check=False)
        broken += ran.returncode != 0
        for path in sorted(set(_found(arguments.corpus, name)) - before):
            print(f"fuzz: replay with: scripts/fuzz --target {name} --replay {path}")
    return 1 if broken else 0


def _found(corpus: Path, name: str) -> list[Path]:
    return list((corpus / "found").glob(f"{name}-*"))


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", default="all", help="its name, or all")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default 60)")
    parser.add_argument("--seed", type=int, default=0, help="of the fuzzer's choices; 0: any")
    parser.add_argument("--corpus", type=Path, default=ROOT / ".fuzz", help="default .fuzz")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="give it this input once")
    parser.add_argument("--list", action="store_true", help="print the targets")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.list:
        print(*names("all"), sep="\n")
        return 0
    if arguments.replay:
        return replay(*names(arguments.target), arguments.replay)
    if arguments.here:
        return fuzz(arguments.target, arguments.seconds, arguments.corpus, arguments.seed)
    return each(arguments)


if __name__ == "__main__":
    sys.exit(main())
