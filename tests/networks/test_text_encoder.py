"""Text in the U-Net: what an empty sentence is, what a fresh text branch leaves untouched, and what is refused."""

import pytest
import torch
from torch import nn

from minivdm.core import CosineSchedule, Denoiser, classifier_free
from minivdm.data.captions import tokens
from minivdm.guards import BadArgument, BadType
from minivdm.networks import UNet3D
from minivdm.networks.text_encoder import CrossAttention, TextEncoder
from minivdm.networks.unet3d_config import UNet3DConfig
from minivdm.training import checkpoints, pretrained, recipes
from minivdm.training.optimizers import make

SMALL = dict(width=8, multipliers=(1, 2), spatial=(True, True), temporal=(True, True), head_channels=8, embedding=16,
             middle=1)  # fmt: skip
WORDS = 9
ROWS = torch.tensor([[3, 1, 4, 0, 0], [9, 2, 0, 0, 0]])


def seeded(network: nn.Module) -> nn.Module:
    """Every branch awake: outputs that start at zero hide what a layer does."""
    generator = torch.Generator().manual_seed(0)
    for p in network.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=generator)
    return network.double().eval()


def clip(b: int = 2, f: int = 3) -> torch.Tensor:
    return torch.randn(b, 1, f, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def encoder():
    return seeded(TextEncoder(WORDS, 16, 2, 8))


@pytest.fixture(scope="module")
def network():
    return seeded(UNet3D(**SMALL, text=WORDS))


# --- the shipped network goes on


@pytest.fixture(scope="module")
def fresh():
    """The untrained text network with the shipped label model's weights, and that model."""
    old, new = pretrained.load("moving-mnist-32"), recipes.get("text-32").make_network().eval()
    tensors, _ = checkpoints.read_weights(pretrained.find("moving-mnist-32"))
    missing = checkpoints.load_weights(new, tensors, partly=True)
    assert missing and all("text" in name for name in missing)
    return old.network, new


@torch.no_grad()
def test_fresh_text_leaves_the_shipped_model_untouched_bit_for_bit(fresh):
    old, new = fresh
    z = torch.randn(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    log_snr, labels = torch.tensor([-3.0, 2.0]), torch.eye(10)[[3, 7]]
    text = tokens(["a slow three moving up and left", "a seven"])
    before = old(z, log_snr, labels=labels)
    assert torch.equal(new(z, log_snr, labels=labels, text=text), before)
    assert torch.equal(new(z, log_snr, labels=labels), before)


def test_a_network_without_text_is_what_it_was():
    old = pretrained.load("moving-mnist-32").network
    assert not [name for name in old.state_dict() if "text" in name]
    assert not [name for name in old.config if "text" in name]
    assert UNet3DConfig().text == 0


def test_the_zero_start_learns(fresh):
    _, new = fresh
    z = torch.randn(1, 1, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    new(z, torch.zeros(1), text=tokens("a three")).square().sum().backward()
    gradients = {name: p.grad for name, p in new.named_parameters() if "text" in name and p.grad is not None}
    awake = [name for name, gradient in gradients.items() if gradient.abs().sum() > 0]
    new.zero_grad(set_to_none=True)
    assert "text_mean.weight" in awake
    assert sum(name.endswith("text.out.weight") for name in awake) == 8  # one in each cell with spatial attention


# --- an empty sentence


@torch.no_grad()
def test_an_empty_sentence_is_none_also_in_a_batch_with_others(network):
    z, log_snr = clip(), torch.zeros(2)
    empty = ROWS * torch.tensor([[0], [1]])
    mixed = network(z, log_snr, text=empty)
    assert torch.equal(mixed[:1], network(z, log_snr)[:1])
    # One clip's row does not depend on the other's; only the size of the matrix products differs, 1e-12 in float64.
    assert (mixed[1:] - network(z[1:], log_snr[1:], text=ROWS[1:])).abs().max() < 1e-12
    assert (mixed[1:] - network(z, log_snr)[1:]).abs().max() > 1e-3


@torch.no_grad()
def test_what_stands_behind_the_last_word_changes_nothing(network, encoder):
    longer = torch.cat([ROWS, torch.zeros(2, 4, dtype=torch.int64)], 1)
    z = clip()
    assert (network(z, torch.zeros(2), text=ROWS) - network(z, torch.zeros(2), text=longer)).abs().max() < 1e-12
    assert (encoder(ROWS).mean - encoder(longer).mean).abs().max() < 1e-12


@torch.no_grad()
def test_tokens_may_be_whole_numbers_of_any_dtype(network):
    z = clip()
    assert torch.equal(network(z, torch.zeros(2), text=ROWS), network(z, torch.zeros(2), text=ROWS.to(torch.bfloat16)))


@torch.no_grad()
def test_the_order_of_words_matters(encoder):
    assert (encoder(ROWS[:1]).mean - encoder(ROWS[:1, [1, 0, 2, 3, 4]]).mean).abs().max() > 1e-3


@torch.no_grad()
def test_the_mean_is_over_the_words_of_a_sentence(encoder):
    text = encoder(ROWS * torch.tensor([[1], [0]]))
    assert torch.allclose(text.mean[0], text.words[0, :3].mean(0))
    assert (text.mean[1] == 0).all()
    assert text.given.tolist() == [1.0, 0.0]


# --- the layer


@torch.no_grad()
def test_cross_attention_equals_attention_written_out(encoder):
    layer = seeded(CrossAttention(16, 16, 8))
    text = encoder(ROWS)
    x = torch.randn(2 * 3, 16, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = x.clone()
    weights = layer.weights(x, text)
    for n in range(6):
        b, count = n // 3, int(text.mask[n // 3].sum())
        q = layer.q(layer.norm(x[n : n + 1]))[0].flatten(1).T  # places c
        k, v = layer.kv(text.words[b, :count]).chunk(2, dim=1)  # words c
        heads = []
        for head in range(2):
            part = slice(8 * head, 8 * head + 8)
            share = (q[:, part] @ k[:, part].T / 8**0.5).softmax(-1)
            assert torch.allclose(weights[b, n % 3, :, :, head, :count].flatten(0, 1), share, atol=1e-12)
            heads.append(share @ v[:, part])
        expected[n] += layer.out(torch.cat(heads, 1).T.view(1, 16, 4, 4))[0]
    # Float64, another order of summation.
    assert (layer(x, text) - expected).abs().max() < 1e-12
    assert (weights[0, ..., 3:] == 0).all() and torch.allclose(weights.sum(-1), torch.ones(()).double())


def test_text_reaches_every_frame(network):
    z = clip(1)
    base = network(z, torch.zeros(1), text=ROWS[:1])
    other = network(z, torch.zeros(1), text=ROWS[1:])
    assert ((base - other).abs().amax(dim=(0, 1, 3, 4)) > 1e-4).all()


# --- guidance


@torch.no_grad()
def test_guidance_on_text_and_against_a_negative_sentence(network):
    denoiser = Denoiser(network, CosineSchedule(-12, 12))
    z, t, w = clip(), torch.tensor(0.6), 1.5
    wanted, unwanted = denoiser.given(text=ROWS), denoiser.given(text=ROWS.flip(0))
    guided = classifier_free(wanted, unwanted, w)(z, t)
    # The definition, eq 6 of VDM with the negative sentence in place of none; sums in another batch, 1e-10.
    assert (guided - ((1 + w) * wanted(z, t) - w * unwanted(z, t))).abs().max() < 1e-10
    plain = classifier_free(wanted, denoiser.given(None), w)(z, t)
    assert (plain - ((1 + w) * wanted(z, t) - w * denoiser(z, t))).abs().max() < 1e-10
    assert (guided - plain).abs().max() > 1e-3


@torch.no_grad()
def test_labels_and_text_are_two_conditions(network):
    denoiser = Denoiser(network, CosineSchedule(-12, 12))
    z, t, labels = clip(), torch.tensor(0.6), torch.eye(10)[[3, 7]]
    guided = classifier_free(denoiser.given(labels, text=ROWS), denoiser.given(labels), 1.0)(z, t)
    both, one = denoiser.given(labels, text=ROWS)(z, t), denoiser.given(labels)(z, t)
    assert (guided - (2 * both - one)).abs().max() < 1e-10


def test_gradients_pass_through_a_sampling_step_with_text(network):
    """Cells are computed again on the way back; the sentence has to be there both times."""
    z = clip().requires_grad_()
    (first,) = torch.autograd.grad(network(z, torch.zeros(2), text=ROWS).square().sum(), z)
    network.train()  # keeps everything instead
    (second,) = torch.autograd.grad(network(z, torch.zeros(2), text=ROWS).square().sum(), z)
    network.eval()
    assert (first - second).abs().max() < 1e-10


# --- optimizers, and what is refused


def test_word_and_position_tables_are_adamws_and_matrices_are_muons():
    recipe = recipes.get("text-32")
    network = UNet3D(**SMALL, text=WORDS)
    adamw, muon = (
        {id(p) for g in o.param_groups for p in g["params"]} for o in make(recipe, network, torch.device("cpu"))
    )
    names = dict(network.named_parameters())
    assert {id(p) for name, p in names.items() if "word_embedding" in name or "position_embedding" in name} <= adamw
    assert id(names["text_encoder.layers.0.qkv.weight"]) in muon and id(names["text_mean.weight"]) in muon


def test_a_frozen_text_encoder_gets_no_gradient_and_the_rest_does():
    network = UNet3D(**SMALL, text=WORDS, text_frozen=True)
    assert network.config["text_frozen"] and not UNet3D(**SMALL, text=WORDS).config.get("text_frozen")
    seeded(network)(clip(), torch.zeros(2), labels=torch.eye(10)[[3, 7]], text=ROWS).square().sum().backward()
    frozen = {name for name, p in network.named_parameters() if p.grad is None}
    assert frozen == {name for name, _ in network.named_parameters() if name.startswith("text_encoder.")}


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        (ROWS[:, None], BadArgument, "text"),
        (ROWS[:1].repeat(3, 1), BadArgument, "text"),
        (ROWS + 7, BadArgument, "text: expected tokens 0 to 9, got 7 to 16"),
        (-ROWS, BadArgument, "text: expected tokens 0 to 9"),
        (ROWS * float("nan"), BadArgument, "text"),
        (ROWS > 0, BadType, "text: expected a tensor of tokens"),
        (ROWS.repeat(1, 7), BadArgument, "1 to 32 words"),
        (ROWS[:, :0], BadArgument, "1 to 32 words"),
    ],
)  # fmt: skip
def test_bad_tokens_are_named(network, text, error, said):
    with pytest.raises(error, match=said):
        network(clip(), torch.zeros(2), text=text)


def test_text_for_a_network_without_is_named():
    with pytest.raises(BadArgument, match="text: expected none for a network built with text=0"):
        seeded(UNet3D(**SMALL))(clip(), torch.zeros(2), text=ROWS)


@pytest.mark.parametrize("arguments", [dict(vocabulary=0), dict(layers=-1), dict(width=12, head_channels=8)])
def test_an_encoder_that_cannot_be_is_named(arguments):
    with pytest.raises(BadArgument, match=next(iter(arguments))):
        TextEncoder(**(dict(vocabulary=WORDS) | arguments))
