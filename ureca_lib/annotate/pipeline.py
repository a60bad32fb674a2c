"""Annotating images: many at once, stopped and started again at will."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path

from tqdm.auto import tqdm

from ureca_lib.annotate.lanes import lanes_of_splits
from ureca_lib.annotate.look_alikes import ColorTextureFeatures, RegionFeatures
from ureca_lib.annotate.protocol import Annotator
from ureca_lib.annotate.run import Run
from ureca_lib.annotate.settings import PipelineSettings
from ureca_lib.annotate.sources import SourceLike, SplitRule, find_sources
from ureca_lib.annotate.store import Store
from ureca_lib.annotate.summary import Summary


def annotate_images(
    images: Iterable[SourceLike] | SourceLike,
    store: Store | str | Path,
    annotator: Annotator | Mapping[str, Annotator],
    settings: PipelineSettings | None = None,
    *,
    splits: SplitRule | None = None,
    verifier: Annotator | None = None,
    features: RegionFeatures | None = None,
    in_flight: int | None = None,
    wait: bool = True,
    progress: bool = True,
) -> Summary:
    """Caption every region of the images; what the store holds already is not asked again.

    Images go side by side, and in each the families of siblings; they are loaded when their turn
    comes and dropped when they are finished. May be stopped at any time, and run by several
    processes at once: none takes an image that another one has.

    Args:
        images: SA-1B JSON files, folders of them, photos with the JSON beside, or `RegionImage`s.
        store: or its path; it is made where there is none.
        annotator: of all splits, or for each split its own (App. I: one for training data, a
            larger one for the test set).
        settings: of all stages.
        splits: which image is in which split; all are in "train" by default.
        verifier: asked in stage 5; None asks the split's annotator.
        features: that look-alikes are found by; None takes `ColorTextureFeatures`.
        in_flight: most calls of an annotator at a time, if less than it takes.
        wait: at the end, for images that another process has: they are taken over if it ends
            without finishing them. False leaves them to it.
        progress: show a bar.

    Returns:
        What was done. `stopped` is set where an annotator could not go on; all is kept.

    Raises:
        ValueError: a split without an annotator, in_flight below 1, image names that clash, or
            a list of splits that names none of them.
        FileNotFoundError: a path that was given does not exist; nothing is written.
        StoreError: the store cannot be used.
        KeyboardInterrupt: after the calls in flight have been kept.
    """
    if in_flight is not None and in_flight < 1:
        raise ValueError(f"in_flight is at least 1, not {in_flight}")
    settings, features = settings or PipelineSettings(), features or ColorTextureFeatures()
    rule = splits or SplitRule()
    # before the store is made: a wrong path leaves nothing behind
    sources = find_sources(images, store.path if isinstance(store, Store) else Path(store))
    of_image = rule.splits_of(source.name for source in sources)
    with nullcontext(store) if isinstance(store, Store) else Store(store) as opened:
        lanes = lanes_of_splits(set(of_image.values()), annotator, verifier, in_flight)
        with tqdm(total=len(sources), unit="image", disable=not progress) as bar:
            return Run(opened, settings, features, of_image, lanes, bar, wait).go(sources)
