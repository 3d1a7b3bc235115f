"""Processes whose posterior of hidden entries is known: exactly, on a grid, or by many particles.

Each draws rows (`simulate`) and completes windows (`complete`): NaN is hidden, visible entries come
back as they are.  Numpy only, and nothing of diffad: these are the oracles it is judged by.

Mathematics: conditioning of Gaussian mixtures as in Bishop (2006), section 2.3; forward filtering and
backward sampling on a grid (Scott 2002) and with particles (Godsill, Doucet and West 2004), the filter
being the fully adapted auxiliary one of Pitt and Shephard (1999).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

Array = NDArray[np.float64]
Step = Callable[[Array], Array]


class Process(Protocol):
    """A stationary process whose posterior is known."""

    def simulate(self, n: int, rng: np.random.Generator) -> Array:
        """Draw n consecutive rows, (n, channels)."""

    def complete(self, gaps: Array, n_samples: int, rng: np.random.Generator) -> Array:
        """Sample windows (n, length, channels) given their visible entries: (n_samples, n, length, channels)."""


@dataclass(frozen=True)
class Mixture:
    """Independent rows from a mixture of K normals in d channels.

    Parameters
    ----------
    weights : array (K,)
    means : array (K, d)
    covariances : array (K, d, d)

    Examples
    --------
    >>> coin = Mixture(np.array([0.5, 0.5]), np.array([[-9.0, -9.0], [9.0, 9.0]]), np.stack([np.eye(2)] * 2))
    >>> draws = coin.complete(np.array([[[8.0, np.nan]]]), 500, np.random.default_rng(0))
    >>> draws.shape, bool((draws[..., 1] > 4).all())
    ((500, 1, 1, 2), True)
    """

    weights: Array
    means: Array
    covariances: Array

    def simulate(self, n: int, rng: np.random.Generator) -> Array:
        """Draw n rows."""
        which = rng.choice(len(self.weights), n, p=self.weights)
        roots = np.linalg.cholesky(self.covariances)
        white = rng.standard_normal((n, self.means.shape[1]))
        return self.means[which] + np.einsum("nij,nj->ni", roots[which], white)

    def complete(self, gaps: Array, n_samples: int, rng: np.random.Generator) -> Array:
        """Sample hidden entries from the exact conditional mixture."""
        rows = gaps.reshape(-1, gaps.shape[-1])
        draws = np.stack([self._complete_row(row, n_samples, rng) for row in rows], 1)
        return draws.reshape(n_samples, *gaps.shape)

    def _complete_row(self, row: Array, n_samples: int, rng: np.random.Generator) -> Array:
        hidden = np.isnan(row)
        conditionals, log_weights = [], np.log(self.weights)
        for k, (mean, covariance) in enumerate(zip(self.means, self.covariances, strict=True)):
            seen, cross = covariance[np.ix_(~hidden, ~hidden)], covariance[np.ix_(hidden, ~hidden)]
            root = np.linalg.cholesky(seen)
            white = np.linalg.solve(root, row[~hidden] - mean[~hidden])
            gain = np.linalg.solve(root, cross.T).T
            rest = covariance[np.ix_(hidden, hidden)] - gain @ gain.T
            conditionals.append((mean[hidden] + gain @ white, np.linalg.cholesky(rest)))
            log_weights[k] -= 0.5 * white @ white + np.log(np.diag(root)).sum()
        posterior = np.exp(log_weights - log_weights.max())
        draws = np.repeat(row[None], n_samples, 0)
        for s, k in enumerate(rng.choice(len(posterior), n_samples, p=posterior / posterior.sum())):
            mean, root = conditionals[k]
            draws[s, hidden] = mean + root @ rng.standard_normal(len(mean))
        return draws


@dataclass(frozen=True)
class GridChain:
    """A scalar Markov chain seen exactly in channel 0 and through a noisy reading in channel 1.

    ``x[t + 1] = step(x[t]) + noise * e``, ``y[t] = read(x[t]) + read_noise * e'``.

    Parameters
    ----------
    step, read : callable
        Elementwise.
    noise, read_noise : float
        Standard deviations.
    grid : array (g,)
        Evenly spaced values that a hidden state can take; its spacing must be far below `noise`.
    """

    step: Step
    noise: float
    read: Step
    read_noise: float
    grid: Array

    @cached_property
    def stationary(self) -> Array:
        """Probabilities of the grid's values in the long run."""
        kernel = self._kernel(self.grid, self.grid)
        kernel /= kernel.sum(1, keepdims=True)
        return np.linalg.matrix_power(kernel, 2**20).mean(0)

    def simulate(self, n: int, rng: np.random.Generator) -> Array:
        """Draw n consecutive rows (x, y)."""
        x = np.empty(n)
        x[0] = rng.choice(self.grid, p=self.stationary)
        for t in range(1, n):
            x[t] = self.step(x[t - 1]) + self.noise * rng.standard_normal()
        return np.stack([x, self.read(x) + self.read_noise * rng.standard_normal(n)], 1)

    def complete(self, gaps: Array, n_samples: int, rng: np.random.Generator) -> Array:
        """Sample hidden entries by filtering forwards and sampling backwards."""
        return np.stack([self._complete_window(window, n_samples, rng) for window in gaps], 1)

    def _complete_window(self, window: Array, n_samples: int, rng: np.random.Generator) -> Array:
        x, y = window.T
        # A visible state can only be what it is: g copies of its value stand in for the grid.
        support = np.where(np.isnan(x)[:, None], self.grid, x[:, None])
        misfit = np.where(np.isnan(y)[:, None], 0.0, (y[:, None] - self.read(support)) / self.read_noise)
        filtered = np.exp(-0.5 * misfit**2)  # becomes p(x[t] | rows up to t)
        filtered[0] *= self.stationary
        for t in range(len(x)):
            if t:
                filtered[t] *= filtered[t - 1] @ self._kernel(support[t - 1], support[t])
            filtered[t] /= filtered[t].sum()
        draws = np.repeat(window[None], n_samples, 0)
        weights = np.repeat(filtered[-1:], n_samples, 0)
        for t in reversed(range(len(x))):
            draws[:, t, 0] = support[t][_choose(weights, rng)]
            if t:
                weights = filtered[t - 1] * self._kernel(support[t - 1], draws[:, t, 0]).T
        readings = self.read(draws[..., 0]) + self.read_noise * rng.standard_normal(draws.shape[:2])
        draws[..., 1] = np.where(np.isnan(y), readings, y)
        return draws

    def _kernel(self, before: Array, after: Array) -> Array:
        """Return p(after | before) up to a constant, (len(before), len(after))."""
        return np.exp(-0.5 * ((after - self.step(before)[:, None]) / self.noise) ** 2)


@dataclass(frozen=True)
class ParticleChain:
    """A Markov chain of d channels of which noisy readings are the data.

    ``x[t + 1] = step(x[t]) + noise * e``, ``y[t] = x[t] + read_noise * e'``; only y is ever seen,
    and hidden y are what is sampled.

    Parameters
    ----------
    step : callable
        Maps states (n, d) to their expected successors.
    noise, read_noise : float
        Standard deviations, equal in all channels.
    channels : int
    n_particles : int, default=8000
        Error falls with its root, time grows in proportion.
    """

    step: Step
    noise: float
    read_noise: float
    channels: int
    n_particles: int = 8000

    @cached_property
    def stationary(self) -> Array:
        """States in the long run, (200_000, channels): what is known before the first reading."""
        rng = np.random.default_rng(0)
        states = rng.standard_normal((2000, self.channels))
        kept = []
        for t in range(1200):
            states = self._advance(states, rng)
            if t >= 200 and t % 10 == 0:
                kept.append(states)
        return np.concatenate(kept)

    def simulate(self, n: int, rng: np.random.Generator) -> Array:
        """Draw n consecutive rows of readings."""
        states = [rng.choice(self.stationary, 1)]
        for _ in range(n - 1):
            states.append(self._advance(states[-1], rng))
        return np.concatenate(states) + self.read_noise * rng.standard_normal((n, self.channels))

    def complete(self, gaps: Array, n_samples: int, rng: np.random.Generator) -> Array:
        """Sample hidden readings by filtering particles forwards and sampling paths backwards."""
        return np.stack([self._complete_window(window, n_samples, rng) for window in gaps], 1)

    def _complete_window(self, window: Array, n_samples: int, rng: np.random.Generator) -> Array:
        particles = _resample(self.stationary, self._misfit(self.stationary, window[0], 0.0), self.n_particles, rng)
        filtered, forecasts = [particles], []
        for y in window[1:]:
            forecast = self.step(filtered[-1])
            forecasts.append(forecast)
            # Choosing by the next reading first and moving with its knowledge leaves equal weights.
            chosen = _resample(forecast, self._misfit(forecast, y, self.noise), self.n_particles, rng)
            gain = np.where(np.isnan(y), 0.0, self.noise**2 / (self.noise**2 + self.read_noise**2))
            white = rng.standard_normal(chosen.shape)
            moved = chosen + gain * (np.nan_to_num(y) - chosen) + self.noise * np.sqrt(1 - gain) * white
            filtered.append(moved)
        path = np.empty((n_samples, *window.shape))
        path[:, -1] = rng.choice(filtered[-1], n_samples)
        for t in reversed(range(len(window) - 1)):
            misfit = 0.5 * cdist(path[:, t + 1], forecasts[t], "sqeuclidean") / self.noise**2
            weights = np.exp(misfit.min(1, keepdims=True) - misfit)
            path[:, t] = filtered[t][_choose(weights, rng)]
        readings = path + self.read_noise * rng.standard_normal(path.shape)
        return np.where(np.isnan(window), readings, window)

    def _advance(self, states: Array, rng: np.random.Generator) -> Array:
        return self.step(states) + self.noise * rng.standard_normal(states.shape)

    def _misfit(self, states: Array, y: Array, noise: float) -> Array:
        """Return -log p(y | state) of visible readings, up to a constant: (n,)."""
        seen = ~np.isnan(y)
        return 0.5 * ((states[:, seen] - y[seen]) ** 2).sum(1) / (noise**2 + self.read_noise**2)


def double_well() -> GridChain:
    """Return a particle that hops between -1 and 1, and its noisy square.

    Overdamped Langevin dynamics in the potential ``(x^2 - 1)^2 / 4`` by Euler-Maruyama with steps of
    0.2; it stays about 70 steps in a well.  The square says how far from 0 it is, not on which side.
    """
    return GridChain(lambda x: x - 0.2 * x * (x**2 - 1), 0.3, np.square, 0.3, np.linspace(-2.5, 2.5, 201))


def lorenz96(channels: int = 5, forcing: float = 8.0, interval: float = 0.05) -> ParticleChain:
    """Return Lorenz's (1996) chaotic ring with noise in its course and in its readings.

    One Runge-Kutta step between readings; the natural spread of a channel is about 3.6.  With less
    noise, or more channels, particles spread over an outage no longer meet the readings after it.
    """

    def slope(x: Array) -> Array:
        return (np.roll(x, -1, -1) - np.roll(x, 2, -1)) * np.roll(x, 1, -1) - x + forcing

    def step(x: Array) -> Array:
        a = slope(x)
        b = slope(x + interval / 2 * a)
        c = slope(x + interval / 2 * b)
        return x + interval / 6 * (a + 2 * b + 2 * c + slope(x + interval * c))

    return ParticleChain(step, 0.5, 0.7, channels)


def random_mixture(components: int = 4, channels: int = 20, seed: int = 0) -> Mixture:
    """Return well separated normals, each with its own strong correlations.

    Within a component channels have variance 1, nine tenths of it in five random directions; centres
    lie about sixteen of these standard deviations apart.
    """
    rng = np.random.default_rng(seed)
    factors = rng.standard_normal((components, channels, 5))
    factors *= np.sqrt(0.9) / np.linalg.norm(factors, axis=2, keepdims=True)
    covariances = factors @ factors.transpose(0, 2, 1) + 0.1 * np.eye(channels)
    weights = np.arange(1.0, components + 1)
    return Mixture(weights / weights.sum(), 2.5 * rng.standard_normal((components, channels)), covariances)


def _choose(weights: Array, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw one index per row of unnormalised weights (n, m)."""
    total = weights.cumsum(1)
    return (total < rng.random((len(total), 1)) * total[:, -1:]).sum(1)


def _resample(states: Array, misfit: Array, n: int, rng: np.random.Generator) -> Array:
    """Draw n states with probability exp(-misfit), evenly (Kitagawa 1996, systematic resampling)."""
    total = np.exp(misfit.min() - misfit).cumsum()
    places = (np.arange(n) + rng.random()) / n * total[-1]
    return states[np.searchsorted(total, places).clip(max=len(states) - 1)]
