"""Others' checkpoints written as ours."""

from __future__ import annotations

import warnings
from pathlib import Path

from ureca_lib.checkpoints.errors import CheckpointError
from ureca_lib.checkpoints.internvl import internvl_reader
from ureca_lib.checkpoints.official import load_official
from ureca_lib.checkpoints.tokens import load_tokenizer
from ureca_lib.processor import UrecaProcessor


def convert(
    source: str | Path,
    destination: str | Path,
    progress: bool = False,
    max_shard_size: str = "5GB",
    **settings,
) -> Path:
    """Read a published URECA or an InternVL checkpoint and write it in our layout.

    InternVL's get a mask encoder with newly drawn weights, for stage 1 to train.

    What is written loads with `UrecaForConditionalGeneration.from_pretrained`. Where the source
    has a tokenizer, the processor is written beside it and loads with
    `UrecaProcessor.from_pretrained`; where it has none, a `UserWarning` says so.

    Args:
        source: folder to read; see `load_official`, `from_internvl_hf` and `from_internvl_chat`.
        destination: folder to write; made if need be, must be empty.
        progress: show a bar.
        max_shard_size: of each safetensors file, such as "5GB".
        settings: for an InternVL source, fields of `UrecaConfig`.

    Returns:
        The folder written.

    Raises:
        CheckpointError: the source cannot be read, or the destination holds files.
    """
    source, destination = Path(source), Path(destination)
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise CheckpointError(destination, "not an empty folder; choose another to write to")
    reader = internvl_reader(source)
    # before the weights: a tokenizer that cannot be built should not cost their reading
    tokenizer = load_tokenizer(source)
    if reader is not None:
        model = reader(source, **settings)
    else:
        model = load_official(source, progress=progress, **settings)
    destination.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(destination, max_shard_size=max_shard_size)
    if tokenizer is not None:
        UrecaProcessor.from_config(model.config, tokenizer).save_pretrained(destination)
    else:
        warnings.warn(
            f"{source} has no tokenizer: copy its tokenizer files beside the weights and convert "
            "again, or RegionCaptioner cannot caption; the model alone was written",
            stacklevel=2,
        )
    return destination
