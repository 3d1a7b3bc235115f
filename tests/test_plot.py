"""Pictures show what they claim: panels named with units, the band in the gaps only, on any index and size."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import FillBetweenPolyCollection

from diffad.plot import plot_imputation, write_picture


@pytest.fixture
def picture(frame, waves):
    truth = pd.DataFrame(waves, frame.index, frame.columns)
    return {"observed": frame, "median": waves, "lower": waves - 1, "upper": waves + 1, "truth": truth}


def drawn(figure):
    """Render it, as saving does; return the bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=40)
    return buffer.getvalue()


def test_one_panel_a_channel_named_with_its_unit(picture):
    figure = plot_imputation(**picture, units={"flow": "l/s"}, title="Pump 3")
    labels = [ax.get_ylabel() for ax in figure.axes]
    assert labels == ["flow\n[l/s]", "pressure", "power"]
    assert figure.axes[-1].get_xlabel() == "time"
    assert figure.legends[0].get_title().get_text() == "Pump 3"
    assert len({text.get_text() for text in figure.legends[0].get_texts()}) == 4
    assert drawn(figure).startswith(b"\x89PNG")


def test_median_and_band_touch_the_gaps_and_nothing_else(picture):
    figure = plot_imputation(**picture)
    gap = picture["observed"]["pressure"].isna().to_numpy()
    near = gap | np.roll(gap, 1) | np.roll(gap, -1)
    lines = {line.get_label(): np.asarray(line.get_ydata(), float) for line in figure.axes[1].get_lines()}
    median = next(y for label, y in lines.items() if "median" in label)
    assert (np.isfinite(median) >= gap).all()
    assert not np.isfinite(median[~near]).any()
    np.testing.assert_array_equal(lines["observed"], picture["observed"]["pressure"])
    band = next(c for c in figure.axes[1].collections if isinstance(c, FillBetweenPolyCollection))
    heights = np.concatenate([p.vertices[:, 1] for p in band.get_paths()])
    filled = picture["median"][near, 1]
    assert heights.min() >= filled.min() - 1 - 1e-9 and heights.max() <= filled.max() + 1 + 1e-9


def test_colours_of_what_is_drawn_differ(picture):
    figure = plot_imputation(**picture)
    assert len({line.get_color() for line in figure.axes[0].get_lines()}) == 3


def test_without_truth_units_or_time(picture):
    figure = plot_imputation(
        picture["observed"].reset_index(drop=True), picture["median"], picture["lower"], picture["upper"]
    )
    assert figure.axes[-1].get_xlabel() == "row"
    assert not any("truth" in text.get_text() for text in figure.legends[0].get_texts())
    drawn(figure)


@pytest.mark.parametrize("index", [pd.period_range("2026-01", periods=300, freq="M"), pd.to_timedelta(range(300), "h")])
def test_periods_and_durations_are_drawn(picture, index):
    picture |= {name: picture[name].set_axis(index) for name in ("observed", "truth")}
    assert drawn(plot_imputation(**picture)).startswith(b"\x89PNG")


def test_one_channel_and_no_gap(picture, waves, frame):
    one = pd.DataFrame(waves[:, :1], frame.index, ["flow"])
    drawn(plot_imputation(one, waves[:, :1], waves[:, :1], waves[:, :1]))


def test_neither_a_window_system_nor_global_state_is_used(picture):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    drawn(plot_imputation(**picture))
    assert plt.get_fignums() == before


def test_input_is_not_written_to(picture):
    before = {k: v.copy() for k, v in picture.items()}
    plot_imputation(**picture)
    for name, value in picture.items():
        np.testing.assert_array_equal(value, before[name])


def test_a_picture_is_written_as_asked(picture, tmp_path):
    figure = plot_imputation(**picture)
    write_picture(figure, tmp_path / "x.png", dpi=40)
    assert (tmp_path / "x.png").read_bytes() == drawn(figure)
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


def test_a_full_disk_leaves_an_older_picture_as_it_was(picture, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def half_a_picture(self, target, **kwargs):
        Path(target).write_bytes(b"half a p")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Figure, "savefig", half_a_picture)
    (tmp_path / "x.png").write_bytes(b"precious")
    with pytest.raises(OSError, match=r"x\.png cannot be written: No space left"):
        write_picture(plot_imputation(**picture), tmp_path / "x.png")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"x.png": b"precious"}
