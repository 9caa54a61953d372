"""Trains the parts of Make-A-Video one after the other, and measures what no pair of a text and a video can give.

    python benchmarks/train_make_a_video.py --device cuda --minutes 5 --out gpu-out
    python benchmarks/train_make_a_video.py --minutes 3 --judging 120 --batch 2 --clips 10 --steps 2       (a rehearsal)

prior: embeddings of images, of sentences about them. image: frames, of their embeddings. video: the layers over time
alone, on clips without labels, whose embedding is that of one of their frames. between: the same, finetuned to fill in
frames. larger: 64x64 of a frame of 32x32. Minutes are those of `devices.clock` and hold for everything. Into --out:

- make-a-video-32.{safetensors,json}: the parts in half precision with their card; a part that is there goes on from it;
- make_a_video.json: the figures that lesson 14 reads (they belong into benchmarks/results), and make_a_video.gif;
  with `--stages` and no name nothing is trained, and rows that are measured with these weights stay.
"""

import argparse
from pathlib import Path
from typing import Any

import devices
import staged
import torch
from staged import dropped, noised
from text_to_video import asked
from torch import Tensor, nn

from minivdm import tasks
from minivdm.core import CosineSchedule, Denoiser, for_few_steps
from minivdm.data import writing
from minivdm.data.atomic import write_json
from minivdm.data.captions import VOCABULARY, Caption, say, tokens
from minivdm.data.moving_mnist import MovingMNIST
from minivdm.measure import metrics, tracks
from minivdm.measure.obedience import obedience
from minivdm.measure.readers import load_encoder
from minivdm.networks import UNet3D
from minivdm.networks.prior import PriorNetwork
from minivdm.networks.pseudo_3d import Pseudo3DUNet, is_temporal
from minivdm.systems import make_a_video
from minivdm.systems.imagen_video import augmented, resized, shrunk
from minivdm.systems.make_a_video import FEATURES, FRAMES, RATE, STAGES, MakeAVideo, features, masked
from minivdm.systems.text_to_video import text_to_video
from minivdm.training import checkpoints, monitor, pretrained, stages

PARTS = {"prior": 0.6, "image": 3.0, "video": 3.2, "between": 1.4, "larger": 1.2}
NAME, SPEED, DROP = "make-a-video-32", 0.9, 0.15
LOW = (0.0, 8.0)  # log-SNR of the small frames that SR_h is trained on


class Training:
    """The parts as they come, on a device. args: of the command line."""

    def __init__(self, args: argparse.Namespace, device: torch.device) -> None:
        self.args, self.device = args, device
        self.batch = args.batch or (8 if device.type == "cpu" else 64)
        self.parts: dict[str, Denoiser] = {}
        self.reports: dict[str, dict[str, Any]] = {}
        self.file = args.out / f"{NAME}.safetensors"
        small = MovingMNIST(speed=SPEED, seed=args.seed, device=device)
        large = MovingMNIST(size=64, speed=2 * SPEED, seed=args.seed, device=device)
        self.clips = staged.recorded(lambda index: (small.clips(index).video,), device, args.eager)
        self.images = staged.recorded(small.images, device, args.eager)
        self.large_images = staged.recorded(lambda index: large.images(index)[:1], device, args.eager)
        self.some = small.images(torch.arange(4096, device=device))[0][:, :, 0]
        captions = [[Caption(d, k % 8, k % 2) if k % 4 else Caption(d) for k in range(64)] for d in range(10)]
        rows = [tokens([say(caption, 7919 * k) for k, caption in enumerate(row)]) for row in captions]
        self.sentences = torch.stack(rows).to(device)  # 10 64 n

    def network(self, name: str) -> nn.Module:
        """Untrained; with the weights of the parts that it goes on from."""
        if name == "prior":
            prior = PriorNetwork(FEATURES, len(VOCABULARY))
            prior.fit(features(self.some).cpu())
            return prior
        if name == "image":
            return UNet3D(**make_a_video.IMAGE)
        if name == "larger":
            larger = UNet3D(**make_a_video.LARGER)
            staged.open_low(larger)
            return larger
        network = Pseudo3DUNet(self.parts["image"].network)  # type: ignore[arg-type]
        if name == "between":
            network.load_temporal(self.parts["video"].network.temporal_state())  # type: ignore[operator, union-attr]
        return network

    def before(self, name: str, network: nn.Module) -> dict[str, Any]:
        """Takes over the weights in --out, if there are any; what its card says of them."""
        try:
            found = stages.read(self.file, [name], "this script")[name]
        except stages.MissingStage:
            return {}
        if isinstance(network, Pseudo3DUNet):
            network.load_temporal(found.tensors)
        else:
            network.load_state_dict(found.tensors)
        return found.about

    def embed(self, frames: Tensor) -> Tensor:
        """Embeddings (n, 96) of frames (n, 1, 32, 32)."""
        return self.parts["prior"].network.normalised(features(frames))  # type: ignore[operator, union-attr]

    def embedding_of(self, video: Tensor) -> Tensor:
        """Of one frame of each clip, by chance."""
        which = torch.randint(video.shape[2], (len(video),), device=self.device)
        frames = video.transpose(1, 2)[torch.arange(len(video), device=self.device), which]
        return self.embed(frames)

    def draw(self, name: str, model: Denoiser) -> staged.Draw:
        """What a step of a part learns from."""

        def prior(step: int) -> dict[str, Tensor]:
            images, labels = self.images(step * 32 * self.batch, 32 * self.batch)
            x = model.network.normalised(features(images[:, :, 0]))  # type: ignore[operator, union-attr]
            which = torch.randint(self.sentences.shape[1], (len(x),), device=self.device)
            text = self.sentences[labels.argmax(1), which]
            return {**noised(model, x), "text": dropped(text, DROP).long()}

        def image(step: int) -> dict[str, Tensor]:
            (x, _) = self.images(step * 16 * self.batch, 16 * self.batch)
            return {**noised(model, x), "labels": dropped(self.embed(x[:, :, 0]), DROP)}

        def video(step: int) -> dict[str, Tensor]:
            (clips,) = self.clips(step * 2 * self.batch, 2 * self.batch)
            half = self.batch  # of every frame, and of every second one
            x = torch.cat([clips[:half, :, :FRAMES], clips[half:, :, : 2 * FRAMES : 2]])
            rate = torch.full((len(x),), RATE, device=self.device)
            rate[half:] /= 2
            return {**noised(model, x), "labels": dropped(self.embedding_of(x), DROP), "rate": rate}

        def between(step: int) -> dict[str, Tensor]:
            (x,) = self.clips(step * self.batch, self.batch)
            b, f = len(x), x.shape[2]
            some = torch.rand(b, f, device=self.device) < 0.5
            regular = (torch.arange(f, device=self.device) % 2 == 0).expand(b, f)
            known = torch.where(torch.rand(b, 1, device=self.device) < 0.75, regular, some)
            return {
                **noised(model, x),
                "labels": dropped(self.embedding_of(x), DROP),
                "low": masked(x, known),
                "rate": torch.full((b,), RATE, device=self.device),
            }

        def larger(step: int) -> dict[str, Tensor]:
            (x,) = self.large_images(step * 4 * self.batch, 4 * self.batch)
            low = shrunk(x, 1, 2)
            level = LOW[0] + (LOW[1] - LOW[0]) * torch.rand(len(x), device=self.device)
            return {
                **noised(model, x),
                "labels": dropped(self.embed(low[:, :, 0]), DROP),
                "low": augmented(resized(low, x.shape[1:]), level),
                "low_log_snr": level,
            }

        return {"prior": prior, "image": image, "video": video, "between": between, "larger": larger}[name]

    def run(self, seconds: float) -> None:
        """All parts that were asked for; the files are written after each."""
        unit = seconds / sum(PARTS[name] for name in self.args.stages)
        for number, name in enumerate(STAGES):
            torch.manual_seed(self.args.seed)
            network = self.network(name)
            before = {} if self.args.anew and name in self.args.stages else self.before(name, network)
            model = Denoiser(network.to(self.device), CosineSchedule(), "v")
            torch.manual_seed(self.args.seed + 1 + number + 100 * before.get("rounds", 0))
            if name not in self.args.stages:
                if not before:
                    raise SystemExit(f"--stages: {name} is neither asked for nor in {self.file}")
                self.parts[name], self.reports[name] = model.eval().requires_grad_(False), before
                continue
            learns = is_temporal if isinstance(network, Pseudo3DUNet) else lambda _: True
            self.parts[name], report = staged.train(
                name, model, self.draw(name, model), PARTS[name] * unit, self.device,
                learns=learns, lr=self.args.lr, eager=self.args.eager, bf16=self.args.bf16,
            )  # fmt: skip
            for key in ("steps", "clips", "seconds"):
                report[key] = round(report[key] + before.get(key, 0), 1)
            self.reports[name] = {**report, "rounds": before.get("rounds", 0) + 1}
            self.save()

    def save(self) -> None:
        """The parts so far; of a video network, the layers over time alone."""
        networks = {}
        for name, part in self.parts.items():
            network: Any = part.network
            over_time = isinstance(network, Pseudo3DUNet)
            networks[name] = (network.config, network.temporal_state() if over_time else network.state_dict())
        about = {
            "what": "parts of minivdm.systems.make_a_video", "command": self.args.command,
            "hardware": monitor.hardware(self.device), "stages": self.reports,
            "data": f"one of the 4,500 MNIST training digits that ship, {SPEED} pixels a frame; no label of a clip",
        }  # fmt: skip
        stages.write(self.file, networks, about)


def second_reading(videos: Tensor) -> Tensor:
    """The digit that the clip encoder sees, (b,): another network than the one whose features are the embedding."""
    encoder = load_encoder(videos.device)
    b, _, f, h, w = videos.shape
    with torch.no_grad():
        seen = encoder.read_frame(encoder.frame(videos.transpose(1, 2).reshape(b * f, 1, h, w)))
    return seen[:, :10].view(b, f, 10).mean(1).argmax(1)


def measured(args: argparse.Namespace, device: torch.device, system: MakeAVideo, until: float) -> dict[str, Any]:
    """Rows of figures, the most important ones first; none is begun after `until`."""
    wanted, sentences = asked(args.clips)
    digits = torch.tensor([caption.digit for caption in wanted], device=device)
    labels = torch.eye(10, device=device)[digits]
    test = MovingMNIST(split="test", speed=SPEED, device=device)
    more = max(args.clips, 512 if device.type == "cuda" else 64)
    reference = test.clips(torch.arange(10_000, 10_000 + more, device=device)).video
    settings = {
        "clips": args.clips, "seed": args.seed, "weights": checkpoints.read_sealed(args.out / f"{NAME}.json")["sha256"],
        "sampler": f"DDIM, {args.steps} steps a part, times for few steps, bf16",
    }  # fmt: skip
    path = args.out / "make_a_video.json"
    found = staged.measured_before(path, settings, ("rows",))
    found["about"] = {"hardware": monitor.hardware(device), "command": args.command}
    shown: list[Tensor] = []

    def dice() -> torch.Generator:
        return torch.Generator().manual_seed(args.seed)

    def row(name: str, make: Any, real: Tensor = reference, kept: int = 0) -> Tensor | None:
        if name in found["rows"]:
            return None
        if devices.clock(device) > until:
            print(f"{name}: no time left", flush=True)
            return None
        begun = devices.clock(device)
        with devices.half(device, args.bf16):
            videos = make().float().clamp(-1, 1)
        does = obedience(videos, wanted)
        entry = staged.judged(videos, labels, real)
        for attribute in ("digit", "direction", "speed", "all"):
            share = does.share(attribute)
            entry[f"{attribute} as asked"] = [round(v, 4) for v in (share.rate, share.low, share.high)]
        entry["digit as asked, by another network"] = staged.share(second_reading(videos) == digits)
        found["rows"][name] = entry
        if kept:
            shown.append(videos[:kept].cpu())
        print(f"{name} ({devices.clock(device) - begun:.1f} s): {entry}", flush=True)
        write_json(path, found)
        return videos

    def whole(weight: float) -> Tensor:
        return system(sentences, weight=weight, steps=args.steps, generator=dice(), large=False)

    clips = row("Make-A-Video, w = 1", lambda: whole(1.0), kept=8)
    half = reference[:, :, ::2]
    embedding = system.imagine(sentences, 1.0, args.steps, dice())
    one = {"weight": 1.0, "steps": args.steps}
    row("image model, frames apart", lambda: system.frames(embedding, **one, generator=dice(), apart=True), half, 8)
    row("video model, 8 frames", lambda: system.frames(embedding, **one, generator=dice()), half)
    true = system.embed(_images_of(test, digits)[:, :, 0])
    row("video model, embeddings of true images", lambda: system.frames(true, **one, generator=dice()), half)
    shipped: Any = pretrained.load("moving-mnist-32", device)
    how: dict[str, Any] = {"steps": args.steps, "grid": for_few_steps, "temporal_weight": 0.75}
    row("pairs: moving-mnist-32, labels", lambda: tasks.generate(shipped, labels, weight=1.0, generator=dice(), **how))
    row("true clips", lambda: _clips_of(test, digits))
    if "super-resolution" not in found and devices.clock(device) < until:
        if clips is None:
            with devices.half(device, args.bf16):
                clips = whole(1.0).float().clamp(-1, 1)
        found["super-resolution"] = enlarged(args, device, system, clips, embedding)
        write_json(path, found)
    for weight in (0.0, 2.0, 4.0):
        row(f"Make-A-Video, w = {weight:g}", lambda w=weight: whole(w))
    shipped = pretrained.load("text-32", device)
    row("pairs: text-32, sentences", lambda: text_to_video(shipped, sentences, weight=2.0, generator=dice(), **how))
    if shown:
        longest = max(part.shape[2] for part in shown)
        shown = [part.repeat_interleave(longest // part.shape[2], 2) for part in shown]
        writing.save(torch.cat(shown), args.out / "make_a_video.gif")
    return found


def _images_of(test: MovingMNIST, digits: Tensor) -> Tensor:
    """An image of the test pool for each digit asked for."""
    images, labels = test.images(torch.arange(600, device=test.device))
    return images[_places(labels, digits)]


def _clips_of(test: MovingMNIST, digits: Tensor) -> Tensor:
    """A clip of the test pool for each digit asked for, whose motion nobody asked for."""
    found = test.clips(torch.arange(600, device=test.device))
    return found.video[_places(found.labels, digits)]


def _places(labels: Tensor, digits: Tensor) -> list[int]:
    """Of each digit, one after the other, a row of labels that says it."""
    classes = labels.argmax(1).tolist()
    rows = {d: [k for k, label in enumerate(classes) if label == d] for d in range(10)}
    return [rows[d][i // 10 % len(rows[d])] for i, d in enumerate(digits.tolist())]


def enlarged(
    args: argparse.Namespace, device: torch.device, system: MakeAVideo, made: Tensor, embedding: Tensor
) -> dict[str, Any]:
    """SR_h from the same noise for all frames of a clip and from different noise: how much is redrawn, paired."""
    large = MovingMNIST(size=64, split="test", speed=2 * SPEED, device=device)
    true = large.clips(torch.arange(len(made), device=device)).video
    small = shrunk(true, 1, 2)
    inputs = {"made clips": (made, embedding), "true clips": (small, system.embed(small[:, :, 0]))}
    found: dict[str, Any] = {"true clips of 64x64": {"rigidity": staged.mean(tracks.rigidity(true))}}
    for name, (clips, told) in inputs.items():
        rigid = {}
        for same in (True, False):
            generator = torch.Generator().manual_seed(args.seed)
            with devices.half(device, args.bf16):
                parts = [
                    system.enlarge(c, e, max(1, args.steps // 2), generator, same_noise=same)
                    for c, e in zip(clips.split(128), told.split(128), strict=True)
                ]
            videos = torch.cat(parts).float().clamp(-1, 1)
            key = f"{name}, {'the same noise' if same else 'noise of its own'} for each frame"
            rigid[same] = tracks.rigidity(videos)
            found[key] = {"rigidity": staged.mean(rigid[same])}
            if clips is small:
                found[key]["PSNR, dB"] = staged.mean(metrics.psnr(videos, true, of="clip"))
        found[f"{name}, difference"] = staged.mean(rigid[False] - rigid[True])
        print(name, found, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    staged.arguments(parser, STAGES, Path("runs/make-a-video"), clips=240)
    parser.add_argument("--judging", type=float, default=60.0, help="seconds of the minutes that are for the figures")
    args = parser.parse_args()
    device = devices.chosen(args)
    begun = devices.clock(device)
    args.command = f"python benchmarks/train_make_a_video.py{devices.changed(parser, args, but=('out',))}"
    args.out.mkdir(parents=True, exist_ok=True)
    training = Training(args, device)
    if args.stages:
        training.run(60 * args.minutes - args.judging)
        found = measured(args, device, MakeAVideo(**training.parts), begun + 60 * args.minutes - 4)
    else:
        found = measured(args, device, make_a_video.load_make_a_video(training.file, device), begun + 60 * args.minutes)
    found["training"] = training.reports
    write_json(args.out / "make_a_video.json", found)


if __name__ == "__main__":
    main()
