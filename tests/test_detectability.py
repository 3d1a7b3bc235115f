"""`detectability` measures what a detector sees: large faults early, none where they are invisible; its pictures
and those of detections show every channel.
"""

from __future__ import annotations

import io
import re

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from diffad import SeriesDetector
from diffad.detectability import SPACING, detectability
from diffad.faults import inject, injected_fault_score
from diffad.plot import plot_detectability, plot_detection

SIZES = (0.01, 0.5, 2.0, 8.0)


def process(n, seed):
    """Return two sensors of one slowly varying quantity."""
    rng = np.random.default_rng(seed)
    x = np.zeros(n)
    for i in range(1, n):
        x[i] = 0.9 * x[i - 1] + 0.44 * rng.standard_normal()
    return pd.DataFrame(x[:, None] + 0.1 * rng.standard_normal((n, 2)), columns=["inlet", "outlet"])


@pytest.fixture(scope="module")
def detector():
    return SeriesDetector(kinds=("energy", "quiet")).fit(process(1500, 0))


@pytest.fixture(scope="module")
def normal():
    return process(1000, 1)


@pytest.fixture(scope="module")
def measured(detector, normal):
    return detectability(detector, normal, kinds=("shift", "drift", "noise"), sizes=SIZES, length=20)


def drawn(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=40)
    return buffer.getvalue()


def test_table_has_a_row_per_kind_and_channel(measured):
    assert list(measured.columns) == ["channel", "kind", "size", "found", "rows"]
    pairs = [(k, c) for k in ("shift", "drift", "noise") for c in ("inlet", "outlet")]
    assert list(zip(measured["kind"], measured["channel"], strict=True)) == pairs


def test_size_is_one_of_the_sizes_and_what_is_claimed_is_found(measured):
    assert set(measured["size"]) <= {*SIZES, np.inf}
    finite = np.isfinite(measured["size"])
    assert finite.any()
    assert (measured["found"][finite] >= 0.9).all() and (measured["found"] <= 1).all()
    assert measured["rows"][finite].between(0, 19).all(), "the first alarm lies inside the fault"


def test_large_faults_are_found_and_invisible_ones_are_not(detector, normal, measured):
    assert measured["size"].between(0.5, 8).all(), measured
    invisible = detectability(detector, normal, kinds=("shift",), sizes=(0.001, 0.002))
    assert np.isinf(invisible["size"]).all()
    assert (invisible["found"] < 0.9).all()


def test_a_drift_takes_longer_to_see_than_a_shift_of_its_size(normal):
    past = SeriesDetector(context="past", kinds=("energy", "quiet")).fit(process(1500, 0))
    late = detectability(past, normal, kinds=("shift", "drift"), sizes=(8.0,), length=20).groupby("kind")["rows"].mean()
    assert late["drift"] > late["shift"] >= 0


def test_a_sensor_that_others_confirm_shows_smaller_faults(detector, normal):
    rng = np.random.default_rng(5)
    alone = pd.DataFrame({"inlet": process(1500, 2)["inlet"], "outlet": rng.standard_normal(1500)})
    lonely = SeriesDetector(kinds=("energy", "quiet")).fit(alone)
    later = pd.DataFrame({"inlet": normal["inlet"], "outlet": rng.standard_normal(len(normal))})
    sizes = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
    confirmed, unconfirmed = (
        detectability(d, X, kinds=("shift",), sizes=sizes, length=20)["size"][0]
        for d, X in ((detector, normal), (lonely, later))
    )
    assert confirmed < unconfirmed, f"{confirmed} with a second sensor, {unconfirmed} without"


def test_order_of_sizes_does_not_matter_and_the_seed_repeats(detector, normal):
    runs = [
        detectability(detector, normal, kinds=("shift",), sizes=s, length=20, random_state=3)
        for s in ((0.5, 2.0), (2.0, 0.5))
    ]
    pd.testing.assert_frame_equal(*runs)


def test_faults_without_a_size_are_tried_once(detector, normal, monkeypatch):
    tried = []

    def counted(*args, **options):
        tried.append(args[1:])
        return inject(*args, **options)

    monkeypatch.setattr("diffad.detectability.inject", counted)
    table = detectability(detector, normal, kinds=("stuck",), sizes=SIZES, length=20)
    assert len(tried) == 2, "once per channel"
    assert set(table["size"]) <= {min(SIZES), np.inf}


def test_only_rows_around_the_faults_are_scored(normal):
    """A long recording costs no more than a short one."""
    rows = []

    class Counting(SeriesDetector):
        def decision_function(self, X):
            rows.append(len(X))
            return super().decision_function(X)

    detector = Counting(kinds=("energy", "quiet")).fit(process(800, 0))
    detectability(detector, pd.concat([normal] * 3, ignore_index=True), kinds=("shift",), sizes=(8.0,), n_events=4)
    assert rows == [4 * 25 * SPACING] * 2


@pytest.mark.filterwarnings("ignore:channels .* hold no value:UserWarning")
@pytest.mark.parametrize("kind", ["shift", "stuck"])
def test_an_outage_in_which_no_fault_shows_says_nothing_of_a_channel(detector, normal, kind):
    outage = normal.copy()
    outage.iloc[200:800, 0] = np.nan
    table = detectability(detector, outage, kinds=(kind,), sizes=(8.0,)).set_index("channel")
    assert table.loc["inlet", "size"] == 8 and table.loc["inlet", "found"] >= 0.9, table


@pytest.mark.filterwarnings("ignore:channels .* hold no value:UserWarning")
def test_of_a_channel_without_any_fault_nothing_is_known(detector, normal):
    table = detectability(detector, normal.assign(inlet=np.nan), kinds=("shift",), sizes=(8.0,)).set_index("channel")
    assert table.loc["inlet", ["found", "rows"]].isna().all() and np.isinf(table.loc["inlet", "size"])
    assert table.loc["outlet", "found"] >= 0


@pytest.mark.filterwarnings("ignore:channels .* hold no value:UserWarning")
def test_a_dead_sensor_hides_no_fault_that_the_other_would_show_alone(detector, normal):
    alone = SeriesDetector(kinds=("energy", "quiet")).fit(process(1500, 0)[["outlet"]])
    options = {"kinds": ("shift", "spike", "noise"), "sizes": (4.0, 8.0, 16.0, 32.0)}
    beside = detectability(detector, normal.assign(inlet=np.nan), **options).query("channel == 'outlet'")
    expected = detectability(alone, normal[["outlet"]], **options)
    assert (beside["size"].to_numpy() <= expected["size"].to_numpy()).all(), (beside, expected)


def test_share_that_must_be_found_decides(detector, normal):
    strict, lax = (
        detectability(detector, normal, kinds=("noise",), sizes=(0.1, 0.25, 0.5, 1, 2, 4), share=share, length=20)[
            "size"
        ]
        for share in (1.0, 0.3)
    )
    assert (lax <= strict).all() and (lax < strict).any()


def test_arrays_work_and_name_their_channels(normal):
    on_array = SeriesDetector(kinds=("energy", "quiet")).fit(process(1500, 0).to_numpy())
    table = detectability(on_array, normal.to_numpy(), kinds=("shift",), sizes=(8.0,), length=20)
    assert table["channel"].tolist() == on_array.channel_names_
    assert (table["size"] == 8).all()


def test_too_few_rows_are_refused_with_the_number_needed(detector, normal):
    with pytest.raises(ValueError, match=f"99 rows.*{SPACING * 25}"):
        detectability(detector, normal[:99], kinds=("shift",))
    assert len(detectability(detector, normal[:100], kinds=("shift",), sizes=(8.0,))) == 2


def test_unknown_kinds_and_sizes_without_size_are_refused(detector, normal):
    with pytest.raises(ValueError, match=r"kinds.*magic"):
        detectability(detector, normal, kinds=("magic",))
    for sizes in ((0.0, 1.0), 3.0, ("a",), (True,)):
        with pytest.raises(ValueError, match="sizes must hold"):
            detectability(detector, normal, kinds=("shift",), sizes=sizes)


@pytest.mark.parametrize("kinds", [(), [], None, 3, ("spike", "magic"), [["spike"]]])
def test_kinds_that_are_none_are_refused_before_anything_is_scored(detector, normal, monkeypatch, kinds):
    monkeypatch.setattr(detector, "decision_function", lambda X: pytest.fail("scored in vain"))
    with pytest.raises(ValueError, match=f"kinds must be some of .*'spike'.*got {re.escape(repr(kinds))}"):
        detectability(detector, normal, kinds=kinds)


def test_one_kind_may_be_given_by_its_name(detector, normal):
    options = {"sizes": (3.0,), "n_events": 2}
    pd.testing.assert_frame_equal(
        detectability(detector, normal, "shift", **options), detectability(detector, normal, ("shift",), **options)
    )


@pytest.mark.parametrize("options", [{"sizes": ()}, {"length": 0}, {"n_events": 0}, {"share": 1.5}, {"share": "a"}])
def test_parameters_that_make_no_sense_are_refused_by_name(detector, normal, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        detectability(detector, normal, **{"kinds": ("shift",), "sizes": (1.0,), **options})


# --- pictures ---------------------------------------------------------------------------------------------


def test_picture_of_detectability_has_a_map_and_its_scale(measured):
    figure = plot_detectability(measured)
    assert len(figure.axes) == 2
    ax, scale = figure.axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["inlet", "outlet"]
    assert [t.get_text() for t in ax.get_xticklabels()] == list(measured["kind"].unique())
    assert "standard deviations" in scale.get_ylabel()
    first = measured.set_index(["channel", "kind"]).loc[("inlet", measured["kind"].iloc[0])]
    assert ax.texts[0].get_text() == f"{first['size']:g}\n{first['rows']:.0f} rows"
    assert drawn(figure).startswith(b"\x89PNG")


def test_picture_gives_no_size_where_a_kind_has_none(measured):
    table = measured.iloc[:2].assign(kind="stuck", size=0.5, rows=3.0)
    assert {t.get_text() for t in plot_detectability(table).axes[0].texts} == {"found\n3 rows"}


def test_picture_keeps_the_order_of_channels_and_has_a_colour_for_every_size():
    channels = ["cpu1", "cpu10", "cpu2"][::-1]
    table = pd.DataFrame({"channel": channels, "kind": "shift", "size": [10.0, 20.0, 40.0], "rows": 3.0})
    ax, scale = plot_detectability(table).axes
    assert [t.get_text() for t in ax.get_yticklabels()] == channels
    colours = ax.images[0].to_rgba(ax.images[0].get_array())
    assert len({tuple(c) for c in colours.reshape(-1, 4)}) == 3
    assert [t.get_text() for t in scale.get_yticklabels()] == ["10", "20", "40"]


def test_picture_says_what_is_not_found(measured):
    figure = plot_detectability(measured.assign(size=np.inf, rows=np.nan))
    assert {t.get_text() for t in figure.axes[0].texts} == {"not\nfound"}
    drawn(figure)


@pytest.fixture(scope="module")
def detection(detector, normal):
    index = pd.date_range("2026-01-01", periods=400, freq="10s", name="time")
    faulty = inject(normal[:400].set_index(index), "shift", n_events=2, size=6.0, channels=[1], random_state=0)
    X = faulty.X
    parts = (X, detector.explain(X), -detector.score_samples(X), detector.offset_, detector.events(X))
    faults = pd.DataFrame({"start": index[faulty.events["start"]], "end": index[faulty.events["stop"] - 1]})
    return parts, faults


def test_picture_of_a_detection_has_a_panel_per_channel_and_one_for_the_score(detection):
    parts, faults = detection
    figure = plot_detection(*parts, faults=faults, units={"inlet": "bar"}, title="Pump 3")
    labels = [ax.get_ylabel() for ax in figure.axes]
    assert labels == ["inlet\n[bar]", "outlet", "score"]
    assert figure.axes[-1].get_yscale() == "log"
    assert figure.axes[-1].get_xlabel() == "time"
    assert figure.legends[0].get_title().get_text() == "Pump 3"
    entries = {t.get_text() for t in figure.legends[0].get_texts()}
    assert {"observed", "expected: 90 % band", "alarm: channel to blame", "threshold", "true fault"} == entries
    assert drawn(figure).startswith(b"\x89PNG")


def test_picture_draws_threshold_score_and_the_channel_to_blame(detection):
    parts, _ = detection
    X, _, score, offset, events = parts
    figure = plot_detection(*parts)
    lines = {line.get_label(): np.asarray(line.get_ydata(), float) for line in figure.axes[-1].get_lines()}
    np.testing.assert_allclose(lines["threshold"], -offset)
    assert any(len(y) == len(score) and np.allclose(y, score) for y in lines.values())
    assert len(events) >= 2
    for ax, name in zip(figure.axes, X.columns, strict=False):
        blamed = sum(name in channels for channels in events["channels"])
        assert len(ax.patches) == blamed, name
    assert len(figure.axes[-1].patches) == len(events)


def test_picture_of_some_channels_in_another_order_has_the_bands_of_these(detection):
    X, explanation, *rest = detection[0]
    figure = plot_detection(X[["outlet"]], explanation, *rest)
    drawn_band = figure.axes[0].collections[0].get_paths()[0].get_extents()
    assert drawn_band.ymin == pytest.approx(explanation.lower["outlet"].min())
    assert drawn_band.ymax == pytest.approx(explanation.upper["outlet"].max())


@pytest.mark.parametrize(
    ("index", "axis"),
    [
        (pd.period_range("2026-01", periods=400, freq="M", name="month"), "month"),
        (pd.to_timedelta(10 * np.arange(400), "s"), "time [s]"),
        (pd.Index([f"row {k}" for k in range(400)]), "row"),
    ],
)
def test_picture_of_other_indices(detection, index, axis):
    X, explanation, score, offset, events = detection[0]
    places = dict(zip(X.index, index, strict=True))
    told = events.assign(**{name: events[name].map(places) for name in ("start", "end", "peak")})
    figure = plot_detection(X.set_axis(index), explanation, score, offset, told)
    assert len(figure.axes[-1].patches) == len(events)
    assert figure.axes[-1].get_xlabel() == axis
    assert drawn(figure).startswith(b"\x89PNG")


def test_picture_without_events_faults_or_time(detector, normal):
    X = normal[:200]
    events = detector.events(X)[:0]
    figure = plot_detection(X, detector.explain(X), -detector.score_samples(X), detector.offset_, events)
    assert len(figure.axes) == 3
    assert figure.axes[-1].get_xlabel() == "row"
    assert not any("alarm" in t.get_text() or "fault" in t.get_text() for t in figure.legends[0].get_texts())
    drawn(figure)


def test_rows_that_are_missing_from_the_clock_move_no_fault():
    rng = np.random.default_rng(0)
    index = pd.date_range("2024-01-01", periods=1400, freq="1min")
    X = pd.DataFrame(rng.standard_normal((1400, 2)), index)
    detector = SeriesDetector(regularize=True, device="cpu").fit(X.iloc[:600])
    some = X.iloc[600:].iloc[np.sort(rng.permutation(800)[:700])]
    told = {"kinds": ["shift"], "sizes": [8.0], "n_events": 5}
    assert detectability(detector, some, **told)["found"].min() == 1
    assert injected_fault_score(detector, some) > 0.3
    scaled = make_pipeline(StandardScaler().set_output(transform="pandas"), SeriesDetector(regularize=True))
    assert injected_fault_score(make_pipeline(scaled).fit(X.iloc[:600]), some) > 0.3


@pytest.mark.parametrize(("name", "value"), [("n_events", 2.5), ("length", 25.0)])
def test_numbers_of_events_and_rows_are_whole(name, value):
    X = np.random.default_rng(0).standard_normal((800, 2))
    with pytest.raises(ValueError, match=name):
        detectability(SeriesDetector(device="cpu").fit(X[:400]), X[400:], **{name: value})
