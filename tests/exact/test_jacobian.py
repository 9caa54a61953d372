"""Products with a Jacobian and its trace, against the matrix itself, and wherever gradients are switched off."""

import pytest
import torch
from torch import nn

from minivdm.core.denoiser import Denoiser
from minivdm.core.ode import velocity
from minivdm.core.schedules import CosineSchedule
from minivdm.exact import divergence, explicit, implicit, pullback, sliced
from minivdm.exact.likelihood import log_likelihood, signs_like
from minivdm.networks import UNet3D

MATRIX = torch.tensor([[1.0, 2.0, 0.0], [0.5, -1.0, 3.0], [0.0, 1.0, 2.0]], dtype=torch.float64)
WHERE = [torch.enable_grad, torch.no_grad, torch.inference_mode]


def field(z):
    return torch.tanh(z @ MATRIX.T)


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def jacobians(z):
    return torch.stack([torch.autograd.functional.jacobian(lambda point: field(point[None])[0], point) for point in z])


@pytest.mark.parametrize("where", WHERE)
def test_products_and_traces_are_those_of_the_matrix(where, generator):
    z, e = normal(generator, 4, 3), normal(generator, 4, 3)
    expected = jacobians(z)
    with where():
        value, product = pullback(field, z.clone())
        along = product(e)
        _, trace = divergence(field, z.clone())
    torch.testing.assert_close(value.clone(), field(z))
    torch.testing.assert_close(along.clone(), torch.einsum("bi,bij->bj", e, expected))
    torch.testing.assert_close(trace.clone(), expected.diagonal(dim1=1, dim2=2).sum(1))


def test_all_signs_together_estimate_the_trace_without_error(generator):
    # The mean of e^T J e over all 2^3 sign vectors is the trace: off the diagonal every product cancels.
    z = normal(generator, 2, 3)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3).double()[:, None].expand(8, 2, 3)
    torch.testing.assert_close(divergence(field, z, signs)[1], divergence(field, z)[1])


@pytest.mark.parametrize("where", WHERE)
def test_objectives_reach_the_parameters_wherever_they_are_computed(where, generator):
    layer = nn.Linear(3, 3).double()
    z = normal(generator, 5, 3)
    with where():
        losses = [implicit(layer, z.clone()), sliced(layer, z.clone(), probes=2, generator=generator)]
    for loss in losses:
        (gradient,) = torch.autograd.grad(loss.mean(), layer.weight, retain_graph=True)
        assert gradient.abs().sum() > 0


def test_the_trace_of_a_video_network_is_that_of_its_jacobian(generator):
    network = UNet3D(width=8, multipliers=(1,), spatial=(True,), temporal=(True,), head_channels=8, embedding=8).eval()
    for p in network.parameters():
        p.data += 0.2 * torch.randn(p.shape, generator=generator)
    denoise, z = Denoiser(network.double(), CosineSchedule()), normal(generator, 1, 1, 2, 4, 4)
    matrix = torch.autograd.functional.jacobian(lambda z: velocity(denoise, z, 0.5), z).reshape(32, 32)
    _, trace = divergence(lambda z: velocity(denoise, z, 0.5), z)
    torch.testing.assert_close(trace[0], matrix.trace(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("where", WHERE)
def test_a_likelihood_holds_no_graph(where, generator):
    network = UNet3D(width=8, multipliers=(1,), spatial=(True,), temporal=(True,), head_channels=8, embedding=8).eval()
    x = 0.1 * torch.randn(1, 1, 2, 4, 4, generator=generator)
    with where():
        value = log_likelihood(Denoiser(network, CosineSchedule()), x, steps=2, probes=1, generator=generator)
    assert value.isfinite().all() and not value.requires_grad


def test_bad_input_is_named(generator):
    z = normal(generator, 4, 3)
    with pytest.raises(TypeError, match="floating-point"):
        divergence(field, torch.ones(4, 3, dtype=torch.long))
    with pytest.raises(ValueError, match="the field's value of the latent's shape"):
        divergence(lambda z: z[:, :1], z)
    with pytest.raises(ValueError, match="probes: expected shape"):
        divergence(field, z, signs_like(z[:1], 2))
    with pytest.raises(ValueError, match="the true score of the latent's shape"):
        explicit(field, z, torch.zeros(3).double())
    with pytest.raises(ValueError, match="probes: expected at least 1"):
        sliced(field, z, probes=0)
