"""CLIP in small: clips and sentences in one space, where those that belong together lie close (Radford et al. 2021).

Two encoders, of clips and of sentences, each end in a unit vector; the cosine of two is how well they fit. They are
trained on pairs alone: in a batch of n clips and their n sentences, every clip has to pick its sentence out of the n,
and every sentence its clip. Three uses: a score of how well a generated clip fits its text, retrieval, and a text
encoder that a video model can take over frozen, as Imagen takes over one that was trained without pictures.

In a closed language a sentence such as "a three" fits many clips of a batch, which are no wrong answers: the loss here
spreads its target over all that fit, and retrieval counts any of them as a hit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minivdm.data.captioned_mnist import CaptionedMNIST
from minivdm.data.captions import VOCABULARY, Caption, parse, tokens
from minivdm.guards import BadArgument, check_types, video, whole
from minivdm.measure.readers import load_shipped
from minivdm.networks.text_encoder import TextEncoder

WEIGHTS = Path(__file__).parents[1] / "weights" / "clip-32.safetensors"
#: The largest factor of a cosine in the loss: beyond it training was unstable (Radford et al. 2021, section 2.5).
LARGEST_SCALE = 100.0


class VideoEncoder(nn.Module):
    """Clips (b, 1, f, 32, 32) -> vectors (b, width): what single frames say, averaged, and what only motion says.

    Frames go through convolutions one by one; `still` takes their features to the common space, `motion` looks at five
    neighbouring frames at a time.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.frame = nn.Sequential(
            nn.Conv2d(1, 24, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(24, 48, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(48, 64, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(64, 64, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(1024, 128),
        )
        self.still = nn.Sequential(nn.GELU(), nn.Linear(128, 128), nn.GELU(), nn.Linear(128, width))
        self.motion = nn.Sequential(
            nn.Conv1d(128, 128, 3), nn.GELU(), nn.Conv1d(128, 128, 3), nn.GELU(), nn.Conv1d(128, width, 1)
        )

    def features(self, videos: Tensor) -> Tensor:
        """Of each frame by itself, (b, f, 128)."""
        b, _, f, h, w = videos.shape
        return self.frame(videos.transpose(1, 2).reshape(b * f, 1, h, w)).view(b, f, -1)

    def forward(self, videos: Tensor) -> Tensor:
        frames = self.features(videos)
        return self.still(frames).mean(1) + self.motion(frames.transpose(1, 2)).mean(2)


class Clip(nn.Module):
    """The two encoders and the temperature.

    Args:
        width: of the common space.
        text_width, text_layers: of the text encoder, which has the form of a video model's
            (`networks.text_encoder.TextEncoder`), so that one can take over the other.
    """

    def __init__(self, width: int = 64, text_width: int = 128, text_layers: int = 2) -> None:
        super().__init__()
        self.video = VideoEncoder(whole("width", width))
        self.text = TextEncoder(len(VOCABULARY), text_width, text_layers)
        self.project = nn.Linear(text_width, width)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # 0.07: the temperature's start, section 2.5

    @property
    def scale(self) -> Tensor:
        """1 / temperature, at most `LARGEST_SCALE`."""
        return self.log_scale.exp().clamp(max=LARGEST_SCALE)

    def of_videos(self, videos: Tensor) -> Tensor:
        """Unit vectors (b, width) of clips (b, 1, f, 32, 32), f at least 5."""
        if video("videos", videos, channels=1).shape[2] < 5 or tuple(videos.shape[3:]) != (32, 32):
            raise BadArgument(f"videos: expected (b, 1, 5 frames or more, 32, 32), got {tuple(videos.shape)}")
        return F.normalize(self.video(videos), dim=-1)

    def of_frames(self, videos: Tensor) -> Tensor:
        """Unit vectors (b, f, width) of every frame by itself."""
        if tuple(video("videos", videos, channels=1).shape[3:]) != (32, 32):
            raise BadArgument(f"videos: expected (b, 1, f, 32, 32), got {tuple(videos.shape)}")
        return F.normalize(self.video.still(self.video.features(videos)), dim=-1)

    def of_texts(self, texts: str | Sequence[str] | Tensor) -> Tensor:
        """Unit vectors (b, width) of sentences, or of their tokens (b, n)."""
        rows = texts if isinstance(texts, Tensor) else tokens(texts).to(self.project.weight.device)
        return F.normalize(self.project(self.text(rows).mean), dim=-1)

    def forward(self, videos: Tensor, texts: Tensor) -> Tensor:
        """Logits (clips, sentences): cosines over the temperature."""
        return self.scale * self.of_videos(videos) @ self.of_texts(texts).T


def contrastive_loss(logits: Tensor, fits: Tensor | None = None) -> Tensor:
    """The mean of two cross-entropies: clips pick sentences, sentences pick clips (Radford et al. 2021, figure 3).

    Args:
        logits: (n, m), clips in rows and sentences in columns.
        fits: (n, m) bool, which belong together, at least one in every row and column. The target of a row is spread
            over all that fit it (Khosla et al. 2020, "Supervised contrastive learning", eq 2). By default the i-th with
            the i-th alone, which is CLIP.
    """
    if logits.ndim != 2:
        raise BadArgument(f"logits: expected shape (clips, sentences), got {tuple(logits.shape)}")
    if fits is None:
        fits = torch.eye(*logits.shape, dtype=torch.bool, device=logits.device)
    if fits.shape != logits.shape or fits.dtype != torch.bool or not bool(fits.any(0).all() and fits.any(1).all()):
        raise BadArgument("fits: expected bool of the logits' shape, with a True in every row and column")
    rows = -(logits.log_softmax(1) * fits).sum(1) / fits.sum(1)
    columns = -(logits.log_softmax(0) * fits).sum(0) / fits.sum(0)
    return (rows.mean() + columns.mean()) / 2


def fitting(captions: Sequence[Caption], sentences: Sequence[str]) -> Tensor:
    """Which sentences are true of which clips, (clips, sentences) bool. captions: the whole truth about each clip."""
    said = [parse(sentence) for sentence in sentences]
    return torch.tensor([[claim.agrees(truth) for claim in said] for truth in captions])


def fit(
    steps: int,
    batch: int = 64,
    lr: float = 1e-3,
    seed: int = 0,
    data: CaptionedMNIST | None = None,
    watch: Callable[[int, float], object] = lambda step, loss: None,
) -> Clip:
    """Train the two encoders on captioned clips, from scratch.

    Args:
        steps, batch: how many batches of how many pairs.
        lr: of AdamW; it rises over the first twentieth and falls along half a cosine.
        seed: of the weights.
        data: the pairs; by default those of the training split.
        watch: is told the number of each step and its loss.
    """
    data = CaptionedMNIST() if data is None else data
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = Clip()
    optimizer = torch.optim.AdamW(model.parameters(), lr, betas=(0.9, 0.98), weight_decay=0.05)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps + 1, pct_start=0.05)
    for step in range(steps):
        clips = data.clips(torch.arange(step * batch, (step + 1) * batch))
        logits = model(clips.video, clips.text)
        loss = contrastive_loss(logits, fitting(clips.captions, clips.sentences))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
        watch(step, loss.item())
    return model.eval().requires_grad_(False)


@functools.cache
def load_clip(device: str | torch.device = "cpu") -> Clip:
    """The shipped model. Raises FileNotFoundError or BadFile where its files are missing or changed."""
    return load_shipped(WEIGHTS, Clip, "benchmarks/train_clip.py", device)


# ---- what it measures --------------------------------------------------------------------------------------------


@torch.no_grad()
def similarity(model: Clip, videos: Tensor, sentences: Sequence[str]) -> Tensor:
    """Cosine of each clip and its own sentence, (b,): the CLIP score of text to video."""
    if len(videos) != len(sentences):
        raise BadArgument(f"sentences: expected one for each of {len(videos)} clips, got {len(sentences)}")
    return (model.of_videos(videos) * model.of_texts(sentences)).sum(-1)


@torch.no_grad()
def frame_consistency(model: Clip, videos: Tensor) -> Tensor:
    """Mean cosine between the vectors of all pairs of frames of a clip, (b,): 1 where every frame says the same."""
    frames = model.of_frames(videos)  # b f width
    pairs = list(combinations(range(frames.shape[1]), 2))
    if not pairs:
        raise BadArgument(f"videos: expected at least 2 frames, got {frames.shape[1]}")
    first, second = (torch.tensor(part) for part in zip(*pairs, strict=True))
    return (frames[:, first] * frames[:, second]).sum(-1).mean(1)


@torch.no_grad()
def recall_at_1(
    model: Clip, videos: Tensor, captions: Sequence[Caption], sentences: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Whether the nearest is one that fits: the clip that each sentence finds, and the sentence that each clip finds.

    Args:
        videos: (b, 1, f, 32, 32).
        captions: the whole truth about each clip; of a generated one, what was asked for.
        sentences: one for each.

    Returns:
        Two bool tensors (b,): by text, by video. Their means are the two recalls at 1 among b.
    """
    if not len(videos) == len(captions) == len(sentences):
        raise BadArgument(
            f"captions, sentences: expected one for each of {len(videos)} clips, got {len(captions)}, {len(sentences)}"
        )
    logits = model(videos, tokens(sentences).to(videos.device))  # clips sentences
    fits = fitting(captions, sentences)
    found = logits.argmax(0), logits.argmax(1)
    return fits[found[0], torch.arange(len(fits))], fits[torch.arange(len(fits)), found[1]]


check_types(globals())
