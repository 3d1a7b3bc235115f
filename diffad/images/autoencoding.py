"""Learning an autoencoder of images, and with it a critic who tells patches of images from decoded ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffad.base.defaults import seeded
from diffad.images.folds import fold_of
from diffad.networks.vae import VAE, Critic, adversarial_loss, evidence_loss
from diffad.training import Progress, Training, train

#: Folds of which the first judges training, and images of it that do.
FOLDS, HELD_OUT = 8, 256


def learn_autoencoder(
    images: Tensor,
    latent: int,
    beta: float,
    adversarial: float,
    training: Training,
    seed: int,
    on_progress: Progress | None = None,
) -> tuple[VAE, list[dict[str, float]]]:
    """Train an autoencoder; an eighth of the images judges.

    Parameters
    ----------
    images : Tensor of shape (n, channels, height, width)
        Standardised and complete.
    latent : int
        Channels of a latent.
    beta, adversarial : float
        Weights of the divergence of the latents, and of passing for real before the critic; 0 trains none.
    training : Training
        A batch holds ``masks_per_batch * windows_per_mask`` images.
    seed : int
    on_progress : callable, optional

    Returns
    -------
    network : VAE
    history : list of dict
    """
    channels, device = images.shape[1], images.device
    with seeded(seed):
        network = VAE(channels, latent).to(device)
        critic = Critic(channels).to(device) if adversarial else None
    held = torch.from_numpy(fold_of(len(images), FOLDS) == 0).to(device)
    source, judge = images[~held], images[held][:HELD_OUT]
    generator = torch.Generator(device=device).manual_seed(seed)
    batch = training.masks_per_batch * training.windows_per_mask
    with torch.no_grad():
        shape = network.encode(images[:1])[0].shape[1:]

    def loss(g: torch.Generator) -> Tensor:
        index = torch.randint(len(source), (batch,), generator=g, device=device)
        noise = torch.randn((batch, *shape), generator=g, device=device)
        evidence, again = evidence_loss(network, source[index], beta, noise)
        return evidence if critic is None else evidence + adversarial_loss(critic, source[index], again, adversarial)

    def held_out() -> float:
        return float(evidence_loss(network, judge, beta, judge.new_zeros(len(judge), *shape))[0])

    # One module, so that averages and checkpoints hold both.
    both = network if critic is None else nn.ModuleList([network, critic])
    data = (images, torch.tensor([beta, adversarial, float(latent)]))
    return network, train(both, loss, held_out, training, generator, on_progress, data=data)
