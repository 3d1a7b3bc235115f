"""Closed-form models of p(hidden | visible): the part of every model that needs no training."""

from diffad.priors.base import Conditional, Prior
from diffad.priors.cyclic import CyclicPrior
from diffad.priors.gaussian import GaussianPrior
from diffad.priors.lowrank import LowRankPrior
from diffad.priors.standard import StandardPrior
from diffad.priors.stationary import gaussian_of_few, stationary_covariance

#: Priors by name; None, the absence of knowledge, is :class:`StandardPrior`.
PRIORS: dict[str, type[GaussianPrior] | type[LowRankPrior]] = {"gaussian": GaussianPrior, "lowrank": LowRankPrior}

__all__ = [
    "PRIORS",
    "Conditional",
    "CyclicPrior",
    "GaussianPrior",
    "LowRankPrior",
    "Prior",
    "StandardPrior",
    "gaussian_of_few",
    "stationary_covariance",
]
