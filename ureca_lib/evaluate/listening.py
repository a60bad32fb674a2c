"""Let a listener hear all captions of a predictions file, image by image, resumable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from ureca_lib.annotate.clashes import normalized
from ureca_lib.datasets.captioned import CaptionedImage, CaptionedImages
from ureca_lib.evaluate.heard import (
    Heard,
    HeardError,
    HeardRegion,
    append_heard,
    drop_cut_line,
    read_heard,
)
from ureca_lib.evaluate.listeners import Listener, LookAlikes, look_alikes
from ureca_lib.evaluate.retrieval import check_scores
from ureca_lib.mask_tree import RegionId

Spoken = Mapping[str, Mapping[str, str]]  # image id -> region id, as a text -> caption
_NAMED = 3  # ids in an error


def hear(
    image: CaptionedImage,
    captions: Mapping[RegionId, str],
    listener: Listener,
    system: str = "",
    alike: LookAlikes | None = None,
) -> Heard:
    """Let a listener hear the captions of an image.

    Captions without a word are not put to it: they name nothing. A caption that the listener
    refuses names nothing either, and the reason is kept.

    Args:
        image: with all the regions that a caption might be about.
        captions: of some or all regions, by id.
        listener: gives log-likelihoods.
        system: who said them.
        alike: look-alikes of each region; None finds them (`look_alikes`).

    Raises:
        ValueError: a caption of a region that is not there, or scores of another shape.
    """
    ids = {region.id for region in image.regions}
    if unknown := [region_id for region_id in captions if region_id not in ids]:
        raise ValueError(f"{image.image_id} has no region {unknown[0]!r}")
    texts = tuple(dict.fromkeys(captions.values()))
    alike = look_alikes(image) if alike is None else alike
    levels = image.levels
    regions = tuple(
        HeardRegion(r.id, r.area, levels[r.id], tuple(alike.get(r.id, ()))) for r in image.regions
    )
    scores, refused = _scores(image, texts, listener)
    said = {region_id: texts.index(text) for region_id, text in captions.items()}
    return Heard(
        image.image_id, listener.name, system, image.size, regions, texts, said, scores, refused
    )


def _scores(
    image: CaptionedImage, texts: Sequence[str], listener: Listener
) -> tuple[np.ndarray, dict[int, str]]:
    """(R, C) scores, and the columns that the listener refused, with its reasons."""
    refused, asked = {}, []
    for place, text in enumerate(texts):
        if not normalized(text):
            continue
        reason = listener.refusal(text)
        if reason is None:
            asked.append(place)
        else:
            refused[place] = reason
    scores = np.full((len(image.regions), len(texts)), -np.inf)
    if asked:
        given = listener.score(image, [texts[place] for place in asked])
        found = check_scores(given, f"{image.image_id}: scores")
        if found.shape != (len(image.regions), len(asked)):
            wanted = len(image.regions), len(asked)
            raise ValueError(f"{listener.name} gave scores of shape {found.shape}, not {wanted}")
        scores[:, asked] = found  # (R, asked) -> columns of (R, C)
    return scores, refused


def hear_all(
    data: Callable[[], CaptionedImages],
    spoken: Spoken,
    listener: Callable[[], Listener],
    listener_name: str,
    path: str | Path,
    system: str = "",
    progress: bool = True,
) -> list[Heard]:
    """Hear every image that has captions, going on where an earlier run stopped.

    Args:
        data: opens the images. It and the listener are only called where an image is left to
            hear, so that what was heard before is measured from the file alone.
        spoken: the captions. Regions of these images that have references and no caption count
            as not found.
        listener: makes the listener.
        listener_name: under which it is recorded.
        path: JSONL that is appended to.
        system: who said the captions.
        progress: show a bar.

    Returns:
        One an image, in the order of the captions.

    Raises:
        HeardError: the file holds other captions, or another listener's scores, or another process
            is writing it. ValueError: an image or a region that the data does not have, naming it.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(target.with_name(f".{target.name}.lock"), timeout=0):
            done = _hear_missing(data, spoken, listener, listener_name, target, system, progress)
    except Timeout:
        raise HeardError(f"{target}: another process is writing this file") from None
    return [done[image_id] for image_id in spoken]


def _hear_missing(
    data: Callable[[], CaptionedImages],
    spoken: Spoken,
    listener: Callable[[], Listener],
    listener_name: str,
    target: Path,
    system: str,
    progress: bool,
) -> dict[str, Heard]:
    """Images by id: those of the file, and those heard now."""
    drop_cut_line(target)
    done = {heard.image_id: heard for heard in read_heard(target)} if target.is_file() else {}
    for heard in done.values():
        _check_same(target, heard, spoken, listener_name)
    left = [image_id for image_id in spoken if image_id not in done]
    if left:
        images, hearing = data(), listener()
        places = {image_id: place for place, image_id in enumerate(images.ids)}
        if missing := [image_id for image_id in left if image_id not in places]:
            named = ", ".join(missing[:_NAMED])
            raise ValueError(
                f"{images.name} does not have {len(missing)} of the images with captions: {named}"
            )
        bar = tqdm(left, total=len(spoken), initial=len(done), unit="image", disable=not progress)
        for image_id in bar:
            image = images[places[image_id]]
            heard = hear(image, _own(image, spoken[image_id]), hearing, system)
            append_heard(target, heard)
            done[image_id] = heard
    return done


def _own(image: CaptionedImage, captions: Mapping[str, str]) -> dict[RegionId, str]:
    """Captions by the regions' own ids, in the order of the regions.

    A region that has references and no prediction gets an empty caption, which leads nowhere.
    """
    ids = {str(region.id): region.id for region in image.regions}
    if unknown := [name for name in captions if name not in ids]:
        raise ValueError(f"{image.image_id} has no region {unknown[0]!r}, but there is a caption")
    wanted = {str(region.id) for region in image.targets} | captions.keys()
    return {ids[name]: captions.get(name, "") for name in ids if name in wanted}


def _check_same(path: Path, heard: Heard, spoken: Spoken, listener_name: str) -> None:
    given = spoken.get(heard.image_id, {})
    # regions without a prediction were heard as empty captions
    told = {str(i): text for i, text in heard.texts.items() if text or str(i) in given}
    if heard.listener != listener_name:
        raise HeardError(
            f"{path}: {heard.image_id} was heard by {heard.listener}, not {listener_name}; "
            "name another file"
        )
    if told != dict(given):
        raise HeardError(
            f"{path}: {heard.image_id} has other captions than the predictions; name another file"
        )
