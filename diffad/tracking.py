"""Logging of fits to MLflow, on request only; MLflow is imported when it is first used.

A failure to log warns and never stops a fit.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from diffad.base.masked_arrays import unmasked
from diffad.base.telling import tell
from diffad.training import Progress, Training

STORE = Path("mlruns")
EXPERIMENT = "diffad"
#: Seconds for which looks at the loss are kept, to be sent together.
PATIENCE = 5.0
#: Rows of an input example.
EXAMPLE_ROWS = 8
#: Switches logging on, here and in processes that are started from here, as MLflow's own variables do.
SWITCH = "DIFFAD_AUTOLOG"


def autolog(enable: bool = True) -> None:
    """Log every `fit` from now on to MLflow; `autolog(False)` stops.

    Each fit becomes a run (nested under the active run, if there is one) with flat parameters,
    the loss curve, final metrics, a digest of the data and the fitted model with signature and
    input example. Where nothing else was chosen (``MLFLOW_TRACKING_URI``, ``mlflow.set_tracking_uri``,
    ``mlflow.set_experiment`` or an active run) runs go to SQLite under ``mlruns/``.

    Fits in processes that are started later (``n_jobs``) are logged as well, as runs of their own; processes that
    joblib already has at hand do not know of it.

    Parameters
    ----------
    enable : bool, default=True
    """
    os.environ.pop(SWITCH, None)
    if enable and _guard(_use_local_store):
        os.environ[SWITCH] = "1"


@contextmanager
def run_of(estimator: Any, X: Any, training: Training | None = None) -> Iterator[Progress | None]:
    """Wrap a fit: yield a callback for the loss curve, log everything else when the fit is done.

    `training` is what the estimator goes by where its own parameter of the name says "auto", or None.
    """
    if os.environ.get(SWITCH) != "1":
        yield None
        return
    run = _guard(lambda: _start(estimator, X, training))
    if run is None:
        yield None
        return
    curve = _Curve(run.info.run_id)
    try:
        yield curve
        _guard(curve.flush)
        _guard(lambda: _log_fitted(estimator, X))
    except BaseException:  # an interrupt while the model is logged, too: the next fit must not be nested under this one
        _guard(curve.flush)
        _guard(lambda: _end("FAILED"))
        raise
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
        values = np.ascontiguousarray(unmasked(X))
        # Bytes of objects are addresses.
        digest.update(repr(values.tolist()).encode() if values.dtype == object else values.tobytes())
    return digest.hexdigest()


class _Curve:
    """Collects the loss curve and sends it in batches."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.waiting: list[tuple[str, float, int]] = []
        self.sent = time.monotonic()

    def __call__(self, step: int, entry: dict[str, float]) -> None:
        self.waiting += [(name, entry[name], step) for name in ("loss", "validation", "seconds") if name in entry]
        if time.monotonic() - self.sent > PATIENCE:
            _guard(self.flush)

    def flush(self) -> None:
        import mlflow
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        waiting, self.waiting = self.waiting, []
        self.sent = time.monotonic()
        if waiting:
            metrics = [Metric(name, value, now, step) for name, value, step in waiting]
            mlflow.MlflowClient().log_batch(self.run_id, metrics=metrics)


def _guard(action: Callable[[], Any]) -> Any:
    try:
        return action()
    except Exception as error:
        tell(f"MLflow tracking failed and was skipped: {error!r}", RuntimeWarning)
        return None


def _use_local_store() -> bool:
    import mlflow

    chosen = os.environ.get("MLFLOW_TRACKING_URI") or mlflow.tracking._tracking_service.utils._tracking_uri
    experiment = mlflow.tracking.fluent._active_experiment_id or os.environ.get("MLFLOW_EXPERIMENT_NAME")
    # A run that is open, or an experiment, lies in a store already, be it MLflow's default one.
    if chosen or experiment or mlflow.active_run() is not None:
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

    final = {
        name: float(getattr(estimator, f"{name}_"))
        for name in ("network_gain", "offset")
        if hasattr(estimator, f"{name}_")
    }
    if getattr(estimator, "history_", None):
        last = estimator.history_[-1]
        final |= {f"final_{k}": float(last[k]) for k in ("loss", "validation", "seconds") if k in last}
    mlflow.log_metrics(final)
    with _quiet():
        _log_model(_as_pyfunc(estimator, X.dtypes.to_dict() if isinstance(X, pd.DataFrame) else np.asarray(X).dtype), X)


def _log_model(model: Any, X: Any) -> None:
    """Log a model with an example of its input, and a signature that lets through whatever the model itself takes."""
    import mlflow
    from mlflow.models import ModelSignature, infer_signature
    from mlflow.types.schema import AnyType, ColSpec, Schema, TensorSpec

    import diffad

    example = X[:EXAMPLE_ROWS] if isinstance(X, pd.DataFrame) else np.asarray(unmasked(X))[:EXAMPLE_ROWS]
    described: dict[str, Any] = {}
    inputs: list[Any] = []
    if not isinstance(example, pd.DataFrame):
        tables = example.ndim == 2
        inputs = (
            [ColSpec(AnyType())] * example.shape[1] if tables else [TensorSpec(example.dtype, (-1,) * example.ndim)]
        )
    elif all(isinstance(name, str) for name in example.columns):  # schemas know no other names
        example = example[~example.index.duplicated()]  # groups may be interleaved
        inputs = [ColSpec(AnyType(), name, required=False) for name in example.columns]
    if inputs:
        outputs = infer_signature(model_output=model.predict(None, example)).outputs
        described = {"signature": ModelSignature(Schema(inputs), outputs)}
        described |= {"input_example": example} if _can_be_written(example) else {}
    mlflow.pyfunc.log_model(
        name="model", python_model=model, pip_requirements=[f"diffad=={diffad.__version__}"], **described
    )


def _can_be_written(example: Any) -> bool:
    """Return whether MLflow can write an example: of a model whose example it cannot, nothing would be logged."""
    from mlflow.utils.proto_json_utils import NumpyEncoder

    try:
        json.dumps(example.to_dict(orient="split") if isinstance(example, pd.DataFrame) else None, cls=NumpyEncoder)
    except TypeError:
        return False
    return True


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow's advice on pickles and integers to itself: its reader did not write the model class."""
    log = logging.getLogger("mlflow.pyfunc")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Hint: Inferred schema contains integer")
            yield
    finally:
        log.setLevel(level)


def _as_pyfunc(estimator: Any, fitted_on: Mapping[Any, Any] | np.dtype) -> Any:
    """Wrap an estimator for MLflow, whose scikit-learn flavour knows neither `transform` nor alarms.

    `fitted_on` are the dtypes of a table's columns, or that of an array.
    """
    from mlflow.pyfunc import PythonModel

    # Of the type hints of `model_input` MLflow takes that of tables in silence.
    class Imputer(PythonModel):  # type: ignore[misc]
        def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
            return estimator.transform(_as_fitted(model_input, fitted_on))

    class Detector(PythonModel):  # type: ignore[misc]
        def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
            score = estimator.score_samples(_as_fitted(model_input, fitted_on))
            return pd.DataFrame({"score": score, "alarm": score < estimator.offset_})

    return Imputer() if hasattr(estimator, "transform") else Detector()


def _as_fitted(X: Any, fitted_on: Mapping[Any, Any] | np.dtype) -> Any:
    """Give values back the dtypes that were fitted on: MLflow hands them over as doubles or objects."""
    if isinstance(fitted_on, np.dtype):
        array = np.asarray(X)
        return array if fitted_on.kind in "iub" else array.astype(fitted_on, copy=False)
    result = X.copy()
    for name in result.columns.intersection(list(fitted_on)):
        dtype, column = fitted_on[name], result[name]
        # Categories never seen must stay, and integers of NumPy know no gaps.
        holes = isinstance(dtype, np.dtype) and dtype.kind in "iub" and column.isna().any()
        if not holes and not isinstance(dtype, pd.CategoricalDtype):
            with suppress(ValueError, TypeError):
                cast, known = column.astype(dtype), column.notna()
                # A fraction in a column of integers is what an anomaly may be.
                if (cast[known] == column[known]).all():
                    result[name] = cast
    return result
