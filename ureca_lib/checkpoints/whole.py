"""Weights that are all there: transformers draws what a file lacks anew, and only logs it."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from transformers import PreTrainedModel

from ureca_lib.checkpoints.errors import CheckpointKeysError
from ureca_lib.checkpoints.tensor_files import tensor_index

Model = TypeVar("Model", bound=PreTrainedModel)


def load_whole(kind: type[Model], path: str | Path, fresh: str = "", **options) -> Model:
    """`kind.from_pretrained`, from safetensors, refused unless every tensor is stored.

    Args:
        kind: the model's class.
        path: a folder, or a hub id.
        fresh: tensors whose names start so may be missing or of another shape, because they are
            drawn anew afterwards; empty for none.
        options: of `from_pretrained`.

    Raises:
        CheckpointKeysError: tensors that the configuration asks for are missing, or of another
            shape; lists them all.
        CheckpointError: a folder whose files are damaged, missing or pickles.
    """
    if Path(path).is_dir():
        tensor_index(Path(path))  # a damaged file is named before any weights are read
    model, found = kind.from_pretrained(
        path,
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # told below, with the file's name
        **options,
    )

    def needed(name: str) -> bool:
        return not (fresh and name.startswith(fresh))

    missing = sorted(filter(needed, found["missing_keys"]))
    other = [each for each in sorted(found["mismatched_keys"]) if needed(each[0])]
    if missing or other:
        wrong = [f"{name}: {tuple(stored)}, not {tuple(ours)}" for name, stored, ours in other]
        raise CheckpointKeysError(path, missing, sorted(found["unexpected_keys"]), wrong)
    return model
