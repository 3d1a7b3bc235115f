"""What runs on a GPU mixes no devices, says the same, and waits for none of its steps; see `simulated_cuda`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SIMULATION = Path(__file__).with_name("simulated_cuda.py")

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available() or not hasattr(torch._C, "_set_only_lift_cpu_tensors"),
    reason="a GPU is here, or torch has no way to stand for one",
)


@pytest.mark.parametrize(
    "name",
    [
        "SeriesImputer",
        "SeriesDetector",
        pytest.param("SeriesDetector with a model", marks=pytest.mark.slow),
        "TabularImputer",
        "TabularDetector",
        "ImageImputer",
        "ImageDetector",
        "DiffusionVAE",
    ],
)
def test_an_estimator_on_a_gpu(name):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    told = subprocess.run([sys.executable, SIMULATION, name], capture_output=True, text=True, env=environment)
    assert told.returncode == 0, told.stderr[-2000:]
    found = json.loads(told.stdout)
    # Of an untrained adversary rounding is carried on.
    assert found["apart"] < 1e-3
    assert found["in_loops"] == {}
