"""The network of rows takes any number of columns, starts as the prior (zero) and treats rows one by one."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffad.networks import RowNetwork, WholeRowNetwork
from diffad.networks.axial import N_INPUTS


def trained_like(columns):
    """Return a network whose every parameter is away from its initial zero."""
    network = RowNetwork(columns, width=16, depth=2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def batch(n, columns, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, columns, N_INPUTS, generator=generator), 1.5 * torch.rand(n, generator=generator)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 4), columns=st.integers(1, 9))
def test_untrained_output_is_exactly_zero(n, columns):
    out = RowNetwork(columns, width=8, depth=1)(*batch(n, columns))
    assert out.shape == (n, 1, columns)
    assert not bool(out.any())


def test_every_output_depends_on_every_column_and_on_the_noise_level():
    network = trained_like(4)
    inputs, theta = batch(1, 4)
    inputs.requires_grad_()
    theta.requires_grad_()
    for k in range(4):
        by_inputs, by_theta = torch.autograd.grad(network(inputs, theta)[0, 0, k], (inputs, theta))
        assert bool((by_inputs.abs().amax(3) > 0).all()) and bool(by_theta.abs() > 0)


def test_rows_do_not_depend_on_their_neighbours():
    network, (inputs, theta) = trained_like(4), batch(6, 4)
    together = network(inputs, theta)
    alone = torch.cat([network(inputs[i : i + 1], theta[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(together, alone)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 4), columns=st.integers(1, 9))
def test_untrained_output_of_whole_rows_is_exactly_zero(n, columns):
    out = WholeRowNetwork(columns, width=8, depth=1)(torch.ones(n, columns), torch.zeros(n, 1))
    assert out.shape == (n, columns)
    assert not bool(out.any())


def test_whole_rows_are_treated_one_by_one_and_told_the_noise():
    network = WholeRowNetwork(3, width=16, depth=2)
    torch.nn.init.ones_(network.out.weight)
    z, level = torch.randn(5, 3), torch.linspace(-2, 0, 5)[:, None]
    torch.testing.assert_close(network(z, level)[[2]], network(z[[2]], level[[2]]))
    assert not torch.allclose(network(z, level), network(z, level + 0.5))
