"""The report of an inspection as one HTML file that needs nothing else: pictures are inside."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffad.base.arguments import check_count
from diffad.image_detector import ImageDetector, ImageExplanation
from diffad.inspection.folders import Folder
from diffad.inspection.pictures import brightest, plot_inspection, plot_scores

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1f2933; background: #fff; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem }
h1, h2 { line-height: 1.2 } img { max-width: 100%; height: auto }
figure { margin: 1.5rem 0; border-top: 1px solid #ccd3da; padding-top: .6rem }
figcaption { font-weight: 600 } .alarm { background: #D55E00; color: #fff; padding: .05rem .5rem; border-radius: .3rem }
.pass { border: 1px solid #7b8794; padding: .05rem .5rem; border-radius: .3rem }
table { border-collapse: collapse } td, th { padding: .2rem .9rem .2rem 0; text-align: left; font-weight: normal }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums } th { border-bottom: 1px solid #7b8794 }
"""


@dataclass(frozen=True)
class Inspection:
    """What a detector says of a folder.

    Attributes
    ----------
    folder : Folder
    strangeness, p_values : array (n,)
    threshold : float
        Strangeness above which an image alarms.
    worst : array of int
        Images to show, strangest first.
    found : ImageExplanation
        Of the images `worst`.
    """

    folder: Folder
    strangeness: NDArray[np.float64]
    p_values: NDArray[np.float64]
    threshold: float
    worst: NDArray[np.int64]
    found: ImageExplanation

    @classmethod
    def of(cls, detector: ImageDetector, folder: Folder, n_worst: int = 24) -> Inspection:
        """Judge all images and explain the strangest."""
        check_count(n_worst, "n_worst")
        strangeness = -detector.score_samples(folder.images)
        worst = np.argsort(-strangeness, kind="stable")[:n_worst]
        found = detector.explain(folder.images[worst])
        p_values = detector.normal_.p_values(strangeness)
        return cls(folder, strangeness, p_values, -detector.offset_, worst, found)

    @property
    def alarms(self) -> NDArray[np.bool_]:
        """Which images alarm."""
        return np.asarray(self.strangeness > self.threshold)

    def sheet(self, n: int = 12) -> Any:
        """Return a figure of the `n` worst images."""
        n = min(n, len(self.worst))
        # A dollar would begin a formula.
        titles = [f"{self.folder.names[i]}: {self._verdict(i)}".replace("$", r"\$") for i in self.worst[:n]]
        return plot_inspection(self.folder.images[self.worst[:n]], _part(self.found, slice(n)), titles)

    def _verdict(self, i: int) -> str:
        return f"{self.strangeness[i]:.3g} ({'alarm' if self.alarms[i] else 'pass'})"


def html(inspection: Inspection, good: Folder, normal: NDArray[np.float64]) -> str:
    """Return the report.

    Parameters
    ----------
    inspection : Inspection
    good : Folder
        What the detector was fitted on.
    normal : array
        Cross-fitted strangeness of the good images.
    """
    folder, alarms = inspection.folder, inspection.alarms
    height, width = folder.images.shape[1:3]
    parts = [
        f"<h1>{alarms.sum()} of {len(alarms)} images alarm</h1>",
        f"<p>Learnt from {len(good.names)} good images. An image alarms above a score of "
        f"{inspection.threshold:.3g}; the p-value is the share of good images that look at least as strange. Images "
        f"were judged at {width} x {height} pixels.</p>",
        _picture(plot_scores(normal, inspection.strangeness, inspection.threshold), "Scores and threshold"),
        *_remarks(good, "good"),
        *_remarks(folder, "inspected"),
        f"<h2>The {len(inspection.worst)} strangest</h2>",
        "<p>Left the image, its hot region outlined; in the middle the heat, where good images are about 1; right "
        "what the good images make of it.</p>",
        *_figures(inspection),
        f"<h2>All {len(alarms)} images</h2>{_table(inspection)}",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width"><title>Inspection</title><style>{STYLE}</style></head>\n<body>\n'
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _figures(inspection: Inspection) -> list[str]:
    top, parts = brightest(inspection.found), []
    for rank, i in enumerate(inspection.worst):
        figure = plot_inspection(
            inspection.folder.images[i : i + 1], _part(inspection.found, slice(rank, rank + 1)), [""], top
        )
        name = escape(inspection.folder.names[i])
        parts.append(
            f"<figure><figcaption>{rank + 1}. {name} {_badge(inspection.alarms[i])} score "
            f"{inspection.strangeness[i]:.3g}, p = {inspection.p_values[i]:.2g}</figcaption>"
            f"{_picture(figure, f'{name}: image, heat, expected image')}</figure>"
        )
    return parts


def _table(inspection: Inspection) -> str:
    order = np.argsort(-inspection.strangeness, kind="stable")
    rows = [
        f'<tr><td>{escape(inspection.folder.names[i])}</td><td class="number">{inspection.strangeness[i]:.3g}</td>'
        f'<td class="number">{inspection.p_values[i]:.2g}</td><td>{_badge(inspection.alarms[i])}</td></tr>'
        for i in order
    ]
    head = '<tr><th>file</th><th class="number">score</th><th class="number">p-value</th><th></th></tr>'
    return f"<details><summary>Scores of all images</summary><table>{head}{''.join(rows)}</table></details>"


def _remarks(folder: Folder, which: str) -> list[str]:
    parts = []
    if folder.skipped:
        items = "".join(f"<li>{escape(n)}: {escape(why)}</li>" for n, why in folder.skipped.items())
        parts.append(f"<h2>{len(folder.skipped)} {which} files could not be read</h2><ul>{items}</ul>")
    if folder.resized:
        items = "".join(f"<li>{escape(n)}</li>" for n in folder.resized)
        title = f"{len(folder.resized)} {which} images had another size than {folder.size[1]} x {folder.size[0]}"
        parts.append(f"<h2>{title} and were resized</h2><ul>{items}</ul>")
    return parts


def _badge(alarm: bool) -> str:
    return '<span class="alarm">alarm</span>' if alarm else '<span class="pass">pass</span>'


def _picture(figure: Any, alternative: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{alternative}" src="data:image/png;base64,{data}">'


def _part(found: ImageExplanation, rows: slice) -> ImageExplanation:
    return ImageExplanation(found.heat[rows], found.expected[rows], found.lower[rows], found.upper[rows])
