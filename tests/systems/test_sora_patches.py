"""Packing changes nothing; and a DiT's sizes and operations."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from minivdm.core import CosineSchedule, Denoiser
from minivdm.guards import BadArgument
from minivdm.networks.transformer import Transformer
from minivdm.systems import dit, sora_patches

SIZES = [(1, 4, 4), (3, 8, 4), (2, 4, 12), (5, 6, 6)]  # frames, height, width: a still, tall, wide, long


def awake(**more) -> Transformer:
    network = Transformer(1, 24, 3, (1, 2, 2), head_channels=8, embedding=16, **more)
    generator = torch.Generator().manual_seed(0)
    for p in network.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=generator)
    return network.eval()


def clips() -> list[torch.Tensor]:
    return [torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(k)) for k, size in enumerate(SIZES)]


LOG_SNR, LABELS = torch.tensor([-3.0, 0.0, 1.0, 5.0]), torch.eye(10)[[1, 2, 3, 3]]


@torch.no_grad()
def test_packing_changes_nothing():
    network = awake()
    together = sora_patches.run_packed(network, clips(), LOG_SNR, LABELS)
    for k, clip in enumerate(clips()):
        alone = network(clip, LOG_SNR[k : k + 1], LABELS[k : k + 1])
        assert alone.abs().max() > 1e-2
        torch.testing.assert_close(together[k], alone, rtol=0, atol=1e-6)  # float32, another order of sums


def test_no_gradient_crosses_from_clip_to_clip():
    given = [clip.requires_grad_() for clip in clips()]
    sora_patches.run_packed(awake(), given, LOG_SNR)[1].sum().backward()
    assert [bool(clip.grad is not None and clip.grad.abs().sum() > 0) for clip in given] == [False, True, False, False]


@torch.no_grad()
def test_the_loss_of_a_pack_is_that_of_each_clip():
    denoiser = Denoiser(awake(), CosineSchedule(-12, 12))
    t = torch.tensor([0.2, 0.4, 0.6, 0.9], dtype=torch.float64)
    noise = [torch.randn(clip.shape, generator=torch.Generator().manual_seed(9)) for clip in clips()]
    packed = sora_patches.loss(denoiser, clips(), LABELS, t, noise)
    for k, clip in enumerate(clips()):
        one = denoiser.loss(clip, labels=LABELS[k : k + 1], label_drop=0.0, t=t[k : k + 1], noise=noise[k])
        torch.testing.assert_close(packed.per_sample[k], one.mean, rtol=1e-5, atol=1e-6)


def test_bins_hold_every_clip_once_and_overflow_nowhere():
    lengths = [5, 9, 3, 3, 7, 1, 2, 10]
    found = sora_patches.bins(lengths, 10)
    assert sorted(k for part in found for k in part) == list(range(8))
    assert all(sum(lengths[k] for k in part) <= 10 for part in found)
    assert found[0] == [0, 2, 5]  # 5, then 3, then 1: the first with room
    with pytest.raises(BadArgument, match="at most capacity=4 tokens, got 5"):
        sora_patches.bins(lengths, 4)


@pytest.mark.parametrize(
    ("change", "said"),
    [(lambda c: c[0], "clips"), (lambda c: [], "at least one"),
     (lambda c: [c[0].expand(2, -1, -1, -1, -1)], "one clip"),
     (lambda c: [c[0][..., :3]], "multiples of 1x2x2"), (lambda c: c[:2], "one for each of 2")],
)  # fmt: skip
def test_bad_packs_are_named(change, said):
    with pytest.raises(BadArgument, match=said):
        sora_patches.run_packed(awake(), change(clips()), LOG_SNR)


@torch.no_grad()
def test_operations_are_those_that_are_counted():
    network, shape = dit.dit("T", (1, 2, 2), head_channels=32), (2, 8, 8)
    n = dit.tokens(shape, (1, 2, 2))
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, *shape), torch.zeros(1))
    once = 64 * 64 * 2 + 2 * 64 * 6 * 64 + 64 * 2 * 64  # embedding and modulation, once a clip
    # The counter takes an addition and a multiplication for two operations, and leaves out fused attention on a CPU.
    counted = counter.get_total_flops() // 2
    attention = 2 * n * n * 64 * 2
    assert dit.operations(network, n) + once in (counted, counted + attention)


def test_sizes_that_do_not_divide_are_named():
    with pytest.raises(BadArgument, match="whole patches"):
        dit.tokens((3, 8, 8), (2, 2, 2))
    with pytest.raises(BadArgument, match="size"):
        dit.dit("XXL")
