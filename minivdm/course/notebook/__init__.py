"""What only a notebook needs: filmstrips, frame players, one figure style, rendered source, sliders.

Lessons write ``from minivdm.course import notebook as nb``. Nothing below this package imports matplotlib,
ipywidgets or IPython, so that the mathematics can be used without them.
"""

from minivdm.course.notebook.clips import VideoRangeError, VideoShapeError
from minivdm.course.notebook.picture import Picture, show
from minivdm.course.notebook.players import Player, player
from minivdm.course.notebook.sliders import explore
from minivdm.course.notebook.sources import show_source
from minivdm.course.notebook.strips import filmstrip
from minivdm.course.notebook.style import colors, figure, image, use_style

__all__ = [
    "Picture",
    "Player",
    "VideoRangeError",
    "VideoShapeError",
    "colors",
    "explore",
    "figure",
    "filmstrip",
    "image",
    "player",
    "show",
    "show_source",
    "use_style",
]
