"""Diffusion in the latents of tokenizer-64 against a U-Net in pixels: the same clips, the same minutes, one judgement.

    python benchmarks/train_latent.py --device cuda --minutes 3 --out runs/latent
    python benchmarks/train_latent.py --device cuda --minutes 3 --out runs/latent --model pixels
    python benchmarks/train_latent.py --minutes 0.3 --batch 8 --cache 64 --width 32 --depth 2 --clips 8    to rehearse

Clips are 17 frames of 64x64 with one digit at half the canonical speed (--speed 3.6 is the canonical one, --digits 2
for two). The transformer sees their latents, encoded on the device in the first tenth of the minutes at most, which
count; the U-Net sees clips made as it goes. Both predict v, have their own estimate in half of the samples, Muon and
an average of weights; where a GPU is, forward and backward pass are one captured graph (--eager: not). Minutes are
those of work on a CPU (one thread, so OMP_NUM_THREADS=1), of the wall beside a GPU; clips at each --w and their
judgement come after them.

Into --out: latent-64 or pixels-64.{safetensors,json,gif}, which a further run goes on from, and latent.json, the table.
A quarter of the latent clips has its first one or two latent frames given, so that the transformer can go on from a
picture; that is judged beside guidance with the same network, and so is Show-1: clips of moving-mnist-32 made anew.
"""

import argparse
import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import devices
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from minivdm import tasks
from minivdm.core import CosineSchedule, Denoiser, for_few_steps
from minivdm.core.gaussian import diffuse
from minivdm.core.observe import Frames
from minivdm.core.targets import stratified_times
from minivdm.data import MovingMNIST, writing
from minivdm.data.atomic import write_atomic, write_json
from minivdm.measure import frechet, metrics, tracks
from minivdm.measure.obedience import wilson
from minivdm.networks import Tokenizer, Transformer, UNet3D, eight_bits
from minivdm.systems import show_1, walt
from minivdm.systems.latent_diffusion import LatentDiffusion, encode_all, load_tokenizer
from minivdm.training import exports, monitor, pretrained
from minivdm.training.graphs import Recorded
from minivdm.training.muon import Muon, split

SHAPE = (1, 17, 64, 64)
NAMES = {"transformer": "latent-64", "pixels": "pixels-64"}
SHIFTS = {"transformer": -1.0, "pixels": -1.386}  # of the log-SNR; 2 log(32/64) for pixels, as for any 64x64 clip


def network(args: argparse.Namespace) -> nn.Module:
    """At most 2 M parameters by default, 4 MB in half precision."""
    if args.model == "pixels":
        return UNet3D(1, args.width or 24, patch=args.patch or 4, head_channels=args.width or 24,
                      self_conditioning=not args.no_estimate)  # fmt: skip
    return Transformer(8, args.width or 160, args.depth, (1, args.patch or 1, args.patch or 1), embedding=80,
                       modulation="lora", self_conditioning=not args.no_estimate, frames_known=True)  # fmt: skip


def denoiser(net: nn.Module, kind: str) -> Denoiser:
    """Of v, on the schedule of its kind."""
    return Denoiser(net, CosineSchedule(-12, 12, SHIFTS[kind]), bounds=(-1.0, 1.0) if kind == "pixels" else None)


def clips(args: argparse.Namespace, device: torch.device, split: str = "train") -> MovingMNIST:
    """Clips whose number is their index; the test ones have other digits."""
    return MovingMNIST(SHAPE[2], SHAPE[1], args.digits, args.speed, split=split, seed=args.seed, device=device)


class Pass:
    """A forward and a backward pass, recorded on a GPU unless `eager`.

    Every second sample has the network's own estimate at the same noise as its condition, if it takes one.
    """

    def __init__(self, model: Denoiser, args: argparse.Namespace, device: torch.device) -> None:
        self.model, self.device, self.args = model, device, args
        config: dict[str, Any] = model.network.config  # type: ignore[union-attr, assignment]
        self.estimates, self.takes_known = bool(config.get("self_conditioning")), bool(config.get("frames_known"))
        self.learn = Recorded(self.gradients, list(model.parameters()), args.eager)

    def draw(self, x: Tensor, labels: Tensor, drop: float = 0.15, prediction: float = 0.25) -> None:
        """What this step learns from: clips, times, noise, labels of which a share is dropped, frames that are given.

        Nothing here waits for the device.
        """
        b = len(x)
        self.x, self.noise = x, torch.randn_like(x)
        self.t = stratified_times(b, self.model.schedule, device=self.device)
        self.labels = labels * (torch.rand(b, 1, device=self.device) >= drop)
        self.conditions = {"labels": self.labels}
        if self.takes_known:
            u = torch.rand(b, 1, device=self.device)
            count = torch.where(u < prediction / 2, 1, 2) * (u < prediction)  # 1 or 2 frames, for this share of clips
            mask = (torch.arange(x.shape[2], device=self.device) < count).float()[:, None, :, None, None]
            self.known = torch.cat((x * mask, mask.expand(b, 1, *x.shape[2:])), 1)
            self.conditions["known"] = self.known

    def gradients(self, x: Tensor, noise: Tensor, t: Tensor, **given: Tensor) -> Tensor:
        """The loss, whose gradients are left behind."""
        if self.estimates:
            with torch.no_grad(), devices.half(self.device, self.args.bf16):
                z = diffuse(x[::2], t[::2], self.model.schedule, noise[::2])
                seen = self.model(z, t[::2], **{name: value[::2] for name, value in given.items()})
                estimate = torch.zeros_like(x)
                estimate[::2] = seen if self.model.bounds is None else seen.clamp(*self.model.bounds)
            given["estimate"] = estimate
        with devices.half(self.device, self.args.bf16):
            found = self.model.loss(x, label_drop=0.0, t=t, noise=noise, **given).mean  # type: ignore[arg-type]
        found.backward()
        return found.detach()

    def __call__(self) -> None:
        self.loss = self.learn(x=self.x, noise=self.noise, t=self.t, **self.conditions)


@torch.no_grad()
def cached(tokenizer: Tokenizer, data: MovingMNIST, most: int, args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Latents and labels of the first clips, as many as a tenth of the time allows, `most` at most."""
    begun, device = devices.clock(data.device), data.device
    seconds, part = 6 * args.minutes, min(args.batch, 256)
    rows: list[tuple[Tensor, Tensor]] = []
    while len(rows) * part < most and (len(rows) < 2 or devices.clock(device) - begun < seconds):
        found = data.clips(torch.arange(len(rows) * part, (len(rows) + 1) * part))
        with devices.half(device, args.bf16):
            latents = encode_all(tokenizer, found.video, part)
        rows.append((latents.float(), found.labels))
        if device.type == "cuda":
            torch.cuda.synchronize()
    return torch.cat([row[0] for row in rows]), torch.cat([row[1] for row in rows])


def train(args: argparse.Namespace, device: torch.device) -> tuple[Denoiser, dict[str, Any]]:
    """Minutes of training; the average of the weights, and the card so far."""
    torch.manual_seed(args.seed)
    begun, total = devices.clock(device), 60 * args.minutes
    file, before = args.out / f"{NAMES[args.model]}.safetensors", 0
    net = network(args).to(device)
    card: dict[str, Any] = {"speed": args.speed, "digits": args.digits, "batch": args.batch}
    if file.exists():
        old = json.loads(file.with_suffix(".json").read_text())
        assert old["network"] == net.config, f"{file}: another network, {old['network']}"
        net.load_state_dict({k: v.float() for k, v in eight_bits.unpack(load(file.read_bytes())).items()})
        before = old["clips"]
        card["goes on from"] = {name: old.get(name) for name in ("command", "clips", "minutes", "goes on from")}
    model = denoiser(net, args.model)
    average = copy.deepcopy(model).eval().requires_grad_(False)
    data, tokenizer = clips(args, device), None
    if args.model == "transformer":
        tokenizer = load_tokenizer(device)
        latents, labels = cached(tokenizer, data, args.cache, args)
        card |= {"clips encoded": len(latents), "seconds of encoding": round(devices.clock(device) - begun, 1)}
        print(card, "root mean square by channel", latents.square().mean((0, 2, 3, 4)).sqrt().tolist(), flush=True)
    step = Pass(model, args, device)
    hidden, rest = split(net)
    optimizers = [Muon(hidden, lr=args.lr), torch.optim.AdamW(rest, lr=args.lr, betas=(0.9, 0.99), weight_decay=0.01)]
    ours: list[Tensor] = [*average.parameters()]
    theirs: list[Tensor] = [*model.parameters()]
    card |= {"mode": "captured graph" if device.type == "cuda" and not args.eager else "eager"}
    rows, i, saved = [], 0, 0.0
    recent = torch.zeros((), device=device)
    while (share := (devices.clock(device) - begun) / total) < 1:
        if tokenizer is None:
            found = data.clips(torch.arange(args.batch) + before + i * args.batch)
            step.draw(found.video, found.labels)
        else:
            some = torch.randint(len(latents), (args.batch,), device=device)
            step.draw(latents[some], labels[some])
        try:
            step()
        except Exception as error:
            if i or step.learn.eager or device.type != "cuda":
                raise
            card["mode"] = f"eager, as recording failed: {type(error).__name__}: {str(error)[:200]}"
            print(card["mode"], flush=True)
            step.learn.eager = True  # the plain step takes longer, and works
            step()
        torch.nn.utils.clip_grad_norm_(theirs, 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = args.lr * min(1, (i + 1) / args.warmup) * min(1.0, max(0.02, 2 * (1 - share)))
            optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(ours, theirs, 1 - min(args.ema, (1 + i) / (10 + i)))
            recent += step.loss
        i += 1
        if i % 50 == 0:
            rows.append({"clips": i * args.batch, "seconds": round(devices.clock(device) - begun, 1),
                         "loss": round(recent.item() / 50, 5)})  # fmt: skip
            recent.zero_()
            if len(rows) % 10 == 1:
                print(rows[-1], flush=True)
        if share > saved + 0.25:
            saved = share
            write(average, args, device, {**card, "clips": before + i * args.batch, "steps": i})
    thin = rows[:: max(1, len(rows) // 40)]
    card |= {"clips": before + i * args.batch, "steps": i, "minutes": round((devices.clock(device) - begun) / 60, 2)}
    return average, card | {"training": thin + rows[-1:] * (thin[-1:] != rows[-1:])}


def write(average: Denoiser, args: argparse.Namespace, device: torch.device, more: dict[str, Any]) -> None:
    """Weights in the precision asked for, and their card."""
    packed = exports.packed(average.network.state_dict(), args.precision)
    data = save({name: value.cpu().contiguous() for name, value in packed.items()})
    name = NAMES[args.model]
    schedule: Any = average.schedule
    card = {
        "name": name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "precision": args.precision,
        "what": f"denoiser of {'latents of tokenizer-64' if args.model == 'transformer' else 'pixels'}, "
                f"17 frames of 64x64",
        "command": f"python benchmarks/train_latent.py{args.words}",
        "parameters": sum(p.numel() for p in average.network.parameters()), "shape": list(SHAPE),
        "kind": type(average.network).__name__, "network": average.network.config,
        "schedule": {"log_snr_min": schedule.log_snr_min, "log_snr_max": schedule.log_snr_max,
                     "shift": schedule.shift},
        "hardware": monitor.hardware(device), "torch": torch.__version__, **more,
    }  # fmt: skip
    if args.model == "transformer":
        tokenizer = load_tokenizer(device)
        card["tokenizer"] = {"name": "tokenizer-64", "shift": [round(v, 5) for v in tokenizer.shift.tolist()],
                             "scale": [round(v, 5) for v in tokenizer.scale.tolist()]}  # fmt: skip
    args.out.mkdir(parents=True, exist_ok=True)
    write_atomic(args.out / f"{name}.safetensors", data)
    write_json(args.out / f"{name}.json", card)


def wanted(args: argparse.Namespace, device: torch.device) -> Tensor:
    """Labels to ask for: every digit in turn, and a second one."""
    k, eye = torch.arange(args.clips, device=device), torch.eye(10, device=device)
    second = (k * 7 // 10 + 3) % 10
    return eye[k % 10] if args.digits == 1 else (eye[k % 10] + eye[second]).clamp(max=1)


def judged(videos: Tensor, labels: Tensor, reference: Tensor | None, digits: int) -> dict[str, Any]:
    """Shares with Wilson's intervals, [share, low, high, clips]; rigidity, straightness and distances."""
    videos, labels = videos.float().clamp(-1, 1).cpu(), labels.cpu()
    reading = metrics.read(videos)
    readable = metrics.legible(videos, labels, reading)
    rows = {"legible": readable, "keeps identity": metrics.keeps_identity(videos, reading)}
    found: dict[str, Any] = {}
    if digits == 1:
        rows["right in every frame"] = metrics.same_in_every_frame(videos, labels, reading)
        found["detail"] = round(detail(videos), 4)
        found["rigidity, median"] = round(tracks.rigidity(videos).median().item(), 4)
        apart = tracks.track_deviation(videos)[readable]
        found["from straight, pixels, median of legible"] = round(apart.median().item(), 3) if len(apart) else None
    for name, row in rows.items():
        share = wilson(int(row.sum()), len(row))
        found[name] = [round(share.rate, 4), round(share.low, 4), round(share.high, 4), share.count]
    if reference is not None and len(videos) >= 64:
        found["distance of clips"] = round(frechet.clip_distance(videos, reference.cpu()), 4)
        found["distance of frames"] = round(frechet.frame_distance(videos, reference.cpu()), 4)
    return found


def detail(videos: Tensor) -> float:
    """Energy that frames of half the size cannot hold, as a share of the ink's, mean over clips: how sharp they are."""
    half = nn.functional.avg_pool3d(videos, (1, 2, 2))
    lost = (videos - show_1.enlarged(half, 2)).square().sum((1, 2, 3, 4))
    return (lost / ((videos + 1) / 2).square().sum((1, 2, 3, 4)).clamp(min=1)).mean().item()


def both(model: Denoiser, labels: Tensor, args: argparse.Namespace, device: torch.device) -> dict[str, Tensor]:
    """Show-1 with the pixel model that ships: its clips enlarged, and made anew in latents at several strengths."""
    pixels = pretrained.load("moving-mnist-32", device)
    latent = LatentDiffusion(model, load_tokenizer(device), SHAPE)
    size = 256 if device.type == "cuda" else 8
    how: dict[str, Any] = {"weight": 1.0, "temporal_weight": 0.75, "steps": min(24, args.steps), "grid": for_few_steps}
    small = [tasks.generate(pixels, some, shape=(1, 17, 32, 32), generator=torch.Generator().manual_seed(k), **how)
             for k, some in enumerate(labels.split(size))]  # fmt: skip
    large = show_1.enlarged(torch.cat(small).clamp(-1, 1), 2)
    rows = {"32x32 pixels at w = 1, enlarged": large}
    for strength in (0.3, 0.5, 0.7):
        made = [show_1.translate(latent, part, some, strength=strength, weight=1.0, steps=min(24, args.steps),
                                 generator=torch.Generator().manual_seed(k))
                for k, (part, some) in enumerate(zip(large.split(size), labels.split(size), strict=True))]  # fmt: skip
        rows[f"then latents from t = {strength:g}"] = torch.cat(made)
    return rows


@torch.no_grad()
def table(model: Denoiser, args: argparse.Namespace, device: torch.device) -> tuple[dict[str, Any], Tensor]:
    """True clips, what the tokenizer leaves of them, clips at each w, and clips that go on from a picture."""
    data, small = clips(args, device, "test"), 64 if device.type == "cuda" else 8
    true = data.clips(torch.arange(args.clips))
    reference = data.clips(torch.arange(10_000, 10_000 + max(args.clips, 64))).video
    rows = {"true clips": judged(true.video, true.labels, reference, args.digits)}
    tokenizer = load_tokenizer(device) if args.model == "transformer" else None
    shape = SHAPE if tokenizer is None else tokenizer.latent_shape(SHAPE)
    decode = lambda z: z if tokenizer is None else torch.cat([tokenizer.decode(p) for p in z.split(small)])  # noqa: E731
    if tokenizer is not None:
        latents = encode_all(tokenizer, true.video, small)
        rows["true clips, encoded and decoded"] = judged(decode(latents), true.labels, reference, args.digits)
    labels, shown = wanted(args, device), true.video[:20]
    for w in args.w:
        begun, made = devices.clock(device), []
        for k, some in enumerate(labels.split(256)):
            generator = torch.Generator().manual_seed(k)
            made.append(walt.sampled(model, (len(some), *shape), {"labels": some}, w, args.steps, generator))
        videos = decode(torch.cat(made)).clamp(-1, 1)
        rows[f"w = {w:g}"] = judged(videos, labels, reference, args.digits)
        rows[f"w = {w:g}"]["seconds a clip"] = round((devices.clock(device) - begun) / len(labels), 4)
        print(f"w = {w:g}", rows[f"w = {w:g}"], flush=True)
        shown = videos[:20] if w == 1 or len(args.w) == 1 else shown
    if tokenizer is not None and args.digits == 1:
        for name, videos in both(model, labels, args, device).items():
            rows[f"Show-1: {name}"] = judged(videos, labels, reference, args.digits)
            print(name, rows[f"Show-1: {name}"], flush=True)
    if tokenizer is not None:
        first = latents[: args.images, :, :1]
        truth = true.labels[: args.images]
        for name, way in animations(model, first, shape, args.steps).items():
            rows[f"from a picture, {name}"] = judged(decode(way()), truth, None, args.digits)
            print(name, rows[f"from a picture, {name}"], flush=True)
    return rows, shown


def animations(model: Denoiser, first: Tensor, shape: tuple[int, ...], steps: int) -> dict[str, Callable[[], Tensor]]:
    """Ways to go on from a first latent frame without labels: a trained condition, and guidance of the same network."""

    def trained(weight: float) -> Tensor:
        return walt.predict(model, first, shape[1], weight=weight, steps=steps,
                            generator=torch.Generator().manual_seed(0))  # fmt: skip

    def guided(method: Any) -> Tensor:
        return tasks.restore(model, [(Frames([0]), first)], shape, steps=steps, method=method, clip=None,
                             generator=torch.Generator().manual_seed(0))  # fmt: skip

    return {
        "condition, w = 0": lambda: trained(0.0), "condition, w = 1": lambda: trained(1.0),
        "replacement": lambda: guided("replacement"), "reconstruction": lambda: guided("reconstruction"),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=tuple(NAMES), default="transformer")
    parser.add_argument("--minutes", type=float, default=3, help="for encoding and training")
    parser.add_argument("--out", type=Path, default=Path("runs/latent"))
    parser.add_argument("--width", type=int, default=0, help="160 for the transformer, 24 for the U-Net")
    parser.add_argument("--depth", type=int, default=6, help="blocks of the transformer")
    parser.add_argument("--patch", type=int, default=0, help="side of a patch; 1 latent, 4 pixels")
    parser.add_argument("--no-estimate", action="store_true", help="without self-conditioning")
    parser.add_argument("--speed", type=float, default=1.8, help="pixels a frame; 3.6 is canonical")
    parser.add_argument("--digits", type=int, default=1, choices=(1, 2))
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--cache", type=int, default=131_072, help="clips to encode at most")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--warmup", type=int, default=200, help="steps")
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clips", type=int, default=256, help="to judge, of each row")
    parser.add_argument("--images", type=int, default=128, help="pictures to go on from")
    parser.add_argument("--steps", type=int, default=48, help="of DDIM")
    parser.add_argument("--w", type=float, nargs="*", default=[0, 1, 3])
    parser.add_argument("--eager", action="store_true", help="capture no graph")
    parser.add_argument("--precision", choices=("float16", "int8"), default="float16",
                        help="of the weights; int8 for those that ship: no training goes on from it")  # fmt: skip
    devices.bf16_argument(parser)
    devices.argument(parser)
    args = parser.parse_args()
    device = devices.chosen(args)
    args.words = devices.changed(parser, args, but=("out", "clips", "images", "steps", "w", "precision"))

    average, more = train(args, device)
    write(average, args, device, more)
    print({name: value for name, value in more.items() if name != "training"}, flush=True)
    as_it_ships = eight_bits.unpack(exports.packed(average.network.state_dict(), args.precision))
    average.network.load_state_dict({key: value.float() for key, value in as_it_ships.items()})
    rows, shown = table(average, args, device)
    write(average, args, device, more | {"judged": rows})
    name = NAMES[args.model]
    writing.save(shown.cpu(), args.out / f"{name}.gif")
    file = args.out / "latent.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    found[name] = {key: value for key, value in json.loads((args.out / f"{name}.json").read_text()).items()
                   if key not in ("sha256", "network", "tokenizer", "schedule")}  # fmt: skip
    write_json(file, found)
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
