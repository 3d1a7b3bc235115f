"""Fill gaps and find anomalies in sensor data, tables and images with masked conditional diffusion models."""

from typing import TYPE_CHECKING, Any

from diffad.base.version import VERSION

if TYPE_CHECKING:
    from diffad.augmentation import Augmentation
    from diffad.detection import DriftWarning
    from diffad.diffusion_vae import DiffusionVAE
    from diffad.image_detector import ImageDetector
    from diffad.image_imputer import ImageImputer
    from diffad.model import Sampler
    from diffad.series.standstill import carried_forward
    from diffad.series_detector import SeriesDetector
    from diffad.series_imputer import SeriesImputer
    from diffad.tabular_detector import TabularDetector
    from diffad.tabular_imputer import TabularImputer
    from diffad.thresholds import AlarmsPerDay, FalseAlarmRate, benjamini_hochberg
    from diffad.tracking import autolog
    from diffad.training import Training

__version__ = VERSION
__all__ = [
    "AlarmsPerDay",
    "Augmentation",
    "DiffusionVAE",
    "DriftWarning",
    "FalseAlarmRate",
    "ImageDetector",
    "ImageImputer",
    "Sampler",
    "SeriesDetector",
    "SeriesImputer",
    "TabularDetector",
    "TabularImputer",
    "Training",
    "autolog",
    "benjamini_hochberg",
    "carried_forward",
]

_HOMES = {
    "SeriesImputer": "series_imputer",
    "SeriesDetector": "series_detector",
    "TabularDetector": "tabular_detector",
    "TabularImputer": "tabular_imputer",
    "ImageDetector": "image_detector",
    "ImageImputer": "image_imputer",
    "DiffusionVAE": "diffusion_vae",
    "Augmentation": "augmentation",
    "DriftWarning": "detection",
    "FalseAlarmRate": "thresholds",
    "AlarmsPerDay": "thresholds",
    "Training": "training",
    "Sampler": "model",
    "autolog": "tracking",
    "benjamini_hochberg": "thresholds",
    "carried_forward": "series.standstill",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `import diffad` itself costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'diffad' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"diffad.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
