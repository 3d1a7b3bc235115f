"""From flow logs to incidents an analyst can read, tracked in MLflow.

    python pipelines/network.py                                          the embedded flows
    python pipelines/network.py --normal monday.log --new today.log      your logs, any format
    python pipelines/network.py --nsl-kdd FOLDER                         also KDDTrain+_20Percent.txt and KDDTest+.txt

Read, features, fit, calibrate, score, explain, group, log: copy it and put your own logs in.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from diffad import TabularDetector, autolog
from diffad.base.whole_files import replacing
from diffad.datasets import load_traffic
from diffad.files.tables import write_table
from diffad.flows import load_flows
from diffad.flows.alerts import FlowModel
from diffad.flows.ecs import ecs_lines
from diffad.flows.incidents import Incidents, incidents


def embedded() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return normal flows, flows to judge, and which of these belong to which attack."""
    flows, _ = load_traffic()
    first = int(flows["label"].notna().to_numpy().argmax())
    table, truth = flows.drop(columns=["label", "attack_id"]), flows[["label", "attack_id"]]
    return table.iloc[:first], table.iloc[first:].reset_index(drop=True), truth.iloc[first:].reset_index(drop=True)


def found(alerts: pd.DataFrame, score: np.ndarray, truth: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, float]]:
    """Return, per kind of attack, how many were noticed, how many of their flows alarm, and how well scores rank these.

    Beside it figures of all kinds together.
    """
    kinds, alarm = truth["label"].to_numpy(dtype=object, na_value=""), np.zeros(len(truth), bool)
    alarm[alerts.index] = True
    normal = kinds == ""
    rows = []
    for kind in sorted(set(kinds) - {""}):
        here = kinds == kind
        both = here | normal
        attacks, noticed = truth["attack_id"][here].nunique(), truth["attack_id"][here & alarm].nunique()
        rows.append((kind, attacks, noticed, here.sum(), alarm[here].mean(), roc_auc_score(here[both], score[both])))
    rows.append(("normal", 0, 0, normal.sum(), alarm[normal].mean(), np.nan))
    table = pd.DataFrame(rows, columns=["kind", "attacks", "noticed", "flows", "share of alarms", "ROC-AUC"])
    attack = pd.Series(~normal).loc[alerts.index].groupby(alerts["incident"]).any()
    figures = {
        "roc_auc": float(roc_auc_score(~normal, score)),
        "pr_auc": float(average_precision_score(~normal, score)),
        "attacks_noticed": int(table["noticed"].sum()),
        "incidents_without_attack": int((~attack).sum()),
    }
    return table, figures


def nsl_kdd(folder: Path) -> None:
    """Fit on the normal rows of the 20 % training file, score the test file."""
    train, test = (pd.read_csv(folder / name, header=None) for name in ("KDDTrain+_20Percent.txt", "KDDTest+.txt"))
    label = test.pop(41) != "normal"
    good = train[train[41] == "normal"].drop(columns=[41, 42])
    detector = TabularDetector().fit(good.rename(columns=str))
    score = -detector.score_samples(test.drop(columns=[42]).rename(columns=str))
    print(f"NSL-KDD: ROC-AUC {roc_auc_score(label, score):.3f}, PR-AUC {average_precision_score(label, score):.3f}")
    mlflow.log_metrics(
        {"nsl_kdd_roc": roc_auc_score(label, score), "nsl_kdd_pr": average_precision_score(label, score)}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--normal", type=Path, help="log of flows without attacks")
    parser.add_argument("--new", type=Path, help="log to judge")
    parser.add_argument("--alerts-per-day", type=float, default=200.0, help="of traffic such as --normal")
    parser.add_argument("--output", type=Path, default=Path("network-output"), help="folder")
    parser.add_argument("--nsl-kdd", type=Path, help="folder of NSL-KDD, judged as well")
    options = parser.parse_args()
    if (options.normal is None) != (options.new is None):
        parser.error("give both --normal and --new, or neither for the embedded flows")
    truth = None
    if options.normal and options.new:
        normal, new = load_flows(options.normal), load_flows(options.new)
    else:
        normal, new, truth = embedded()

    autolog()
    options.output.mkdir(parents=True, exist_ok=True)
    with mlflow.start_run(run_name="network"):
        model = FlowModel.fit(normal)
        model.save(options.output / "traffic.model")
        limits = model.limits(options.alerts_per_day)
        alerts = Incidents().assign(model.alerts(new, model.watch(), limits))
        grouped = incidents(alerts)
        with replacing(options.output / "alerts.jsonl") as draft:
            draft.write_text("".join(line + "\n" for line in ecs_lines(alerts)))
        write_table(grouped, options.output / "incidents.csv")
        print(f"{len(alerts)} alerts in {len(grouped)} incidents among {len(new)} flows; the strangest:")
        for row in grouped.head(12).itertuples():
            print(f"  {row.source:14s} {row.alerts:5d} flows, {row.destinations} hosts, {row.ports} ports: {row.why}")
        if truth is not None:
            score = -model.detector.score_samples(model.watch().update(new))
            table, figures = found(alerts, score, truth)
            print(f"all kinds: ROC-AUC {figures['roc_auc']:.3f}, PR-AUC {figures['pr_auc']:.3f}")
            print(f"{figures['incidents_without_attack']} of {len(grouped)} incidents hold no flow of an attack")
            print(table.round(3).to_string(index=False))
            write_table(table, options.output / "found.csv")
            shares = zip(table["kind"], table["share of alarms"], strict=True)
            mlflow.log_metrics(figures | {f"alarms/{kind}": share for kind, share in shares})
        asked = {"normal_flows": len(normal), "flows_per_day": round(model.flows_per_day)}
        mlflow.log_params(asked | {"alerts_per_day": options.alerts_per_day})
        mlflow.log_metrics({"alerts": len(alerts), "incidents": len(grouped)})
        if options.nsl_kdd:
            nsl_kdd(options.nsl_kdd)
        mlflow.log_artifacts(str(options.output))
    print(f"Alerts, incidents and the model: {options.output}")


if __name__ == "__main__":
    main()
