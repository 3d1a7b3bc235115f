"""CUDA simulated on the CPU: the values are real, and what a GPU would refuse is refused.

A tensor that diffad moves to ``"cuda"`` becomes a `Gpu`, which says that it lies there.  Operations on tensors of both
devices, generators of the wrong one, `numpy` and pickling raise as they do on a GPU; copies between the devices and reads
of values are counted, by the line of diffad that asks for them.  Kernels, autocast and memory are not simulated.

Run as a program it fits an estimator on both devices, compares what they say, and prints what was counted inside the loops
of training and sampling, as JSON: `install` changes torch for good.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections import Counter
from contextlib import nullcontext

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

aten = torch.ops.aten
CUDA = torch.device("cuda", 0)
#: What may mix the devices: copies, and indices on the CPU.
MIXING = {aten.copy_.default, aten._to_copy.default, aten.index.Tensor, aten.index_put_.default, aten.index_put.default}
MIXING |= {aten._index_put_impl_.default}
INDEXED = MIXING - {aten.copy_.default, aten._to_copy.default}
#: What waits for the device, because its result, or its shape, is wanted on the CPU.
READING = {aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.equal.default}
READING |= {aten._unique2.default, aten.repeat_interleave.Tensor, aten.bincount.default, aten.linalg_cholesky.default}
#: A number in memory of the CPU is a parameter to these, whatever the device of the others.
ELEMENTWISE = (
    "mul",
    "add",
    "sub",
    "div",
    "where",
    "maximum",
    "minimum",
    "lerp",
    "pow",
    "clamp",
    "lt",
    "gt",
    "le",
    "ge",
)
ELEMENTWISE += ("eq", "ne", "_foreach_mul")
#: By operation and place.
counted: Counter[tuple[str, str]] = Counter()


class Gpu(torch.Tensor):
    """A tensor of the CPU that says it lies on a GPU."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held, requires_grad=False):
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            layout=held.layout, device="meta", requires_grad=requires_grad,
        )  # fmt: skip
        made.held = held
        return made

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)
    is_meta = property(lambda self: False)

    def cpu(self):
        return self.to("cpu")

    def tolist(self):
        return self.cpu().tolist()

    def numpy(self, *args, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    __array__ = numpy

    def __reduce_ex__(self, protocol):
        raise RuntimeError("a tensor of a GPU was pickled")

    def __deepcopy__(self, memo):
        made = Gpu(self.held.clone())
        memo[id(self)] = torch.nn.Parameter(made, self.requires_grad) if isinstance(self, torch.nn.Parameter) else made
        return memo[id(self)]

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


class Dispatch(TorchDispatchMode):
    """Sends every operation through `run`."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


class Generator(torch.Generator):
    """Random numbers of one of the devices."""

    def __new__(cls, device="cpu"):
        made = super().__new__(cls)
        made.place = CUDA if torch.device(device).type == "cuda" else torch.device("cpu")
        return made

    def __init__(self, device="cpu"):
        pass

    device = property(lambda self: self.place)


def place():
    """Return the innermost line of diffad that is running."""
    frame = sys._getframe(1)
    while frame is not None and (frame.f_code.co_filename == __file__ or "/diffad/" not in frame.f_code.co_filename):
        frame = frame.f_back
    return "?" if frame is None else f"{frame.f_code.co_filename.rpartition('/diffad/')[2]}:{frame.f_lineno}"


def run(func, args, kwargs):
    """Run an operation on the CPU, after it was checked and counted; the result is where a GPU would leave it."""
    flat = tree_flatten((args, kwargs))[0]
    there = [t for t in flat if isinstance(t, Gpu)]
    here = [t for t in flat if isinstance(t, torch.Tensor) and not isinstance(t, Gpu)]
    asked = None if kwargs.get("device") is None else torch.device(kwargs["device"]).type != "cpu"
    _check(func, args, there, here)
    _count(func, args, there, here, asked)
    known = {id(t.held): t for t in there} | {id(t): t for t in here}
    plain, options = tree_map(_bared, (args, kwargs))
    if asked is not None:
        options["device"] = torch.device("cpu")
    result = func(*plain, **(options | ({"pin_memory": False} if options.get("pin_memory") else {})))
    first_decides = func is aten.copy_.default or func in INDEXED
    goes_there = asked if asked is not None else isinstance(args[0], Gpu) if first_decides else bool(there)

    def wrapped(t):
        if not isinstance(t, torch.Tensor) or isinstance(t, Gpu):
            return t
        return known.get(id(t), Gpu(t) if goes_there else t)

    return tree_map(wrapped, result)


def _bared(thing):
    if isinstance(thing, torch.device):
        return torch.device("cpu")
    return thing.held if isinstance(thing, Gpu) else thing


def _check(func, args, there, here):
    """Raise where tensors of both devices meet as a GPU lets none."""
    if there and func not in MIXING:
        name = func.__name__.split(".")[0].rstrip("_")
        if any(t.dim() for t in here) or (here and name not in ELEMENTWISE):
            raise RuntimeError(f"{func}: tensors on cuda:0 and cpu, at {place()}")
    if func in INDEXED:
        indices = [i for i in args[1] if i is not None]
        if not isinstance(args[0], Gpu) and any(isinstance(i, Gpu) for i in indices):
            raise RuntimeError(f"{func}: indices on cuda:0 of a tensor on the cpu, at {place()}")
        if func is not aten.index.Tensor and args[2].dim() and isinstance(args[2], Gpu) != isinstance(args[0], Gpu):
            raise RuntimeError(f"{func}: values on another device, at {place()}")


def _count(func, args, there, here, asked):
    """Note what copies between the devices, or waits for the GPU."""
    copied = func is aten._to_copy.default and asked is not None and asked != bool(there)
    copied |= func is aten.copy_.default and bool(there) and bool(here)
    indices = args[1] if func in INDEXED and isinstance(args[0], Gpu) else ()
    awaited = any(i is not None and (i.dtype == torch.bool or not isinstance(i, Gpu)) for i in indices)
    if copied or awaited or (there and func in READING):
        counted[str(func), place()] += 1


def install():
    """Let torch find one GPU, this one, until the process ends."""
    torch.cuda._lazy_init = lambda: None
    torch.cuda.is_available, torch.cuda.device_count = lambda: True, lambda: 1
    torch.Generator = Generator
    # Else a number would become a tensor of the CPU behind the back of the dispatch.
    torch._C._set_only_lift_cpu_tensors(True)
    plain_autocast = torch.autocast
    torch.autocast = lambda device_type, *a, **k: (
        nullcontext() if device_type == "cuda" else plain_autocast(device_type, *a, **k)
    )
    for name in ("rand", "randn", "randint", "randperm", "multinomial", "normal", "bernoulli"):
        setattr(torch, name, _with_own_generator(getattr(torch, name)))
    for name in ("tensor", "as_tensor", "asarray", "zeros", "ones", "full", "empty", "arange", "linspace", "eye"):
        setattr(torch, name, _on_first_device(getattr(torch, name)))
    plain_to = torch.Tensor.to
    torch.Tensor.to = lambda self, *a, **k: plain_to(self, *map(_first, a), **{n: _first(v) for n, v in k.items()})
    Dispatch().__enter__()


def _first(thing):
    """Return the first GPU where any was asked for."""
    is_device = isinstance(thing, torch.device) or (isinstance(thing, str) and thing.startswith("cuda"))
    return CUDA if is_device and torch.device(thing).type == "cuda" else thing


def _on_first_device(function):
    def made(*args, **kwargs):
        return function(*args, **{name: _first(value) for name, value in kwargs.items()})

    made.__module__, made.__qualname__, made.__name__ = "torch", function.__name__, function.__name__
    return made


def _with_own_generator(function):
    def drawn(*args, **kwargs):
        generator = kwargs.get("generator")
        like = next((a.device for a in args if isinstance(a, torch.Tensor)), torch.device("cpu"))
        wanted = like if kwargs.get("device") is None else torch.device(kwargs["device"])
        if generator is not None and generator.device.type != wanted.type:
            raise RuntimeError(f"a generator on {generator.device} for a tensor on {wanted}, at {place()}")
        return function(*args, **kwargs)

    return drawn


def _counting(method, into):
    """Return a method that adds what is counted while it runs."""

    def counting(*args, **kwargs):
        before = counted.copy()
        result = method(*args, **kwargs)
        into.update(counted - before)
        return result

    return counting


def main(name):
    """Fit an estimator on both devices and print how far apart they are, and what its loops waited for."""
    warnings.simplefilter("ignore")
    install()
    import diffad.training
    from diffad import Sampler, Training
    from diffad.filling import prior_fitting
    from diffad.rows import filling_fitting

    in_loops: Counter[tuple[str, str]] = Counter()
    diffad.training._Loop.update = _counting(diffad.training._Loop.update, in_loops)
    Sampler.solve = _counting(Sampler.solve, in_loops)
    prior_fitting.WORTH = filling_fitting.WORTH = -np.inf  # a brief training is worth nothing
    estimator, X, judge = example(name, Training(max_steps=6, masks_per_batch=2, windows_per_mask=4, evaluate_every=3))
    answers = {device: np.asarray(judge(estimator.set_params(device=device).fit(X))) for device in ("cpu", "cuda")}
    apart = float(np.nanmax(np.abs(answers["cpu"] - answers["cuda"])) / np.nanstd(answers["cpu"]))
    print(json.dumps({"apart": apart, "in_loops": {" ".join(key): n for key, n in in_loops.items()}}))


def example(name, training):
    """Return an estimator, data, and what to ask of it."""
    from diffad import (
        DiffusionVAE,
        ImageDetector,
        ImageImputer,
        Sampler,
        SeriesDetector,
        SeriesImputer,
        TabularDetector,
        TabularImputer,
    )

    rng = np.random.default_rng(0)
    rows = rng.standard_normal((300, 1)) + 0.3 * rng.standard_normal((300, 3))
    images = rng.random((40, 1, 1)) + 0.1 * rng.standard_normal((40, 12, 12))
    holes, gaps = (np.where(rng.random(x.shape) < 0.2, np.nan, x) for x in (images, rows))
    few = Sampler(n_steps=3)
    series = SeriesImputer(window=8, training=training, sampler=few)
    return {
        "SeriesImputer": (series, rows, lambda e: e.sample(gaps[:40], 3)),
        "SeriesDetector": (SeriesDetector(), rows, lambda e: e.score_samples(gaps[:60])),
        "SeriesDetector with a model": (SeriesDetector(model=series), rows, lambda e: e.score_samples(gaps[:60])),
        "TabularImputer": (TabularImputer(training=training), rows, lambda e: e.sample(gaps[:40], 3)),
        "TabularDetector": (TabularDetector(training=training), rows, lambda e: e.score_samples(gaps[:40])),
        "ImageImputer": (ImageImputer(training=training, sampler=few), images, lambda e: e.sample(holes[:3], 2)),
        "ImageDetector": (
            ImageDetector(features=torch.nn.Conv2d(1, 4, 3, stride=2)),
            images,
            lambda e: e.explain(images[:3]).heat,
        ),
        "DiffusionVAE": (
            DiffusionVAE(training=training, diffusion=training, sampler=few, adversarial=0.1),
            images,
            lambda e: e.generate(3),
        ),
    }[name]


if __name__ == "__main__":
    main(sys.argv[1])
