"""Tracking happens on request only, records what a fit was, and never stops one."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from diffad import autolog, tracking
from diffad.tracking import data_digest


def forget_stores(mlflow):
    """Put MLflow's global state back to that of a fresh process."""
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri(None)
    mlflow.tracking.fluent._active_experiment_id = None
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Let the tests of this file share one store: to create one takes seconds."""
    import mlflow

    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("GIT_PYTHON_REFRESH", "quiet")
        patch.chdir(folder)
        forget_stores(mlflow)
        yield folder
        autolog(False)
        forget_stores(mlflow)


@pytest.fixture
def logged(store):
    """Switch logging on; return a function that lists the runs since then, oldest first."""
    import mlflow

    autolog()
    before = set(mlflow.search_runs(search_all_experiments=True).get("run_id", []))

    def runs():
        table = mlflow.search_runs(search_all_experiments=True)
        table = table[~table["run_id"].isin(before)].sort_values("start_time")
        return [mlflow.get_run(run_id) for run_id in table["run_id"]]

    yield runs
    autolog(False)
    assert mlflow.active_run() is None, "a run was left open"


@pytest.fixture
def no_models(monkeypatch):
    """Skip the logging of models, which takes a second each, where it is not the subject."""
    import mlflow

    for flavour in (mlflow.sklearn, mlflow.pyfunc):
        monkeypatch.setattr(flavour, "log_model", lambda *args, **kwargs: None)


def test_nothing_is_written_unless_asked_for(prior_only, frame, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    autolog(False)
    prior_only().fit(frame).transform(frame)
    assert list(tmp_path.iterdir()) == []


def test_autolog_can_be_switched_off_again(logged, prior_only, frame):
    autolog(False)
    prior_only().fit(frame)
    assert logged() == []


def test_a_fit_becomes_a_run_with_everything_that_describes_it(logged, store, few_steps, frame):
    import mlflow

    imputer = few_steps(random_state=7).fit(frame)
    (run,) = logged()
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "SeriesImputer"
    assert mlflow.get_experiment(run.info.experiment_id).name == "diffad"
    params = run.data.params
    assert (params["window"], params["prior"], params["random_state"]) == ("8", "auto", "7")
    assert (params["training__max_steps"], params["sampler__n_steps"]) == ("20", "1")
    assert run.data.tags["data_digest"] == data_digest(frame)
    assert run.data.tags["data_shape"] == "(300, 3)"

    client = mlflow.MlflowClient()
    for name in ("loss", "validation"):
        curve = [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
        assert curve == [(e["step"], pytest.approx(e[name])) for e in imputer.history_]
    assert [e["step"] for e in imputer.history_] == [10, 20]
    assert run.data.metrics["final_loss"] == pytest.approx(imputer.history_[-1]["loss"])
    assert run.data.metrics["final_validation"] == pytest.approx(imputer.history_[-1]["validation"])
    assert run.data.metrics["network_gain"] == pytest.approx(imputer.network_gain_)

    # Everything lies under mlruns of the working folder, artifacts too.
    assert sorted(p.name for p in store.iterdir()) == ["mlruns"]
    assert (store / "mlruns" / "mlflow.db").exists()

    model = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
    assert model.metadata.signature is not None
    assert [c.name for c in model.metadata.signature.inputs] == list(frame.columns)
    pd.testing.assert_frame_equal(model.predict(frame), imputer.transform(frame), check_freq=False)


def test_model_fitted_on_an_array_loads_too(logged, prior_only, gaps):
    import mlflow

    imputer = prior_only().fit(gaps)
    (run,) = logged()
    model = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
    np.testing.assert_array_equal(np.asarray(model.predict(pd.DataFrame(gaps))), imputer.transform(gaps))


def test_logging_a_model_gives_its_reader_no_advice_on_our_code(logged, prior_only, frame, recwarn):
    prior_only().fit(frame)
    assert not [w for w in recwarn if "type hint" in str(w.message).lower()]


def test_logging_does_not_change_the_fit(logged, no_models, few_steps, frame):
    with_log = few_steps().fit(frame)
    autolog(False)
    np.testing.assert_array_equal(with_log.sample(frame, 2), few_steps().fit(frame).sample(frame, 2))


def test_inside_an_active_run_a_fit_is_nested(logged, no_models, prior_only, frame):
    import mlflow

    with mlflow.start_run(run_name="mine") as mine:
        prior_only().fit(frame)
        assert mlflow.active_run().info.run_id == mine.info.run_id
    outer, inner = logged()
    assert outer.info.run_id == mine.info.run_id
    assert outer.data.params == {}
    assert inner.data.tags["mlflow.parentRunId"] == mine.info.run_id
    assert inner.data.params["window"] == "16"


def test_inside_a_pipeline(logged, no_models, prior_only, frame):
    pipeline = make_pipeline(StandardScaler().set_output(transform="pandas"), prior_only()).fit(frame)
    (run,) = logged()
    assert run.info.run_name == "SeriesImputer"
    assert pipeline.transform(frame).shape == frame.shape


def test_inside_a_grid_search_every_fit_is_a_run(logged, no_models, prior_only, waves):
    search = GridSearchCV(
        prior_only(),
        {"window": [8, 16]},
        scoring=lambda estimator, X, y=None: -np.nanstd(estimator.transform(X)),
        cv=TimeSeriesSplit(2),
    ).fit(waves)
    runs = logged()
    assert [r.data.params["window"] for r in runs].count("8") >= 2
    assert len(runs) == 2 * 2 + 1
    assert runs[-1].data.params["window"] == str(search.best_params_["window"])


def test_a_panel_is_logged_without_a_model(logged, prior_only, gaps):
    prior_only().fit(gaps.reshape(3, 100, 3))
    (run,) = logged()
    assert run.info.status == "FINISHED"
    assert run.data.tags["data_shape"] == "(3, 100, 3)"


def test_a_fit_that_fails_is_a_failed_run_and_its_error_gets_through(logged, no_models, prior_only, frame, monkeypatch):
    def broken(*args):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("diffad.series.fit_windows", broken)
    with pytest.raises(ZeroDivisionError, match="planted"):
        prior_only().fit(frame)
    (run,) = logged()
    assert run.info.status == "FAILED"


@pytest.mark.parametrize("call", ["start_run", "log_params", "set_tags", "log_metrics"])
def test_a_failing_store_warns_and_the_fit_succeeds(logged, no_models, few_steps, frame, monkeypatch, call):
    import mlflow

    def broken(*args, **kwargs):
        raise mlflow.MlflowException("the store is down")

    monkeypatch.setattr(mlflow, call, broken)
    with pytest.warns(RuntimeWarning, match="the store is down"):
        imputer = few_steps().fit(frame)
    assert not imputer.transform(frame).isna().any().any()


def test_a_loss_curve_that_cannot_be_sent_warns(logged, no_models, few_steps, frame, monkeypatch):
    import mlflow

    def broken(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", broken)
    with pytest.warns(RuntimeWarning, match="no space left"):
        assert few_steps().fit(frame).history_


def test_a_store_in_a_folder_that_cannot_be_made_warns(prior_only, frame, tmp_path, monkeypatch):
    import mlflow

    before = mlflow.get_tracking_uri()
    (tmp_path / "mlruns").write_text("a file where the folder should be")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    forget_stores(mlflow)
    try:
        with pytest.warns(RuntimeWarning, match="tracking failed"):
            autolog()
            # Were logging on without a store, MLflow would make one of its own in the working folder.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                imputer = prior_only().fit(frame)
        assert hasattr(imputer, "model_")
        assert [p.name for p in tmp_path.iterdir()] == ["mlruns"]
    finally:
        autolog(False)
        forget_stores(mlflow)
        mlflow.set_tracking_uri(before)
        if tracking.STORE.resolve().as_posix() in before:
            mlflow.set_experiment(tracking.EXPERIMENT)


# --- the digest -------------------------------------------------------------------------------------------


def variants(table):
    """Return copies of a table that differ in one respect each."""
    late = table.copy()
    late.iloc[-1, -1] += 1e-9
    return {
        "late row": late,
        "order of rows": table.iloc[::-1],
        "name of a column": table.rename(columns={"flow": "Flow"}),
        "order of columns": table[table.columns[::-1]],
        "times": table.set_axis(table.index + pd.Timedelta("1s")),
        "one row less": table.iloc[:-1],
        "a gap": table.mask(np.arange(table.size).reshape(table.shape) == 5),
    }


def test_digest_tells_all_differences(waves, frame):
    table = pd.DataFrame(waves, frame.index, frame.columns)
    digest = data_digest(table)
    assert digest == data_digest(table.copy())
    digests = {name: data_digest(other) for name, other in variants(table).items()}
    assert digest not in digests.values(), [name for name, d in digests.items() if d == digest]
    assert len(set(digests.values())) == len(digests)


def test_digest_of_arrays(gaps):
    late = gaps.copy()
    late[-1, -1] = 0.123
    assert data_digest(gaps) == data_digest(np.asfortranarray(gaps))
    assert data_digest(gaps) != data_digest(late)
    assert data_digest(gaps) != data_digest(gaps.reshape(100, 9))
