"""What is public says what it takes: every parameter of every method, by name."""

from __future__ import annotations

import inspect
import re

import pytest

import diffad
from diffad.base.holds_parameters import HoldsParameters
from diffad.base.parameters import Parameters

#: What scikit-learn's contract gives every estimator and every object of parameters.
CONTRACT = {name for owner in (HoldsParameters, Parameters) for name in vars(owner)}


def documented(text):
    """Return the names before a colon or alone on a line, `a, b` being two of them."""
    lines = re.findall(r"^ *([\w*]+(?:, [\w*]+)*)(?: :.*)?$", text, re.MULTILINE)
    return {name for line in lines for name in line.split(", ")}


def methods():
    for name in diffad.__all__:
        thing = getattr(diffad, name)
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
