"""Many kinds of evidence, one score: how what looks strange to each kind and in each channel adds up, without labels.

Evidence comes as the root of minus the log probability that a normal row looks as strange, by kind: an array
(n, channels), or (n, 1) of kinds that judge all channels together.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from diffad.evidence.window_model import BESIDE_GAUSSIAN, GAUSSIAN, WHOLE

Array = NDArray[np.float32]

#: How much each kind counts; "decoupled" takes its share from the linear ones.  Found on injected faults in four
#: recordings; a plateau, not a peak.
WEIGHTS: dict[str, float] = {
    "energy": 0.2,
    "local": 0.2,
    "filter": 0.4,
    "step": 0.2,
    "decoupled": 1 / 6,
    "window": 0.1,
    "quiet": 0.65,
    "missing": 1.0,
    "shape": 0.5,
    "nearest": 0.5,
}
#: Root of -log p from which the Gaussian's evidence counts by its logarithm: so small a probability is an extrapolation,
#: and the good rows beside the edges of a fault, which it makes the strangest by far, would come before those inside it.
SATURATION = 12.0
#: Exponents of the sums over kinds (their groups) and over channels: nearly a maximum.
KIND_POWER, CHANNEL_POWER = 2.0, 16.0


def combine(evidence: Mapping[str, Array], weights: Mapping[str, float], channels: int) -> NDArray[np.float64]:
    """Combine kinds, then channels; return shares (n, channels) that add up to the score.

    The kinds of one Gaussian are averaged, each beyond `SATURATION` by its logarithm; their mean, quietness, missing
    readings and shape are different reasons and enter a power sum.  Over channels a high power is nearly the maximum:
    one bad sensor among many must show.  What all channels did together is one reason more.  The score is shared out by
    what the channels showed before saturation, which makes them more alike than they are.
    """
    strange = _of_channels({k: saturated(v) if k in GAUSSIAN else v for k, v in evidence.items()}, weights, channels)
    top, ratio = _over_channels(strange)
    total = top * ratio.sum(1, keepdims=True) ** (1 / CHANNEL_POWER)
    if "nearest" in evidence:
        total = (total**KIND_POWER + (weights["nearest"] * evidence["nearest"]) ** KIND_POWER) ** (1 / KIND_POWER)
    if "window" in evidence:
        total = total + weights["window"] * saturated(evidence["window"])
    _, blame = _over_channels(_of_channels(evidence, weights, channels))
    size = blame.sum(1, keepdims=True)
    even = np.full_like(blame, 1 / max(1, channels))
    return total * np.where(size > 0, blame / np.maximum(size, 1e-12), even)


def _of_channels(evidence: Mapping[str, Array], weights: Mapping[str, float], channels: int) -> NDArray[np.float64]:
    """Combine the kinds of each channel by itself, (n, channels)."""
    n = len(next(iter(evidence.values())))
    gaussian = np.zeros((n, channels))
    others = np.zeros((n, channels))
    for kind, values in evidence.items():
        if kind in BESIDE_GAUSSIAN:
            others += (weights[kind] * values) ** KIND_POWER
        elif kind not in (*WHOLE, "decoupled"):
            gaussian += weights[kind] * values
    if "decoupled" in evidence:
        share = weights["decoupled"]
        gaussian = (1 - share) * gaussian + share * evidence["decoupled"]
    return np.asarray((gaussian**KIND_POWER + others) ** (1 / KIND_POWER))


def _over_channels(strange: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the strangest channel's value (n, 1) and the powers (n, channels) of all in parts of it."""
    top = strange.max(1, keepdims=True)
    return top, (strange / np.maximum(top, 1e-12)) ** CHANNEL_POWER


def saturated(root: Array) -> Array:
    """Return roots of -log p that grow by their logarithm beyond `SATURATION`."""
    return np.asarray(np.minimum(root, SATURATION + np.log1p(np.maximum(root - SATURATION, 0))))


def default_weights(channels: int) -> dict[str, float]:
    """Return what each kind counts in a recording of so many channels.

    The fewer others there are to say what a channel should show, the more its own shapes count: twice as much where it
    is alone, as much as `WEIGHTS` says where it is one of many.

    Examples
    --------
    >>> default_weights(1)["shape"], default_weights(2)["shape"], default_weights(1000)["shape"]
    (1.0, 0.625, 0.5000005)
    """
    return WEIGHTS | {"shape": WEIGHTS["shape"] * (1 + 1 / channels**2)}


def reweight(
    evidence: Mapping[str, Array], faulty: NDArray[np.bool_], weights: Mapping[str, float], channels: int
) -> dict[str, float]:
    """Return weights that rank the rows marked `faulty` higher, by coordinate search.

    Each kind's weight may be halved or doubled once, where that raises the average precision by
    1 % of what is missing: a few labels of a few kinds must not blind the detector to the others.
    """
    best = dict(weights)
    precision = average_precision_score(faulty, combine(evidence, best, channels).sum(1))
    for kind in evidence:
        for factor in (0.5, 2.0):
            trial = best | {kind: weights[kind] * factor}
            found = average_precision_score(faulty, combine(evidence, trial, channels).sum(1))
            if found > precision + 0.01 * (1 - precision):
                best, precision = trial, found
    return best
