"""The picture at the top of the README: one generated clip of each digit, 0 to 4 above 5 to 9.

    python benchmarks/picture.py --out lessons/images/samples.gif

All ten clips are of one draw, made as `python -m minivdm sample` makes them; the seed is the first.
"""

import argparse
from pathlib import Path

import torch

import minivdm
from minivdm.data import writing
from minivdm.training import pretrained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="moving-mnist-32", help="a name that ships, a file or a run's folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--zoom", type=int, default=4, help="side of a video's pixel in the picture")
    parser.add_argument("--out", type=Path, default=Path("lessons/images/samples.gif"))
    args = parser.parse_args()
    writing.check(args.out, zoom=args.zoom)  # before the work, not after it
    denoise = pretrained.load(args.weights)
    videos = minivdm.generate(denoise, count=10, labels=torch.eye(10), seed=args.seed, progress=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    written = writing.save(videos, args.out, zoom=args.zoom, columns=5)
    print(f"a clip of each digit, {written.stat().st_size / 1e3:.0f} kB in {written}")


if __name__ == "__main__":
    main()
