"""Transformers: nothing at the start, windows as masked attention, stills as clips of a frame, what is refused."""

import pytest
import torch
from torch import nn

from minivdm.core import CosineSchedule, Denoiser, classifier_free
from minivdm.guards import BadArgument, BadType
from minivdm.networks.attention import joint_frame_mask
from minivdm.networks.tokens import from_patches, to_patches, token_mask
from minivdm.networks.transformer import Transformer
from minivdm.networks.transformer_blocks import Attention, Modulation, TransformerBlock
from minivdm.networks.window_transformer import (
    RelativeBias,
    WindowBlock,
    WindowTransformer,
    into_windows,
    out_of_windows,
    same_window,
)

SMALL = dict(width=24, depth=3, head_channels=8, embedding=16)
LABELS = torch.eye(10, dtype=torch.float64)[[3, 7]]


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=dice(seed), dtype=torch.float64)


def awake(network: nn.Module) -> nn.Module:
    """Every branch awake: what starts at zero hides what a layer does."""
    generator = dice()
    for p in network.parameters():
        p.data += 0.2 * torch.randn(p.shape, generator=generator)
    return network.double().eval()


def windows(**more) -> WindowTransformer:
    return WindowTransformer(2, **SMALL, spatial=(4, 4), temporal=(5, 2, 2), **more)


# --- patches


def test_patches_are_undone_and_in_order():
    clip = torch.arange(2 * 3 * 4 * 6 * 4.0).reshape(2, 3, 4, 6, 4)
    grid = to_patches(clip, (2, 3, 2))
    assert grid.shape == (2, 2, 2, 2, 36)
    assert torch.equal(from_patches(grid, (2, 3, 2), 3), clip)
    assert torch.equal(grid[1, 1, 0, 1].view(3, 2, 3, 2), clip[1, :, 2:4, 0:3, 2:4])


# --- the start


@pytest.mark.parametrize("kind", ["separate", "lora", "shared"])
@pytest.mark.parametrize("make", [lambda **m: Transformer(2, **SMALL, patch=(1, 1, 1), **m), windows])
def test_at_the_start_blocks_are_the_identity_and_the_output_zero(make, kind):
    network, seen = make(modulation=kind).double(), []
    for block in network.blocks:
        block.register_forward_hook(lambda _, given, answer: seen.append(torch.equal(given[0], answer)))
    assert torch.equal(network(noise(2, 2, 3, 4, 4), torch.zeros(2), LABELS), torch.zeros(2, 2, 3, 4, 4).double())
    assert seen == [True] * 3


def test_the_zero_start_learns():
    network = Transformer(1, **SMALL)
    network(torch.ones(1, 1, 2, 4, 4), torch.zeros(1)).sum().backward()
    assert network.head.bias.grad.abs().sum() > 0  # the head first; gates when it is not zero any more
    awake(network.head)
    network.double()(noise(1, 1, 2, 4, 4), torch.zeros(1)).square().sum().backward()
    assert all(layer.weight.grad.abs().sum() > 0 for layer in network.modulation.layers)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("depth", "rank"), [(1, 2), (6, 2), (28, 4)])
def test_parameters_of_lora(depth, rank):
    c, e = 24, 16
    assert count(Modulation("separate", depth, c, e, rank)) == depth * (6 * c * e + 6 * c)
    assert count(Modulation("lora", depth, c, e, rank)) == 6 * c * e + 6 * c + (depth - 1) * rank * (e + 6 * c)
    assert count(Modulation("shared", depth, c, e, rank)) == 6 * c * e + 6 * c


def test_lora_of_full_rank_is_separate():
    lora, separate = awake(Modulation("lora", 3, 4, 16, 16)), Modulation("separate", 3, 4, 16, 16).double()
    for i, layer in enumerate(separate.layers):
        more = 0 if i == 0 else lora.up[i - 1].weight @ lora.down[i - 1].weight
        layer.weight.data, layer.bias.data = lora.layers[0].weight + more, lora.layers[0].bias.data
    emb = noise(5, 16)
    for one, two in zip(lora(emb, 3), separate(emb, 3), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-12)  # float64, another order of sums


def test_normalised_queries_bound_what_the_softmax_sees():
    layer = Attention(16, 8).double()
    seen = []
    for norm in (layer.norm_q, layer.norm_k):
        norm.register_forward_hook(lambda *hooked: seen.append(hooked[2].double()))
    layer(1e3 * noise(1, 6, 16))
    logits = (seen[0] @ seen[1].mT) / 8**0.5
    assert logits.abs().max() <= 8**0.5 + 1e-5  # |q| = |k| = sqrt(d), so |q.k| / sqrt(d) <= sqrt(d)


# --- conditions


def test_conditions_that_are_zero_are_absent():
    network = awake(windows(self_conditioning=True, frames_known=True, text=9))
    z, zero = noise(2, 2, 3, 4, 4), torch.zeros(2, 2, 3, 4, 4).double()
    plain = network(z, torch.zeros(2))
    known = torch.cat((zero, zero[:, :1]), 1)
    same = network(z, torch.zeros(2), 0 * LABELS, estimate=zero, known=known, text=torch.zeros(2, 3).long())
    assert torch.equal(plain, same)
    for name, value in {"labels": LABELS, "estimate": z, "known": known + 1, "text": torch.ones(2, 3).long()}.items():
        assert (network(z, torch.zeros(2), **{name: value}) - plain).abs().max() > 1e-3


def test_it_is_a_denoisers_network_and_is_guided():
    denoiser = Denoiser(awake(windows()), CosineSchedule(-12, 12))
    z, t = noise(2, 2, 3, 4, 4), 0.6
    guided = classifier_free(denoiser.given(LABELS), denoiser.given(None), 2.0)(z, t)
    expected = 3 * denoiser.given(LABELS)(z, t) - 2 * denoiser(z, t)
    torch.testing.assert_close(guided, expected, rtol=0, atol=1e-5)  # the times' embedding is float32
    assert denoiser.loss(z, labels=LABELS, generator=dice()).mean.isfinite()


# --- windows


def test_windows_are_undone():
    x = noise(2, 4, 4, 6, 3)
    parts = into_windows(x, (2, 2, 3))
    assert parts.shape == (2 * 2 * 2 * 2, 12, 3)
    assert torch.equal(out_of_windows(parts, (2, 2, 3), (4, 4, 6)), x)


@pytest.mark.parametrize("turn", [False, True])
def test_attention_in_windows_is_full_attention_with_a_mask(turn):
    grid, sides = (3, 4, 4), (3, 2, 2) if turn else (1, 2, 4)
    block = awake(WindowBlock(24, 8, sides, turn, 0))
    x = noise(2, 48, 24)
    table = awake(RelativeBias((3, 4, 4), 3))  # of offsets in the whole grid; windows know the inner ones
    part = [slice(whole - own, whole + own - 1) for whole, own in zip((3, 4, 4), sides, strict=True)]
    table.embedding.data[:, part[0], part[1], part[2]] = block.bias.embedding.data
    full = block.attention(x, same_window(grid, sides)[None], table(grid))
    torch.testing.assert_close(block.mix(x, None, grid, None), full, rtol=0, atol=1e-6)  # softmax in float32


def test_bias_depends_on_the_offset_alone():
    bias = awake(RelativeBias((3, 4, 4), 2))((2, 3, 3))
    i, j = (0 * 9 + 0 * 3 + 0, 1 * 9 + 1 * 3 + 1), (0 * 9 + 1 * 3 + 1, 1 * 9 + 2 * 3 + 2)  # both (1, 1, 1) apart
    assert torch.equal(bias[:, i[0], i[1]], bias[:, j[0], j[1]])
    assert not torch.equal(bias[:, i[0], i[1]], bias[:, i[1], i[0]])


def test_words_stand_beside_the_own_keys():
    layer = awake(Attention(16, 8, context=4))
    x, words = noise(1, 5, 16), noise(1, 3, 4, seed=2)
    none = torch.cat((torch.ones(1, 5, 5), torch.zeros(1, 5, 3)), 2).bool()
    torch.testing.assert_close(layer(x, none, None, words), layer(x), rtol=0, atol=1e-6)  # norms in float32
    assert (layer(x, None, None, words) - layer(x)).abs().max() > 1e-3


# --- stills


@pytest.mark.parametrize("make", [lambda: Transformer(2, **SMALL, patch=(1, 2, 2)), windows])
def test_a_still_that_rides_along_is_a_clip_of_one_frame(make):
    network = awake(make())
    z = noise(2, 2, 5, 4, 4)
    together = network(z, torch.zeros(2), LABELS, frame_mask=joint_frame_mask(3, 2))
    parts = [z[:, :, :3], z[:, :, 3:4], z[:, :, 4:]]
    alone = torch.cat([network(part, torch.zeros(2), LABELS) for part in parts], 2)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)  # softmax and norms in float32
    assert (together - network(z, torch.zeros(2), LABELS)).abs().max() > 1e-3


def test_a_stills_tokens_see_themselves_alone_in_a_spatio_temporal_window():
    block = awake(WindowBlock(24, 8, (5, 2, 2), True, 0))
    x = noise(1, 16, 24).requires_grad_()
    block.mix(x, None, (1, 4, 4), None)[0, 5].sum().backward()
    assert (x.grad[0].abs().sum(-1) > 0).nonzero().flatten().tolist() == [5]  # projections of its own act


def test_a_mask_of_frames_is_one_of_tokens():
    mask = token_mask(joint_frame_mask(2, 1), (3, 1, 2))[0]
    assert mask[0].tolist() == [True] * 4 + [False] * 2 and mask[5].tolist() == [False] * 4 + [True] * 2


# --- sizes and what is refused


def test_sines_take_any_size_and_a_table_is_interpolated():
    awake(Transformer(2, **SMALL))(noise(1, 2, 7, 6, 10), torch.zeros(1))
    network = awake(Transformer(2, **SMALL, patch=(1, 1, 1), grid=(3, 2, 2)))
    assert network(noise(1, 2, 3, 4, 2), torch.zeros(1)).shape == (1, 2, 3, 4, 2)
    with pytest.raises(BadArgument, match="at most 3 patches in time, got 4"):
        network(noise(1, 2, 4, 2, 2), torch.zeros(1))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(dict(width=20), "width"), (dict(patch=(2, 2)), "patch"), (dict(embedding=15), "embedding"),
     (dict(modulation="none"), "modulation"), (dict(depth=0), "depth"), (dict(grid=(1, 0, 2)), "grid")],
)  # fmt: skip
def test_a_network_that_cannot_be_is_named(arguments, said):
    with pytest.raises(BadArgument, match=said):
        Transformer(2, **(SMALL | arguments))


@pytest.mark.parametrize(
    ("shape", "given", "error", "said"),
    [((1, 2, 3, 6, 4), {}, BadArgument, "spatial windows 4x4 divide, got 6x4"),
     ((1, 2, 6, 4, 4), {}, BadArgument, "at most 5 frames of tokens, got 6"),
     ((1, 3, 3, 4, 4), {}, BadArgument, "c=2"),
     ((1, 2, 3, 4, 4), {"estimate": torch.zeros(1, 2, 3, 4, 4)}, BadArgument, "self_conditioning=False"),
     ((1, 2, 3, 4, 4), {"known": torch.zeros(1, 3, 3, 4, 4)}, BadArgument, "frames_known=False"),
     ((1, 2, 3, 4, 4), {"text": torch.ones(1, 2).long()}, BadArgument, "text=0"),
     ((1, 2, 3, 4, 4), {"low": torch.zeros(1, 2, 3, 4, 4)}, BadArgument, "low_log_snr"),
     ((1, 2, 3, 4, 4), {"labels": torch.zeros(1, 9)}, BadArgument, "labels"),
     ((1, 2, 3, 4, 4), {"frame_mask": torch.ones(3, 3)}, BadType, "frame_mask"),
     ((1, 2, 3, 4, 4), {"frame_mask": torch.ones(2, 2).bool()}, BadArgument, "frame_mask")],
)  # fmt: skip
def test_bad_input_is_named(shape, given, error, said):
    with pytest.raises(error, match=said):
        awake(windows())(noise(*shape), torch.zeros(1), **given)


def test_patches_that_do_not_divide_and_conditions_that_are_unknown_are_named():
    with pytest.raises(BadArgument, match="multiples of 1x2x2, got 3x4x5"):
        Transformer(2, **SMALL)(noise(1, 2, 3, 4, 5).float(), torch.zeros(1))
    with pytest.raises(BadType, match="this network takes labels"):
        Denoiser(Transformer(2, **SMALL), CosineSchedule()).given(camera=torch.zeros(1, 2))


def test_a_block_by_itself():
    block = awake(TransformerBlock(24, 8))
    assert torch.equal(block(noise(1, 4, 24), torch.zeros(1, 1, 144).double()), noise(1, 4, 24))
