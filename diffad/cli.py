"""The command line: ``diffad impute``, ``diffad detect``, ``diffad inspect``, ``diffad flows`` and ``diffad demo``."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffad.base.whole_files import beside, ending
from diffad.command_line import errors_in_one_line, show_warning, speaking_of
from diffad.flows.commands import flows
from diffad.inspection.commands import inspect

if TYPE_CHECKING:
    import pandas as pd

    from diffad.series_detector import SeriesDetector

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
app.add_typer(flows, name="flows")
app.command()(inspect)


def _show_version(asked: bool) -> None:
    if asked:
        from diffad import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Find anomalies in sensor data, network traffic and images, and fill gaps in recordings."""
    context.with_resource(warnings.catch_warnings())
    warnings.showwarning = show_warning


@app.command()
def impute(
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV (commas, semicolons, tabs or bars) or Parquet; a first column of timestamps is recognised."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Default: FILE with '.filled' before its ending.")
    ] = None,
    coverage: Annotated[float, typer.Option(help="Coverage of the band columns.")] = 0.9,
    steps: Annotated[
        int | None, typer.Option(help="Training steps of the network; 0 is the closed form alone. Default: 3,000.")
    ] = None,
    plot: Annotated[bool, typer.Option("--plot", help="Also draw a picture beside the output.")] = False,
    regularize: Annotated[bool, typer.Option(help="Put irregular timestamps on a regular grid.")] = False,
) -> None:
    """Fill the gaps of FILE and add the edges of a band for every column that had gaps."""
    from diffad.base.arguments import check_count, check_share
    from diffad.files.tables import check_place, check_writable, read_table, write_table
    from diffad.series_imputer import SeriesImputer
    from diffad.training import Training

    with errors_in_one_line():
        check_share(coverage, "--coverage")
        if steps is not None:
            check_count(steps, "--steps", least=0)
        output = output or beside(file, ".filled" + ending(file))
        picture = beside(output, ".png")
        table = read_table(file)
        check_writable(output, file)
        if plot:
            check_place(picture, file)
        observed = _read(table, file, regularize)[0].template
        gaps = [k for k, name in enumerate(observed.columns) if observed[name].isna().any()]
        edges = [f"{observed.columns[k]}_{edge}" for k in gaps for edge in ("lower", "upper")]
        taken = [name for name in edges if name in observed]
        if taken:
            raise ValueError(f"{file} has a column {taken[0]!r}, which is the name of a band's edge; rename it")
        if not gaps:
            write_table(observed, output)
            typer.echo(f"{file} has no gaps; written to {output} as it is" + (", no picture drawn" if plot else ""))
            return
        training = Training(progress=True) if steps is None else Training(max_steps=steps, progress=True)
        with speaking_of(file):
            imputer = SeriesImputer(training=training).fit(observed)
            filled = imputer.transform(observed)
            lower, upper = imputer.interval(observed, coverage)
        bands = [edge[:, k] for k in gaps for edge in (lower, upper)]
        write_table(filled.assign(**dict(zip(edges, bands, strict=True))), output)
        n_filled = int((observed.isna() & filled.notna()).sum().sum())
        typer.echo(f"filled {n_filled} values of {file} into {output}")
        if plot:
            from diffad.plot import plot_imputation, write_picture

            gaps = gaps[:12]
            columns = observed.columns[gaps]
            figure = plot_imputation(
                observed[columns], filled[columns].to_numpy(), lower[:, gaps], upper[:, gaps], coverage=coverage
            )
            write_picture(figure, picture, dpi=120)
            typer.echo(f"picture: {picture}")


@app.command()
def detect(
    file: Annotated[Path, typer.Argument(help="CSV or Parquet; a first column of timestamps is recognised.")],
    fit_on: Annotated[Path, typer.Option(help="A recording of normal operation with the same columns.")],
    alarms_per_day: Annotated[
        float | None, typer.Option(help="False events a day to allow; needs timestamps. Default: 1 % of the rows.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Default: FILE with '.alarms.csv' for its ending.")
    ] = None,
    contamination: Annotated[float, typer.Option(help="Share of the normal recording that may be faults.")] = 0.0,
    plot: Annotated[
        bool, typer.Option("--plot", help="Also draw a picture beside the output, and one of what can be seen.")
    ] = False,
    detectability: Annotated[
        bool | None,
        typer.Option(
            help="Measure which faults of which size are found, and how late, on the last fifth of the normal "
            "recording by a detector of the rest: minutes for many channels. Default: with --plot.",
        ),
    ] = None,
    regularize: Annotated[bool, typer.Option(help="Put irregular timestamps on a regular grid.")] = False,
) -> None:
    """Find the anomalies of FILE and write one line per event: when, how bad, which channels."""
    from sklearn.base import clone

    from diffad.detectability import LEAST_RECORDING
    from diffad.files.tables import check_place, check_writable, read_table, write_table
    from diffad.series_detector import SeriesDetector
    from diffad.thresholds import AlarmsPerDay, FalseAlarmRate

    with errors_in_one_line():
        output = output or beside(file, ".alarms.csv")
        pictures = [beside(output, ".png"), beside(output, ".detectability.png")] if plot else []
        for further in [beside(output, ".detectability.csv"), *pictures] if plot or detectability else []:
            check_place(further, file, fit_on)
        threshold = FalseAlarmRate() if alarms_per_day is None else AlarmsPerDay(alarms_per_day)
        check_writable(output, file, fit_on)
        recording, period = _read(read_table(fit_on), fit_on, regularize)
        normal = recording.template
        if detectability and len(normal) < LEAST_RECORDING:
            raise ValueError(f"{fit_on} has {len(normal)} rows; --detectability takes at least {LEAST_RECORDING}")
        table = _read(read_table(file), file, regularize, period)[0].template
        missing = [str(c) for c in normal.columns if c not in table.columns]
        if missing:
            raise ValueError(f"{file} lacks the columns {missing} of {fit_on}")
        unknown = [str(c) for c in table.columns if c not in normal.columns]
        if unknown:
            raise ValueError(f"{file} has columns {unknown} that {fit_on} lacks; remove them")
        table = table[normal.columns]
        with speaking_of(fit_on):
            detector = SeriesDetector(threshold=threshold, contamination=contamination).fit(normal)
        with speaking_of(file):
            found = detector.events(table)
        write_table(found.assign(channels=found["channels"].map(";".join)), output)
        typer.echo(f"{len(found)} events in {file}, written to {output}")
        if plot:
            with speaking_of(file):
                _draw_alarms(detector, table, found, pictures[0])
        # Unasked, a recording that is too short is no error.
        if detectability or (detectability is None and plot and len(normal) >= LEAST_RECORDING):
            with speaking_of(fit_on):
                _measure_detectability(clone(detector), normal, beside(output, ".detectability.csv"), plot)


def _read(table: pd.DataFrame, file: Path, regularize: bool, period: float | None = None) -> tuple[Any, float | None]:
    """Return the recording that a table holds, and its sampling period in seconds; errors name the file."""
    from diffad.series.recordings import read

    try:
        with speaking_of(file):
            return read(table, regularize=regularize, period=period)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _draw_alarms(detector: SeriesDetector, table: pd.DataFrame, found: pd.DataFrame, picture: Path) -> None:
    """Draw the channels most to blame, the score and the events."""
    from diffad.plot import plot_detection, write_picture

    explanation = detector.explain(table)
    blame = explanation.share.sum().sort_values(ascending=False).index[:8]
    columns = [c for c in table.columns if c in set(blame)]
    figure = plot_detection(table[columns], explanation, -detector.score_samples(table), detector.offset_, found)
    write_picture(figure, picture, dpi=120)
    typer.echo(f"picture: {picture}")


def _measure_detectability(detector: SeriesDetector, normal: pd.DataFrame, output: Path, plot: bool) -> None:
    """Write, and perhaps draw, what a detector of the first four fifths sees in the last."""
    from diffad.detectability import REPORT, detectability
    from diffad.files.tables import write_table

    rest = 4 * len(normal) // 5
    table = detectability(detector.fit(normal.iloc[:rest]), normal.iloc[rest:], **REPORT)
    write_table(table, output)
    typer.echo(f"what can be seen: {output}")
    if plot:
        from diffad.plot import plot_detectability, write_picture

        write_picture(plot_detectability(table), output.with_suffix(".png"), dpi=120)
        typer.echo(f"picture: {output.with_suffix('.png')}")


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where the filled values, the alarms and the pictures go.")] = Path(
        "demo-output"
    ),
    steps: Annotated[int, typer.Option(help="Training steps of the network.")] = 100,
) -> None:
    """Fill gaps of the embedded recording and find its provoked faults; measure, draw and track it: two minutes."""
    from diffad.base.arguments import check_count
    from diffad.demo import run

    with errors_in_one_line():
        check_count(steps, "--steps", least=0)
        run(folder, steps)


if __name__ == "__main__":
    app()
