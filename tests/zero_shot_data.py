"""The data sets of Table 6, opened by their texts."""

from __future__ import annotations

from ureca_lib.datasets import CaptionedImages, open_captioned


def refcocog(folder, partition="umd", split="val", images=None, limit=None, **more):
    return _opened(f"refcocog:{partition}:{split}", folder, images, limit, **more)


def visual_genome(data, split="test", images=None, limit=None, **more):
    return _opened(f"visual_genome:{split}", data, images, limit, **more)


def _opened(head, folder, images, limit, regions=None, strict=True) -> CaptionedImages:
    text = f"{head}/{regions}:{folder}" if regions else f"{head}:{folder}"
    return open_captioned(text, limit, masks=images, strict=strict)
