"""Masks for a photo that has none."""

from ureca_lib.segment.superpixels import SuperpixelConfig, superpixel_regions

__all__ = ["SuperpixelConfig", "superpixel_regions"]
