"""Logging of fits to MLflow, on request only; MLflow is imported when it is first used.

A failure to log warns and never stops a fit.
"""

from __future__ import annotations

import hashlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from diffad.training import Progress, Training

STORE = Path("mlruns")
EXPERIMENT = "diffad"
#: Looks at the loss that are sent together.
BATCH = 20

_enabled = False


def autolog(enable: bool = True) -> None:
    """Log every `fit` from now on to MLflow; `autolog(False)` stops.

    Each fit becomes a run (nested under the active run, if there is one) with flat parameters,
    the loss curve, final metrics, a digest of the data and the fitted model with signature and
    input example. Without a tracking server of your own (``MLFLOW_TRACKING_URI`` or
    ``mlflow.set_tracking_uri``) runs go to SQLite under ``mlruns/``.
    """
    global _enabled
    _enabled = enable and bool(_guard(_use_local_store))


@contextmanager
def run_of(estimator: Any, X: Any, training: Training | None = None) -> Iterator[Progress | None]:
    """Wrap a fit: yield a callback for the loss curve, log everything else when the fit is done.

    `training` is what the estimator goes by where its own parameter of the name is None.
    """
    if not _enabled:
        yield None
        return
    run = _guard(lambda: _start(estimator, X, training))
    if run is None:
        yield None
        return
    curve = _Curve(run.info.run_id)
    try:
        yield curve
    except BaseException:
        _guard(lambda: _end("FAILED"))
        raise
    _guard(curve.flush)
    _guard(lambda: _log_fitted(estimator, X))
    _guard(lambda: _end("FINISHED"))


def data_digest(X: Any) -> str:
    """Return a SHA-256 over all values, the shape, and the labels of a table.

    Examples
    --------
    >>> data_digest(np.zeros((2, 2)))[:8] == data_digest(np.ones((2, 2)))[:8]
    False
    """
    digest = hashlib.sha256(str(np.shape(X)).encode())
    if isinstance(X, pd.DataFrame):
        digest.update(repr(list(X.columns)).encode())
        digest.update(pd.util.hash_pandas_object(X, index=True).to_numpy().tobytes())
    else:
        digest.update(np.ascontiguousarray(X).tobytes())
    return digest.hexdigest()


class _Curve:
    """Collects the loss curve and sends it in batches."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.waiting: list[tuple[str, float, int]] = []

    def __call__(self, step: int, entry: dict[str, float]) -> None:
        self.waiting += [(name, entry[name], step) for name in ("loss", "validation", "seconds")]
        if len(self.waiting) >= 3 * BATCH:
            _guard(self.flush)

    def flush(self) -> None:
        import time

        import mlflow
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        waiting, self.waiting = self.waiting, []
        if waiting:
            metrics = [Metric(name, value, now, step) for name, value, step in waiting]
            mlflow.MlflowClient().log_batch(self.run_id, metrics=metrics)


def _guard(action: Callable[[], Any]) -> Any:
    try:
        return action()
    except Exception as error:
        warnings.warn(f"MLflow tracking failed and was skipped: {error!r}", RuntimeWarning, stacklevel=3)
        return None


def _use_local_store() -> bool:
    import mlflow

    chosen = os.environ.get("MLFLOW_TRACKING_URI") or mlflow.tracking._tracking_service.utils._tracking_uri
    if chosen:
        return True
    STORE.mkdir(exist_ok=True)
    store = STORE.resolve()
    mlflow.set_tracking_uri(f"sqlite:///{store / 'mlflow.db'}")
    if mlflow.get_experiment_by_name(EXPERIMENT) is None:
        mlflow.create_experiment(EXPERIMENT, artifact_location=(store / "artifacts").as_uri())
    mlflow.set_experiment(EXPERIMENT)
    return True


def _start(estimator: Any, X: Any, training: Training | None) -> Any:
    import mlflow

    nested = mlflow.active_run() is not None
    run = mlflow.start_run(run_name=type(estimator).__name__, nested=nested)
    _guard(lambda: mlflow.log_params(_flat(estimator, training)))
    _guard(lambda: mlflow.set_tags({"data_digest": data_digest(X), "data_shape": str(np.shape(X))}))
    return run


def _end(status: str) -> None:
    import mlflow

    mlflow.end_run(status)


def _flat(estimator: Any, training: Training | None) -> dict[str, Any]:
    params = estimator.get_params(deep=True)
    if training is not None:
        params |= {f"training__{k}": v for k, v in training.get_params().items()}
    return {k: v for k, v in params.items() if not hasattr(v, "get_params")}


def _log_fitted(estimator: Any, X: Any) -> None:
    import mlflow
    from mlflow.models import infer_signature

    final = {
        name: float(getattr(estimator, f"{name}_"))
        for name in ("network_gain", "offset")
        if hasattr(estimator, f"{name}_")
    }
    if getattr(estimator, "history_", None):
        final |= {f"final_{k}": float(estimator.history_[-1][k]) for k in ("loss", "validation", "seconds")}
    mlflow.log_metrics(final)
    if np.ndim(X) != 2:
        return  # model signatures know tables only
    example = X[:8] if not isinstance(X, pd.DataFrame) else X.iloc[:8]
    example = pd.DataFrame(example)
    numbers = example.select_dtypes("number").columns
    example = example.astype({c: float if c in numbers else object for c in example.columns})
    with _quiet():
        model = _as_pyfunc(estimator)
        mlflow.pyfunc.log_model(
            name="model",
            python_model=model,
            signature=infer_signature(example, model.predict(None, example)),
            input_example=example,
            pip_requirements=["diffad"],
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow's advice on pickles to itself: its reader did not write the model class."""
    log = logging.getLogger("mlflow.pyfunc")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _as_pyfunc(estimator: Any) -> Any:
    """Wrap an estimator for MLflow, whose scikit-learn flavour knows neither `transform` nor alarms."""
    from mlflow.pyfunc import PythonModel

    # Of the type hints of `model_input` MLflow takes that of tables in silence.
    class Imputer(PythonModel):  # type: ignore[misc]
        def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
            return pd.DataFrame(estimator.transform(model_input))

    class Detector(PythonModel):  # type: ignore[misc]
        def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
            score = estimator.score_samples(model_input)
            return pd.DataFrame({"score": score, "alarm": score < estimator.offset_})

    return Imputer() if hasattr(estimator, "transform") else Detector()
