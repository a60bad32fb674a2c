"""How the pictures for the annotator are made: one frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

ContextBlur = Literal["parent", "main_object"]
LookAlikeFrame = Literal["image", "crop"]
Color = tuple[int, int, int]

YELLOW: Color = (255, 255, 0)  # Tables 7 and 8
BLUE: Color = (0, 0, 255)  # Table 9, index 0


@dataclass(frozen=True)
class ViewSettings:
    """Settings of the views. The prompts speak of a yellow contour: keep it yellow.

    Raises:
        ValueError: a value out of its range, naming the field.
    """

    blur_sigma: float = field(
        default=100.0,
        metadata={"help": "standard deviation of the background's blur, photo pixels (published)"},
    )
    contour_width: int = field(
        default=3, metadata={"help": "width of a contour, pixels of the picture shown (published)"}
    )
    contour_color: Color = field(
        default=YELLOW, metadata={"help": "RGB of the target's contour (Tables 7 and 8)"}
    )
    context_blur: ContextBlur = field(
        default="parent",
        metadata={
            "help": "what stays sharp where the target is contoured in its context: 'parent' crops "
            "the parent and blurs all of it but the target (Sec. 3); 'main_object' crops the main "
            "object and leaves it sharp (published code)"
        },
    )
    look_alike_frame: LookAlikeFrame = field(
        default="crop",
        metadata={
            "help": "what look-alikes are numbered in: 'crop', the box that holds them all "
            "(published code), or 'image', the whole image"
        },
    )
    margin: float = field(
        default=0.1, metadata={"help": "space around a crop, as a share of its longer side"}
    )
    min_margin: int = field(
        default=8, metadata={"help": "least space around a crop, in photo pixels"}
    )
    min_side: int = field(
        default=448,
        metadata={
            "help": "a picture whose longer side is shorter is enlarged to it before contours are "
            "drawn, so that they do not hide small parts (448: a tile of the model); 0: never"
        },
    )
    max_side: int = field(
        default=1792,
        metadata={
            "help": "a picture whose longer side is longer is reduced to it before contours are "
            "drawn (1792: four tiles, the longer side of a grid of 12); 0: never"
        },
    )
    number_height: float = field(
        default=0.04,
        metadata={"help": "height of the numbers, as a share of the picture's longer side"},
    )

    def __post_init__(self) -> None:
        for name, least in (("blur_sigma", 0.1), ("contour_width", 1), ("number_height", 0.005)):
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} is at least {least:g}, not {getattr(self, name)!r}")
        for name in ("margin", "min_margin", "min_side", "max_side"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is not negative, not {getattr(self, name)!r}")
        if self.max_side and self.min_side > self.max_side:
            raise ValueError(f"min_side {self.min_side} is above max_side {self.max_side}")
        for name, allowed in (
            ("context_blur", ("parent", "main_object")),
            ("look_alike_frame", ("image", "crop")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is one of {allowed}, not {getattr(self, name)!r}")
