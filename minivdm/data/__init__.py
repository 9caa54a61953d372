"""Where clips come from, and how they are written.

Read moving_mnist first; files and fetch say where its digits are from. Then video_folder and video_files (videos of
one's own), sheets and writing (pictures and animations), atomic and cache (files that are whole, and where they lie).
"""

from minivdm.data.dataset import ClipDataset
from minivdm.data.files import DataFileError, Digits, MovingMNISTTest, load_digits, read_idx
from minivdm.data.moving_mnist import Clips, MovingMNIST
from minivdm.data.video_files import VideoFileError
from minivdm.data.video_folder import LabelledClips, VideoFolder

__all__ = [
    "ClipDataset",
    "Clips",
    "DataFileError",
    "Digits",
    "LabelledClips",
    "MovingMNIST",
    "MovingMNISTTest",
    "VideoFileError",
    "VideoFolder",
    "load_digits",
    "read_idx",
]
