"""Recordings whose truth is known, and one trained imputer that many tests share.

A test that needs no network uses `prior_only`; `trained` is fitted once a session and never refitted.
"""

from __future__ import annotations

import os
from collections.abc import Callable

# Workers side by side have a core each; threads of one would wait for the other's.  Read when torch is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from diffad import Sampler, SeriesImputer, Training

Array = NDArray[np.float64]


@pytest.fixture
def prior_only() -> Callable[..., SeriesImputer]:
    """Return a maker of small imputers without a network."""

    def make(**options: object) -> SeriesImputer:
        return SeriesImputer(**{"window": 16, "n_samples": 40, "training": Training(max_steps=0), **options})

    return make


@pytest.fixture(scope="session")
def few_steps() -> Callable[..., SeriesImputer]:
    """Return a maker of imputers that train a network for a moment: one solver step keeps calibration cheap."""

    def make(**options: object) -> SeriesImputer:
        training = Training(max_steps=20, masks_per_batch=2, windows_per_mask=4, evaluate_every=10)
        defaults = {"window": 8, "n_samples": 4, "training": training, "sampler": Sampler(n_steps=1)}
        return SeriesImputer(**{**defaults, **options})

    return make


@pytest.fixture(scope="session")
def waves() -> Array:
    """Return three sinusoids of different phase with a little noise: 300 rows."""
    t = np.arange(300)[:, None]
    noise = 0.05 * np.random.default_rng(0).standard_normal((300, 3))
    return np.sin(t / 5 + np.array([0.0, 1.0, 2.0])) + noise + np.array([10.0, -3.0, 0.0])


@pytest.fixture(scope="session")
def gaps(waves: Array) -> Array:
    """Return `waves` with scattered gaps, a failure of one channel and an outage."""
    rng = np.random.default_rng(1)
    holes = waves.copy()
    holes[rng.random(waves.shape) < 0.1] = np.nan
    holes[100:110, 1] = np.nan
    holes[200:204] = np.nan
    return holes


@pytest.fixture
def frame(gaps: Array) -> pd.DataFrame:
    """Return `gaps` as a table with named channels and a regular time index."""
    index = pd.date_range("2026-01-01", periods=len(gaps), freq="10s", name="time")
    return pd.DataFrame(gaps, index, ["flow", "pressure", "power"])


@pytest.fixture(scope="session")
def trained(few_steps: Callable[..., SeriesImputer]) -> SeriesImputer:
    """Return an imputer whose network was admitted: a switching signal is far from Gaussian.

    Forty steps on it remove part of the held-out error, so that the network takes part in sampling.
    """
    training = Training(max_steps=60, masks_per_batch=4, windows_per_mask=8, evaluate_every=30)
    fitted = few_steps(training=training).fit(switching(600))
    assert fitted.network_gain_ > 0, "the fixture is meant to hold a network that takes part"
    return fitted


@pytest.fixture(scope="session")
def switching_gaps() -> Array:
    """Return a short piece of the trained imputer's process with gaps."""
    x = switching(64)
    x[10:14, 0] = np.nan
    x[30:33] = np.nan
    x[50, 1] = np.nan
    return x


def switching(n: int) -> Array:
    """Return two channels that jump between -1 and 1 together, with a little noise."""
    rng = np.random.default_rng(5)
    level = np.where(np.cumsum(rng.random(n) < 0.1) % 2, 1.0, -1.0)
    return level[:, None] * np.array([1.0, -1.0]) + 0.05 * rng.standard_normal((n, 2))
