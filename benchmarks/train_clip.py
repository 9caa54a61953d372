"""Train the text-video model that ships as minivdm/weights/clip-32, and hand on its text encoder.

    python benchmarks/train_clip.py [--steps 1500] [--out minivdm/weights]    (16 minutes of one core)
    python benchmarks/train_clip.py --start FILE     # after it: the label model's weights and this text encoder

From FILE a video model is trained whose text encoder stays as contrastive training left it:

    python -m minivdm train text-32 --init FILE --set network.text_frozen=true

(5,000 clips of that, beside as many with an encoder that learns along: benchmarks/results/text_encoders.json.)

Pairs are clips of the 4,500 training digits and sentences about them. The card has retrieval among clips of the 500
test digits and their sentences, for combinations of digit and direction that training had and for those held out.
"""

import argparse
import hashlib
import json
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from tqdm import trange

from minivdm.data.captioned_mnist import CaptionedMNIST, held_out
from minivdm.data.captions import say
from minivdm.measure.obedience import wilson
from minivdm.systems.clip import Clip, fit, frame_consistency, load_clip, recall_at_1, similarity
from minivdm.training import checkpoints, pretrained

NAME = "clip-32"


def figures(model: Clip, clips: int = 512, among: int = 64) -> dict[str, object]:
    """Retrieval among 64 and cosines, on test clips, with 95 % intervals."""
    parts = CaptionedMNIST(split="test", seed=9).clips(torch.arange(clips))
    full = [say(caption, 0) for caption in parts.captions]
    own = similarity(model, parts.video, full)
    unseen = torch.tensor(
        [held_out(c.digit, c.direction) for c in parts.captions if c.digit is not None and c.direction is not None]
    )  # a clip's own caption says both
    found: dict[str, list[torch.Tensor]] = {"by text": [], "by video": []}
    for start in range(0, clips, among):
        group = CaptionedMNIST(split="test", seed=9).clips(torch.arange(start, start + among))
        for name, right in zip(found, recall_at_1(model, group.video, group.captions, group.sentences), strict=True):
            found[name].append(right)
    recalls = {}
    for name, right in ((name, torch.cat(rows)) for name, rows in found.items()):
        for what, which in {"seen combinations": ~unseen, "held-out combinations": unseen}.items():
            share = wilson(int(right[which].sum()), int(which.sum()))
            recalls[f"{name}, {what}"] = [round(x, 4) for x in (share.rate, share.low, share.high)]
    return {
        f"recall at 1 among {among}: share, low, high": recalls,
        "cosine of a clip and its whole caption": round(own.mean().item(), 4),
        "cosine of a clip and another's": round(similarity(model, parts.video.roll(1, 0), full).mean().item(), 4),
        "frame consistency of true clips": round(frame_consistency(model, parts.video).mean().item(), 4),
    }


def start(path: Path) -> None:
    """Write the label model's weights with this text encoder beside them."""
    tensors, about = checkpoints.read_weights(pretrained.find("moving-mnist-32"))
    tensors |= {f"text_encoder.{name}": value for name, value in load_clip().text.state_dict().items()}
    checkpoints.write_tensors(path, tensors, {"config": about["config"], "clips": about["clips"]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "minivdm" / "weights")
    parser.add_argument("--start", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.start:
        return start(arguments.start)

    begun, cpu, losses = time.time(), time.process_time(), []
    with trange(arguments.steps, unit="step", mininterval=10) as bar:

        def watch(step: int, loss: float) -> None:
            losses.append(loss)
            bar.update()
            bar.set_postfix(loss=f"{sum(losses[-50:]) / len(losses[-50:]):.3f}", refresh=False)

        model = fit(arguments.steps, arguments.batch, seed=arguments.seed, watch=watch)
    seconds, cpu = time.time() - begun, time.process_time() - cpu

    model.half().float()  # judged as it ships
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / f"{NAME}.safetensors"
    save_file({name: value.half().contiguous() for name, value in model.state_dict().items()}, file)
    card = {
        "name": NAME,
        "what": "clips and sentences in one space (minivdm.systems.clip), after Radford et al. 2021 in small: "
        "its cosines are not those of CLIP",
        "command": "python benchmarks/train_clip.py"
        f" --steps {arguments.steps} --batch {arguments.batch} --seed {arguments.seed}",
        "data": "clips of the 4,500 MNIST training digits that ship with the package, with captions",
        "parameters": sum(p.numel() for p in model.parameters()),
        "pairs_seen": arguments.steps * arguments.batch,
        "seconds": round(seconds),
        "seconds_of_cpu": round(cpu),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "loss": round(sum(losses[-100:]) / len(losses[-100:]), 4),
        "temperature": round(1 / model.scale.item(), 4),
        "on 512 test clips": figures(model),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    file.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps(card, indent=2))


if __name__ == "__main__":
    main()
