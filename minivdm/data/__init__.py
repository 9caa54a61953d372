"""Where clips come from, and how they are written: Moving-MNIST, digits from files, video files, pictures.

Read moving_mnist first; files and fetch say where its digits are from.
"""

from minivdm.data.files import DataFileError, Digits, MovingMNISTTest, load_digits, read_idx
from minivdm.data.moving_mnist import Clips, MovingMNIST

__all__ = [
    "Clips",
    "DataFileError",
    "Digits",
    "MovingMNIST",
    "MovingMNISTTest",
    "load_digits",
    "read_idx",
]
