"""Reasons say what an analyst can check: what was never met comes first, and nothing that looks normal is told."""

import numpy as np
import pandas as pd
import pytest

from diffad import TabularDetector
from diffad.detection import Explanation
from diffad.flows.ranges import Ranges
from diffad.flows.reasons import reasons_of


def traffic(n=1500, seed=0):
    """Return features in which packets and bytes tell each other, and most flows are web or names."""
    rng = np.random.default_rng(seed)
    web = rng.random(n) < 0.5
    packets = np.where(web, rng.lognormal(2.5, 0.5, n), 1.0).round()
    sent = packets * rng.uniform(400, 600, n)
    table = {"log_bytes_out": np.log1p(sent), "log_packets_out": np.log1p(packets)}
    table |= {"protocol": np.where(web, "tcp", "udp"), "service": np.where(web, "ssl", "dns")}
    return pd.DataFrame(table).astype({"protocol": "string", "service": "string"})


@pytest.fixture(scope="module")
def normal():
    return traffic()


@pytest.fixture(scope="module")
def detector(normal):
    return TabularDetector().fit(normal)


def flow(bytes_out, packets_out, protocol="tcp", service="ssl"):
    row = traffic(1)
    row["log_bytes_out"], row["log_packets_out"] = np.log1p(bytes_out), np.log1p(packets_out)
    row["protocol"], row["service"] = protocol, service
    return row


class Told:
    """Stands for a detector whose explanation is known."""

    def __init__(self, share, expected, lower, upper):
        self.parts = [pd.DataFrame([part]) for part in (share, expected, lower, upper)]

    def explain(self, table):
        return Explanation(*self.parts)


def test_what_is_beyond_everything_met_comes_before_common_categories(normal, detector):
    """Bytes excuse packets and packets excuse bytes; a reader wants to know of both."""
    (reasons,) = reasons_of(flow(2.5e9, 5e6), detector, Ranges.fit(normal))
    assert {reason["feature"] for reason in reasons[:2]} == {"bytes_out", "packets_out"}
    met = np.expm1(normal["log_bytes_out"])
    told = next(reason for reason in reasons if reason["feature"] == "bytes_out")
    assert told["upper"] == pytest.approx(met.quantile(0.999), rel=0.05)
    assert told["expected"] == pytest.approx(met.median(), rel=0.05)
    assert told["text"] == f"bytes out 2.5 GB, normal at most {told['upper'] / 1e3:.3g} kB"


def test_what_is_strange_only_given_the_rest_is_told_with_its_band(normal, detector):
    (reasons,) = reasons_of(flow(500, 30), detector, Ranges.fit(normal))
    told = next(reason for reason in reasons if reason["feature"] in ("bytes_out", "packets_out"))
    assert " to " in told["text"] and "at most" not in told["text"]


def test_a_quantity_is_told_once_whatever_its_windows():
    names = ["log_bytes_out", "log_bytes_out_10s", "log_bytes_out_600s", "log_packets_out"]
    table = pd.DataFrame(np.random.default_rng(0).random((300, 4)), columns=names)
    strange = table.head(1).assign(**dict(zip(names, (9.0, 8.0, 7.0, 6.0), strict=True)))
    (reasons,) = reasons_of(strange, TabularDetector().fit(table), Ranges.fit(table))
    assert [reason["feature"] for reason in reasons] == ["bytes_out", "packets_out"]


def test_numbers_are_beyond_by_their_distance_and_rare_categories_by_one():
    ranges = Ranges.fit(pd.DataFrame({"x": np.linspace(0, 10, 10_001), "c": ["often"] * 9_995 + ["once"] * 6}))
    seen = pd.DataFrame({"x": [5.0, 10.5, 12.0, -2.0, np.nan], "c": ["often", "once", "never", None, "often"]})
    beyond = ranges.beyond(seen)
    np.testing.assert_allclose(beyond["x"], [0, 0, 2, 2, 0], atol=0.011)  # a thousandth of the numbers lies outside
    assert beyond["c"].tolist() == [0, 1, 1, 0, 0]


def test_attacks_among_the_normal_flows_are_not_what_was_met():
    table = pd.DataFrame({"x": np.r_[np.linspace(0, 1, 990), np.full(10, 1e6)]})
    strange = pd.DataFrame({"x": [1e6]})
    assert Ranges.fit(table).beyond(strange)["x"].item() == 0
    assert Ranges.fit(table, contamination=0.02).beyond(strange)["x"].item() > 9e5


@pytest.mark.parametrize(
    ("bytes_out", "band", "text"),
    [
        (700, (-9, -1), "bytes out 700 B, normal about 0 B"),
        (700, (np.log1p(99.99), np.log1p(100.01)), "bytes out 700 B, normal about 100 B"),
        (700, (np.log1p(100), np.log1p(200)), "bytes out 700 B, normal 100 B to 200 B"),
        # Out of the band by less than is written: the next to blame is told.
        (700.3, (np.log1p(100), np.log1p(700.1)), "protocol tcp, normal udp"),
    ],
)
def test_bands_are_written_so_that_they_differ_from_what_was_shown(normal, bytes_out, band, text):
    row = flow(bytes_out, 3)[["log_bytes_out", "protocol"]]
    lower, upper = ({"log_bytes_out": edge, "protocol": np.nan} for edge in band)
    told = Told(
        {"log_bytes_out": 0.9, "protocol": 0.1}, {"log_bytes_out": np.mean(band), "protocol": "udp"}, lower, upper
    )
    (reasons,) = reasons_of(row, told, Ranges.fit(normal[row.columns]))
    assert reasons[0]["text"] == text


def told_of(name, value, expected, lower, upper):
    """Return the reasons for a row of one feature with its band given all others, on the scale of the features."""
    table = pd.DataFrame({name: [float(k) for k in range(20)]})
    parts = ({name: part} for part in (1.0, expected, lower, upper))
    (reasons,) = reasons_of(pd.DataFrame({name: [value]}), Told(*parts), Ranges.fit(table))
    return [reason["text"] for reason in reasons]


def test_what_is_missing_is_no_reason():
    assert told_of("log_bytes_in", np.nan, 3.0, 2.0, 4.0) == []


def test_a_band_without_a_whole_number_holds_those_next_to_it():
    inside = told_of("log_peers_10s", np.log1p(2), np.log1p(1.5), np.log1p(1.48), np.log1p(1.66))
    assert inside == ["unusual as a whole, above all peers 10s 2"]
    beyond = told_of("log_peers_10s", np.log1p(5), np.log1p(1.5), np.log1p(1.48), np.log1p(1.66))
    assert beyond == ["peers 10s 5, normal 1 to 2"]


def test_of_a_band_of_counts_the_whole_numbers_are_told():
    told = told_of("log_connections_10s", np.log1p(6), np.log1p(2), np.log1p(0.961), np.log1p(3.05))
    assert told == ["connections 10s 6, normal 1 to 3"]


def test_what_is_strange_only_as_a_whole_is_told_together():
    assert told_of("log_interval_ms", np.log1p(64_000), np.log1p(64_010), np.log1p(64_005), np.log1p(64_015)) == [
        "unusual as a whole, above all interval 64 s"
    ]


def test_numbers_come_back_from_logarithms_as_they_were():
    table = pd.DataFrame({"log_bytes_out": np.log1p(np.arange(100.0))})
    strange = pd.DataFrame({"log_bytes_out": np.log1p([4e9])})
    ((reason,),) = reasons_of(strange, TabularDetector().fit(table), Ranges.fit(table))
    assert reason["value"] == 4e9
