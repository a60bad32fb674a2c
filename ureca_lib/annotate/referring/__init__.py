"""Referring expressions: captions from pixels, masks, names and the mask tree, without a model."""

from ureca_lib.annotate.referring.annotator import AttributeAnnotator, AttributeCaption

__all__ = ["AttributeAnnotator", "AttributeCaption"]
