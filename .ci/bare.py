"""Run in an environment with the package and its six requirements alone: a clip is made, and nothing else was needed.

build/bare/bin/python -I .ci/bare.py          (make bare does it)
"""

import importlib.metadata
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

EXTRAS = ("matplotlib", "IPython", "jupyterlab", "ipywidgets", "scipy", "av", "pytest", "requests")


def main() -> None:
    import minivdm

    assert Path(minivdm.__file__).is_relative_to(sys.prefix), f"not the installed package: {minivdm.__file__}"
    there = [name for name in EXTRAS if importlib.util.find_spec(name)]
    assert not there, f"expected an environment without {', '.join(there)}"
    with tempfile.TemporaryDirectory() as folder:
        model = minivdm.load("moving-mnist-32")
        video = minivdm.generate(model, digits=[3], weight=1.0, steps=4)
        path = minivdm.save_gif(video, Path(folder) / "three.gif")
        assert path.stat().st_size > 0 and video.shape == (1, *model.shape)
        clips = minivdm.MovingMNIST().clips([0, 1])
        assert len(clips) == 2
        commands = (["doctor"], ["sample", "--count", "1", "--steps", "2", "--out", f"{folder}/a.png"], ["--help"])
        train = ["train", "--clips", "2", "--set", "batch=1", "--set", "frames=2", "--set", "network.width=8", "--set",
                 "network.head_channels=8", "--device", "cpu", "--out", f"{folder}/run"]  # fmt: skip
        for words in (*commands, train):
            subprocess.run([sys.executable, "-m", "minivdm", *words], check=True, stdout=subprocess.DEVNULL)
    names = sorted(item.metadata["Name"].lower() for item in importlib.metadata.distributions())
    print(f"a clip was made and a step trained with {len(names)} distributions: {', '.join(names)}")


if __name__ == "__main__":
    main()
