"""Networks behind the denoiser; each maps standardised entries and a noise angle to a velocity."""

from diffad.networks.axial import AxialTransformer
from diffad.networks.rows import RowNetwork, WholeRowNetwork

__all__ = ["AxialTransformer", "RowNetwork", "WholeRowNetwork"]
