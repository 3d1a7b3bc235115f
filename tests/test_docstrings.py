"""What is public says what it takes, every parameter of every method by name, and what it gives."""

from __future__ import annotations

import inspect
import re

import pytest

import diffad
from diffad.base.holds_parameters import HoldsParameters
from diffad.base.parameters import Parameters
from diffad.datasets import load_telemetry
from diffad.detectability import detectability
from diffad.faults import inject, injected_fault_score
from diffad.flows import FlowFeatures, FlowModel, load_flows, read_flows
from diffad.metrics import coverage, crps, vus_pr
from diffad.plot import plot_detectability, plot_detection
from diffad.stream import Stream, StreamResult

#: Beside what `diffad` itself exports.
FURTHER = (
    coverage, crps, detectability, inject, injected_fault_score, load_flows, load_telemetry, plot_detectability,
    plot_detection, read_flows, vus_pr, FlowFeatures, FlowModel, Stream, StreamResult,
)  # fmt: skip

#: What scikit-learn's contract gives every estimator and every object of parameters.
CONTRACT = {name for owner in (HoldsParameters, Parameters) for name in vars(owner)}


def documented(text):
    """Return the names before a colon or alone on a line, `a, b` being two of them."""
    lines = re.findall(r"^ *([\w*]+(?:, [\w*]+)*)(?: :.*)?$", text, re.MULTILINE)
    return {name for line in lines for name in line.split(", ")}


def methods():
    for thing in (*(getattr(diffad, name) for name in diffad.__all__), *FURTHER):
        name = thing.__name__
        if inspect.isfunction(thing):
            yield pytest.param(thing, id=name)
        elif inspect.isclass(thing):
            for own, method in inspect.getmembers(thing, inspect.isfunction):
                if method.__module__.startswith("diffad") and not own.startswith("_") and own not in CONTRACT:
                    yield pytest.param(method, id=f"{name}.{own}")


@pytest.mark.parametrize("method", methods())
def test_every_parameter_of_what_is_public_is_documented(method):
    text = inspect.getdoc(method)
    assert text, "there is no docstring"
    taken = set(inspect.signature(method).parameters) - {"self"}
    same = re.search(r"the same as `(\w+)`", text)
    assert same or taken <= documented(text), f"not documented: {sorted(taken - documented(text))}"


@pytest.mark.parametrize("method", methods())
def test_every_method_that_takes_something_says_what_it_gives(method):
    text, signature = inspect.getdoc(method), inspect.signature(method)
    if signature.return_annotation in ("None", "Self") or not set(signature.parameters) - {"self"}:
        return
    same = re.search(r"the same as `(\w+)`", text)
    # Where it is but a number the first line says it all.
    assert same or signature.return_annotation == "float" or re.search(r"^(Returns|Yields)\n-+$", text, re.MULTILINE)
