"""Fixtures and profiles shared by every test."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "default", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("gate", parent=settings.get_profile("default"), derandomize=True)
settings.register_profile("long", parent=settings.get_profile("default"), max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell without job control starts what is in its background so, and every process that a test
    # starts would inherit it and be deaf to the Ctrl-C that the test sends.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """With pytest-xdist, `-n 2` is two workers of which each knows what the other does."""
    if config.pluginmanager.hasplugin("xdist"):
        from tests.support import workers

        workers.pytest_configure(config)


VECTORS = Path(__file__).resolve().parents[2] / "shared" / "vectors"


@pytest.fixture(scope="session")
def vectors() -> Path:
    """Folder of the shared test vectors."""
    if not VECTORS.is_dir():
        pytest.skip(f"no test vectors at {VECTORS.name}: they live beside the project, not in it")
    return VECTORS


@pytest.fixture
def rng() -> random.Random:
    """A seeded generator: the same test sees the same numbers."""
    return random.Random(20_26)
