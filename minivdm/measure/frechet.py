r"""Fréchet distances between sets of videos, on a small encoder of our own, and FVD proper on your own I3D.

The distance of two feature clouds is that of the two Gaussians with their means and covariances (Dowson &
Landau 1982): |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^{1/2}). On Inception features of images it is FID (Heusel et
al. 2017), on I3D features of clips FVD (Unterthiner et al. 2018). Those networks were trained on photographs and
human actions; here a small network takes their place that was trained to read digits, positions and velocities
of Moving-MNIST. Its distances are NOT FID or FVD and compare with nothing outside this course.

`benchmarks/train_clip_encoder.py` made the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from minivdm import guards
from minivdm.measure.metrics import Reading, pixels, read
from minivdm.measure.readers import SPAN, ClipEncoder, load_encoder


class NotEnoughVideos(guards.BadArgument):
    """Fewer videos, or shorter ones, than a distance between sets of them can be computed from."""


class NotAnI3D(guards.BadFile):
    """A file that does not behave like an I3D network in TorchScript."""


# ---- features ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def features(videos: Tensor, encoder: ClipEncoder | None = None, batch: int = 64) -> tuple[Tensor, Tensor]:
    """Frame features (b, f, 64) and motion features (b, f - 4, 32) of videos (b, 1, f, h, h) in [-1, 1].

    h is 32 or a multiple of it, then averaged down. batch: videos encoded at once, which bounds the memory.
    """
    _, c, f, h, w = pixels("videos", videos).shape
    if c != 1 or h != w or h % 32:
        raise guards.BadArgument(f"videos: expected (b, 1, f, h, h) with h a multiple of 32, got {tuple(videos.shape)}")
    if f < SPAN:
        raise NotEnoughVideos(f"expected videos of at least {SPAN} frames, got {f}")
    guards.whole("batch", batch)
    encoder = load_encoder(videos.device) if encoder is None else encoder
    parts = []
    for part in videos.split(batch):
        part = functional.avg_pool3d(part.float(), (1, h // 32, h // 32)) if h > 32 else part.float()
        parts.append(encoder(part))
    return torch.cat([frames for frames, _ in parts]), torch.cat([motion for _, motion in parts])


def clip_features(videos: Tensor, encoder: ClipEncoder | None = None) -> Tensor:
    """(b, 64), one feature per clip of any length: mean and standard deviation over time of the motion features.

    The mean knows what is shown, where, and how it moves; the deviation knows how much of that changes.
    """
    motion = features(videos, encoder)[1]
    return torch.cat([motion.mean(1), motion.std(1, unbiased=False)], dim=1)


# ---- distances ---------------------------------------------------------------------------------------------------


def frechet(first: Tensor, second: Tensor) -> float:
    """The squared Fréchet distance of two feature clouds (n, d) and (m, d), in float64.

    From finite samples it is too large even between draws of one law, by an amount that falls as 1 / n and grows
    with d: compare only distances at equal n (Chong & Forsyth 2020, "Effectively unbiased FID").
    """
    for name, cloud in (("first", first), ("second", second)):
        guards.floating(name, cloud)
        if cloud.ndim != 2 or first.ndim != 2 or cloud.shape[1] != first.shape[1]:
            shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
            raise guards.BadArgument(f"expected features (n, d) and (m, d), got {shapes}")
        if len(cloud) < 2:
            raise NotEnoughVideos(f"expected at least 2 features on either side, got {len(cloud)}")
        if not bool(cloud.isfinite().all()):
            raise guards.BadArgument("expected finite features, got NaN or infinite ones: look at the videos")
    a, b = (cloud.detach().cpu().double() for cloud in (first, second))
    c_a, c_b = torch.cov(a.T).reshape(a.shape[1], -1), torch.cov(b.T).reshape(b.shape[1], -1)
    # (C1 C2)^{1/2} has the eigenvalues of (C1^{1/2} C2 C1^{1/2})^{1/2}, which is symmetric.
    variances, axes = torch.linalg.eigh(c_a)
    root = axes * variances.clamp(min=0).sqrt() @ axes.T
    cross = torch.linalg.eigvalsh(root @ c_b @ root).clamp(min=0).sqrt().sum()
    distance = (a.mean(0) - b.mean(0)).square().sum() + c_a.trace() + c_b.trace() - 2 * cross
    return max(0.0, float(distance))


def frame_distance(videos: Tensor, reference: Tensor, encoder: ClipEncoder | None = None) -> float:
    """Fréchet distance of the frames of two sets of videos, blind to their order (what FID is to images)."""
    return frechet(features(videos, encoder)[0].flatten(0, 1), features(reference, encoder)[0].flatten(0, 1))


def clip_distance(videos: Tensor, reference: Tensor, encoder: ClipEncoder | None = None) -> float:
    """Fréchet distance of two sets of clips on `clip_features` (what FVD is to videos; not FVD)."""
    return frechet(clip_features(videos, encoder), clip_features(reference, encoder))


def reader_score(videos: Tensor, reading: Reading | None = None) -> float:
    """exp E KL(p(class | clip) || p(class)) on the digit reader, 1 to 10 (Salimans et al. 2016, eq "IS").

    High where each clip shows one digit clearly and all digits come up equally often. Meant for clips of one digit;
    it sees neither motion nor a digit that always looks the same. reading: of these videos, where it is at hand.
    """
    if len(pixels("videos", videos)) < 2:
        raise NotEnoughVideos(f"expected at least 2 videos, got {len(videos)}")
    log_p = (read(videos) if reading is None else reading).logits.mean(1).double().log_softmax(-1)  # (b, 10)
    marginal = log_p.logsumexp(0) - torch.tensor(float(len(videos))).log()
    return float((log_p.exp() * (log_p - marginal)).sum(-1).mean().exp())


# ---- FVD proper --------------------------------------------------------------------------------------------------


def load_i3d(path: str | Path, device: str | torch.device = "cpu") -> Callable[[Tensor], Tensor]:
    """Videos (b, c, f, h, w) in [-1, 1] -> (b, 400) logits of an I3D network, from a TorchScript file of your own.

    A TorchScript file is a program, which loading runs: load none that you do not trust.

    Expected is the network that most FVD code uses, Carreira & Zisserman's I3D trained on Kinetics-400, as a
    TorchScript module called `i3d(x, rescale=False, resize=False, return_features=True)` with x (b, 3, f, 224, 224).
    It is tried on a black clip at once: raises FileNotFoundError, or NotAnI3D that says what went wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a TorchScript file of I3D, found nothing")
    try:
        network = torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise NotAnI3D(f"{path}: expected a TorchScript file, but: {str(error).splitlines()[0]}") from error

    @torch.no_grad()
    def embed(videos: Tensor) -> Tensor:
        b, c, f, h, w = videos.shape
        x = videos.to(device).float().transpose(1, 2).reshape(b * f, c, h, w)
        x = functional.interpolate(x, (224, 224), mode="bilinear", align_corners=False)
        x = x.view(b, f, c, 224, 224).transpose(1, 2).expand(b, 3, f, 224, 224)
        return network(x, rescale=False, resize=False, return_features=True)

    try:
        answer = embed(torch.full((1, 1, 16, 8, 8), -1.0))
    except Exception as error:  # whatever a foreign program raises
        raise NotAnI3D(f"{path}: expected a network called as I3D is, but: {str(error).splitlines()[-1]}") from error
    if not isinstance(answer, Tensor) or tuple(answer.shape) != (1, 400) or not bool(answer.isfinite().all()):
        got = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        raise NotAnI3D(f"{path}: expected 400 finite logits per clip, got {got}")
    return embed


def fvd(videos: Tensor, reference: Tensor, i3d: Callable[[Tensor], Tensor], batch: int = 8) -> float:
    """Fréchet video distance (Unterthiner et al. 2018) on the network that `load_i3d` returns.

    Published figures are for 2,048 clips or more on either side; the distance depends on their number.
    """
    guards.whole("batch", batch)
    for name, clips in (("videos", videos), ("reference", reference)):
        if pixels(name, clips).shape[1] not in (1, 3):
            raise guards.BadArgument(f"{name}: expected videos (b, 1 or 3, f, h, w), got {tuple(clips.shape)}")
        if clips.shape[2] < 10:  # I3D pools over time by 8, and FVD is not defined on less by its authors
            raise NotEnoughVideos(f"expected videos of at least 10 frames, got {clips.shape[2]}")
    embedded = [torch.cat([i3d(part) for part in clips.split(batch)]) for clips in (videos, reference)]
    return frechet(*embedded)


guards.check_types(globals())
