"""Muon's steps are orthogonal, block by block, and those of torch's own implementation.

Oracles: the singular value decomposition; ``torch.optim.Muon``, which works in bfloat16.
"""

import pytest
import torch
from torch import nn

from diffad.muon import Muon, orthogonalised


def matrix(*shape, seed=0):
    return nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)))


def moved(parameter, optimizer, steps=1, first=1):
    """Take steps along gradients that depend on their number alone."""
    for number in range(first, first + steps):
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
        optimizer.step()
    return parameter.detach()


@pytest.mark.parametrize("size", [1, 3, 64])
def test_singular_values_come_close_to_one_and_singular_vectors_stay(size):
    x = (
        torch.randn(5, size, size, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1e-3, 1, 10, 1e3, 1e-2])[:, None, None]
    )
    u, s, v = torch.linalg.svd(x)
    turned = u.mT @ orthogonalised(x) @ v.mT
    values = turned.diagonal(dim1=1, dim2=2)
    seen = s > 0.05 * s.amax(1, keepdim=True)  # five iterations do not lift what is far smaller
    assert bool(((values > 0.6) & (values < 1.3))[seen].all())
    torch.testing.assert_close(turned, torch.diag_embed(values), atol=2e-3, rtol=0)


def test_nothing_stays_nothing():
    assert not orthogonalised(torch.zeros(2, 4, 4)).any()


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has Muon since 2.9")
def test_steps_are_those_of_torch():
    ours, theirs = matrix(32, 32), matrix(32, 32)
    options = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1}
    a = moved(ours, Muon([ours], **options), steps=5)
    b = moved(theirs, torch.optim.Muon([theirs], **options), steps=5)
    start = matrix(32, 32).detach()
    # bfloat16 holds 3 digits; each of the five steps has entries of about .02 / sqrt(32).
    assert (a - b).norm() < 0.02 * (b - start).norm()


@pytest.mark.parametrize("shape", [(24, 8), (8, 24)])
def test_blocks_move_each_by_itself(shape):
    whole = matrix(*shape)
    axis = 0 if shape[0] > shape[1] else 1
    parts = [nn.Parameter(p.clone()) for p in whole.detach().split(8, axis)]
    whole.grad = matrix(*shape, seed=1).detach()
    for part, gradient in zip(parts, whole.grad.split(8, axis), strict=True):
        part.grad = gradient.clone()
    Muon([whole], lr=0.1).step()
    Muon(parts, lr=0.1).step()
    torch.testing.assert_close(whole.detach(), torch.cat([p.detach() for p in parts], axis))


def test_a_saved_state_goes_on_to_the_bit():
    expected = matrix(16, 16)
    moved(expected, Muon([expected], lr=0.1), steps=6)
    ours = matrix(16, 16)
    first = Muon([ours], lr=0.1)
    moved(ours, first, steps=3)
    second = Muon([ours], lr=0.1)
    second.load_state_dict(first.state_dict())
    assert torch.equal(moved(ours, second, steps=3, first=4), expected.detach())


def test_a_matrix_without_a_gradient_stays():
    still, moving = matrix(4, 4), matrix(4, 4)
    optimizer = Muon([still, moving], lr=0.1)
    moved(moving, optimizer)
    assert torch.equal(still, matrix(4, 4))
    assert not torch.equal(moving, matrix(4, 4))


@pytest.mark.parametrize("shape", [(6, 4), (4,), (2, 2, 2)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"square blocks, got one of shape"):
        Muon([matrix(*shape)], lr=0.1)
