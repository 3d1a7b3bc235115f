"""Networks behind the denoiser; each maps standardised entries and a noise angle to a velocity."""

from diffad.networks.axial import AxialTransformer

__all__ = ["AxialTransformer"]
