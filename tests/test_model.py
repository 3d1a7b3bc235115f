"""A masked diffusion model samples p(hidden | visible): exact where the network is silent, blind to
what is not visible, the same however windows are grouped, and placed on one device throughout.

Oracles: numpy's conditional normal; guards that watch every tensor operation.
"""

import contextlib

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from diffad.diffusion.masks import GAP_KINDS, mixture
from diffad.diffusion.noise import SCHEDULES
from diffad.learning import Batches, HeldOut
from diffad.model import GATE_LEVELS, MaskedDiffusion, Sampler
from diffad.networks import AxialTransformer
from diffad.priors import GaussianPrior, LowRankPrior, StandardPrior
from diffad.training import Training

LENGTH, CHANNELS = 6, 2
D = LENGTH * CHANNELS
SAMPLERS = ["angle", "dpmpp_2m", "heun", "ddim", "ddpm"]


class Still(nn.Module):
    """The network that has learnt nothing: the model must be the prior."""

    def forward(self, inputs, theta):
        return torch.zeros(inputs.shape[:-1], device=inputs.device)


def normal(d=D):
    rng = np.random.default_rng(0)
    root = rng.standard_normal((d, d))
    return rng.standard_normal(d), root @ root.T / d + 0.1 * np.eye(d)


def model_with(network, prior="gaussian", device="cpu", length=LENGTH):
    d = length * CHANNELS
    mean, covariance = (torch.from_numpy(a) for a in normal(d))
    priors = {
        "gaussian": lambda: GaussianPrior(mean, covariance),
        "lowrank": lambda: LowRankPrior(mean, torch.linalg.cholesky(covariance)[:, :3], 0.2 + mean**2),
        "standard": lambda: StandardPrior(d),
    }
    gate = torch.ones(len(GAP_KINDS), GATE_LEVELS)
    return MaskedDiffusion(priors[prior](), length, CHANNELS, network, gate, torch.device(device))


def trained_like(length=LENGTH):
    """Return a network with weights far from zero; the same ones in every test."""
    network = AxialTransformer(length, CHANNELS, width=16, depth=2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def gaps(n=9, length=LENGTH, seed=0):
    """Return windows, visible, hidden and noise: some masks shared, some padding, some without a gap."""
    generator = torch.Generator().manual_seed(seed)
    windows = torch.randn(n, length, CHANNELS, generator=generator)
    visible = mixture(n, length, CHANNELS, generator)
    visible[1] = visible[0]
    hidden = ~visible
    hidden[2:4, length // 2 :] = visible[2:4, length // 2 :] = False
    visible[4], hidden[4] = True, False
    return windows, visible, hidden, torch.randn(4, n, length, CHANNELS, generator=generator)


def draw(model, windows, visible, hidden, noise, sampler=None, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        return model.sample(windows, visible, hidden, noise, sampler or Sampler(), generator, **options)


@pytest.mark.parametrize(
    ("name", "n_steps"), [(None, 1), ("angle", 1), ("heun", 30), ("dpmpp_2m", 30), ("ddim", 150), ("ddpm", 150)]
)
def test_without_a_network_the_samples_are_the_conditional_normal(name, n_steps):
    model = model_with(Still() if name else None)
    mean, covariance = normal()
    roles = np.array([0, 1, 1, 0, 2, 1, 0, 0, 2, 1, 1, 0])  # visible, hidden, padding
    seen, unseen = np.flatnonzero(roles == 0), np.flatnonzero(roles == 1)
    visible, hidden = (torch.from_numpy(roles == r).view(1, LENGTH, CHANNELS) for r in (0, 1))
    x = np.random.default_rng(1).standard_normal(D)
    window = torch.from_numpy(x).float().view(1, LENGTH, CHANNELS)
    n = 20_000
    noise = torch.randn(n, 1, LENGTH, CHANNELS, generator=torch.Generator().manual_seed(0))
    sampler = Sampler(name, n_steps) if name else Sampler()
    samples, scale, _ = draw(model, window, visible, hidden, noise, sampler, max_entries=2**20)
    draws = samples.flatten(1).numpy()[:, unseen]

    gain = covariance[np.ix_(unseen, seen)] @ np.linalg.inv(covariance[np.ix_(seen, seen)])
    expected = mean[unseen] + gain @ (x[seen] - mean[seen])
    v = covariance[np.ix_(unseen, unseen)] - gain @ covariance[np.ix_(seen, unseen)]
    deviation = np.sqrt(np.diag(v))
    # Five standard errors from 20,000 draws, and 3 % for the textbook solvers' finite steps.
    np.testing.assert_allclose((draws.mean(0) - expected) / deviation, 0, atol=5 / np.sqrt(n))
    allowed = 5 * np.sqrt(2 / n) + (0.03 if n_steps > 1 else 0)
    np.testing.assert_allclose(
        np.cov(draws.T) / np.outer(deviation, deviation), v / np.outer(deviation, deviation), atol=allowed
    )
    np.testing.assert_allclose(scale.flatten().numpy()[unseen], deviation, rtol=1e-4)


@pytest.mark.parametrize("prior", ["gaussian", "lowrank", "standard"])
@pytest.mark.parametrize("n_steps", [1, 5])
def test_a_silent_network_changes_no_sample(prior, n_steps):
    alone, silent = model_with(None, prior), model_with(Still(), prior)
    expected, *_ = draw(alone, *gaps())
    ours, *_ = draw(silent, *gaps(), Sampler(n_steps=n_steps))
    # Dividing by the scale and multiplying again rounds once.
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_a_closed_gate_is_the_prior_whatever_the_network_says():
    model = model_with(trained_like())
    model.gate = torch.zeros_like(model.gate)
    expected, *_ = draw(model_with(None), *gaps())
    torch.testing.assert_close(draw(model, *gaps())[0], expected, rtol=1e-5, atol=1e-5)


def test_the_gate_opens_for_its_kind_of_gap_alone():
    model = model_with(trained_like())
    model.gate = torch.zeros_like(model.gate)
    model.gate[GAP_KINDS.index("outage")] = 1
    windows = torch.randn(2, LENGTH, CHANNELS, generator=torch.Generator().manual_seed(0))
    visible = torch.ones(2, LENGTH, CHANNELS, dtype=torch.bool)
    visible[0, 2, 1] = False  # a scattered entry
    visible[1, 1:5] = False  # an outage
    noise = torch.randn(3, *windows.shape, generator=torch.Generator().manual_seed(1))
    ours, *_ = draw(model, windows, visible, ~visible, noise)
    prior, *_ = draw(model_with(None), windows, visible, ~visible, noise)
    torch.testing.assert_close(ours[:, 0], prior[:, 0], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(ours[:, 1], prior[:, 1], atol=1e-2)


def test_what_is_not_hidden_comes_back_and_padding_is_zero():
    windows, visible, hidden, noise = gaps()
    samples, scale, _ = draw(model_with(trained_like()), windows, visible, hidden, noise)
    assert samples.shape == noise.shape
    for sample in samples:
        assert torch.equal(sample[visible], windows[visible])
        assert not bool(sample[~visible & ~hidden].any())
    assert bool((scale[~hidden] == 1).all())
    assert bool((scale[hidden] > 0).all())
    assert bool(samples.isfinite().all())


@pytest.mark.parametrize("prior", ["gaussian", "lowrank", "standard"])
@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("garbage", [1e6, float("nan"), float("inf")])
def test_values_that_are_not_visible_are_never_read(prior, name, garbage):
    """Neither what is hidden nor what is padding may leak into a sample, to the last bit."""
    model = model_with(trained_like(), prior)
    windows, visible, hidden, noise = gaps()
    sampler = Sampler(name, n_steps=3)
    expected = draw(model, windows, visible, hidden, noise, sampler)
    ours = draw(model, torch.where(visible, windows, garbage), visible, hidden, noise, sampler)
    assert torch.equal(ours[0], expected[0])
    assert torch.equal(ours[1], expected[1])


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_network_sees_the_noisy_state_of_hidden_entries_alone_and_zeros_in_padding(name):
    """Its own output elsewhere must not come back to it: no training batch looks like that."""
    network, seen = trained_like(), []
    network.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    draw(model_with(network), *gaps(), Sampler(name, n_steps=3))
    inputs = torch.cat(seen).flatten(0, 2)
    visible, hidden = inputs[:, -2] == 1, inputs[:, -1] == 1
    assert bool(visible.any()) and bool(hidden.any()) and bool((~visible & ~hidden).any())
    assert not bool((visible & hidden).any())
    assert not bool(inputs[~visible & ~hidden].any())
    assert not bool(inputs[~hidden, 2].any())
    assert bool(inputs[hidden, 2].all())


def test_noise_in_padding_is_never_read():
    model = model_with(trained_like())
    windows, visible, hidden, noise = gaps()
    expected, *_ = draw(model, windows, visible, hidden, noise)
    ours, *_ = draw(model, windows, visible, hidden, torch.where(hidden, noise, 1e6))
    assert torch.equal(ours, expected)


@pytest.mark.parametrize("max_entries", [1, 3 * 4 * D, 2**17])
def test_batches_of_any_size_give_equal_samples(max_entries):
    model = model_with(trained_like())
    expected, scale, _ = draw(model, *gaps(n=12), max_entries=2**20)
    ours, ours_scale, _ = draw(model, *gaps(n=12), max_entries=max_entries)
    # Matrix products of other sizes round differently.
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(ours_scale, scale)


def test_more_masks_than_are_factorised_at_once():
    model, n = model_with(trained_like()), 150
    windows, visible, hidden, noise = gaps(n)
    together, *_ = draw(model, windows, visible, hidden, noise)
    for i in (0, 2, 77, n - 1):
        alone, *_ = draw(model, windows[[i]], visible[[i]], hidden[[i]], noise[:, [i]])
        torch.testing.assert_close(together[:, [i]], alone, rtol=1e-4, atol=1e-4)


def test_order_of_windows_does_not_matter():
    model = model_with(trained_like())
    windows, visible, hidden, noise = gaps()
    expected, *_ = draw(model, windows, visible, hidden, noise)
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(4))
    ours, *_ = draw(model, windows[order], visible[order], hidden[order], noise[:, order])
    torch.testing.assert_close(ours, expected[:, order], rtol=1e-4, atol=1e-4)


def test_sampling_repeats_to_the_bit_and_leaves_its_inputs_and_the_global_generator_alone():
    model = model_with(trained_like())
    inputs = gaps()
    before = [t.clone() for t in inputs]
    state = torch.random.get_rng_state()
    first, second = (draw(model, *inputs, Sampler("ddpm", 4))[0] for _ in range(2))
    assert torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True))
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name", SAMPLERS)
def test_only_ancestral_sampling_draws_from_the_generator(name):
    model = model_with(trained_like())
    first, second = (draw(model, *gaps(), Sampler(name, 4), seed=s)[0] for s in (0, 1))
    assert torch.equal(first, second) == (name != "ddpm")


def test_solvers_of_one_ode_agree():
    """angle, heun, dpmpp_2m and ddim approach one solution from the same noise."""
    model = model_with(trained_like())
    reference, *_ = draw(model, *gaps(), Sampler("angle", 200))
    spread = float(reference.std(0).max())
    for name, n_steps in {"heun": 60, "dpmpp_2m": 100, "ddim": 400}.items():
        ours, *_ = draw(model, *gaps(), Sampler(name, n_steps))
        # The textbook solvers start at sigma 40, not at infinity: 1 / 40 of the network's first move.
        assert float((ours - reference).abs().max()) < 0.05 * spread, name


def test_nothing_hidden_and_no_windows():
    windows, _, _, noise = gaps()
    everything = torch.ones(windows.shape, dtype=torch.bool)
    samples, scale, _ = draw(model_with(trained_like()), windows, everything, ~everything, noise)
    assert torch.equal(samples, windows.expand(noise.shape))
    assert bool((scale == 1).all())
    samples, scale, _ = draw(model_with(None), windows[:0], everything[:0], everything[:0], noise[:, :0])
    assert samples.shape == (4, 0, LENGTH, CHANNELS)
    assert scale.shape == (0, LENGTH, CHANNELS)


@pytest.mark.parametrize("n_steps", [1, 5])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_that_is_accepted_gives_finite_samples(name, schedule, n_steps):
    samples, *_ = draw(model_with(trained_like()), *gaps(), Sampler(name, n_steps, schedule))
    assert bool(samples.isfinite().all())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "euler"}, "sampler must be one of .*'angle'.*got 'euler'"),
        ({"schedule": "sigmoid"}, "schedule must be one of .*'karras'.*got 'sigmoid'"),
        ({"schedule": "angle"}, "schedule must be one of"),  # it starts at infinity: no textbook solver can
        ({"n_steps": 0}, "n_steps must be an integer of at least 1, got 0"),
        ({"eta": "x"}, "eta must be a number from 0 to 1, got 'x'"),
    ],
)
def test_bad_sampler_parameters_say_what_is_allowed(options, message):
    with pytest.raises(ValueError, match=message):
        Sampler(**options)


class OneDevice(TorchDispatchMode):
    """Stand in for an accelerator with the meta device: fail where an operation mixes the two.

    Scalars on the CPU may meet any tensor, and an index may live on the CPU, as in CUDA.  What would
    read values off the device answers with ones, so that code downstream runs on.
    """

    MAY_MIX = ("_to_copy", "copy_", "index", "index_put_", "index_put")

    def __init__(self):
        super().__init__()
        self.on_device = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.__name__.split(".")[0]
        tensors = [t for t in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        on_device = any(t.is_meta for t in tensors)
        self.on_device += on_device
        if on_device and name not in self.MAY_MIX:
            strays = [tuple(t.shape) for t in tensors if not t.is_meta and t.ndim]
            assert not strays, f"{func} met a tensor on the CPU of shape {strays} beside the device's"
        if on_device and name == "_local_scalar_dense":
            return 1.0
        if on_device and name == "_to_copy" and torch.device(kwargs.get("device") or "meta").type == "cpu":
            return torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        if on_device and name == "index" and args[1][0] is not None and args[1][0].dtype == torch.bool:
            return args[0].flatten(0, args[1][0].ndim - 1)  # as if all were true
        return func(*args, **kwargs)


class DeviceGenerator:
    """Stand in for a generator on the device: what it draws has to be asked for there."""

    device = torch.device("meta")


@pytest.fixture
def one_device(monkeypatch):
    """Run a block on the meta device, which knows neither autocast nor generators."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: contextlib.nullcontext())
    for name in ("rand", "randn", "randint"):
        function = getattr(torch, name)

        def fake(*args, generator=None, function=function, **kwargs):
            if isinstance(generator, DeviceGenerator):
                assert torch.device(kwargs.get("device", "cpu")) == generator.device
                generator = None
            return function(*args, generator=generator, **kwargs)

        monkeypatch.setattr(torch, name, fake)
    return OneDevice()


@pytest.mark.parametrize("prior", ["gaussian", "lowrank", "standard"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_sampling_keeps_to_one_device(one_device, prior, name):
    model = model_with(trained_like().to("meta"), prior, "meta")
    inputs = gaps()
    with one_device:
        samples, scale, _ = draw(model, *inputs, Sampler(name, n_steps=3))
    assert samples.device.type == scale.device.type == "cpu"
    assert one_device.on_device > 100


@pytest.mark.parametrize("prior", ["gaussian", "lowrank", "standard"])
def test_training_keeps_to_one_device(one_device, prior):
    model = model_with(None, prior, "meta")
    windows, visible, _, _ = gaps(20)
    network = trained_like().to("meta")
    with one_device:
        bank = model.condition(visible, ~visible)
        source = Batches(model, windows, torch.ones_like(visible), bank, Training(max_steps=1))
        source.loss(network, DeviceGenerator()).backward()
        judge = HeldOut(model, windows, torch.ones_like(visible), seed=0, n_masks=4)
        gate = judge.gate(network)
        judge.loss(network, gate)
    assert gate.device.type == "cpu"
    assert all(p.grad.is_meta for p in network.parameters())
    assert one_device.on_device > 100


@pytest.mark.parametrize("place", ["position", "level"])
def test_the_guard_of_devices_catches_a_stray_tensor(one_device, place):
    class Stray(AxialTransformer):
        def forward(self, inputs, theta):
            if place == "position":
                inputs = inputs + torch.arange(self.length)[:, None, None]
            else:
                theta = theta * torch.ones(len(theta))
            return super().forward(inputs, theta)

    model = model_with(Stray(LENGTH, CHANNELS).to("meta"), device="meta")
    with one_device, pytest.raises((AssertionError, RuntimeError), match=r"on the CPU|device"):
        draw(model, *gaps(), Sampler(n_steps=1))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("prior", ["gaussian", "lowrank", "standard"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_cuda_and_cpu_draw_the_same_samples(prior, name):
    samples = {}
    for device in ("cpu", "cuda"):
        model = model_with(trained_like().to(device), prior, device)
        samples[device], *_ = draw(model, *gaps(), Sampler(name, n_steps=4))
    # The network runs in bfloat16 on CUDA: eight bits of its velocity, over angles of pi / 2 in all.
    difference = (samples["cpu"] - samples["cuda"]).abs()
    assert float(difference.max()) < 0.1
    assert float(difference.mean()) < 0.01


@pytest.mark.parametrize("schedule", ["karras", "cosine", "linear"])
@pytest.mark.parametrize("name", ["heun", "dpmpp_2m", "ddim", "ddpm"])
def test_the_usual_number_of_steps_is_enough_under_any_schedule(name, schedule):
    model = model_with(Still())
    visible = torch.zeros(1, LENGTH, CHANNELS, dtype=torch.bool)
    noise = torch.randn(4000, 1, LENGTH, CHANNELS, generator=torch.Generator().manual_seed(0))
    drawn, scale, _ = draw(model, visible.float(), visible, ~visible, noise, Sampler(name, schedule=schedule))
    np.testing.assert_allclose((drawn.std(0) / scale[0]).mean(), 1, atol=0.15)
