"""Tracking happens on request only, records what a fit was, and never stops one."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pandas as pd
import pytest
from joblib import Parallel, delayed
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from diffad import TabularDetector, autolog, tracking
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
def fresh_process(tmp_path, monkeypatch):
    """Work in an empty folder with an MLflow that knows no store yet, and put its state back."""
    import mlflow

    before, experiment = mlflow.get_tracking_uri(), mlflow.tracking.fluent._active_experiment_id
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    forget_stores(mlflow)
    yield tmp_path
    autolog(False)
    forget_stores(mlflow)
    mlflow.set_tracking_uri(before)
    mlflow.tracking.fluent._active_experiment_id = experiment


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
    for X in (gaps, pd.DataFrame(gaps)):
        np.testing.assert_array_equal(model.predict(X), imputer.transform(gaps))


def with_integers(frame):
    counts = pd.array(np.arange(len(frame)) % 7, dtype="Int64")
    counts[5:8] = pd.NA
    return frame.assign(counts=np.arange(len(frame)), gaps=counts)


@pytest.mark.parametrize(
    "change",
    [
        with_integers,
        lambda frame: frame.astype("float32"),
        lambda frame: frame.set_axis(pd.MultiIndex.from_product([["site"], frame.columns]), axis=1),
        lambda frame: frame.to_numpy(np.float32).reshape(3, -1, frame.shape[1]),
    ],
    ids=["integers", "float32", "two levels of names", "panel"],
)
def test_logged_models_fill_what_they_were_fitted_on_alike(logged, prior_only, frame, change):
    import mlflow

    X = change(frame)
    imputer = prior_only().fit(X)
    (run,) = logged()
    found = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model").predict(X)
    if isinstance(X, pd.DataFrame):
        pd.testing.assert_frame_equal(found, imputer.transform(X), check_freq=False)
    else:
        np.testing.assert_array_equal(found, imputer.transform(X), strict=True)


def test_a_logged_detector_sees_fractions_among_integers(logged):
    import mlflow

    X = pd.DataFrame({"n": np.arange(60) % 2, "x": np.random.default_rng(0).standard_normal(60)})
    detector = TabularDetector().fit(X)
    (run,) = logged()
    new = X.astype({"n": float})
    new.loc[:2, "n"] = [0.5, 0.99, -0.9]
    found = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model").predict(new)
    np.testing.assert_array_equal(found["score"], detector.score_samples(new))


def test_a_logged_detector_keeps_unseen_categories(logged):
    import mlflow

    rng = np.random.default_rng(0)
    X = pd.DataFrame({"x": rng.standard_normal(60), "kind": pd.Categorical(rng.choice(["a", "b"], 60))})
    detector = TabularDetector().fit(X)
    (run,) = logged()
    new = X.astype({"kind": object})
    new.loc[0, "kind"] = "never seen"
    found = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model").predict(new)
    np.testing.assert_array_equal(found["score"], detector.score_samples(new))


@pytest.mark.parametrize(
    "kind", [pd.cut, lambda x, _: x.round().map(lambda k: pd.Period(year=2000 + int(k), freq="Y"))]
)
def test_a_model_whose_example_cannot_be_written_is_logged_without(logged, kind):
    import mlflow

    x = pd.Series(np.random.default_rng(0).standard_normal(60))
    X = pd.DataFrame({"x": x, "kind": kind(x, 4).astype("category")})
    detector = TabularDetector().fit(X)
    (run,) = logged()
    found = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model").predict(X)
    np.testing.assert_array_equal(found["score"], detector.score_samples(X))


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


def test_fits_in_other_processes_are_logged(logged, no_models, prior_only, waves):
    with Parallel(2, backend="multiprocessing") as parallel:
        parallel(delayed(prior_only().fit)(waves[:60]) for _ in range(2))
    assert [run.info.status for run in logged()] == ["FINISHED"] * 2


def test_the_curve_of_an_interrupted_fit_is_kept(logged, no_models, few_steps, frame, monkeypatch):
    import mlflow

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("diffad.filling.fitting.calibrate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        few_steps().fit(frame)
    (run,) = logged()
    assert run.info.status == "FAILED"
    assert [m.step for m in mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss")] == [10, 20]


def test_an_interrupt_while_the_model_is_logged_closes_the_run(logged, prior_only, frame, monkeypatch):
    import mlflow

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(tracking, "_log_model", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prior_only().fit(frame)
    assert mlflow.active_run() is None, "the next fit would be nested under it"
    assert [run.info.status for run in logged()] == ["FAILED"]


def test_the_curve_is_sent_while_training_lasts(logged, no_models, few_steps, frame, monkeypatch):
    import mlflow

    seen = []
    send = mlflow.MlflowClient.log_batch
    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", lambda *a, **k: seen.append(k) or send(*a, **k))
    monkeypatch.setattr(tracking, "PATIENCE", 0.0)
    few_steps().fit(frame)
    steps = [[m.step for m in batch["metrics"] if m.key == "loss"] for batch in seen]
    assert [batch for batch in steps if batch] == [[10], [20]]


def test_an_open_run_of_mlflows_own_store_stays_open(prior_only, frame, no_models, fresh_process):
    import mlflow

    with mlflow.start_run() as mine:
        autolog()
        mlflow.log_param("mine", 1)
        prior_only().fit(frame)
    (inner,) = mlflow.search_runs(filter_string=f"tags.mlflow.parentRunId = '{mine.info.run_id}'")["run_id"]
    assert mlflow.get_run(inner).data.params["window"] == "16"


def test_a_fit_that_fails_is_a_failed_run_and_its_error_gets_through(logged, no_models, prior_only, frame, monkeypatch):
    def broken(*args):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("diffad.series_imputer.fit_windows", broken)
    with pytest.raises(ZeroDivisionError, match="planted"):
        prior_only().fit(frame)
    (run,) = logged()
    assert run.info.status == "FAILED"


@pytest.mark.parametrize("call", ["start_run", "log_params", "set_tags", "log_metrics"])
def test_a_failing_store_warns_and_the_fit_succeeds(logged, no_models, prior_only, frame, monkeypatch, call):
    import mlflow

    def broken(*args, **kwargs):
        raise mlflow.MlflowException("the store is down")

    monkeypatch.setattr(mlflow, call, broken)
    with pytest.warns(RuntimeWarning, match="the store is down"):
        imputer = prior_only().fit(frame)
    assert not imputer.transform(frame).isna().any().any()


def test_a_loss_curve_that_cannot_be_sent_warns(logged, no_models, few_steps, frame, monkeypatch):
    import mlflow

    def broken(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", broken)
    with pytest.warns(RuntimeWarning, match="no space left"):
        assert few_steps().fit(frame).history_


def test_a_store_in_a_folder_that_cannot_be_made_warns(prior_only, frame, fresh_process):
    (fresh_process / "mlruns").write_text("a file where the folder should be")
    with pytest.warns(RuntimeWarning, match="tracking failed"):
        autolog()
        # Were logging on without a store, MLflow would make one of its own in the working folder.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            imputer = prior_only().fit(frame)
    assert hasattr(imputer, "model_")
    assert [p.name for p in fresh_process.iterdir()] == ["mlruns"]


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


def test_digest_of_objects_is_that_of_their_values():
    texts = [np.array([["".join(["a", "b"]), 1.5]], dtype=object) for _ in range(2)]
    assert data_digest(texts[0]) == data_digest(texts[1])
    assert data_digest(texts[0]) != data_digest(np.array([["ac", 1.5]], dtype=object))


def test_digest_is_of_what_is_seen_of_a_masked_array():
    masked = [np.ma.array([[hidden, 2.0]], mask=[[True, False]]) for hidden in (1.0, 99.0)]
    assert data_digest(masked[0]) == data_digest(masked[1]) == data_digest(np.array([[np.nan, 2.0]]))
    assert data_digest(masked[0]) != data_digest(np.array([[1.0, 2.0]]))


def test_digest_of_arrays(gaps):
    late = gaps.copy()
    late[-1, -1] = 0.123
    assert data_digest(gaps) == data_digest(np.asfortranarray(gaps))
    assert data_digest(gaps) != data_digest(late)
    assert data_digest(gaps) != data_digest(gaps.reshape(100, 9))
