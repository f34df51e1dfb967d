"""The rows of the model map, one per model family, and the small named functions that rows refer to."""

from ..tokens import whole
from .image import IMAGE_FAMILIES
from .image_layouts import IMAGE_LAYOUTS, IMAGE_PARTS
from .video import VIDEO_FAMILIES
from .video_layouts import VIDEO_LAYOUTS, VIDEO_PARTS

FAMILIES = VIDEO_FAMILIES + IMAGE_FAMILIES
LAYOUTS = {"whole": whole} | VIDEO_LAYOUTS | IMAGE_LAYOUTS
PARTS = VIDEO_PARTS | IMAGE_PARTS
