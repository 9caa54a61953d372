"""Muon: the update is orthogonal, has AdamW's size, and only matrices get it."""

import pytest
import torch

from minivdm.networks.unet3d import UNet3D
from minivdm.training import muon


@pytest.mark.parametrize("shape", [(24, 24), (16, 72), (72, 16)])
def test_newton_schulz_keeps_singular_vectors_and_evens_out_singular_values(shape):
    g = torch.Generator().manual_seed(0)
    matrix = torch.randn(3, *shape, generator=g) * 1e-3  # any scale
    u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    core = u.mT @ muon.newton_schulz(matrix).double() @ vh.mT  # diagonal if the singular vectors are kept
    values = torch.diagonal(core, dim1=-2, dim2=-1)
    off = core - torch.diag_embed(values)
    assert off.abs().max() < 1e-3  # float32 products of a few dozen terms, magnified by the steep polynomial
    # The quintic lands in 0.68 ... 1.13 from any singular value above about 1/300 of the Frobenius norm; a square
    # random matrix has a few below that, which are still on their way up.
    large = s > s.norm(dim=-1, keepdim=True) / 300
    assert values[large].min() > 0.6 and values[large].max() < 1.25


@pytest.mark.parametrize("shape", [(24, 24), (16, 72), (72, 16)])
def test_iteration_on_the_gram_matrix_gives_the_same(shape):
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    # float32 rounding (1e-7) of G, magnified by up to 3.44^2 in each of four steps.
    torch.testing.assert_close(muon.newton_schulz_gram(matrices), muon.newton_schulz(matrices), rtol=0, atol=1e-3)


def test_update_has_the_root_mean_square_of_adamw():
    p = torch.nn.Parameter(torch.zeros(16, 8, 3, 3))
    optimizer = muon.Muon([p], lr=1.0)
    p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    # Orthogonal rows: ||U||_F^2 = 16, times (0.2)^2 * 72, over 16 * 72 entries = 0.2^2; singular values 0.68 ... 1.13.
    assert 0.2 * 0.68 <= p.detach().square().mean().sqrt().item() <= 0.2 * 1.13


def test_equal_shapes_do_not_influence_each_other():
    g = torch.Generator().manual_seed(0)
    grads = torch.randn(2, 8, 12, generator=g)
    together = [torch.nn.Parameter(torch.zeros(8, 12)) for _ in range(2)]
    alone = [torch.nn.Parameter(torch.zeros(8, 12)) for _ in range(2)]
    for p, q, grad in zip(together, alone, grads, strict=True):
        p.grad, q.grad = grad.clone(), grad.clone()
        muon.Muon([q], lr=0.1).step()
    muon.Muon(together, lr=0.1).step()
    for p, q in zip(together, alone, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-5)  # batched and single products round differently


def test_weight_decay_is_decoupled():
    p = torch.nn.Parameter(torch.ones(4, 4))
    p.grad = torch.zeros(4, 4)
    muon.Muon([p], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(p.detach(), torch.full((4, 4), 0.95))


def test_vectors_are_refused():
    with pytest.raises(ValueError, match="at least 2 dimensions"):
        muon.Muon([torch.nn.Parameter(torch.zeros(3))], lr=0.1)


def test_split_leaves_ends_embeddings_and_vectors_to_adamw():
    network = UNet3D(width=8, multipliers=(1,), spatial=(True,), temporal=(True,), head_channels=8, embedding=16)
    hidden, rest = muon.split(network)
    assert len(hidden) + len(rest) == len(list(network.parameters()))
    ours = {id(p) for p in hidden}
    named = dict(network.named_parameters())
    assert all(p.ndim >= 2 for p in hidden)
    assert not ours & {id(named[name]) for name in ("stem.weight", "head.weight", "label_embedding.weight")}


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has its own from 2.9")
@pytest.mark.parametrize("shape", [(64, 96), (96, 64), (48, 48)])
def test_five_steps_are_those_of_torch(shape):
    g = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=g)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    options = {"lr": 0.02, "momentum": 0.95, "weight_decay": 0.1}
    optimizers = [muon.Muon([ours], **options), torch.optim.Muon([theirs], **options, adjust_lr_fn="match_rms_adamw")]
    for _ in range(5):
        ours.grad = torch.randn(shape, generator=g)
        theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    moved = (theirs - start).norm()
    # Theirs computes in bfloat16, whose 8 bits the quintic's steep start enlarges: 0.0075 was measured.
    assert (ours - theirs).norm() < 0.03 * moved
