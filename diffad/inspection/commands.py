"""The command line of inspection: ``diffad inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffad.base.whole_files import replacing
from diffad.command_line import errors_in_one_line, speaking_of

if TYPE_CHECKING:
    from diffad.inspection.folders import Folder


def inspect(
    folder: Annotated[
        Path, typer.Argument(help="Pictures to judge: PNG, JPEG, TIFF, BMP, PGM or PPM, also in subfolders.")
    ],
    fit_on: Annotated[Path, typer.Option(help="A folder of pictures of good parts, at least 8.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The report, one HTML file.")] = Path("report.html"),
    false_alarm_rate: Annotated[
        float, typer.Option(help="Share of good images that may alarm; below 1 / good images it is a guess.")
    ] = 0.01,
    contamination: Annotated[float, typer.Option(help="Share of the good pictures that may be defective.")] = 0.0,
    worst: Annotated[int, typer.Option(help="Images to show, strangest first.")] = 24,
    longest_side: Annotated[int, typer.Option(help="Larger pictures are shrunk to this many pixels.")] = 256,
) -> None:
    """Find defects in the pictures of FOLDER after seeing good ones, and show where they are."""
    from diffad.base.arguments import check_count
    from diffad.files.tables import check_place
    from diffad.image_detector import ImageDetector
    from diffad.inspection.folders import ENDINGS, read_folder
    from diffad.inspection.report import Inspection, html
    from diffad.thresholds import FalseAlarmRate

    with errors_in_one_line():
        check_place(output)
        check_count(worst, "--worst")
        if output.suffix.lower() in ENDINGS:
            raise ValueError(f"{output} is named like a picture, but the report is HTML; name it .html")
        detector = ImageDetector(FalseAlarmRate(false_alarm_rate), contamination)
        good = read_folder(fit_on, longest_side=longest_side)
        _warn(good, fit_on)
        new = read_folder(folder, like=good, longest_side=longest_side)
        _warn(new, folder)
        with speaking_of(fit_on):
            detector.fit(good.images)
        with speaking_of(folder):
            inspection = Inspection.of(detector, new, worst)
        page = html(inspection, good, detector.normal_.scores)
        with replacing(output) as draft:
            draft.write_text(page, encoding="utf-8", errors="backslashreplace")
    typer.echo(f"{inspection.alarms.sum()} of {len(new.names)} images alarm, written to {output}")
    for i in inspection.worst[inspection.alarms[inspection.worst]][:20]:
        typer.echo(f"  {new.names[i]}  score {inspection.strangeness[i]:.3g}, p = {inspection.p_values[i]:.2g}")


def _warn(folder: Folder, path: Path) -> None:
    for name, why in folder.skipped.items():
        typer.secho(f"warning: skipped {path / name}: {why}", err=True, fg=typer.colors.YELLOW)
    if folder.resized:
        names = ", ".join(folder.resized[:5]) + (" ..." if len(folder.resized) > 5 else "")
        height, width = folder.size
        typer.secho(
            f"warning: {len(folder.resized)} pictures in {path} are not {width} x {height} and were resized: {names}",
            err=True,
            fg=typer.colors.YELLOW,
        )
