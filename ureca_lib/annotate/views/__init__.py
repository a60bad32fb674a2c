"""The pictures an annotator sees: crops, contours, numbered look-alikes (Sec. 3, Tables 7-9)."""

from ureca_lib.annotate.views.drawing import blur
from ureca_lib.annotate.views.image_views import ImageViews
from ureca_lib.annotate.views.numbers import LOOK_ALIKE_COLORS
from ureca_lib.annotate.views.settings import ContextBlur, LookAlikeFrame, ViewSettings
from ureca_lib.annotate.views.stage_views import stage_views

__all__ = [
    "LOOK_ALIKE_COLORS",
    "ContextBlur",
    "ImageViews",
    "LookAlikeFrame",
    "ViewSettings",
    "blur",
    "stage_views",
]
