"""Where models run."""

from __future__ import annotations

DEVICE_HELP = "Where the model runs: cpu, cuda, cuda:1, ...; default: cuda where there is one."


def chosen_device(asked: str | None = None) -> str:
    """The device that a command's option names, or CUDA where there is one, else the CPU.

    Raises:
        ValueError: CUDA is asked for, and torch finds none.
    """
    import torch  # here, because it takes seconds and many commands do without

    there = torch.cuda.is_available()
    if asked is None:
        return "cuda" if there else "cpu"
    if asked.startswith("cuda") and not there:
        raise ValueError(f"--device {asked}: torch finds no CUDA device here")
    return asked
