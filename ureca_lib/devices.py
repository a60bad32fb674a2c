"""Where models run."""

from __future__ import annotations

DEVICE_HELP = "Where the model runs: cpu, cuda, cuda:1, ...; default: cuda where there is one."


def chosen_device(asked: str | None) -> str:
    """The device that is asked for, or for None CUDA where there is one, else the CPU.

    Asked where a model is about to be loaded: torch takes seconds to import, and most commands
    can end without it.

    Raises:
        ValueError: CUDA is asked for, and torch finds none.
    """
    if asked is not None and not asked.startswith("cuda"):
        return asked
    import torch

    there = torch.cuda.is_available()
    if asked is None:
        return "cuda" if there else "cpu"
    if not there:
        raise ValueError(f"device {asked}: torch finds no CUDA device here")
    return asked
