"""Samplers of one trained image model: distance of generated images to held-out ones, and time.

Energy distance (Szekely and Rizzo 2013; 0 = equal distributions) on a fixed feature map, the leading principal
components of the training images.  scikit-learn's digits need nothing else.

    python pipelines/benchmarks/image_samplers.py --picture samplers.png
    python pipelines/benchmarks/image_samplers.py --prior none --steps 1500
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from diffad import ImageImputer, Sampler, Training
from diffad.plot import write_picture

Array = NDArray[np.float64]
SAMPLERS = {
    "DDPM 250": Sampler("ddpm", 250),
    "DDIM 50": Sampler("ddim", 50),
    "Heun 20": Sampler("heun", 20),
    "DPM-Solver++(2M) 10": Sampler("dpmpp_2m", 10),
    "angle 8": Sampler("angle", 8),
}


def energy_distance(a: Array, b: Array) -> float:
    """Return the unbiased energy distance of two sets of points (n, d)."""

    def within(x: Array) -> float:
        return float(cdist(x, x).sum() / (len(x) * (len(x) - 1)))

    return 2 * float(cdist(a, b).mean()) - within(a) - within(b)


def main() -> None:
    """Print the table and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", choices=["gaussian", "field", "none"], default="gaussian")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--n", type=int, default=600, help="images drawn per seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    print(
        f"python {platform.python_version()} torch {torch.__version__}; {torch.get_num_threads()} threads; {vars(args)}"
    )
    digits = load_digits()
    # The file is sorted by writer: shuffled, training and held-out images are draws from one distribution.
    order = np.random.default_rng(0).permutation(len(digits.images))
    images, labels = digits.images[order] / 16, digits.target[order]
    train, test = images[:1200], images[1200:]
    training = Training(args.steps, 4, 8, evaluate_every=max(1, args.steps // 6))
    prior = None if args.prior == "none" else args.prior
    model = ImageImputer(prior=prior, training=training).fit(train, labels[:1200])
    print(f"network gain {model.network_gain_:.3f}, trained in {model.history_[-1]['seconds']:.0f} s", flush=True)
    features = PCA(16, random_state=0).fit(train.reshape(len(train), -1))

    def distance(some: NDArray[np.floating]) -> float:
        return energy_distance(*(features.transform(x.reshape(len(x), -1)) for x in (some, test)))

    print(f"training images themselves: {distance(train):.4f}")
    closed = ImageImputer(prior=prior).fit(train)
    print(f"prior alone: {distance(closed.generate(args.n)):.4f}")
    rows, base = {}, None
    for name, sampler in SAMPLERS.items():
        found, seconds = [], 0.0
        for seed in args.seeds:
            model.set_params(sampler=sampler)
            model.seed_ = seed
            started = time.perf_counter()
            made = model.generate(args.n)
            seconds += time.perf_counter() - started
            found.append(distance(made))
        rows[name] = made
        base = base or (np.mean(found), seconds)
        error = np.std(found, ddof=1) / len(found) ** 0.5 if len(found) > 1 else float("nan")
        print(
            f"{name:20s} energy distance {np.mean(found):.4f} +- {error:.4f} ({np.mean(found) / base[0]:.2f} x DDPM), "
            f"{seconds / len(found):.1f} s ({base[1] / seconds:.1f} x as fast)",
            flush=True,
        )
    if args.picture:
        draw({"held-out images": test} | rows, args.picture)


def draw(rows: dict[str, Array], path: Path, n: int = 16) -> None:
    """Draw a row of images per sampler."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(rows), 1, figsize=(9, 0.85 * len(rows)), layout="constrained")
    for axis, (name, images) in zip(axes, rows.items(), strict=True):
        axis.imshow(np.hstack([np.pad(x, 1, constant_values=1) for x in images[:n]]), cmap="gray", vmin=0, vmax=1)
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
        axis.set_xticks([])
        axis.set_yticks([])
    write_picture(figure, path, dpi=120)


if __name__ == "__main__":
    main()
