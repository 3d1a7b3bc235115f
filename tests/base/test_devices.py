"""What was fitted on one device can be stored and read on another: no tensor is left behind.

torch's "meta" device holds shapes and no values: every machine has it, and nothing can be computed there by mistake.
"""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
import torch

from diffad import (
    DiffusionVAE,
    ImageDetector,
    ImageImputer,
    Sampler,
    SeriesDetector,
    SeriesImputer,
    TabularDetector,
    TabularImputer,
    Training,
)
from diffad.base import devices
from diffad.base.devices import CPU, Away, device_of, restored, stored
from diffad.base.holds_parameters import AWAY, HoldsParameters
from diffad.rows import filling_fitting

META = torch.device("meta")
RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((300, 1)) + 0.3 * RNG.standard_normal((300, 3))
IMAGES = RNG.random((40, 1, 1)) + 0.1 * RNG.standard_normal((40, 12, 12))
BRIEF = Training(max_steps=4, masks_per_batch=2, windows_per_mask=4, evaluate_every=2)


class Watching(pickle.Pickler):
    """Note where the tensors and devices that are written lie."""

    def __init__(self):
        super().__init__(io.BytesIO())
        self.places = []

    def reducer_override(self, thing):
        if isinstance(thing, torch.Tensor):
            self.places.append(thing.device)
            return torch.zeros, (1,)
        if isinstance(thing, torch.device):
            self.places.append(thing)
        if isinstance(thing, HoldsParameters):  # as it is, not as it is stored
            return dict, (), vars(thing)
        return NotImplemented


def places(state):
    watching = Watching()
    watching.dump(state)
    return {place.type for place in watching.places}


@pytest.fixture(
    scope="module",
    params=[
        SeriesImputer(window=4, prior="gaussian", training=BRIEF, sampler=Sampler(n_steps=1)),
        SeriesDetector(),
        SeriesDetector(
            kinds=("energy",), model=SeriesImputer(window=4, prior="gaussian", training=Training(max_steps=0))
        ),
        TabularDetector(training=BRIEF),
        TabularImputer(prior="gaussian", training=BRIEF),
        ImageDetector(features=torch.nn.Conv2d(1, 4, 3, stride=2)),
        ImageImputer(training=BRIEF),
        DiffusionVAE(training=BRIEF, diffusion=BRIEF),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def estimator(request):
    return request.param.set_params(device="cpu").fit(data(request.param))


def data(estimator):
    return IMAGES if isinstance(estimator, ImageDetector | ImageImputer | DiffusionVAE) else ROWS


@pytest.fixture
def elsewhere(monkeypatch):
    """Take every tensor, network and device for one of another memory."""
    monkeypatch.setattr(devices, "_place", lambda leaf: META)


def test_all_that_was_elsewhere_is_taken_back(estimator, elsewhere):
    state = vars(estimator)
    assert places(state) == {"cpu"}, "the estimator is meant to hold tensors"
    assert places(restored(stored(state), META)) == {"meta"}
    assert places(state) == {"cpu"}, "the original stays where it was"


def test_what_was_elsewhere_is_read_on_the_cpu_where_there_is_nothing_else(estimator, elsewhere):
    assert estimator.__getstate__()[AWAY]
    here = pickle.loads(pickle.dumps(estimator))
    judge = "score_samples" if hasattr(here, "score_samples") else "transform"
    found, expected = (np.asarray(getattr(e, judge)(data(estimator)[:50])) for e in (here, estimator))
    np.testing.assert_array_equal(found, expected)


def test_what_was_on_the_cpu_stays_there(monkeypatch):
    there, here, network = torch.ones(2), torch.ones(3), torch.nn.Linear(2, 2)
    monkeypatch.setattr(devices, "_place", lambda leaf: META if leaf is there or leaf is network else CPU)
    back = restored(stored({"there": [there], "here": here, "network": network, "device": CPU}), META)
    assert back["there"][0].device == META and next(back["network"].parameters()).device == META
    assert back["here"] is here and back["device"] == CPU
    assert next(network.parameters()).device == CPU


def test_nothing_is_copied_where_all_is_on_the_cpu(estimator):
    assert stored(vars(estimator)) is vars(estimator)
    assert AWAY not in estimator.__getstate__()


def test_what_is_shared_stays_shared(elsewhere):
    shared = [torch.ones(2)]
    first, second = stored({"a": shared, "b": shared}).values()
    assert first is second and isinstance(first[0], Away)


@pytest.mark.parametrize("name", ["mps", "meta", "cuda:99", "gpu", 3.5])
def test_devices_that_are_not_there_or_cannot_compute_are_refused(name):
    with pytest.raises(ValueError, match="device"):
        device_of(name)


def test_what_lay_on_a_gpu_that_is_not_here_is_read_where_there_is_one_or_not(estimator, elsewhere):
    stored_there = type(estimator).__new__(type(estimator))
    stored_there.__setstate__({**estimator.__getstate__(), "device": "cuda:99"})
    assert places({k: v for k, v in vars(stored_there).items() if k.endswith("_")}) == {device_of("auto").type}


@pytest.mark.gpu
def test_fitted_on_a_gpu_and_read_without_one(estimator, monkeypatch):
    monkeypatch.setattr(filling_fitting, "WORTH", -np.inf)  # a brief training is worth nothing
    there = type(estimator)(**(estimator.get_params(deep=False) | {"device": "cuda"})).fit(data(estimator))
    assert "cuda" in places(vars(there))
    file = pickle.dumps(there)
    assert places(vars(pickle.loads(file))) == places(vars(there)), "where there is one, it is taken again"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    here = pickle.loads(file)
    assert places(vars(here)) == {"cpu"}
    judge = "score_samples" if hasattr(here, "score_samples") else "transform"
    assert np.isfinite(np.asarray(getattr(here, judge)(data(estimator)[:50]))).all()
