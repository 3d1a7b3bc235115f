"""Which closed form suits a table, and how far to trust it: fitting the distribution of hidden entries.

Candidates are Gaussians, mixtures and kernel densities on two scales of the columns (linear, normal scores); the
better scale of the first two is that of all others.  Entries hidden in held-out rows choose by CRPS and Brier score, how much of a mixture, of a kernel
and of a network to pool as well; they calibrate the bands of what was chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri

from diffad.base.telling import tell
from diffad.calibration import Bands
from diffad.priors.conditional_rows import pool
from diffad.priors.kernel import KernelPrior
from diffad.priors.mixture import MixturePrior
from diffad.priors.wide import WideGaussian
from diffad.rows.encoding import HOT
from diffad.rows.filling import Filler, Matrix, Pool, Said, Space

#: Learns a model of rows from complete rows and which of their entries are known.
Learn: TypeAlias = Callable[[Matrix, NDArray[np.bool_]], Any]

#: Rows learnt from, a random sample of more, and those of them that a kernel keeps.
MOST_ROWS, MOST_DONORS = 4_000, 3_000
#: Width up to which that many are used; beyond, a row costs more by the square of the width.
NARROW, LEAST_ROWS = 40, 800
#: Encoded entries beyond which the only candidate is a Gaussian of low rank.
MOST_DENSE = 200
#: Encoded entries beyond which "auto" leaves out mixtures: each component would have too many numbers.
MOST_MIXED = 64
#: Rows below which nothing is held out.
ENOUGH_ROWS = 40
#: Errors of a column that tell their size, the share of them that lies within it, and the least.
LEAST_ERRORS, SIZE_LEVEL, LEAST_SIZE = 30, 0.8, 0.01
#: Rows below which all are held out in turn to calibrate bands, not a part alone.
FEW_ROWS = 1200
#: Part of the rows held out, the most of them, those that choose, and the entries hidden in them.
HELD_OUT, MOST_HELD_OUT, CHOOSING, HIDDEN = 0.25, 1500, 400, 0.2
#: Candidates.
N_COMPONENTS, BANDWIDTHS = (5, 12), (0.3, 0.5, 0.7)
#: Candidates that are tried on both scales.
PROBES = 2
#: Shares of the kernel, and of a network, in a pool that are compared.
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
#: Part of the loss that a network must save: closed forms are fitted again to all rows, held-out ones among them, and
#: gain by that about as much as it can save on some tables.
WORTH = 0.03
#: Powers of probabilities that are compared.
SHARPNESS = (0.7, 1.0, 1.5, 2.0, 3.0, 5.0)
#: Times that held-out rows are hidden in anew where they are few.
MOST_REPEATS = 6
#: Rows that calibrate bands with a network in the pool.
MOST_SLOW = 1000
#: Parts by which the covariance of a Gaussian is moved towards its diagonal: many columns of few rows.
SHRUNK = (0.2, 0.5, 0.8)
#: Levels at which distributions are compared.
LEVELS = tuple(((np.arange(20) + 0.5) / 20).tolist())
PRIORS = ("auto", "gaussian", "mixture", "kernel")


def fit_filler(
    rows: Matrix, owner: NDArray[np.int64], prior: str, seed: int, learn: Learn | None = None
) -> tuple[Filler, dict[str, float]]:
    """Learn to fill encoded rows.

    Parameters
    ----------
    rows : array (n, width)
        Raw numbers and indicators of categories (of length sqrt(1/2)), NaN = missing.
    owner : array (width,) of int
        Column behind each entry.
    prior : one of `PRIORS`
    seed : int
        Of samples of rows, held-out entries and starting points.
    learn : callable, optional
        Learns a further model, or None, from rows (n, width) on the normal scale, completed by draws, and which entries
        are known: from all that are not held out, where closed forms make do with `MOST_ROWS`.  It joins the pool as
        far as held-out entries say.

    Returns
    -------
    Filler
    losses : dict
        Held-out loss of each candidate that was compared.
    """
    rng = np.random.default_rng(seed)
    rows = rows[~np.isnan(rows).all(1)]
    effort = min(1.0, (NARROW / rows.shape[1]) ** 2)
    pick = sampled(~np.isnan(rows), max(LEAST_ROWS, int(effort * MOST_ROWS)), rng)
    rows, spare = rows[pick], np.delete(rows, pick, 0)
    space = {name: Space.fit(rows, owner, name == "linear") for name in ("linear", "scores")}
    n_out = min(int(HELD_OUT * len(rows)), MOST_HELD_OUT)
    n_calibrating = max(LEAST_ROWS, int(2 * effort * MOST_HELD_OUT))
    if len(rows) < ENOUGH_ROWS or len(space["linear"].scales) + len(space["linear"].blocks) < 2:
        kind = "wide" if rows.shape[1] > MOST_DENSE else "gaussian"
        if learn is not None or prior in ("mixture", "kernel"):
            tell(
                f"a Gaussian alone fills the gaps: a network, a mixture and a kernel need {ENOUGH_ROWS} rows and two "
                f"columns, X has {len(rows)} rows with a value",
            )
        model = _models(space["linear"].forward(rows), (kind,), seed)[kind]
        return Filler(space["linear"], model, None, "linear", (kind,)), {}
    order = rng.permutation(len(rows))
    train, truth = rows[order[n_out:]], rows[order[:n_out]]
    holes = _hide(truth, owner, rng)
    first = slice(0, max(CHOOSING // 4, int(effort * CHOOSING)))
    kinds = _candidates(prior, rows.shape[1])
    trial = _compared(space, train, holes[first], truth[first], kinds, seed)
    losses = {f.name: value for f, value in trial}
    chosen = _pooled([f for f, _ in trial], losses, holes[first], truth[first])
    together = chosen
    if learn is not None and rows.shape[1] > MOST_DENSE:
        tell(f"no network was trained: X has {rows.shape[1]} encoded columns, training takes at most {MOST_DENSE}")
    elif learn is not None:
        z = chosen.space.forward(np.concatenate([train, spare]))
        learnt = learn(_completed(chosen.model, z, np.random.default_rng(seed)), ~np.isnan(z))
        together = _joined(chosen, learnt, losses, holes[first], truth[first])
    if together is not chosen:
        n_calibrating = min(n_calibrating, MOST_SLOW)
    sharpened = _sharpened(together, truth, owner, rng)
    judged = [(sharpened, truth)]
    if together is chosen and len(rows) < FEW_ROWS:
        # Where a quarter of the rows shows too few errors, each of the others is held out once, too.
        for part in np.array_split(order[n_out:], round(1 / HELD_OUT) - 1):
            model = _refitted(chosen, rows[order[~np.isin(order, part)]], seed)
            judged.append((replace(sharpened, model=model), rows[part]))
    bands = _bands(judged, owner, n_calibrating // len(judged), rng)
    # A kernel takes its donors from the head of what it is given: a sorted table would lose its end.
    model = _refitted(chosen, rows[order], seed)
    if together is not chosen:
        model = replace(together.model, models=(model, together.model.models[1]))
    return replace(sharpened, model=model, bands=bands), losses


def _refitted(chosen: Filler, rows: Matrix, seed: int) -> Any:
    """Return the closed forms of a filler, fitted to all rows.

    From what was chosen on: another start might end in another, worse optimum that nothing has judged.
    """
    parts = chosen.parts
    starts = chosen.model.models if len(parts) > 1 else (chosen.model,)
    final = _models(chosen.space.forward(rows), parts, seed, starts)
    return final[parts[0]] if len(parts) == 1 else Pool(tuple(final[p] for p in parts), chosen.model.shares)


def sampled(known: NDArray[np.bool_], most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the numbers, rising, of at most `most` random rows, and of one more for each entry that none of them knows."""
    order = rng.permutation(len(known))
    pick, rest = order[:most], order[most:]
    if len(rest):
        lost = np.flatnonzero(~known[pick].any(0) & known[rest].any(0))
        pick = np.r_[pick, rest[known[rest][:, lost].argmax(0)]]
    return np.unique(pick)


def _compared(
    space: dict[str, Space], train: Matrix, holes: Matrix, truth: Matrix, kinds: Sequence[str], seed: int
) -> list[tuple[Filler, float]]:
    """Fit candidates and return them with their losses: a few on both scales, the rest on the better one."""

    def tried(scale: str, kinds: Sequence[str]) -> list[tuple[Filler, float]]:
        models = _models(space[scale].forward(train), kinds, seed)
        fillers = [Filler(space[scale], model, None, scale, (kind,)) for kind, model in models.items()]
        return [(f, loss(f, holes, truth)) for f in fillers]

    found = [pair for scale in space for pair in tried(scale, tuple(kinds[:PROBES]))]
    best, _ = min(found, key=lambda pair: pair[1])
    return found + tried(best.scale, tuple(kinds[PROBES:]))


def _candidates(prior: str, width: int) -> tuple[str, ...]:
    if width > MOST_DENSE:
        return ("wide",)
    kernels = tuple(f"kernel-{h}" for h in BANDWIDTHS)
    mixtures = tuple(f"mixture-{k}" for k in N_COMPONENTS)
    if prior == "auto":
        shrunk = tuple(f"shrunk-{share}" for share in SHRUNK)
        return ("gaussian", *(mixtures if width <= MOST_MIXED else ()), *kernels, *shrunk)
    return {"gaussian": ("gaussian",), "mixture": mixtures, "kernel": kernels}[prior]


def _models(z: Matrix, kinds: Sequence[str], seed: int, starts: Sequence[Any] | None = None) -> dict[str, Any]:
    """Fit models of rows (n, width) on the normal scale by name."""
    x = torch.from_numpy(z)
    if not kinds:
        return {}
    if kinds == ("wide",):
        return {"wide": WideGaussian.fit(x)}
    gaussian = MixturePrior.fit(x, 1)
    found: dict[str, Any] = {}
    for name, start in zip(kinds, starts or [None] * len(kinds), strict=True):
        kind, _, number = name.partition("-")
        if kind == "mixture":
            found[name] = MixturePrior.fit(x, int(number), seed, gaussian, start)
        elif kind == "shrunk":
            found[name] = gaussian.shrunk(float(number))
        else:
            found[name] = gaussian if kind == "gaussian" else KernelPrior.fit(x[:MOST_DONORS], gaussian, float(number))
    return found


def _hide(truth: Matrix, owner: NDArray[np.int64], rng: np.random.Generator) -> Matrix:
    """Hide whole columns of rows at random, at least one that was known and never all."""
    columns = np.unique(owner)
    known = np.stack([~np.isnan(truth[:, np.flatnonzero(owner == k)[0]]) for k in columns], 1)
    order = np.where(known, rng.random(known.shape), np.inf).argsort(1)
    place = order.argsort(1)
    count = known.sum(1, keepdims=True)
    wanted = np.maximum(1, rng.binomial(count, HIDDEN))
    hide = place < np.minimum(wanted, np.maximum(count - 1, 0))
    return np.where(hide[:, np.searchsorted(columns, owner)], np.nan, truth)


def loss(filler: Filler, holes: Matrix, truth: Matrix, said: Said | None = None) -> float:
    """Return the mean over columns of CRPS in standard deviations of numbers, and Brier score of categories."""
    values, chances = filler.fill(holes, LEVELS, said)
    gap = np.isnan(holes) & ~np.isnan(truth)
    found = []
    for e, scale in filler.space.scales.items():
        here = gap[:, e]
        error = truth[here, e] - values[:, here, e]
        if here.any():
            level = np.array(LEVELS)[:, None]
            found.append(2 * np.maximum(level * error, (level - 1) * error).mean() / scale.spread)
    for block in filler.space.blocks:
        here = gap[:, block[0]]
        if here.any():
            hot = truth[np.ix_(here, block)] / HOT
            found.append(0.5 * ((chances[np.ix_(here, block)] - hot) ** 2).sum(1).mean())
    return float(np.mean(found))


def _pooled(trial: list[Filler], losses: dict[str, float], holes: Matrix, truth: Matrix) -> Filler:
    """Return the best candidate, or the pool of the best mixture and the best kernel on its scale."""
    best = min(trial, key=lambda f: losses[f.name])
    here = [f for f in trial if f.scale == best.scale]
    kernels = [f for f in here if f.parts[0].startswith("kernel")]
    others = [f for f in here if not f.parts[0].startswith("kernel")]
    if not kernels or not others:
        return best
    kernel, other = (min(group, key=lambda f: losses[f.name]) for group in (kernels, others))
    parts = (*other.parts, *kernel.parts)
    for share in SHARES[1:-1]:
        mixed = Filler(best.space, Pool((other.model, kernel.model), (1 - share, share)), None, best.scale, parts)
        least, found = min(losses.values()), loss(mixed, holes, truth)
        losses[f"{mixed.name} {share}"] = found
        if found < least:
            best = mixed
    return best


def _completed(model: Any, z: Matrix, rng: np.random.Generator) -> Matrix:
    """Return rows (n, width) on the normal scale with their gaps filled by draws."""
    result, gaps = z.copy(), np.flatnonzero(np.isnan(z).any(1))
    for start in range(0, len(gaps), model.chunk):
        part = gaps[start : start + model.chunk]
        uniform, noise = rng.random((1, len(part))), rng.standard_normal((1, len(part), z.shape[1]))
        conditional = model.condition(torch.from_numpy(z[part]))
        result[part] = conditional.sample(torch.from_numpy(uniform), torch.from_numpy(noise))[0].numpy()
    return result


def _joined(filler: Filler, learnt: Any, losses: dict[str, float], holes: Matrix, truth: Matrix) -> Filler:
    """Pool a filler with what was learnt, with the share of the least held-out loss, if that is worth it."""
    best, least = filler, (1 - WORTH) * loss(filler, holes, truth)
    if learnt is None:
        return best
    models = (filler.model, learnt)
    joined = replace(filler, parts=(*filler.parts, "network"))
    chunks = filler.chunks(holes, Pool(models, (0.5, 0.5)).chunk)
    said = [(part, [model.condition(x) for model in models]) for part, x in chunks]
    for share in SHARES[1:]:
        shares = (1 - share, share)
        found = loss(filler, holes, truth, [(part, pool(conditionals, shares)) for part, conditionals in said])
        losses[f"{joined.name} {share}"] = found
        if found < least:
            best, least = replace(joined, model=Pool(models, shares)), found
    return best


def _sharpened(filler: Filler, truth: Matrix, owner: NDArray[np.int64], rng: np.random.Generator) -> Filler:
    """Return the filler with the sharpness of the smallest Brier score on entries of held-out rows, hidden anew."""
    if not filler.space.blocks:
        return filler
    truth = np.tile(truth, (MOST_REPEATS, 1))[:MOST_SLOW]
    holes = _hide(truth, owner, rng)
    said = list(filler.conditionals(holes))
    categories = replace(filler, space=replace(filler.space, scales={}))
    scores = {s: loss(replace(categories, sharpness=s), holes, truth, said) for s in SHARPNESS}
    return replace(filler, sharpness=min(scores, key=lambda s: scores[s]))


def _bands(
    judged: Sequence[tuple[Filler, Matrix]], owner: NDArray[np.int64], most: int, rng: np.random.Generator
) -> Bands:
    """Calibrate on held-out entries: where the truth lies in the predicted distributions.

    `judged` are fillers and rows (n, width) that they have not seen, of which `most` are hidden in part each.
    """
    z, column = [], []
    for filler, rows in judged:
        truth = np.tile(rows, (MOST_REPEATS, 1))[:most]
        target = filler.space.forward(truth)
        for part, conditional in filler.conditionals(_hide(truth, owner, rng)):
            row, entry = (~conditional.known).numpy().nonzero()
            value = target[part[row], entry]
            use = ~np.isnan(value) & np.isin(entry, list(filler.space.scales))
            level = conditional.marginals().cdf(torch.from_numpy(np.nan_to_num(value))[:, None]).numpy()[:, 0]
            z.append(ndtri(level[use].clip(1e-6, 1 - 1e-6)))
            column.append(entry[use])
    error, of = np.concatenate(z), np.concatenate(column)
    # Columns with too few errors for a shape of their own borrow that of all, but none the size.
    size = np.ones(len(owner))
    for k in np.flatnonzero(np.bincount(of, minlength=len(owner)) >= LEAST_ERRORS):
        size[k] = max(np.quantile(np.abs(error[of == k]), SIZE_LEVEL) / ndtri((1 + SIZE_LEVEL) / 2), LEAST_SIZE)
    bands = Bands.fit(error / size[of], np.zeros(len(of), np.int64), of, (1, len(owner)))
    return Bands(bands.table * size[:, None])
