"""Restoring images: diffad and classical methods on one table, with bands where there are any.

Six tasks on [0, 1] images: a square hole of 3/8 of the side, 70 % of pixels missing, super-resolution by 2 and 4
(averages), noise of .1 and .2.  Errors on hidden pixels (holes) or all (the rest).

    python pipelines/benchmarks/images.py --npz DATA/images/tiles-dev.npz
    python pipelines/benchmarks/images.py --digits                    # scikit-learn's digits, nothing to download
    python pipelines/benchmarks/images.py --npz FILE --seeds 0 --images 30 --only box x4

OpenCV's Telea, scikit-image's biharmonic filling, bicubic, non-local means and total variation join when they are
installed; strengths of the latter two are chosen on training images.  A method without a distribution has its
absolute error as CRPS.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_digits

from diffad import ImageImputer
from diffad.metrics import coverage, crps

Array = NDArray[np.float64]
TASKS = ("box", "points", "x2", "x4", "noise .1", "noise .2")
SAMPLES = 20


@dataclass(frozen=True)
class Task:
    """Images, what is seen of them, and which pixels are scored."""

    name: str
    truth: Array
    seen: Array
    scored: NDArray[np.bool_]
    factor: int = 1
    sigma: float = 0.0


def load(args: argparse.Namespace) -> tuple[Array, Array]:
    """Return training and test images in [0, 1]."""
    if args.digits:
        images = load_digits().images / 16
        return images[:1200], images[1200:]
    data = np.load(args.npz)
    return data["train"] / 255, data["test"][data["test_kind"] == "free"] / 255


def tasks(images: Array, seed: int, only: list[str]) -> Iterator[Task]:
    """Yield the tasks, with masks and noise of a seed."""
    rng = np.random.default_rng(seed)
    n, height, width = images.shape
    side, box = 3 * height // 8, np.zeros(images.shape, bool)
    for mask in box:
        y, x = rng.integers(height - side + 1), rng.integers(width - side + 1)
        mask[y : y + side, x : x + side] = True
    points, noise = rng.random(images.shape) < 0.7, rng.standard_normal(images.shape)
    everywhere = np.ones(images.shape, bool)
    for name, mask in (("box", box), ("points", points)):
        if name in only:
            yield Task(name, images, np.where(mask, np.nan, images), mask)
    for factor in (2, 4):
        if f"x{factor}" in only:
            low = images.reshape(n, height // factor, factor, width // factor, factor).mean((2, 4))
            yield Task(f"x{factor}", images, low, everywhere, factor)
    for sigma in (0.1, 0.2):
        if (name := f"noise {sigma}".replace("0.", ".")) in only:
            yield Task(name, images, images + sigma * noise, everywhere, sigma=sigma)


def peers(train: Array) -> dict[str, tuple[tuple[str, ...], Callable[[Task], Array]]]:
    """Return the classical methods that are installed: name -> tasks they are for, and the method."""
    found: dict[str, tuple[tuple[str, ...], Callable[[Task], Array]]] = {}
    if importlib.util.find_spec("cv2"):
        import cv2

        def telea(task: Task) -> Array:
            masks = np.isnan(task.seen)
            bytes_ = (np.nan_to_num(task.seen) * 255).round().astype(np.uint8)
            pairs = zip(bytes_, masks.astype(np.uint8), strict=True)
            return np.stack([cv2.inpaint(image, mask, 3, cv2.INPAINT_TELEA) for image, mask in pairs]) / 255

        def bicubic(task: Task) -> Array:
            size = task.truth.shape[2], task.truth.shape[1]
            return np.stack([cv2.resize(image, size, interpolation=cv2.INTER_CUBIC) for image in task.seen])

        found |= {"Telea": (("box", "points"), telea), "bicubic": (("x2", "x4"), bicubic)}
    if importlib.util.find_spec("skimage"):
        from skimage.restoration import denoise_nl_means, denoise_tv_chambolle, inpaint_biharmonic

        def biharmonic(task: Task) -> Array:
            return np.stack([inpaint_biharmonic(np.nan_to_num(image), np.isnan(image)) for image in task.seen])

        def tv(image: Array, sigma: float, strength: float) -> Array:
            return np.asarray(denoise_tv_chambolle(image, strength * sigma))

        def means(image: Array, sigma: float, strength: float) -> Array:
            options = {"patch_size": 5, "patch_distance": 7, "fast_mode": True}
            return np.asarray(denoise_nl_means(image, h=strength * sigma, sigma=sigma, **options))

        found["biharmonic"] = (("box", "points"), biharmonic)
        noisy = ("noise .1", "noise .2")
        found["total variation"] = (noisy, tuned(tv, train[:20], (0.7, 1.0, 1.4, 2.0, 2.8)))
        found["non-local means"] = (noisy, tuned(means, train[:20], (0.6, 0.8, 1.0, 1.3, 1.7)))
    return found


def tuned(
    method: Callable[[Array, float, float], Array], images: Array, strengths: tuple[float, ...]
) -> Callable[[Task], Array]:
    """Return a denoiser of the strength that is best on training images under the same noise."""

    def denoise(task: Task) -> Array:
        noisy = images + task.sigma * np.random.default_rng(0).standard_normal(images.shape)

        def error(strength: float) -> float:
            return float(
                np.mean([(method(a, task.sigma, strength) - b) ** 2 for a, b in zip(noisy, images, strict=True)])
            )

        best = min(strengths, key=error)
        return np.stack([method(image, task.sigma, best) for image in task.seen])

    return denoise


def restored(model: ImageImputer, task: Task) -> Array:
    """Return the posterior mean of a task's images."""
    if task.factor > 1:
        found = model.super_resolve(task.seen, task.factor)
    else:
        found = model.denoise(task.seen, task.sigma) if task.sigma else model.transform(task.seen)
    return found.astype(np.float64)


def ssim(a: Array, b: Array) -> Array:
    """Return the structural similarity of each pair of images of range 1 (Wang et al. 2004)."""

    def blur(x: Array) -> Array:
        return np.asarray(gaussian_filter(x, (0, 1.5, 1.5), truncate=3.5))

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    both = blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    similar = (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return np.asarray(similar.mean((1, 2)))


def figures(task: Task, found: Array, seconds: float, error: Array, covered: float = np.nan) -> list[dict]:
    """Return the figures of every image: PSNR on scored pixels, SSIM, CRPS (`error`: per pixel), coverage."""
    found = found.clip(0, 1)
    count = task.scored.sum((1, 2))
    squared = np.where(task.scored, (found - task.truth) ** 2, 0).sum((1, 2)) / count
    each = np.where(task.scored, error, 0).sum((1, 2)) / count
    quality = ssim(found, task.truth)
    return [
        {"task": task.name, "squared": s, "PSNR": -10 * np.log10(s + 1e-10), "SSIM": q, "CRPS": e}
        | {"coverage": covered, "ms": 1e3 * seconds / len(found)}
        for s, q, e in zip(squared, quality, each, strict=True)
    ]


def score_ours(model: ImageImputer, task: Task) -> list[dict]:
    """Score posterior mean, samples and bands of a fitted model."""
    started = time.perf_counter()
    found = restored(model, task)
    seconds = time.perf_counter() - started
    samples = model.sample(task.seen, SAMPLES, factor=task.factor, sigma=task.sigma)
    lower, upper = model.interval(task.seen, 0.9, factor=task.factor, sigma=task.sigma)
    covered = coverage(lower[task.scored], upper[task.scored], task.truth[task.scored])
    return figures(task, found, seconds, crps(samples, task.truth), covered)


def compare(table: pd.DataFrame, ours: str) -> None:
    """Print the difference in PSNR to the best classical method of each task, with a 95 % interval over images."""
    print(f"PSNR of {ours} minus the best classical method's: mean over images, 95 % interval (bootstrap)")
    rng = np.random.default_rng(0)
    for task, part in table.groupby("task", sort=False):
        means = part.groupby("method")["PSNR"].mean()
        others = means[[m for m in means.index if not m.startswith("diffad")]]
        if others.empty:
            continue
        best = others.idxmax()
        off = part[part.method == ours]["PSNR"].to_numpy() - part[part.method == best]["PSNR"].to_numpy()
        spread = np.quantile([rng.choice(off, len(off)).mean() for _ in range(1000)], [0.025, 0.975])
        print(f"  {task:9s} {best:16s} {off.mean():+.2f} dB  [{spread[0]:+.2f}, {spread[1]:+.2f}]")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--npz", type=Path)
    parser.add_argument("--digits", action="store_true")
    parser.add_argument("--images", type=int, default=60, help="test images per seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--priors", nargs="+", default=["gaussian", "field"])
    args = parser.parse_args()
    if args.npz is None and not args.digits:
        parser.error("give --npz FILE, or --digits")
    print(f"python {platform.python_version()} torch {torch.__version__} scikit-learn {sklearn.__version__}")
    print(f"{torch.get_num_threads()} threads; {vars(args)}")
    train, test = load(args)
    lines: list[dict] = []
    classical = peers(train)
    for seed in args.seeds:
        some = test[np.random.default_rng(seed).permutation(len(test))[: args.images]]
        models = {}
        for prior in args.priors:
            started = time.perf_counter()
            models[f"diffad, {prior}"] = ImageImputer(prior=prior, random_state=seed).fit(train)
            print(f"seed {seed}: {prior} fitted in {time.perf_counter() - started:.0f} s", flush=True)
        for task in tasks(some, seed, args.only):
            for name, (meant_for, method) in classical.items():
                if task.name in meant_for:
                    started = time.perf_counter()
                    found = method(task)
                    error = np.abs(found - task.truth)
                    rows = figures(task, found, time.perf_counter() - started, error)
                    lines += [{"method": name} | row for row in rows]
            for name, model in models.items():
                lines += [{"method": name} | row for row in score_ours(model, task)]
    table = pd.DataFrame(lines)
    means = table.groupby(["task", "method"], sort=False).mean()
    means.insert(0, "pooled PSNR", -10 * np.log10(means.pop("squared")))
    print(means.round({"pooled PSNR": 2, "PSNR": 2, "SSIM": 3, "CRPS": 4, "coverage": 3, "ms": 0}).to_string())
    compare(table, f"diffad, {args.priors[0]}")


if __name__ == "__main__":
    main()
