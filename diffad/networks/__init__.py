"""Networks behind the denoiser; each maps standardised entries and a noise angle to a velocity."""

from diffad.networks.mixer import WindowMixer

__all__ = ["WindowMixer"]
