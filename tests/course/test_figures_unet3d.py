"""The drawings of lesson 08: costs that are counted as well as computed, masks, and what temporal heads attend to."""

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from einops import rearrange, repeat
from matplotlib.figure import Figure
from torch import nn

from minivdm.core.denoiser import Denoiser
from minivdm.core.schedules import CosineSchedule
from minivdm.course.notebook.figures import temporal_heads as heads
from minivdm.course.notebook.figures import unet3d as fig
from minivdm.course.notebook.figures import unet3d_diagram as diagram
from minivdm.course.notebook.figures import unet3d_masks as masks
from minivdm.course.notebook.figures.still import life_size
from minivdm.networks import TemporalAttention, UNet3D, joint_frame_mask

SMALL = dict(width=8, multipliers=(1, 2), head_channels=8, embedding=16, middle=1, spatial=(True, True))


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def net():
    return masks.awake(UNet3D(**SMALL, temporal=(True, True)))


@pytest.fixture(scope="module")
def denoiser(net):
    return Denoiser(net, CosineSchedule())


# ---- three ways ------------------------------------------------------------------------------------------------------


def test_a_flat_kernel_is_a_convolution_of_merged_frames():
    video, weight = normal(2, 3, 4, 6, 6), normal(5, 3, 3, 3, seed=1)
    deep = nn.functional.conv3d(video, weight[:, :, None], padding=(0, 1, 1))
    flat = nn.functional.conv2d(rearrange(video, "b c f h w -> (b f) c h w"), weight, padding=1)
    assert (rearrange(flat, "(b f) c h w -> b c f h w", b=2) - deep).abs().max() < 1e-12  # float64 rounding


def test_full_convolution_sees_one_frame_to_each_side():
    layer = fig.VolumeConv(2, 2, "full 3D", 5).double()
    x = normal(5, 2, 4, 4).requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x)[2].square().sum(), x)
    assert [bool(g.any()) for g in gradient] == [False, True, True, True, False]


def test_enough_channels_between_make_a_separable_kernel_exact():
    kernel = normal(4, 4, 3, 3, 3)
    errors = []
    for between in (2, 4, 12):
        spatial, temporal = fig.separate(kernel, between)
        together = torch.einsum("omt,mihw->oithw", temporal[..., 0, 0], spatial[:, :, 0])
        errors.append((together - kernel).norm())
    assert errors[0] > errors[1] > 0.1 and errors[2] < 1e-12  # rank at most 3 C = 12; float64 rounding


@pytest.mark.parametrize("channels", [32, 64])
def test_weights_of_a_layer(channels):
    def weights(*layers):
        return sum(p.numel() for layer in layers for p in layer.parameters() if p.ndim > 1)

    attention = TemporalAttention(channels, 32)
    assert weights(nn.Conv2d(channels, channels, 3), attention) == fig.layer_parameters("factorized", channels)
    for kind in fig.KINDS[1:]:
        assert weights(fig.VolumeConv(channels, channels, kind, 4)) == fig.layer_parameters(kind, channels)


def test_multiply_adds_of_a_layer():
    c, f, side = 32, 6, 4
    x = normal(f, c, side, side).float()
    for kind in fig.KINDS[1:]:
        layer = fig.VolumeConv(c, c, kind, f)
        assert fig.count_multiply_adds(layer, x) == f * side**2 * fig.layer_multiply_adds(kind, c, f)
    work = fig.count_multiply_adds(nn.Conv2d(c, c, 3, padding=1), x)
    work += fig.count_multiply_adds(TemporalAttention(c, 32), x, f)
    assert work == f * side**2 * fig.layer_multiply_adds("factorized", c, f)


def test_logits_of_divided_and_joint_attention():
    f, n, c = 4, 9, 8
    q = normal(1, 1, f * n, c)
    joint = fig.count_multiply_adds(_Logits(), q)
    space, time = q.view(f, 1, n, c), q.view(n, 1, f, c)
    divided = fig.count_multiply_adds(_Logits(), space) + fig.count_multiply_adds(_Logits(), time)
    assert joint == (f * n) ** 2 * c and divided == f * n * (n + f) * c


class _Logits(nn.Module):
    def forward(self, q):
        return q @ q.mT


def test_bytes_kept_are_those_of_the_inputs_that_the_gradient_needs():
    x = torch.zeros(1, 4, 5, 8, 8, requires_grad=True)
    assert fig.bytes_kept(nn.Conv3d(4, 2, 3, padding=1), x) == x.numel() * 4  # the input; weights do not count


@pytest.mark.parametrize("kind", fig.KINDS)
def test_each_variant_is_a_video_network_that_can_be_measured(kind):
    net = fig.variant(kind, 3, **SMALL)
    cost = fig.measure(net, normal(1, 1, 3, 8, 8).float(), repeats=1)
    assert cost.parameters == sum(p.numel() for p in net.parameters())
    assert min(cost) > 0
    seen = masks.influence(masks.awake(net), normal(1, 1, 3, 8, 8))
    assert (seen > 0).all()  # frames meet in each of them


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="factorized"):
        fig.variant("4D", 3)


# ---- the alternatives ------------------------------------------------------------------------------------------------


def test_causal_convolutions_see_no_later_frame_and_six_earlier_ones_in_three_layers():
    layers = nn.Sequential(*(fig.CausalConv(1, 1) for _ in range(3))).double()
    seen = masks.influence(lambda z, log_snr, frame_mask: layers(z), normal(1, 1, 9, 6, 6))
    expected = torch.ones(9, 9).tril() * torch.ones(9, 9).triu(-6)
    expected[:, 0] += seen[:, 0] > 0  # the frames before the first are copies of it
    assert torch.equal(seen > 0, expected > 0)
    assert seen[8, 1] == 0 and seen[8, 2] > 0


def test_a_single_image_is_a_clip_of_one_frame_for_a_causal_convolution():
    layer = fig.CausalConv(2, 3).double()
    clip = normal(1, 2, 4, 6, 6)
    assert (layer(clip)[:, :, :1] - layer(clip[:, :, :1])).abs().max() < 1e-12  # float64 rounding


@pytest.mark.parametrize("divided", [False, True])
def test_multiply_adds_of_a_transformer_block(divided):
    c, f, places = 16, 3, 4
    block = _Block(c, divided).train()
    counted = fig.count_multiply_adds(block, normal(f, places, c).float())
    assert counted == f * places * fig.transformer_multiply_adds(c, f, places, divided)


class _Block(nn.Module):
    """Attention over all tokens, or over places and then over frames, and a perceptron four times as wide."""

    def __init__(self, width, divided):
        super().__init__()
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(1 + divided))
        self.out = nn.ModuleList(nn.Linear(width, width) for _ in range(1 + divided))
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):  # f places c
        shapes = ["f p c -> f p c", "f p c -> p f c"] if len(self.qkv) == 2 else ["f p c -> 1 (f p) c"]
        for shape, qkv, out in zip(shapes, self.qkv, self.out, strict=True):
            q, k, v = qkv(rearrange(x, shape)).chunk(3, dim=-1)
            back = " -> ".join(reversed(shape.split(" -> ")))
            x = x + rearrange(out((q @ k.mT).softmax(-1) @ v), back, f=x.shape[0])
        return x + self.mlp(x)


def test_the_parts_of_a_network_cost_what_the_whole_costs():
    net, z = UNet3D(**SMALL, temporal=(True, True)).eval(), normal(1, 1, 4, 8, 8).float()
    parts = fig.cost_by_part(net, z)
    assert sum(parts.values()) == fig.count_multiply_adds(net, z, torch.zeros(1))
    per_place = [4 * c**2 + 2 * 4 * c for c in (8, 16)]  # equation 8.5, four frames; patch 2: 16 and 4 places a frame
    cells = [3, 4]  # one down and two up; one down, one in the middle, two up
    assert parts["attention over time"] == 4 * (16 * cells[0] * per_place[0] + 4 * cells[1] * per_place[1])


def test_the_route_through_the_network_has_a_skip_for_every_cell_of_the_way_up():
    net = UNet3D(**SMALL, temporal=(True, True), blocks=2)
    stops, skips = diagram.route(net)
    assert [stop.kind for stop in stops].count("cell") == sum(1 for m in net.modules() if type(m).__name__ == "Block")
    assert len(skips) == 2 * (2 + 1)
    assert all(stops[a].level == stops[b].level and stops[a].leaves == stops[b].joined for a, b in skips)
    for stop in stops:
        if stop.kind == "cell":
            assert stop.arrives + stop.joined == stop.cell.residual.conv1.in_channels


# ---- who sees whom ---------------------------------------------------------------------------------------------------


def test_one_layer_that_forgets_the_mask_leaks_everything(net):
    mask, z = joint_frame_mask(3, 2), normal(1, 1, 5, 8, 8)
    before = masks.influence(net, z, mask)
    with masks.forgetting_mask(heads.temporal_layers(Denoiser(net, CosineSchedule()))[2]):
        leaked = masks.influence(net, z, mask)
    assert (before[~mask] == 0).all() and (leaked > 0).all()
    assert torch.equal(masks.influence(net, z, mask), before)  # the layer is whole again


def test_reach_is_the_product_of_the_masks():
    mask = joint_frame_mask(3, 2)
    everything = torch.ones(5, 5, dtype=torch.bool)
    assert torch.equal(masks.reach([mask] * 4), mask)
    assert masks.reach([mask, everything, mask]).all()
    causal = everything.tril()
    assert torch.equal(masks.reach([causal] * 3), causal)


def test_a_masked_weight_and_its_gradient_are_exactly_zero():
    logits = normal(5, 5).requires_grad_()
    mask = joint_frame_mask(3, 2)
    weights = logits.masked_fill(~mask, -torch.inf).softmax(-1)
    (gradient,) = torch.autograd.grad((weights * normal(5, 5, seed=1)).sum(), logits)
    assert (weights[~mask] == 0).all() and (gradient[~mask] == 0).all()


def test_variance_of_an_average_over_clip_and_images():
    f, n, rho = 16, 8, 0.9
    covariance = torch.eye(f + n, dtype=torch.float64)
    covariance[:f, :f] = rho
    covariance.fill_diagonal_(1)
    average = torch.full((f + n,), 1 / (f + n), dtype=torch.float64)
    assert abs(average @ covariance @ average - masks.average_variance(f, n, rho)) < 1e-12  # float64 rounding


# ---- the network that the learner writes ---------------------------------------------------------------------------


LESSON = Path(__file__).parents[2] / "lessons" / "08_factorized_3d_unet.ipynb"
WRITTEN = ("def zero", "class SpatialAttention", "def positions", "class Cell", "def embed", "class Down", "class Up",
           "class Parts", "class MyUNet")  # fmt: skip


def lessons_network(net):
    """The lesson's own U-Net with the settings and weights of a UNet3D."""
    sources = ["".join(cell["source"]) for cell in json.loads(LESSON.read_text(encoding="utf-8"))["cells"]]
    names = {"torch": torch, "nn": nn, "F": nn.functional, "math": math, "rearrange": rearrange, "repeat": repeat,
             "pairwise": pairwise, "network": UNet3D(), "normal": lambda *shape: torch.zeros(shape)}  # fmt: skip
    cells = [source for source in sources if source.startswith(WRITTEN)]
    assert len(cells) == len(WRITTEN)
    for source in cells:
        exec(source, names)
    mine = names["MyUNet"](net.config).double()
    mine.load_state_dict(net.state_dict())
    return mine


@pytest.mark.parametrize(
    "changes",
    [{}, {"blocks": 2, "middle": 0, "spatial": (False, True)}, {"self_conditioning": True, "temporal": (True, False)}],
)
def test_the_network_written_in_the_lesson_is_the_packages(changes):
    net = masks.awake(UNet3D(**{**SMALL, "temporal": (True, True), **changes}))
    mine, z, log_snr = lessons_network(net), normal(2, 1, 5, 8, 8), torch.tensor([-2.0, 3.0])
    given = {"labels": normal(2, 10, seed=1), "frame_mask": joint_frame_mask(3, 2)}
    if changes.get("self_conditioning"):
        given["estimate"] = normal(2, 1, 5, 8, 8, seed=2)
    # Rotary angles and the embedding of the noise level are computed in float32 on both sides.
    assert (mine(z, log_snr.double(), **given) - net(z, log_snr, **given)).abs().max() < 1e-5


# ---- temporal heads --------------------------------------------------------------------------------------------------


def test_without_positions_attention_commutes_with_permutations(monkeypatch):
    from minivdm.networks import attention

    angles = attention.rotary_angles
    monkeypatch.setattr(attention, "rotary_angles", lambda *given: 0 * angles(*given))
    layer = TemporalAttention(8, 8).double()
    nn.init.normal_(layer.out.weight, generator=torch.Generator().manual_seed(0))
    x, order = normal(6, 8, 2, 2), torch.tensor([3, 1, 5, 0, 2, 4])
    assert (layer(x[order], 6) - layer(x, 6)[order]).abs().max() < 1e-12  # float64 rounding


def test_a_table_of_distances_is_shaws_form():
    # (8.9): the logits are q k^T plus q a_{j-i}, which depend on the distance alone where q does.
    q, k, a = normal(1, 4).expand(5, 4), normal(1, 4, seed=1).expand(5, 4), normal(9, 4, seed=2)
    i = torch.arange(5)
    logits = torch.einsum("id,ijd->ij", q, k[None] + a[i[None, :] - i[:, None] + 4]) / 2
    assert (logits[1:, 1:] - logits[:-1, :-1]).abs().max() < 1e-12  # float64 rounding


def test_distance_bias_is_what_is_left_without_content():
    layer = TemporalAttention(16, 8).double()
    for n, p in enumerate(layer.parameters()):
        p.data = normal(*p.shape, seed=n)
    bias = heads.distance_bias(layer, 5)
    expected = torch.stack([bias[:, 4 - i : 9 - i] for i in range(5)], dim=1).softmax(-1)
    found = layer.weights(torch.zeros(5, 16, 2, 2, dtype=torch.float64), 5)[0, 1, 1]
    assert (found - expected).abs().max() < 1e-5  # the angles are float32


def test_attention_maps_are_those_of_every_temporal_layer(denoiser):
    video = normal(1, 1, 5, 8, 8)
    maps = heads.attention_maps(denoiser, video, 0.0)
    assert [tuple(w.shape[2:]) for w in maps] == [(1, 5, 5)] + [(2, 5, 5)] * 4 + [(1, 5, 5)] * 2
    assert all((w.sum(-1) - 1).abs().max() < 1e-12 for w in maps)  # rows of a softmax, float64
    assert not any(layer._forward_pre_hooks for layer in heads.temporal_layers(denoiser))


def test_effective_frames_and_offsets_of_known_maps():
    even = torch.full((2, 2, 1, 4, 4), 0.25)
    assert abs(heads.effective_frames(even) - 4) < 1e-6  # float32
    assert torch.equal(heads.by_offset(even), torch.full((7,), 0.25))
    ahead = torch.diag_embed(torch.ones(3), offset=1).expand(1, 1, 1, 4, 4)
    assert heads.by_offset(ahead).tolist() == [0, 0, 0, 0, 1, 0, 0]
    assert heads.effective_frames(torch.eye(3).expand(1, 1, 1, 3, 3)) == 1


# ---- figures ---------------------------------------------------------------------------------------------------------


def test_the_head_viewer_draws_the_map_of_the_chosen_place(denoiser):
    video = normal(1, 1, 5, 8, 8).clamp(-1, 1)
    draw = heads.attention_viewer(denoiser, video, [-2.0, 2.0])
    drawn = draw(layer=1, head=1, row=5, column=2, log_snr=2.0)
    weights = heads.attention_maps(denoiser, video, 2.0)[1]
    shown = drawn.axes[1].child_axes[0].images[0].get_array()
    assert torch.equal(torch.as_tensor(shown.data), weights[5 // 4, 2 // 4, 1])  # 8 pixels, 2 places a side
    with pytest.raises(ValueError, match="log-SNR"):
        draw(1, 0, 0, 0, 3.0)


def test_costs_that_are_drawn_are_those_computed():
    drawn = fig.draw_costs(64, 16, 8)
    assert [bar.get_height() * 1e3 for bar in drawn.axes[0].patches] == [13 * 64**2, 12 * 64**2, 27 * 64**2]
    assert drawn.axes[1].lines[0].get_ydata()[15] == 13 * 64**2 + 2 * 16 * 64


def test_the_others_return_figures(net):
    cost = fig.Cost(1, 2, 3, 4.0)
    matrix = torch.eye(4)
    for drawn in (
        fig.draw_measured(dict.fromkeys(fig.KINDS, cost)), diagram.draw_network(net, 8, 4),
        masks.draw_influence({"a": matrix, "b": matrix + 1}, 2), masks.draw_average_variance(8),
        heads.draw_spread([-1.0, 1.0], [[1.0, 2.0], [2.0, 3.0]], 4),
        heads.draw_gain([-1.0, 1.0], {"a": torch.ones(2, 3), "b": torch.ones(2, 3)}),
    ):  # fmt: skip
        assert isinstance(drawn, Figure)


def test_a_still_has_the_size_of_its_figure():
    picture = life_size(fig.draw_costs, "costs")(channels=64, frames=16, side=8)
    assert picture.alt == "costs" and picture.width == round(8.2 * 96)
