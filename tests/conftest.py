"""What every room's tests share: quiet property tests, a seed, the folder of outside data, small sources."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("BOTHWAYS_NATIVE", "0")  # the same numbers wherever the tests run; its own tests ask for it
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

hypothesis.settings.register_profile(
    "bothways", deadline=None, max_examples=30, derandomize=True, database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture])
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "bothways"))


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of outside data that BOTHWAYS_DATA names; the test is skipped where there is none."""
    folder = os.environ.get("BOTHWAYS_DATA", "")
    path = Path(folder)
    for found in (path / "data", path):
        if folder and (found / "lm").is_dir():
            return found
    pytest.skip("BOTHWAYS_DATA names no folder of data")


@pytest.fixture(scope="session")
def known():  # type: ignore[no-untyped-def]
    """The known source."""
    from bothways.text.known import KnownSource
    return KnownSource()


@pytest.fixture(scope="session")
def known_prepared(known, tmp_path_factory):  # type: ignore[no-untyped-def]
    """A few hundred documents of the known source, prepared."""
    return known.prepare(tmp_path_factory.mktemp("known") / "prepared", documents=400)
