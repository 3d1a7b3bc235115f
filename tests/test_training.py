"""Training repeats to the bit, resumes to the bit, keeps the best weights and learns what is to be learnt.

Oracles: runs that were never interrupted; Adam's first steps, whose length is the learning rate; a
residual of known variance, whose velocity is known.
"""

import math

import numpy as np
import pytest
import torch
from torch import nn

from diffad.diffusion.masks import mixture
from diffad.learning import WORTH, Batches, HeldOut, learn, velocity_loss
from diffad.model import Context, MaskedDiffusion
from diffad.networks import AxialTransformer
from diffad.priors import GaussianPrior, StandardPrior
from diffad.training import Training, train

LENGTH, CHANNELS = 5, 2
D = LENGTH * CHANNELS


class Stop(Exception):
    """An interruption: a lost machine, a keyboard."""


def regression(seed=0):
    """Return a small network, a stochastic loss and a held-out loss."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))

    def batch_loss(generator):
        x = torch.randn(16, 3, generator=generator)
        return ((network(x) - x.sum(1, keepdim=True)) ** 2).mean()

    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(99))

    def held_out_loss():
        with torch.no_grad():
            return float(((network(x) - x.sum(1, keepdim=True)) ** 2).mean())

    return network, batch_loss, held_out_loss


def run(training, seed=0, on_progress=None):
    network, batch_loss, held_out_loss = regression()
    generator = torch.Generator().manual_seed(seed)
    history = train(network, batch_loss, held_out_loss, training, generator, on_progress)
    return network.state_dict(), history


def assert_same_run(ours, expected):
    for name, value in expected[0].items():
        assert torch.equal(ours[0][name], value), f"{name} differs"
    for a, b in zip(ours[1], expected[1], strict=True):
        assert {k: a[k] for k in a if k != "seconds"} == {k: b[k] for k in b if k != "seconds"}


def test_equal_seeds_repeat_to_the_bit_and_other_seeds_do_not():
    training = Training(max_steps=40, evaluate_every=10)
    expected = run(training)
    assert_same_run(run(training), expected)
    assert run(training, seed=1)[1][0]["loss"] != expected[1][0]["loss"]


@pytest.mark.parametrize("calls", [20, 27, 39])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(tmp_path, calls):
    """The interruption comes at a look (20), between looks (27) and just before the end (39)."""
    expected = run(Training(max_steps=40, evaluate_every=10, ema=0.9))
    training = Training(max_steps=40, evaluate_every=10, ema=0.9, checkpoint=str(tmp_path / "state.pt"))
    network, batch_loss, held_out_loss = regression()
    left = [calls]

    def interrupted(generator):
        if not left[0]:
            raise Stop
        left[0] -= 1
        return batch_loss(generator)

    with pytest.raises(Stop):
        train(network, interrupted, held_out_loss, training, torch.Generator().manual_seed(0))
    looks = []
    ours = run(training, on_progress=lambda step, entry: looks.append(step))
    assert looks == list(range(calls // 10 * 10 + 10, 41, 10)), "it did not go on where it stopped"
    assert_same_run(ours, expected)
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_a_resumed_run_remembers_weights_that_were_better_before(tmp_path):
    training = Training(max_steps=40, evaluate_every=10, checkpoint=str(tmp_path / "state.pt"))
    losses = {10: 1.0, 20: 4.0, 30: 3.0, 40: 2.0}  # by decree: best before the interruption
    looks = {}

    def go(stop_at):
        network, batch_loss, _ = regression()

        def stop(step, entry):
            if step == stop_at:
                raise Stop

        def held_out_loss():
            step = 10 * (len(looks) + 1)
            looks[step] = {k: v.clone() for k, v in network.state_dict().items()}
            return losses[step]

        try:
            train(network, batch_loss, held_out_loss, training, torch.Generator().manual_seed(0), stop)
        except Stop:
            return None
        return network.state_dict()

    assert go(stop_at=20) is None
    kept = go(stop_at=None)
    assert list(looks) == [10, 20, 30, 40]
    assert all(torch.equal(kept[k], v) for k, v in looks[10].items())


def test_a_checkpoint_of_another_seed_or_other_data_is_refused(tmp_path):
    training = Training(max_steps=20, evaluate_every=10, checkpoint=str(tmp_path / "state.pt"))
    run(training)
    with pytest.raises(ValueError, match=r"state\.pt was written for other data or another seed"):
        run(training, seed=1)
    kept = (tmp_path / "state.pt").read_bytes()
    model = MaskedDiffusion(StandardPrior(D), LENGTH, CHANNELS)
    with pytest.raises(ValueError, match="other data"):
        learn(model, *narrow(200), *narrow(100, seed=1), training, seed=0)
    assert (tmp_path / "state.pt").read_bytes() == kept


def test_a_checkpoint_of_another_prior_is_refused(tmp_path, few_steps, gaps):
    training = Training(
        max_steps=4, masks_per_batch=2, windows_per_mask=4, evaluate_every=2, checkpoint=str(tmp_path / "state.pt")
    )
    one, other = (few_steps(prior=prior, training=training) for prior in ("gaussian", "auto"))
    one.fit(gaps)
    with pytest.raises(ValueError, match="was written for other data"):
        other.fit(gaps)


def test_a_checkpoint_of_another_device_is_kept_and_named(tmp_path):
    path = tmp_path / "state.pt"
    training = Training(max_steps=20, evaluate_every=10, checkpoint=str(path))
    run(training)
    torch.save(torch.load(path, weights_only=True) | {"device": "cuda"}, path)
    kept = path.read_bytes()
    with pytest.raises(ValueError, match=r"state\.pt was written on 'cuda', .* on 'cpu'"):
        run(training)
    assert path.read_bytes() == kept
    old = {key: value for key, value in torch.load(path, weights_only=True).items() if key != "device"}
    torch.save(old, path)
    run(training)  # of one that names none, written by the code before


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_broken_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "state.pt"
    training = Training(max_steps=20, evaluate_every=10, checkpoint=str(path))
    run(training)
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(ValueError, match=r"state\.pt is broken.*remove it"):
        run(training)


def test_a_checkpoint_that_cannot_be_written_leaves_nothing_behind(tmp_path, monkeypatch):
    def half_a_file(state, path):
        path.write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos")

    monkeypatch.setattr(torch, "save", half_a_file)
    with pytest.raises(OSError, match=r"state\.pt cannot be written"):
        run(Training(max_steps=20, evaluate_every=10, checkpoint=str(tmp_path / "state.pt")))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match="no folder"):
        run(Training(max_steps=20, checkpoint=str(tmp_path / "none" / "state.pt")))


def test_a_finished_run_is_not_repeated(tmp_path):
    training = Training(max_steps=20, evaluate_every=10, checkpoint=str(tmp_path / "state.pt"))
    expected, looks = run(training), []
    assert_same_run(run(training, on_progress=lambda step, entry: looks.append(step)), expected)
    assert not looks


def test_no_steps_leave_the_network_as_it_was():
    before = {k: v.clone() for k, v in regression()[0].state_dict().items()}
    after, history = run(Training(max_steps=0))
    assert history == []
    assert all(torch.equal(after[k], v) for k, v in before.items())


@pytest.mark.parametrize("max_steps", [1, 7, 25])
def test_the_last_step_is_always_looked_at(max_steps):
    _, history = run(Training(max_steps=max_steps, evaluate_every=10))
    assert [e["step"] for e in history] == [*range(10, max_steps, 10), max_steps]


def test_with_nothing_held_out_the_last_averaged_weights_are_kept():
    network, batch_loss, _ = regression()
    training = Training(max_steps=30, evaluate_every=10, patience=1)
    history = train(network, batch_loss, None, training, torch.Generator().manual_seed(0))
    assert [step["step"] for step in history] == [10, 20, 30] and not any("validation" in step for step in history)
    judged, batch_loss, _ = regression()
    looks = iter([3.0, 2.0, 1.0])  # ever better: the last are the best
    train(judged, batch_loss, lambda: next(looks), training, torch.Generator().manual_seed(0))
    for mine, theirs in zip(network.parameters(), judged.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_with_nothing_held_out_weights_that_diverged_are_not_kept():
    network, batch_loss, _ = regression()
    training = Training(max_steps=20, evaluate_every=10, learning_rate=1e20)
    with pytest.warns(RuntimeWarning, match="best weights so far are kept"):
        train(network, lambda g: batch_loss(g) * float("nan"), None, training, torch.Generator().manual_seed(0))
    assert all(torch.isfinite(p).all() for p in network.parameters())


def test_the_weights_kept_are_those_that_were_best_on_held_out_data():
    network, batch_loss, _ = regression()
    looks = []

    def held_out_loss():  # best at the third look, by decree
        looks.append({k: v.clone() for k, v in network.state_dict().items()})
        return [5.0, 4.0, 1.0, 3.0, 2.0][len(looks) - 1]

    history = train(
        network, batch_loss, held_out_loss, Training(max_steps=50, evaluate_every=10), torch.Generator().manual_seed(0)
    )
    assert [e["validation"] for e in history] == [5, 4, 1, 3, 2]
    kept = network.state_dict()
    assert all(torch.equal(kept[k], looks[2][k]) for k in kept)
    assert not any(torch.equal(kept[k], looks[4][k]) for k in kept)
    assert not network.training


@pytest.mark.parametrize(("patience", "looks"), [(1, 3), (3, 5)])
def test_training_stops_after_looks_without_progress(patience, looks):
    network, batch_loss, _ = regression()
    losses = iter([3.0, 2.0, *[2.0] * 50])
    history = train(
        network,
        batch_loss,
        lambda: next(losses),
        Training(max_steps=500, evaluate_every=5, patience=patience),
        torch.Generator().manual_seed(0),
    )
    assert len(history) == looks


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_warns_and_keeps_the_best_weights(bad):
    network, batch_loss, held_out_loss = regression()
    calls = []

    def breaks(generator):
        calls.append(None)
        return batch_loss(generator) * (bad if len(calls) > 33 else 1.0)

    with pytest.warns(RuntimeWarning, match=r"loss of (nan|inf) near step 40 .* best weights so far are kept"):
        history = train(
            network, breaks, held_out_loss, Training(max_steps=200, evaluate_every=10), torch.Generator().manual_seed(0)
        )
    assert len(calls) == 40
    assert [e["step"] for e in history] == [10, 20, 30]
    assert all(bool(v.isfinite().all()) for v in network.state_dict().values())
    assert held_out_loss() <= min(e["validation"] for e in history)


def test_a_callers_no_grad_does_not_stop_training():
    training = Training(max_steps=20, evaluate_every=10)
    expected = run(training)
    with torch.no_grad():
        ours = run(training)
        assert not torch.is_grad_enabled()
    assert_same_run(ours, expected)


def test_the_learning_rate_warms_up_and_falls_as_a_cosine():
    """Under a constant gradient Adam's every step is the learning rate: the path shows the rate."""
    weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    network = nn.Module()
    network.weight = weight
    path = []

    def batch_loss(generator):
        path.append(float(weight.detach()))
        return -weight.sum()

    steps, rate = 200, 0.01
    training = Training(max_steps=steps, learning_rate=rate, evaluate_every=steps)
    train(network, batch_loss, lambda: 0.0, training, torch.Generator())
    moved = np.diff(path) / rate
    warm_up = steps // 20
    expected = [(t + 1) / warm_up for t in range(warm_up)]
    expected += [0.5 * (1 + math.cos(math.pi * (t - warm_up) / (steps - warm_up))) for t in range(warm_up, steps - 1)]
    # Adam's epsilon of 1e-8 beside a gradient of 1.
    np.testing.assert_allclose(moved, expected, atol=1e-6)


def test_held_out_loss_sees_the_averaged_weights():
    """With a decay of 0.9 the average of a steady climb trails it; without averaging it does not."""
    trailing = {}
    for ema in (0.0, 0.9):
        weight = nn.Parameter(torch.zeros(1))
        network = nn.Module()
        network.weight = weight
        now, looks = [], []

        def batch_loss(generator, weight=weight, now=now):
            now.append(float(weight.detach()))
            return -weight.sum()

        def held_out_loss(weight=weight, looks=looks):
            looks.append(float(weight.detach()))
            return -looks[-1]

        training = Training(max_steps=100, evaluate_every=50, ema=ema)
        train(network, batch_loss, held_out_loss, training, torch.Generator())
        trailing[ema] = now[50] - looks[0]
    assert trailing[0.0] == pytest.approx(0, abs=1e-6)
    assert trailing[0.9] > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_steps": -1}, "max_steps must be an integer of at least 0, got -1"),
        ({"patience": 0}, "patience must be an integer of at least 1, got 0"),
        ({"evaluate_every": 0}, "evaluate_every must be an integer of at least 1"),
        ({"patience": True}, "patience must be an integer of at least 1, got True"),
        ({"mixing": 1.5}, "mixing must be a number from 0 to 1, got 1.5"),
        ({"learning_rate": "a"}, "learning_rate must be a number, 0 or more, got 'a'"),
        ({"learning_rate": float("inf")}, "learning_rate must be a number, 0 or more, got inf"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"ema": 1}, "ema must be below 1"),
        ({"checkpoint": 3}, "checkpoint must be a file to write, or None, got 3"),
    ],
)
def test_bad_parameters_say_what_is_allowed(options, message):
    with pytest.raises(ValueError, match=message):
        Training(**options)


# What is learnt: the residual of a prior.


class Known(nn.Module):
    """The velocity of residuals N(0, s^2) around a standard prior, times a factor."""

    def __init__(self, deviation, factor=1.0):
        super().__init__()
        self.deviation, self.factor = deviation, factor

    def forward(self, inputs, theta):
        cos, sin = theta.cos()[:, None, None], theta.sin()[:, None, None]
        z = inputs[..., 2]
        return self.factor * (self.deviation**2 - 1) * sin * cos / ((cos * self.deviation) ** 2 + sin**2) * z


def narrow(n, deviation=0.3, seed=0):
    """Return windows that are narrower than the standard prior says, all known."""
    windows = deviation * torch.randn(n, LENGTH, CHANNELS, generator=torch.Generator().manual_seed(seed))
    return windows, torch.ones(windows.shape, dtype=torch.bool)


def learn_narrow(seed=0, **options):
    training = Training(**{"max_steps": 30, "evaluate_every": 10, "masks_per_batch": 4, **options})
    model = MaskedDiffusion(StandardPrior(D), LENGTH, CHANNELS)
    history, gain = learn(model, *narrow(200), *narrow(100, seed=1), training, seed)
    return model, history, gain


def test_learning_repeats_to_the_bit():
    (first, history, gain), (second, again, same) = learn_narrow(), learn_narrow()
    assert gain == same > 0
    assert [e["loss"] for e in history] == [e["loss"] for e in again]
    assert torch.equal(first.gate, second.gate)
    for a, b in zip(first.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(a, b)
    assert learn_narrow(seed=1)[1][0]["loss"] != history[0]["loss"]


def test_learning_resumes_to_the_bit(tmp_path):
    expected, history, gain = learn_narrow()
    options = {"checkpoint": str(tmp_path / "state.pt")}
    model = MaskedDiffusion(StandardPrior(D), LENGTH, CHANNELS)
    training = Training(max_steps=30, evaluate_every=10, masks_per_batch=4, **options)

    def stop(step, entry):
        if step == 20:
            raise Stop

    with pytest.raises(Stop):
        learn(model, *narrow(200), *narrow(100, seed=1), training, 0, stop)
    resumed, again, same = learn_narrow(**options)
    assert same == gain
    assert [e["loss"] for e in again] == [e["loss"] for e in history]
    for a, b in zip(resumed.network.parameters(), expected.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_learning_leaves_the_global_generator_alone():
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    learn_narrow(max_steps=2)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("setting", ["float64", "no_grad"])
def test_a_callers_defaults_do_not_change_what_is_learnt(setting):
    _, history, gain = learn_narrow(max_steps=20)
    if setting == "float64":
        windows = narrow(200), narrow(100, seed=1)  # drawn before the default changes
        model = MaskedDiffusion(StandardPrior(D), LENGTH, CHANNELS)
        torch.set_default_dtype(torch.float64)
        try:
            training = Training(max_steps=20, evaluate_every=10, masks_per_batch=4)
            ours, same = learn(model, *windows[0], *windows[1], training, 0)
            assert torch.get_default_dtype() == torch.float64
        finally:
            torch.set_default_dtype(torch.float32)
    else:
        with torch.no_grad():
            _, ours, same = learn_narrow(max_steps=20)
    assert [e["loss"] for e in ours] == [e["loss"] for e in history]
    assert same == gain


def test_no_steps_leave_the_prior_alone():
    model, history, gain = learn_narrow(max_steps=0)
    assert (model.network, history, gain) == (None, [], 0.0)


def test_nothing_is_admitted_where_the_prior_is_the_truth():
    """Noise fitted for a few steps must not pass for knowledge: the gain on a true prior is nil."""
    training = Training(max_steps=40, evaluate_every=20, masks_per_batch=4)
    model = MaskedDiffusion(StandardPrior(D), LENGTH, CHANNELS)
    _, gain = learn(model, *narrow(200, deviation=1.0), *narrow(100, deviation=1.0, seed=1), training, 0)
    assert gain < 0.02


@pytest.mark.parametrize(("deviation", "worth"), [(0.9, True), (0.95, False)])
def test_a_network_whose_gain_is_not_worth_its_time_is_left_out(monkeypatch, deviation, worth):
    class Fitted(Known):
        """Knows the velocity from the start, whatever the training does."""

        def __init__(self, length, channels):
            super().__init__(deviation)
            self.unused, self.matrices = nn.Parameter(torch.zeros(())), ()

        def forward(self, inputs, theta):
            return super().forward(inputs, theta) + 0 * self.unused

    monkeypatch.setattr("diffad.learning.AxialTransformer", Fitted)
    model = MaskedDiffusion(StandardPrior(D), LENGTH, CHANNELS)
    windows, held_out = narrow(2000, deviation), narrow(2000, deviation, seed=1)
    _, gain = learn(model, *windows, *held_out, Training(max_steps=1), seed=0)
    available = 1 - HeldOut(model, *held_out, seed=1).loss(Known(deviation))
    assert (available > WORTH) is worth
    assert available > 0
    assert (gain > 0) is worth
    assert (model.network is not None) is worth


def test_the_known_velocity_is_admitted_in_full_and_twice_of_it_by_half():
    windows, known = narrow(2000)
    judge = HeldOut(MaskedDiffusion(StandardPrior(D), LENGTH, CHANNELS), windows, known, seed=0, n_masks=200)
    for factor in (1.0, 2.0):
        gate = judge.gate(Known(0.3, factor))
        # At pure noise and at none the known velocity is zero: there the gate says nothing.
        assert gate[:, 1:5].numpy() == pytest.approx(1 / factor, rel=0.1)


def test_the_known_velocity_removes_the_known_part_of_the_loss():
    windows, known = narrow(2000)
    model = MaskedDiffusion(StandardPrior(D), LENGTH, CHANNELS)
    judge = HeldOut(model, windows, known, seed=0, n_masks=200)
    ours = judge.loss(Known(0.3))
    theta = judge.theta[0].double().numpy().ravel()
    cos, sin = np.cos(theta), np.sin(theta)
    remaining = 0.3**2 / ((0.3 * cos) ** 2 + sin**2)  # Var(v | z) of a Gaussian
    prior = (0.3 * sin) ** 2 + cos**2  # E[v^2]
    assert ours == pytest.approx(remaining.mean() / prior.mean(), rel=0.1)
    for factor in (0.7, 1.3):
        assert judge.loss(Known(0.3, factor)) > ours


@pytest.mark.parametrize("hide", ["unknown", "visible"])
def test_only_entries_that_are_hidden_and_known_are_learnt_from(hide):
    """The loss moves with the network's output there and nowhere else."""
    root = np.random.default_rng(0).standard_normal((D, D))
    prior = GaussianPrior(torch.zeros(D), torch.from_numpy(root @ root.T / D + 0.1 * np.eye(D)))
    masks = mixture(3, LENGTH, CHANNELS, torch.Generator().manual_seed(0)).flatten(1)
    given = prior.condition(masks, ~masks)
    generator = torch.Generator().manual_seed(1)
    x, white = torch.randn(2, 3, 4, D, generator=generator)
    known = torch.rand(x.shape, generator=generator) < 0.6
    output = torch.zeros(12, LENGTH, CHANNELS, requires_grad=True)
    theta = torch.rand(3, 4, generator=generator)

    def loss(x):
        context = Context.build(given, x, (LENGTH, CHANNELS))
        return velocity_loss(lambda inputs, angles: output, context, given, x, known, theta, white)

    (gradient,) = torch.autograd.grad(loss(x), output)
    counted = ~masks[:, None] & known
    assert torch.equal(gradient.flatten(1).view(x.shape) != 0, counted)
    if hide == "unknown":
        # The values behind unknown hidden entries are inventions: they must not matter.
        assert torch.equal(loss(torch.where(~masks[:, None] & ~known, 5.0, x)), loss(x))


@pytest.mark.parametrize("mixing", [0.0, 0.5, 1.0])
def test_a_mixture_is_known_where_both_its_windows_are(mixing):
    """What stands in for unknown values must not be learnt, not even as a part of a mixture."""
    windows, _ = narrow(30)
    known = torch.rand(windows.shape, generator=torch.Generator().manual_seed(2)) < 0.7
    model = MaskedDiffusion(StandardPrior(D), LENGTH, CHANNELS)
    bank = model.condition(*(torch.full((1, LENGTH, CHANNELS), seen) for seen in (False, True)))

    def loss(invented):
        source = Batches(model, torch.where(known, windows, invented), known, bank, Training(mixing=mixing))
        silent = Known(1.0)  # a velocity of zero, whatever it sees
        return float(source.loss(silent, torch.Generator().manual_seed(0)))

    assert loss(5.0) == loss(-3.0)


def test_mixtures_of_two_windows_keep_mean_and_covariance():
    """`mixing` is the promise that a prior stays exact for the mixed windows."""
    rng = np.random.default_rng(0)
    root = rng.standard_normal((D, D)) / np.sqrt(D)
    x = (rng.standard_normal((3000, D)) @ root + 2.0).astype(np.float32)
    windows = torch.from_numpy(x).view(-1, LENGTH, CHANNELS)
    prior = GaussianPrior.fit(windows.flatten(1), torch.ones(x.shape, dtype=torch.bool))
    model = MaskedDiffusion(prior, LENGTH, CHANNELS)
    masks = torch.zeros(1, LENGTH, CHANNELS, dtype=torch.bool)
    training = Training(mixing=1.0, masks_per_batch=1, windows_per_mask=20_000)
    source = Batches(
        model, windows, torch.ones(windows.shape, dtype=torch.bool), model.condition(masks, ~masks), training
    )
    seen = []

    class Spy(AxialTransformer):
        def forward(self, inputs, theta):
            seen.append((inputs, theta))
            return super().forward(inputs, theta)

    source.loss(Spy(LENGTH, CHANNELS, width=8, depth=1), torch.Generator().manual_seed(0))
    inputs, _ = seen[0]
    # With everything hidden the network sees z = cos r + sin e, standardised by the prior: unit variance.
    z = inputs[..., 2].flatten(1).numpy()
    # Four standard errors of a variance from 20,000 windows drawn from 3,000.
    np.testing.assert_allclose(z.mean(0), 0, atol=4 / np.sqrt(3000))
    np.testing.assert_allclose(z.var(0), 1, atol=4 * np.sqrt(2 / 3000))
