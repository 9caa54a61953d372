"""Make-A-Video: text to video from pairs of sentences and images, and from clips that nobody described.

Singer et al. 2022, "Make-A-Video: text-to-video generation without text-video data" (their equation 1):

    y = SR_h . SR_l^t . F . D^t . P (sentence)

A prior P makes the embedding of an image of a sentence, and is all that ever sees text. D^t makes a few frames of it:
an image model that is conditioned on the embedding, with layers over time (`networks.pseudo_3d`) that are trained on
clips without a description, whose embedding is one of their own frames. F fills in frames between; SR makes them
larger, SR_l^t with layers over time, SR_h without.

Here: the embedding is 96 features of the digit reader, the largest value of each over a frame, so that it knows which
digit and in what hand, but not where (CLIP's is about what is there, too). D^t makes 8 frames of 32x32, every second
one; F makes 16 of them; SR_h makes 64x64 of each frame. SR_l^t is left out, as there is no size between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minivdm.core import samplers
from minivdm.core.denoiser import Denoiser
from minivdm.core.gaussian import noise_like
from minivdm.core.guidance import classifier_free
from minivdm.core.schedules import CosineSchedule
from minivdm.data.captions import VOCABULARY, tokens
from minivdm.guards import BadArgument, check_types, real, video, whole
from minivdm.measure.readers import DigitReader, load_reader
from minivdm.networks.prior import PriorNetwork
from minivdm.networks.pseudo_3d import Pseudo3DUNet
from minivdm.networks.unet3d import UNet3D
from minivdm.systems.imagen_video import augmented, resized
from minivdm.training import stages

FEATURES = 96  # of the digit reader
FRAMES, SIZE = 8, 32  # of what D^t makes
RATE = 16.0  # frames a unit of time of a clip in which no frame is left out
LOW_LOG_SNR = 4.0  # of the small frames that SR_h is given

_IMAGE = dict(width=32, patch=2, labels=FEATURES, blocks=1, embedding=64, head_channels=32)
#: The image model, and SR_h, a network for images as well, with its small image beside.
IMAGE: dict[str, Any] = {**_IMAGE, "multipliers": (1, 2), "middle": 1, "spatial": (False, True),
                         "temporal": (False, False)}  # fmt: skip
LARGER: dict[str, Any] = {**_IMAGE, "multipliers": (1, 1), "middle": 0, "spatial": (False, False),
                          "temporal": (False, False), "low": 1}  # fmt: skip
STAGES = ("prior", "image", "video", "between", "larger")
MADE_BY = "benchmarks/train_make_a_video.py"


def features(frames: Tensor, reader: DigitReader | None = None) -> Tensor:
    """What an image shows, wherever it is: (n, 96) of frames (n, 1, 32, 32), each feature's largest value."""
    if frames.ndim != 4 or frames.shape[1:] != (1, SIZE, SIZE):
        raise BadArgument(f"frames: expected (n, 1, {SIZE}, {SIZE}), got {tuple(frames.shape)}")
    reader = load_reader(frames.device) if reader is None else reader
    with torch.no_grad():
        return reader.body(frames).amax((2, 3))


def masked(clips: Tensor, known: Tensor) -> Tensor:
    """What F is given: clips (b, 1, f, h, w) with zeros in place of unknown frames, and a channel that says which.

    known: (b, f) bool, or (f,). Returns (b, 2, f, h, w). Singer et al. 2022, section 3.3.
    """
    b, _, f, h, w = video("clips", clips, channels=1).shape
    if known.dtype != torch.bool or known.shape not in ((f,), (b, f)):
        raise BadArgument(f"known: expected bool of shape ({b}, {f}), got {known.dtype} of {tuple(known.shape)}")
    mask = known.expand(b, f)[:, None, :, None, None]
    held = torch.where(mask, clips, torch.zeros_like(clips))  # not a product: 0 times NaN is no zero
    return torch.cat([held, mask.to(clips).expand(b, 1, f, h, w)], dim=1)


def spread(clips: Tensor, every: int = 2) -> tuple[Tensor, Tensor]:
    """Frames (b, c, f, h, w) at every `every`-th place of a longer clip (b, c, f every, h, w), and which are known."""
    b, c, f, h, w = video("clips", clips).shape
    longer = clips.new_zeros(b, c, f * whole("every", every), h, w)
    longer[:, :, ::every] = clips
    known = torch.zeros(f * every, dtype=torch.bool, device=clips.device)
    known[::every] = True
    return longer, known


def same_for_all_frames(
    count: int, shape: tuple[int, int, int, int], generator: torch.Generator | None = None
) -> Tensor:
    """Noise (count, c, f, h, w) that is one and the same in all frames of a clip (Singer et al. 2022, section 3.2)."""
    c, f, h, w = shape
    where = generator.device if generator is not None else None
    one = torch.randn((whole("count", count), c, 1, h, w), generator=generator, device=where)
    return one.expand(-1, -1, f, -1, -1).contiguous()


@dataclass(frozen=True)
class MakeAVideo:
    """The parts, each a denoiser. prior: of embeddings, its network a `PriorNetwork`. image: of frames, given an
    embedding as `labels`. video, between: of clips, their networks `Pseudo3DUNet`. larger: of frames of twice the side,
    given the small ones as `low`. A call is the whole composition."""

    prior: Denoiser
    image: Denoiser
    video: Denoiser
    between: Denoiser
    larger: Denoiser

    def embed(self, frames: Tensor) -> Tensor:
        """The embedding (n, 96) of frames (n, 1, 32, 32)."""
        normalised: Tensor = self._prior.normalised(features(frames))
        return normalised

    @property
    def _prior(self) -> PriorNetwork:
        if not isinstance(self.prior.network, PriorNetwork):
            raise BadArgument(f"prior: expected a PriorNetwork, got {type(self.prior.network).__name__}")
        return self.prior.network

    @torch.no_grad()
    def imagine(
        self,
        sentences: str | Sequence[str],
        weight: float = 1.0,
        steps: int = 24,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """P: an embedding (b, 96) of each sentence. weight: of guidance towards it. CaptionError for a sentence outside
        the language."""
        text = tokens(sentences).to(self._prior.mean.device)
        denoise = classifier_free(self.prior.given(text=text), self.prior.given(None), real("weight", weight, least=0))
        noise = noise_like(torch.zeros(len(text), len(self._prior.mean), device=text.device), generator)
        return samplers.sample(denoise, noise, whole("steps", steps), generator=generator)

    @torch.no_grad()
    def frames(
        self,
        embedding: Tensor,
        weight: float = 1.0,
        steps: int = 24,
        generator: torch.Generator | None = None,
        *,
        rate: float = RATE / 2,
        apart: bool = False,
    ) -> Tensor:
        """D^t: 8 frames (b, 1, 8, 32, 32) of each embedding (b, 96). weight: of guidance towards it.

        rate: frames a unit of time. apart: the image model's, each frame by itself.
        """
        noise = noise_like(embedding.new_zeros(len(embedding), 1, FRAMES, SIZE, SIZE), generator)
        model, told = (self.image, {}) if apart else (self.video, {"rate": _level(embedding, rate)})
        return self._sampled(model, embedding, noise, weight, steps, **told)

    @torch.no_grad()
    def fill(
        self,
        clips: Tensor,
        embedding: Tensor,
        weight: float = 0.0,
        steps: int = 24,
        generator: torch.Generator | None = None,
        every: int = 2,
    ) -> Tensor:
        """F: clips of `every` times as many frames, the given ones among them as they are."""
        longer, known = spread(clips.clamp(-1, 1), every)
        told = {"low": masked(longer, known), "rate": _level(embedding, RATE)}
        made = self._sampled(self.between, embedding, noise_like(longer, generator), weight, steps, **told)
        return torch.where(known[:, None, None], longer, made)

    @torch.no_grad()
    def enlarge(
        self,
        clips: Tensor,
        embedding: Tensor,
        steps: int = 12,
        generator: torch.Generator | None = None,
        *,
        same_noise: bool = True,
        low_log_snr: float = LOW_LOG_SNR,
    ) -> Tensor:
        """SR_h: each frame at twice the side, from the same noise as all others of its clip, or each from its own.

        That holds for the noise that sampling starts from, and for that on the small frames.
        """
        b, c, f, h, w = video("clips", clips).shape
        shape = (c, f, 2 * h, 2 * w)

        def noise() -> Tensor:
            made = same_for_all_frames(b, shape, generator) if same_noise else None
            return made.to(clips) if made is not None else noise_like(clips.new_zeros(b, *shape), generator)

        condition = augmented(resized(clips.clamp(-1, 1), shape), low_log_snr, noise=noise())
        told = {"low": condition, "low_log_snr": _level(clips, low_log_snr)}
        return self._sampled(self.larger, embedding, noise(), 0.0, steps, **told)

    def _sampled(
        self, model: Denoiser, embedding: Tensor, noise: Tensor, weight: float, steps: int, **told: Tensor
    ) -> Tensor:
        asked = model.given(embedding, **told)
        if real("weight", weight, least=0):  # away from no embedding; what else is told stays
            asked = classifier_free(asked, model.given(None, **told), weight)  # type: ignore[assignment]
        return samplers.sample(asked, noise, whole("steps", steps), grid=samplers.for_few_steps)

    def __call__(
        self,
        sentences: str | Sequence[str],
        *,
        weight: float = 1.0,
        steps: int = 24,
        generator: torch.Generator | None = None,
        large: bool = True,
    ) -> Tensor:
        """SR_h . F . D^t . P: a clip of each sentence, (b, 1, 16, 64, 64); without `large` of 32x32."""
        embedding = self.imagine(sentences, weight, steps, generator)
        clips = self.fill(self.frames(embedding, weight, steps, generator), embedding, 0.0, steps, generator)
        clips = self.enlarge(clips, embedding, generator=generator) if large else clips
        return clips.clamp(-1, 1)


def _level(like: Tensor, value: float) -> Tensor:
    return torch.full((len(like),), float(value), device=like.device)


def untrained() -> MakeAVideo:
    """The parts before training, the layers over time silent."""
    image = UNet3D(**IMAGE)
    nets = [PriorNetwork(FEATURES, len(VOCABULARY)), image, Pseudo3DUNet(image), Pseudo3DUNet(image), UNet3D(**LARGER)]
    parts = [Denoiser(net, CosineSchedule(), "v") for net in nets]
    return MakeAVideo(*parts)


def load_make_a_video(
    source: str | Path = "make-a-video-32", device: str | torch.device = "cpu", folder: Path | None = None
) -> MakeAVideo:
    """The trained parts. MissingStage, a BadArgument, before anything is computed where one has no weights."""
    found = stages.read(source, STAGES, MADE_BY, folder)
    image = UNet3D(**found["image"].config)
    image.load_state_dict(found["image"].tensors)
    prior, larger = PriorNetwork(**found["prior"].config), UNet3D(**found["larger"].config)
    prior.load_state_dict(found["prior"].tensors)
    larger.load_state_dict(found["larger"].tensors)
    over_time = []
    for name in ("video", "between"):
        network = Pseudo3DUNet(image)
        network.load_temporal(found[name].tensors)
        over_time.append(network)
    nets = [prior, image, *over_time, larger]
    return MakeAVideo(*(Denoiser(net.to(device).eval().requires_grad_(False), CosineSchedule(), "v") for net in nets))


check_types(globals())
