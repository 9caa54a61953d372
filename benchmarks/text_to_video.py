"""Whether clips do what sentences ask for, over the guidance weight: what lesson 13 shows of trained weights.

    python benchmarks/text_to_video.py [--weights text-32] [--clips 160] [--steps 32] [--w 0 1 2 4] [--seed 1] [--bf16]

Every one of the 80 combinations of digit and direction is asked for equally often, slow and fast in turn, in a sentence
whose synonyms differ from clip to clip; a quarter of the combinations was held out of the training. Beside the weights:
true test clips (the ceiling), clips without a sentence held against the same ones (chance), and the sentences with a
negative prompt. What `clip-32` says of the same clips is there too: the cosine of each clip and its sentence, the mean
cosine between its frames, and whether each sentence finds a clip that it is true of, and each clip a sentence, among
those of the row. Writes benchmarks/results/text_to_video.json, a row as soon as it is done; rows that are not asked
for stay as they are.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import devices
import torch
from torch import Tensor

from minivdm import tasks
from minivdm.data.atomic import write_json
from minivdm.data.captioned_mnist import CaptionedMNIST, held_out
from minivdm.data.captions import Caption, say
from minivdm.measure.obedience import ATTRIBUTES, Obedience, obedience
from minivdm.systems import clip
from minivdm.systems.text_to_video import text_to_video
from minivdm.training import monitor, pretrained

RESULTS = Path(__file__).parent / "results" / "text_to_video.json"


def asked(count: int) -> tuple[list[Caption], list[str]]:
    """What is asked for, every combination in turn, and its sentences."""
    wanted = [Caption(i % 10, i // 10 % 8, (i + i // 80) % 2) for i in range(count)]
    return wanted, [say(caption, 7919 * i) for i, caption in enumerate(wanted)]


def sampled(make: Callable[..., Tensor], sentences: list[str], device: torch.device, seed: int, bf16: bool) -> Tensor:
    """A clip for each sentence, batch by batch. make: called with sentences and `generator`."""
    parts, size = [], 2 * devices.batch(device)
    for start in range(0, len(sentences), size):
        generator = torch.Generator().manual_seed(seed + start)
        with devices.half(device, bf16):
            parts.append(make(sentences[start : start + size], generator=generator).float())
    return torch.cat(parts).clamp(-1, 1).cpu()


def row(videos: Tensor, found: Obedience, wanted: list[Caption], sentences: list[str]) -> dict:
    """Clip by clip: which attributes are right, what CLIP says, and whether the combination was held out."""
    judge = clip.load_clip()
    by_text, by_video = clip.recall_at_1(judge, videos, wanted, sentences)
    rounded = {
        "similarity": clip.similarity(judge, videos, sentences),
        "consistency": clip.frame_consistency(judge, videos),
    }
    return (
        {name: found.right[name].int().tolist() for name in ATTRIBUTES if bool(found.said[name].any())}
        | {name: [round(value, 4) for value in values.tolist()] for name, values in rounded.items()}
        | {"found by text": by_text.int().tolist(), "found by video": by_video.int().tolist()}
        | {"held_out": [int(held_out(c.digit, c.direction)) for c in wanted]}  # type: ignore[arg-type]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="text-32")
    parser.add_argument("--clips", type=int, default=160)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--w", type=float, nargs="*", default=[0, 1, 2, 4])
    parser.add_argument("--negative", type=float, nargs="*", default=[], metavar="W", help="with 'a digit' as negative")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    devices.bf16_argument(parser)
    devices.argument(parser)
    arguments = parser.parse_args()
    device = devices.chosen(arguments)
    model = pretrained.load(arguments.weights, device)
    wanted, sentences = asked(arguments.clips)
    found = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    found["about"] = {
        "weights": getattr(model, "card", {}).get("sha256", "a run"),
        "trained on clips": getattr(model, "card", {}).get("clips"),
        "clips": arguments.clips,
        "steps": arguments.steps,
        "seed": arguments.seed,
        "command": "python benchmarks/text_to_video.py" + devices.changed(parser, arguments, ("out",)),
        "hardware": monitor.hardware(device),
    }
    rows = found.setdefault("rows", {})

    true = CaptionedMNIST(split="test", seed=21).clips(torch.arange(arguments.clips))
    told = [say(Caption(c.digit, c.direction, c.speed), 7919 * i) for i, c in enumerate(true.captions)]  # as is asked
    rows["true clips"] = row(true.video, obedience(true.video, true.captions), true.captions, told)

    def unheard(some: list[str], generator: torch.Generator) -> Tensor:
        return tasks.generate(model, count=len(some), steps=arguments.steps, generator=generator)

    unasked = sampled(unheard, sentences, device, arguments.seed, arguments.bf16)
    rows["no sentence"] = row(unasked, obedience(unasked, wanted), wanted, sentences)
    write_json(arguments.out, found)
    jobs: list[tuple[str, float, dict[str, Any]]] = [(f"w = {w:g}", w, {}) for w in arguments.w]
    jobs += [(f"w = {w:g}, away from 'a digit'", w, {"negative": "a digit"}) for w in arguments.negative]
    for name, weight, options in jobs:
        make = partial(text_to_video, model, weight=weight, steps=arguments.steps, **options)
        clips = sampled(make, sentences, device, arguments.seed, arguments.bf16)
        result = obedience(clips, wanted)
        rows[name] = row(clips, result, wanted, sentences)
        write_json(arguments.out, found)
        unseen = torch.tensor(rows[name]["held_out"]).bool()
        for attribute in ("digit", "direction", "speed", "all"):
            seen, new = (result.share(attribute, which) for which in (~unseen, unseen))
            print(f"{name:28s} {attribute:9s} seen {seen}   unseen {new}")


if __name__ == "__main__":
    main()
