"""Text to video: the sampler against its definition, negative prompts, and errors before anything is sampled."""

import pytest
import torch

from minivdm import tasks
from minivdm.core import CosineSchedule, Denoiser
from minivdm.data.captions import VOCABULARY, CaptionError, tokens
from minivdm.guards import BadArgument
from minivdm.networks import UNet3D
from minivdm.systems.text_to_video import away_from_text, text_to_video

SETTINGS = dict(width=8, multipliers=(1, 2), spatial=(True, True), temporal=(True, True), head_channels=8, embedding=16,
                middle=1)  # fmt: skip
SENTENCES = ["a slow three moving up and left", "a seven"]


def awake(**changes) -> Denoiser:
    network = UNet3D(**(SETTINGS | dict(text=len(VOCABULARY)) | changes))
    generator = torch.Generator().manual_seed(0)
    for p in network.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=generator)
    model = Denoiser(network.eval().requires_grad_(False), CosineSchedule(-12, 12))
    model.shape = (1, 3, 8, 8)
    return model


def sampled(model: Denoiser, sentences, **options) -> torch.Tensor:
    return text_to_video(model, sentences, generator=torch.Generator().manual_seed(7), steps=3, **options)


@pytest.mark.parametrize("self_conditioning", [False, True])
def test_it_is_generation_with_the_tokens_as_condition(self_conditioning):
    model = awake(self_conditioning=self_conditioning)
    expected = tasks.generate(
        model, conditions={"text": tokens(SENTENCES)}, weight=2.0, steps=3, generator=torch.Generator().manual_seed(7)
    )
    assert torch.equal(sampled(model, SENTENCES), expected)


def test_a_negative_prompt_against_the_formula():
    model, z, t = awake(), torch.randn(2, 1, 3, 8, 8), torch.tensor(0.5)
    text, other = tokens(SENTENCES), tokens(["a digit"])
    guided = away_from_text(model, text, other, 1.5)(z, t)
    wanted, unwanted = model(z, t, text=text), model(z, t, text=other)
    assert (guided - (2.5 * wanted - 1.5 * unwanted)).abs().max() < 1e-4  # float32, another batch


def test_temporal_guidance_beside_a_negative_prompt():
    model, z, t = awake(), torch.randn(2, 1, 3, 8, 8), torch.tensor(0.5)
    text, other = tokens(SENTENCES), tokens(["a digit"])
    found = away_from_text(model, text, other, 1.5, 0.75)(z, t)
    wanted, unwanted = model(z, t, text=text), model(z, t, text=other)
    apart = model(z, t, text=text, frame_mask=torch.eye(3, dtype=torch.bool))
    assert (found - (wanted + 1.5 * (wanted - unwanted) + 0.75 * (wanted - apart))).abs().max() < 1e-4
    assert sampled(model, SENTENCES, negative="a digit", temporal_weight=0.5).isfinite().all()


@pytest.mark.parametrize("self_conditioning", [False, True])
def test_what_is_wanted_as_negative_prompt_cancels_guidance(self_conditioning):
    model = awake(self_conditioning=self_conditioning)
    plain = sampled(model, SENTENCES, weight=0.0)
    assert (sampled(model, SENTENCES, negative=SENTENCES, weight=3.0) - plain).abs().max() < 1e-4
    assert (sampled(model, SENTENCES, negative="a seven moving up", weight=3.0) - plain).abs().max() > 1e-3


def test_one_sentence_makes_one_clip():
    model = awake()
    clip = sampled(model, SENTENCES[0])
    assert clip.shape == (1, 1, 3, 8, 8)
    assert not torch.equal(clip, sampled(model, "a fast nine moving down"))


@pytest.mark.parametrize(
    ("sentences", "options", "error", "said"),
    [
        ("", {}, CaptionError, "expected a sentence such as"),
        ([], {}, CaptionError, "at least one"),
        ("a slow thre", {}, CaptionError, "nearest is 'three'"),
        ("a three", {"negative": "a cat"}, CaptionError, "got 'cat'"),
        (["a three"] * 3, {"negative": ["a two"] * 2}, BadArgument, "negative: expected 1 or 3"),
        ("a three", {"weight": -1.0}, BadArgument, "weight"),
    ],
)
def test_bad_input_is_named_before_anything_is_sampled(monkeypatch, sentences, options, error, said):
    model = awake()
    monkeypatch.setattr(UNet3D, "forward", lambda *a, **k: pytest.fail("the network was called"))
    with pytest.raises(error, match=said):
        sampled(model, sentences, **options)


def test_a_model_without_text_is_named():
    with pytest.raises(BadArgument, match="trained with text"):
        sampled(awake(text=0), "a three")
