"""The factorized 3D U-Net: what meets what, order in time, memory layout, and what it refuses."""

import pytest
import torch
from einops import rearrange

from minivdm.networks import GroupNorm, TemporalAttention, UNet3D, attend, attention, joint_frame_mask
from minivdm.networks.attention import rotary_angles, rotate


def small(**changes) -> UNet3D:
    """A few thousand parameters, every branch awake (zero-initialised outputs hide what a layer does)."""
    settings = dict(width=8, multipliers=(1, 2), spatial=(True, True), temporal=(True, True), head_channels=8,
                    embedding=16, middle=1)  # fmt: skip
    net = UNet3D(**(settings | changes))
    generator = torch.Generator().manual_seed(0)
    for p in net.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=generator)
    return net.double().eval()


def clip(b=2, f=5, size=8, seed=1):
    return torch.randn(b, 1, f, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def influence(net: UNet3D, frames: int, mask) -> torch.Tensor:
    """|d output of frame i / d input of frame j|, summed: shape (frames, frames)."""
    z = clip(1, frames).requires_grad_()
    out = net(z, torch.zeros(1), frame_mask=mask)
    rows = []
    for i in range(frames):
        (gradient,) = torch.autograd.grad(out[:, :, i].square().sum(), z, retain_graph=True)
        rows.append(gradient.abs().sum(dim=(0, 1, 3, 4)))
    return torch.stack(rows)


@pytest.mark.parametrize("frames", [1, 3, 7])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_joint_images_and_clip_do_not_leak_at_any_depth_or_length(frames, levels):
    net = small(multipliers=(1,) * levels, spatial=(True,) * levels, temporal=(True,) * levels)
    seen = influence(net, frames + 2, joint_frame_mask(frames, 2))
    allowed = joint_frame_mask(frames, 2)
    assert (seen[~allowed] == 0).all()  # exactly: a masked logit is -inf, its weight 0
    assert (seen[allowed] > 0).all()


def test_a_temporal_layer_that_misses_the_mask_is_seen_by_the_leak_test(monkeypatch):
    net = small()
    first = next(m for m in net.modules() if isinstance(m, TemporalAttention))
    whole = TemporalAttention.forward
    monkeypatch.setattr(
        TemporalAttention, "forward", lambda self, x, f, m=None: whole(self, x, f, None if self is first else m)
    )
    seen = influence(net, 5, joint_frame_mask(3, 2))
    assert (seen[~joint_frame_mask(3, 2)] > 0).any()


def test_frames_meet_only_in_temporal_attention():
    seen = influence(small(temporal=(False, False)), 4, None)
    assert (seen[~torch.eye(4, dtype=torch.bool)] == 0).all()


def test_without_mask_every_frame_sees_every_frame():
    assert (influence(small(), 4, None) > 0).all()


def test_images_of_a_joint_batch_come_out_as_if_alone():
    net, z = small(), clip(1, 5)
    joint = net(z, torch.zeros(1), frame_mask=joint_frame_mask(3, 2))
    clip_alone = net(z[:, :, :3], torch.zeros(1))
    image_alone = net(z[:, :, 4:], torch.zeros(1))
    # Float64; the sums run over differently padded softmax rows, nothing else differs.
    assert (joint[:, :, :3] - clip_alone).abs().max() < 1e-10
    assert (joint[:, :, 4:] - image_alone).abs().max() < 1e-10


def test_batched_masks_apply_per_clip():
    net, z = small(), clip(2, 4)
    masks = torch.stack((torch.ones(4, 4, dtype=torch.bool), torch.eye(4, dtype=torch.bool)))
    both = net(z, torch.zeros(2), frame_mask=masks)
    for i in range(2):
        alone = net(z[i : i + 1], torch.zeros(1), frame_mask=masks[i])
        assert (both[i : i + 1] - alone).abs().max() < 1e-10


def test_rotary_logits_depend_on_the_distance_alone():
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def logit(i, j):
        angles = rotary_angles(torch.tensor([i, j]), 8).double()
        cos, sin = angles.cos(), angles.sin()
        return (rotate(q, cos[:1], sin[:1]) * rotate(k, cos[1:], sin[1:])).sum()

    # The angles are float32 (7 digits) and reach 2 pi * 15 / 4, hence 1e-5.
    assert (logit(3, 1) - logit(15, 13)).abs() < 1e-5
    assert (logit(3, 1) - logit(1, 3)).abs() > 1e-2  # it knows before from after


def test_temporal_order_matters_only_through_relative_position():
    layer = TemporalAttention(8, 8).double()
    torch.nn.init.normal_(layer.out.weight, generator=torch.Generator().manual_seed(0))
    x = torch.randn(6, 8, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    turned = layer(x.flip(0), 6).flip(0)
    assert (turned - layer(x, 6)).abs().max() > 1e-4


def test_temporal_attention_equals_attention_written_out():
    layer = TemporalAttention(16, 8).double()
    torch.nn.init.normal_(layer.out.weight, generator=torch.Generator().manual_seed(0))
    x = torch.randn(2 * 5, 16, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mask = joint_frame_mask(3, 2)[None]
    weights = layer.weights(x, 5, mask)  # b h w heads i j
    values = rearrange(layer.qkv(layer.norm(x))[:, 32:], "(b f) (n d) h w -> b h w n f d", f=5, d=8)
    mixed = rearrange(weights @ values, "b h w n f d -> (b f) (n d) h w")
    assert (x + layer.out(mixed) - layer(x, 5, mask)).abs().max() < 1e-10
    assert (weights.sum(-1) - 1).abs().max() < 1e-12
    assert (weights[..., ~mask[0]] == 0).all()


def test_attention_in_pieces_equals_attention_at_once(monkeypatch):
    q, k, v = torch.randn(3, 10, 2, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = torch.rand(10, 1, 4, 4, generator=torch.Generator().manual_seed(1)) > 0.5
    mask |= torch.eye(4, dtype=torch.bool)
    whole = attend(q, k, v, mask)
    monkeypatch.setattr(attention, "MAX_ATTENTION_BATCH", 6)
    assert (attend(q, k, v, mask) - whole).abs().max() < 1e-12
    assert (attend(q, k, v, mask[:1]) - attend(q, k, v, mask[:1].expand(10, 1, 4, 4))).abs().max() < 1e-12


@pytest.mark.parametrize("frames", [1, 5, 40])
def test_runs_on_any_number_of_frames(frames):
    assert small()(clip(1, frames), torch.zeros(1)).shape == (1, 1, frames, 8, 8)


def test_unlabelled_is_the_all_zero_label():
    net, z = small(), clip()
    zeros = torch.zeros(2, 10)
    assert (net(z, torch.zeros(2)) - net(z, torch.zeros(2), labels=zeros)).abs().max() == 0
    assert (net(z, torch.zeros(2)) - net(z, torch.zeros(2), labels=zeros + 1)).abs().max() > 1e-3


def test_labels_of_one_frame_reach_that_frame():
    net, z = small(temporal=(False, False)), clip(1, 3)
    labels = torch.zeros(1, 3, 10)
    labels[:, 1, 4] = 1
    change = (net(z, torch.zeros(1), labels) - net(z, torch.zeros(1))).abs().amax(dim=(0, 1, 3, 4))
    assert change[0] == 0 and change[2] == 0 and change[1] > 1e-3


def test_untrained_network_predicts_zero():
    net = UNet3D(width=8, multipliers=(1,), spatial=(True,), temporal=(True,), head_channels=8)
    assert net(clip().float(), torch.zeros(2)).abs().max() == 0


def test_log_snr_reaches_the_output():
    net, z = small(), clip()
    assert (net(z, torch.full((2,), -3.0)) - net(z, torch.full((2,), 3.0))).abs().max() > 1e-3


def test_activations_stay_channels_last():
    net = small().float()
    seen = []
    for m in net.modules():
        if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3):
            m.register_forward_hook(lambda m, i, o: seen.append((i[0], o)))
    net(clip().float(), torch.zeros(2))
    assert seen
    for given, made in seen:
        assert given.is_contiguous(memory_format=torch.channels_last)
        assert made.is_contiguous(memory_format=torch.channels_last)


def test_config_rebuilds_the_network():
    net = small()
    again = UNet3D(**net.config).double()
    again.load_state_dict(net.state_dict())
    assert (again(clip(), torch.zeros(2)) - net(clip(), torch.zeros(2))).abs().max() == 0


def test_runs_under_bfloat16_autocast():
    net, z = small().float(), clip().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = net(z, torch.zeros(2))
    full = net(z, torch.zeros(2))
    # bfloat16 keeps 8 bits: about 0.4 % an operation, and some thirty of them in a row.
    assert (half.float() - full).abs().max() < 0.15 * full.abs().max()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n: n(clip()[0], torch.zeros(2)), "expected a video"),
        (lambda n: n(clip().transpose(1, 2), torch.zeros(2)), "c=1"),
        (lambda n: n(clip(size=6), torch.zeros(2)), "multiples of 4"),
        (lambda n: n(clip(), torch.zeros(3)), "log_snr"),
        (lambda n: n(clip(), torch.zeros(2), labels=torch.zeros(2, 9)), "labels: expected shape"),
        (lambda n: n(clip(), torch.zeros(2), frame_mask=torch.ones(5, 5)), "bool"),
        (lambda n: n(clip(), torch.zeros(2), frame_mask=torch.ones(4, 4) > 0), r"\(5, 5\)"),
    ],
)
def test_bad_input_says_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call(small())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(spatial=(True,)), "one entry per resolution"),
        (dict(width=12), "multiples of 8"),
        (dict(width=0), "width: expected at least 1"),
        (dict(channels=0), "channels: expected at least 1"),
        (dict(patch=-1), "patch: expected at least 1"),
        (dict(blocks=-1), "blocks: expected at least 1"),
        (dict(middle=-1), "middle: expected at least 0"),
        (dict(labels=-1), "labels: expected at least 0"),
        (dict(labels=None), "labels: expected a whole number"),
        (dict(embedding=1), "embedding: expected an even number"),
        (dict(embedding=16.0), "embedding: expected a whole number"),
        (dict(head_channels=0), "head_channels: expected at least 1"),
        (dict(multipliers=(0, 0)), "multipliers: expected at least 1"),
        (dict(multipliers=(), spatial=(), temporal=()), "one entry per resolution"),
        (dict(head_channels=6, width=24), "multiple of 4"),
    ],
)
def test_bad_configuration_says_what_was_expected(settings, message):
    with pytest.raises(ValueError, match=message):
        small(**settings)


def test_labels_to_a_network_without_condition_are_refused():
    with pytest.raises(ValueError, match="labels=0"):
        small(labels=0)(clip(), torch.zeros(2), labels=torch.zeros(2, 10))


def test_an_estimate_is_added_at_the_stem():
    net, z = small(self_conditioning=True), clip()
    estimate = clip(seed=2)
    alone, with_it = net(z, torch.zeros(2)), net(z, torch.zeros(2), estimate=estimate)
    assert (with_it - alone).abs().max() > 1e-3
    # Linear and without a bias: the estimate 0 is no estimate, to the last bit.
    assert (net(z, torch.zeros(2), estimate=0 * z) - alone).abs().max() == 0


def test_an_untrained_estimate_changes_nothing_and_plain_weights_load():
    plain = small()
    net = UNet3D(**(plain.config | {"self_conditioning": True})).double().eval()
    missing, unexpected = net.load_state_dict(plain.state_dict(), strict=False)
    assert (missing, unexpected) == (["stem_estimate.weight"], [])
    z = clip()
    assert (net(z, torch.zeros(2), estimate=clip(seed=2)) - plain(z, torch.zeros(2))).abs().max() == 0


def test_an_estimate_that_cannot_be_used_is_refused():
    with pytest.raises(ValueError, match="self_conditioning=False"):
        small()(clip(), torch.zeros(2), estimate=clip())
    with pytest.raises(ValueError, match="estimate: expected the clip's shape"):
        small(self_conditioning=True)(clip(), torch.zeros(2), estimate=clip(f=4))


def test_attention_in_bfloat16_agrees_with_float32():
    q, k, v = torch.randn(3, 6, 2, 5, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    mask = joint_frame_mask(3, 2)[None, None]
    half = attend(q, k, v, mask).float()
    full = attend(q.float(), k.float(), v.float(), mask)
    # 8 bits, a relative rounding of 2^-9 each: of the logits (up to about 3), of the weights and of the result.
    assert (half - full).abs().max() < 0.03 * full.abs().max()


def test_attention_in_bfloat16_has_the_gradients_of_float32():
    q, k, v = torch.randn(3, 6, 2, 5, 8, generator=torch.Generator().manual_seed(0)).bfloat16()

    def gradients(dtype):
        leaves = [part.to(dtype).requires_grad_() for part in (q, k, v)]
        return torch.autograd.grad(attend(*leaves).float().square().sum(), leaves)

    for half, full in zip(gradients(torch.bfloat16), gradients(torch.float32), strict=True):
        assert (half.float() - full).abs().max() < 0.05 * full.abs().max()  # as above, and once more on the way back


def test_group_norm_in_bfloat16_is_that_of_float32_rounded_once():
    norm = GroupNorm(8, 16)
    torch.nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(0))
    x = 3 + torch.randn(4, 16, 6, 6, generator=torch.Generator().manual_seed(1))
    x = x.bfloat16().contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = norm(x)
    assert half.dtype == torch.bfloat16 and half.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(half, torch.nn.GroupNorm.forward(norm, x.float()).bfloat16())


def test_a_clip_of_another_precision_is_cast_to_the_networks():
    net, z = small().float(), clip()
    assert torch.equal(net(z, torch.zeros(2)), net(z.float(), torch.zeros(2)))


def test_bytes_and_empty_batches_are_named():
    with pytest.raises(TypeError, match=r"z: expected floating-point values, got torch.uint8; 8-bit"):
        small()(clip().byte(), torch.zeros(2))
    with pytest.raises(ValueError, match="none of them 0"):
        small()(clip()[:0], torch.zeros(0))
