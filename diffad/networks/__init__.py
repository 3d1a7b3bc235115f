"""Networks: those behind the denoiser map standardised entries and the noise level to a velocity; autoencoders."""

from diffad.networks.axial import AxialTransformer
from diffad.networks.rows import RowNetwork, WholeRowNetwork

__all__ = ["AxialTransformer", "RowNetwork", "WholeRowNetwork"]
