"""The command line of network traffic: ``diffad flows fit`` and ``diffad flows score``."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffad.base.whole_files import replacing
from diffad.command_line import errors_in_one_line

if TYPE_CHECKING:
    import pandas as pd

    from diffad.flows.alerts import FlowModel, Limits

flows = typer.Typer(help="Learn what traffic is normal, and find what is not.", no_args_is_help=True)

FORMAT_HELP = "auto, zeek, zeek-json, suricata, nfdump, cicflowmeter or pcap."
TIMEZONE_HELP = "Zone of times written without one (nfdump, CICFlowMeter), as Europe/Berlin."


@flows.command()
def fit(
    logs: Annotated[list[Path], typer.Argument(help="Flow logs of normal traffic, in the order of time.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to save the model.")],
    format: Annotated[str, typer.Option(help=FORMAT_HELP)] = "auto",
    contamination: Annotated[float, typer.Option(help="Share of the flows that may be attacks.")] = 0.0,
    timezone: Annotated[str, typer.Option(help=TIMEZONE_HELP)] = "UTC",
    local: Annotated[
        list[str] | None,
        typer.Option(help="Network of your own beside the private ones, as 203.0.113.0/24; may be given repeatedly."),
    ] = None,
) -> None:
    """Learn what traffic is normal."""
    from diffad.files.tables import check_place
    from diffad.flows.alerts import FlowModel
    from diffad.flows.features import PRIVATE

    with errors_in_one_line():
        check_place(output, *logs)
        inside = (*PRIVATE, *local) if local else None
        model = FlowModel.fit(_in_order(logs, format, timezone), contamination, inside)
        model.save(output)
    typer.echo(f"learnt from {model.n_flows} flows, {model.flows_per_day:.0f} a day; model: {output}")


def _in_order(logs: list[Path], format: str, timezone: str) -> Iterator[pd.DataFrame]:
    """Yield the flows of logs; what a source did before is part of each flow, so they must come in the order of time."""
    from diffad.flows.alerts import FEWEST
    from diffad.flows.readers import read_flows

    twice = [log for k, log in enumerate(logs) if log.resolve() in [other.resolve() for other in logs[:k]]]
    if twice:
        raise ValueError(f"{twice[0]} is named twice; its flows would count double")
    earlier, then, n_flows = None, None, 0
    for log in logs:
        now = None
        for chunk in read_flows(log, format, timezone=timezone):
            if now is None:
                # Not the first flow: logs are written as flows end, and a few have lasted for days.
                now = chunk["start"].median()
                if then is not None and now < then:
                    raise ValueError(f"{log} is of an earlier time than {earlier}; name the logs in the order of time")
            n_flows += len(chunk)
            yield chunk
        if now is not None:
            earlier, then = log, now
    if n_flows < FEWEST:
        names = ", ".join(map(str, logs))
        raise ValueError(
            f"{names}: {n_flows} flows; a model of normal traffic takes at least {FEWEST}, give longer logs"
        )


@flows.command()
def score(
    log: Annotated[Path, typer.Argument(help="Flow log to judge.")],
    model: Annotated[Path, typer.Option(help="As saved by `diffad flows fit`.")],
    alerts_per_day: Annotated[float, typer.Option(help="Alerts a day on normal traffic to put up with.")] = 20.0,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="JSON lines (ECS), or CSV by its ending. Default: LOG.alerts.jsonl"),
    ] = None,
    format: Annotated[str, typer.Option(help=FORMAT_HELP)] = "auto",
    timezone: Annotated[str, typer.Option(help=TIMEZONE_HELP)] = "UTC",
    follow: Annotated[bool, typer.Option("--follow", help="Go on with lines that are yet to come.")] = False,
    state: Annotated[
        Path | None, typer.Option(help="With --follow: what a restart needs. Default: OUTPUT.state")
    ] = None,
) -> None:
    """Write alerts with reasons, grouped into incidents."""
    from diffad.files.tables import check_place
    from diffad.flows.alerts import FlowModel

    with errors_in_one_line():
        if state is not None and not follow:
            raise ValueError("--state is for --follow")
        if log.is_dir():
            raise ValueError(f"{log} is a folder; name a file")
        output = output or log.with_name(log.name + ".alerts.jsonl")
        check_place(output, log, model)
        judge = FlowModel.load(model)
        limits = judge.limits(alerts_per_day)
        if follow:
            state = state or output.with_name(output.name + ".state")
            check_place(state, log, model, output)
            _follow(log, judge, output, limits, format, state, timezone)
        else:
            _score(log, judge, output, limits, format, timezone)


def _score(log: Path, model: FlowModel, output: Path, limits: Limits, format: str, timezone: str) -> None:
    import pandas as pd

    from diffad.flows.ecs import ecs_lines
    from diffad.flows.incidents import Incidents, incidents
    from diffad.flows.readers import read_flows
    from diffad.flows.reasons import why
    from diffad.flows.table import no_flows

    watch, grouping = model.watch(), Incidents()
    # An hour without traffic has the same columns as any other.
    n_flows, parts = 0, [grouping.assign(model.alerts(no_flows(), model.watch(), limits))]
    for chunk in read_flows(log, format, timezone=timezone):
        n_flows += len(chunk)
        parts.append(grouping.assign(model.alerts(chunk, watch, limits)))
    alerts = pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
    with replacing(output) as draft:
        if output.suffix == ".csv":
            alerts.assign(reasons=alerts["reasons"].map(why)).to_csv(draft, index=False)
        else:
            draft.write_text("".join(line + "\n" for line in ecs_lines(alerts)))
    found = incidents(alerts) if len(alerts) else alerts
    typer.echo(f"{len(alerts)} alerts in {len(found)} incidents among {n_flows} flows; written to {output}")
    for row in found.head(20).itertuples():
        typer.echo(f"  {row.incident}  {row.alerts} flows to {row.destinations} hosts, {row.ports} ports: {row.why}")


def _follow(log: Path, model: FlowModel, output: Path, limits: Limits, format: str, state: Path, timezone: str) -> None:
    from diffad.flows.follow import Follower, only_follower

    if output.suffix == ".csv":
        raise ValueError(f"--follow appends JSON lines; {output} is named like a CSV file, give it another ending")
    if not log.exists() and not state.exists() and format == "auto":
        raise FileNotFoundError(f"there is no file {log}; say --format zeek or another to wait for it")
    with only_follower(output):
        follower = Follower(log, model, output, limits, format, state, timezone)
        # To the first process of a container signals without a handler do nothing.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        typer.echo(f"following {log}; alerts go to {output}; stop with Ctrl-C or SIGTERM")
        try:
            follower.run()
        except KeyboardInterrupt:
            typer.echo("stopped; the same command goes on from here")
        finally:
            signal.signal(signal.SIGTERM, before)
