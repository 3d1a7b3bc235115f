"""Defects in images: diffad and peers on one table, per kind of defect, with the data's own bias laid open.

    python pipelines/benchmarks/image_anomaly.py --npz DATA/images/tiles-dev.npz
    python pipelines/benchmarks/image_anomaly.py --npz FILE --features    # with a small text detector as backbone
    python pipelines/benchmarks/image_anomaly.py --digits                 # one digit normal, the others not
    python pipelines/benchmarks/image_anomaly.py --npz FILE --textures               # the tiles' defects on cloth, wood, grain

``real`` sets good images against defective ones as photographed, and can be won by background; ``context`` shows by
how much: there every defect (and as much of every good image) was cut out and filled.  ``transplant`` puts real
defects, in the contrast they had to their surroundings, on good images and sets these against the same images
without.  ``--textures`` puts them on drawn textures of which no two images share what lies where.  A seed draws nine tenths of the training images and the places of the transplants; intervals are
over seeds and test images (bootstrap).  Peers: 150 principal components, one Gaussian of all images with a filter
for spots, a Gaussian at each place of cosine transforms, nearest patches, and a convolutional autoencoder that trains
as long as diffad fits.  ``--features`` needs the extra ``bench`` (rapidocr-onnxruntime, onnx).
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd
import sklearn
import torch
from numpy.typing import NDArray
from scipy.fft import dctn
from scipy.ndimage import binary_dilation, gaussian_filter
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn
from torch.nn import functional

from diffad import ImageDetector
from diffad.defects.features import feature_scores
from diffad.priors.maps import MapPrior
from diffad.priors.span import SpanPrior

Array = NDArray[np.float32]
#: Share of the training images that a seed draws, and of a map's pixels that make a peer's score.
SHARE, TOP = 0.9, 0.01


class Case(NamedTuple):
    """One test: images, their kind ("good" or a defect's), and where they are defective, if known."""

    name: str
    images: Array
    kind: NDArray[np.str_]
    mask: NDArray[np.bool_] | None


class Method(Protocol):
    """Learns from good images; scores images (n, height, width), larger = stranger, and draws heat maps."""

    def fit(self, images: Array) -> None: ...

    def __call__(self, images: Array) -> tuple[NDArray[np.floating], Array]: ...


def contrasted(images: Array) -> Array:
    """Return images of mean 0 and standard deviation about 1."""
    centre, spread = images.mean((1, 2), keepdims=True), images.std((1, 2), keepdims=True)
    return ((images - centre) / (spread + 0.02)).astype(np.float32)


def smoothed(maps: Array, width: float) -> Array:
    """Average maps (n, height, width) over neighbours."""
    return np.asarray(gaussian_filter(maps, (0, width, width)), np.float32)


def scored(maps: Array) -> tuple[NDArray[np.floating], Array]:
    """Score maps by their hottest pixels."""
    flat = maps.reshape(len(maps), -1)
    k = max(1, int(TOP * flat.shape[1]))
    return np.partition(flat, -k, 1)[:, -k:].mean(1), maps


class Components:
    """Squared residual of 150 principal components."""

    def fit(self, images: Array) -> None:
        x = contrasted(images).reshape(len(images), -1)
        self.pca = PCA(min(150, min(x.shape) // 2), random_state=0).fit(x)

    def __call__(self, images: Array) -> tuple[NDArray[np.floating], Array]:
        x = contrasted(images)
        back = self.pca.inverse_transform(self.pca.transform(x.reshape(len(x), -1))).reshape(x.shape)
        return scored(smoothed((x - back) ** 2, 1.5))


class Spots:
    """What one Gaussian of all images leaves over, filtered with a spot of one pixel's width."""

    def fit(self, images: Array) -> None:
        self.prior = SpanPrior.fit(torch.from_numpy(contrasted(images)).flatten(1))

    def __call__(self, images: Array) -> tuple[NDArray[np.floating], Array]:
        left = self.prior.residual(torch.from_numpy(contrasted(images)).flatten(1))
        return scored(smoothed(smoothed(left.numpy().reshape(images.shape), 1.0) ** 2, 1.5))


class Maps:
    """A Gaussian at each place of a feature map (PaDiM; Defard et al. 2021)."""

    def __init__(self, features: Callable[[Tensor], Tensor]) -> None:
        self.features = features

    def _extract(self, images: Array) -> tuple[Tensor, tuple[int, int]]:
        parts = [
            self.features(torch.from_numpy(p)[:, None])
            for p in np.array_split(contrasted(images), len(images) // 16 + 1)
        ]
        maps = torch.cat(parts)
        return maps.flatten(2).mT.contiguous(), (maps.shape[2], maps.shape[3])

    def fit(self, images: Array) -> None:
        self.prior = MapPrior.fit(self._extract(images)[0])

    def __call__(self, images: Array) -> tuple[NDArray[np.floating], Array]:
        maps, grid = self._extract(images)
        heat = self.prior.distance(maps).reshape(-1, 1, *grid)
        fine = functional.interpolate(heat, images.shape[1:], mode="bilinear", align_corners=False)[:, 0]
        return scored(smoothed(fine.numpy(), 1.5))


def cosines(images: Tensor, size: int = 8, stride: int = 4) -> Tensor:
    """Return the lowest 21 coefficients of the cosine transform of overlapping blocks, as maps."""
    size = min(size, images.shape[2] // 2)
    stride = min(stride, max(1, size // 2))
    blocks = images[:, 0].unfold(1, size, stride).unfold(2, size, stride)
    coefficients = dctn(blocks.numpy(), axes=(3, 4), norm="ortho")
    order = np.argsort(np.add.outer(np.arange(size), np.arange(size)).ravel(), kind="stable")[:21]
    return torch.from_numpy(coefficients.reshape(*coefficients.shape[:3], -1)[..., order]).permute(0, 3, 1, 2)


class Patches:
    """Distance of each patch to the nearest of 10,000 normal ones."""

    size, stride, most = 7, 2, 10_000

    def _patches(self, images: Array) -> tuple[Array, tuple[int, int]]:
        x = torch.from_numpy(contrasted(images))[:, None]
        found = functional.unfold(x, self.size, padding=self.size // 2, stride=self.stride).mT
        side = tuple((n - 1) // self.stride + 1 for n in images.shape[1:])
        return found.numpy(), (side[0], side[1])

    def fit(self, images: Array) -> None:
        found = self._patches(images)[0].reshape(-1, self.size**2)
        some = np.random.default_rng(0).permutation(len(found))[: self.most]
        self.neighbours = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(found[some])

    def __call__(self, images: Array) -> tuple[NDArray[np.floating], Array]:
        heat = []
        for part in np.array_split(images, len(images) // 50 + 1):
            found, side = self._patches(part)
            distance = self.neighbours.kneighbors(found.reshape(-1, self.size**2))[0]
            maps = torch.from_numpy(distance.astype(np.float32)).reshape(-1, 1, *side)
            heat.append(functional.interpolate(maps, images.shape[1:], mode="bilinear", align_corners=False)[:, 0])
        return scored(smoothed(torch.cat(heat).numpy(), 1.0))


class Autoencoder:
    """Squared residual of a convolutional autoencoder trained for some seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def fit(self, images: Array) -> None:
        torch.manual_seed(0)
        x = torch.from_numpy(contrasted(images))[:, None]
        down = [nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 16, 3, 1, 1)]
        up = [nn.ConvTranspose2d(16, 32, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(32, 1, 4, 2, 1)]
        self.network = nn.Sequential(*down, *up)
        optimizer = torch.optim.Adam(self.network.parameters(), 1e-3)
        until = time.perf_counter() + self.seconds
        while time.perf_counter() < until:
            some = x[torch.randint(len(x), (32,))]
            optimizer.zero_grad()
            functional.mse_loss(self.network(some), some).backward()
            optimizer.step()

    def __call__(self, images: Array) -> tuple[NDArray[np.floating], Array]:
        x = torch.from_numpy(contrasted(images))[:, None]
        with torch.no_grad():
            return scored(smoothed((self.network(x) - x)[:, 0].numpy() ** 2, 1.5))


class Ours:
    """`ImageDetector`."""

    def __init__(self, detector: ImageDetector) -> None:
        self.detector = detector

    def fit(self, images: Array) -> None:
        self.detector.fit(images)

    def __call__(self, images: Array) -> tuple[NDArray[np.floating], Array]:
        return -self.detector.score_samples(images), self.detector.explain(images).heat


class FeaturesAlone:
    """What a detector that was fitted before makes of its feature maps, without the pixels."""

    def __init__(self, fitted: Ours) -> None:
        self.detector = fitted.detector

    def fit(self, images: Array) -> None:
        """Do nothing: the detector knows them."""

    def __call__(self, images: Array) -> tuple[NDArray[np.floating], Array]:
        found = [self.detector.model_.completed(i[..., None])[0] for i in np.array_split(images, len(images) // 64 + 1)]
        heat = np.concatenate([self.detector.extractor_.heat(i) for i in found])
        return feature_scores(heat, np.ones(heat.shape, bool)), heat


class Backbone:
    """Maps of rapidocr's text detector at a fourth, an eighth and a sixteenth of four times enlarged images."""

    def __init__(self) -> None:
        found = importlib.util.find_spec("rapidocr_onnxruntime")  # its weights are enough: importing it needs OpenCV
        if found is None or found.origin is None:
            raise SystemExit("rapidocr-onnxruntime is not installed: pip install rapidocr-onnxruntime onnx")
        import onnx
        import onnxruntime

        model = onnx.load(Path(found.origin).parent / "models" / "ch_PP-OCRv4_det_infer.onnx")
        halving = [
            node.input[0]
            for node in model.graph.node
            if node.op_type == "Conv" and any(a.name == "strides" and list(a.ints) == [2, 2] for a in node.attribute)
        ]
        self.names = halving[2:5]
        model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in self.names)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
        self.session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        self.input = model.graph.input[0].name

    def __call__(self, images: Tensor) -> list[Tensor]:
        x = functional.interpolate(images, scale_factor=4.0, mode="bilinear", align_corners=False).expand(-1, 3, -1, -1)
        return [torch.from_numpy(m) for m in self.session.run(self.names, {self.input: x.numpy()})]

    def joined(self, images: Tensor) -> Tensor:
        """Return 100 features, drawn once for all, at the size of the finest map."""
        maps = self(images)
        size = maps[0].shape[2:]
        together = torch.cat([functional.interpolate(m, size, mode="nearest") for m in maps], 1)
        chosen = np.sort(np.random.default_rng(0).permutation(together.shape[1])[:100])
        return together[:, torch.from_numpy(chosen)]


def transplanted(images: Array, masks: NDArray[np.bool_], kind: NDArray[np.str_], seed: int) -> Case:
    """Return good images, and twice as many as there are defects with a defect put on them."""
    rng = np.random.default_rng(seed)
    good = images[kind == "good"]
    found, where, what = [*good], [*np.zeros(good.shape, bool)], ["good"] * len(good)
    for i in np.repeat(np.flatnonzero(masks.any((1, 2))), 2):
        axes = [a for a in (0, 1) if rng.integers(2)]
        mask, source, target = np.flip(masks[i], axes), np.flip(images[i], axes), good[rng.integers(len(good))]
        ring = binary_dilation(mask, iterations=6) & ~binary_dilation(mask, iterations=1)
        ring = ring if ring.sum() >= 20 else ~mask
        relative = (source - source[ring].mean()) / (source[ring].std() + 0.02)
        put = target[ring].mean() + relative * (target[ring].std() + 0.02)
        weight = gaussian_filter(mask.astype(float), 0.7)
        weight = np.where(mask, np.maximum(weight, 0.6), weight * (weight > 0.05))
        found.append(np.clip((1 - weight) * target + weight * put, 0, 1))
        where.append(mask)
        what.append(str(kind[i]))
    return Case("transplant", np.stack(found).astype(np.float32), np.array(what), np.stack(where))


def without_defects(train: Array, images: Array, masks: NDArray[np.bool_], kind: NDArray[np.str_], seed: int) -> Case:
    """Return the images with their defects, or places of defects of others, cut out and filled by a Gaussian."""
    rng, prior = np.random.default_rng(seed), SpanPrior.fit(torch.from_numpy(contrasted(train)).flatten(1))
    bad, found = np.flatnonzero(masks.any((1, 2))), images.copy()
    for i, image in enumerate(images):
        hidden = binary_dilation(masks[i] if masks[i].any() else masks[rng.choice(bad)], iterations=3)
        if hidden.mean() > 0.9:
            continue
        centre, spread = image[~hidden].mean(), image[~hidden].std() + 0.02
        fill = prior.given(torch.from_numpy(~hidden.ravel()))
        filled = fill(torch.from_numpy(((image - centre) / spread).ravel())).numpy().reshape(image.shape)
        found[i] = np.where(hidden, np.clip(filled * spread + centre, 0, 1), image)
    return Case("context", found, kind, None)


def tiles(file: Path, seed: int) -> tuple[Array, list[Case]]:
    """Return training images and the three tests."""
    data = np.load(file)
    train, images = (data[k].astype(np.float32) / 255 for k in ("train", "test"))
    masks, kind = data["test_mask"].astype(bool), np.where(data["test_kind"] == "free", "good", data["test_kind"])
    train = train[np.sort(np.random.default_rng(seed).permutation(len(train))[: int(SHARE * len(train))])]
    real = Case("real", images, kind, masks)
    return train, [real, transplanted(images, masks, kind, seed), without_defects(train, images, masks, kind, seed)]


def digits(seed: int) -> Iterator[tuple[Array, list[Case]]]:
    """Yield, for each digit, half of its images to learn from, and the other half among all other digits."""
    images, label = load_digits().images.astype(np.float32) / 16, load_digits().target
    for digit in range(10):
        own = np.random.default_rng(seed).permutation(np.flatnonzero(label == digit))
        train, good = np.array_split(own, 2)
        test = np.concatenate([good, np.flatnonzero(label != digit)])
        kind = np.where(label[test] == digit, "good", "other digits")
        yield images[train], [Case("digits", images[test], kind, None)]


def _smooth(rng: np.random.Generator, n: int, *width: float) -> NDArray[np.float64]:
    noise = gaussian_filter(rng.standard_normal((n, 64, 64)), (0, *width))
    return noise / noise.std()


#: Textures as functions of a generator and a number of images.
TEXTURES: dict[str, Callable[[np.random.Generator, int], NDArray[np.float64]]] = {
    "cloth": lambda rng, n: _smooth(rng, n, 1, 4) + _smooth(rng, n, 4, 1) + 0.2 * rng.standard_normal((n, 64, 64)),
    "wood": lambda rng, n: np.sin(3 * _smooth(rng, n, 20, 1)) + 0.1 * rng.standard_normal((n, 64, 64)),
    "grain": lambda rng, n: rng.standard_normal((n, 64, 64)) + 0.3 * _smooth(rng, n, 8, 8),
}


def textures(file: Path, seed: int) -> Iterator[tuple[Array, list[Case]]]:
    """Yield, for each texture, 100 images to learn from, and the tiles' defects on 200 others."""
    data, rng = np.load(file), np.random.default_rng(seed)
    masks, damaged = data["test_mask"].astype(bool), data["test_kind"] != "free"
    for name, draw in TEXTURES.items():
        drawn = ((draw(rng, 300) + 5) / 10).astype(np.float32)
        images = np.concatenate([drawn[100:], data["test"][damaged].astype(np.float32) / 255])
        kind = np.concatenate([np.repeat("good", 200), data["test_kind"][damaged]])
        where = np.concatenate([np.zeros(drawn[100:].shape, bool), masks[damaged]])
        yield drawn[:100], [transplanted(images, where, kind, seed)._replace(name=name)]


def figures(case: Case, score: NDArray[np.floating], heat: Array) -> dict[str, float]:
    """Return the area under the image's ROC curve, all and per kind of defect, and the pixels' average precision."""
    bad = case.kind != "good"
    found = {"image ROC": roc_auc_score(bad, score)}
    for kind in np.unique(case.kind[bad]) if len(np.unique(case.kind)) > 2 else []:
        some = ~bad | (case.kind == kind)
        found[str(kind)] = roc_auc_score(bad[some], score[some])
    if case.mask is not None:
        found["pixel AP"] = average_precision_score(case.mask.ravel(), heat.ravel())
    return found


def interval(case: Case, score: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the area under the ROC curve of 200 draws of the test images."""
    bad = case.kind != "good"
    draws = (np.concatenate([rng.choice(np.flatnonzero(b), b.sum()) for b in (bad, ~bad)]) for _ in range(200))
    return np.array([roc_auc_score(bad[d], score[d]) for d in draws])


def peers(backbone: Backbone | None, seconds: float) -> Iterator[tuple[str, Method]]:
    """Yield the peers, and ours with features; the autoencoder trains for the given time."""
    yield "PCA 150", Components()
    yield "Gaussian, spots", Spots()
    yield "Gaussian of cosines", Maps(cosines)
    yield "nearest patches", Patches()
    yield "autoencoder", Autoencoder(seconds)
    if backbone is not None:
        yield "PaDiM", Maps(backbone.joined)
        yield "diffad with features", (ours := Ours(ImageDetector(features=backbone)))
        yield "its features alone", FeaturesAlone(ours)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--npz", type=Path)
    parser.add_argument("--digits", action="store_true")
    parser.add_argument("--textures", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--features", action="store_true", help="also with maps of a text detector")
    args = parser.parse_args()
    if args.npz is None and not args.digits:
        parser.error("give --npz FILE, or --digits")
    print(f"python {platform.python_version()} torch {torch.__version__} scikit-learn {sklearn.__version__}")
    print(f"{torch.get_num_threads()} threads; {vars(args)}")
    backbone = Backbone() if args.features else None
    lines, draws = [], []
    rng = np.random.default_rng(0)
    for seed in args.seeds:
        of_tiles = [tiles(args.npz, seed)] if not args.digits and not args.textures else []
        for train, cases in of_tiles or (digits(seed) if args.digits else textures(args.npz, seed)):
            ours = Ours(ImageDetector())
            started = time.perf_counter()
            ours.fit(train)
            seconds = time.perf_counter() - started
            fitted: list[tuple[str, Method]] = [("diffad", ours)]
            for name, method in peers(backbone, seconds):
                method.fit(train)
                fitted.append((name, method))
            for name, method in fitted:
                for case in cases:
                    started = time.perf_counter()
                    score, heat = method(case.images)
                    each = 1e3 * (time.perf_counter() - started) / len(score)
                    lines.append({"test": case.name, "method": name} | figures(case, score, heat) | {"ms": each})
                    draws.append({"test": case.name, "method": name, "draws": interval(case, score, rng)})
        print(f"  seed {seed} done", flush=True)
    table = pd.DataFrame(lines).groupby(["test", "method"], sort=False).mean()
    spread = pd.DataFrame(draws).groupby(["test", "method"], sort=False)["draws"].agg(lambda d: np.concatenate(list(d)))
    table.insert(1, "95 %", [f"{np.quantile(d, 0.025):.3f}-{np.quantile(d, 0.975):.3f}" for d in spread])
    print(table.round(3).to_string())


if __name__ == "__main__":
    main()
