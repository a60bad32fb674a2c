"""How many regions fit in memory at one time, and memory that is given back."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import TypeVar

import psutil
import torch
from transformers import PreTrainedConfig

Item = TypeVar("Item")
Result = TypeVar("Result")

_CPU_SHARE, _CUDA_SHARE = 0.4, 0.7  # of what is free now


def free_bytes(device: torch.device) -> int:
    """What a run may take: a share of the memory that is free on the device now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * _CUDA_SHARE)
    return int(psutil.virtual_memory().available * _CPU_SHARE)


def sequence_bytes(text: PreTrainedConfig, length: int, item: int) -> int:
    """Roughly what a sequence keeps in memory: keys and values, embeddings, logits of one token.

    Args:
        text: the language model's configuration.
        length: tokens, those to come included.
        item: bytes a number.
    """
    heads = text.num_attention_heads
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // heads
    keys = 2 * text.num_hidden_layers * text.num_key_value_heads * head_dim
    return item * length * (keys + text.hidden_size) + 3 * 4 * text.vocab_size


def activation_bytes(text: PreTrainedConfig, tokens: int, item: int) -> int:
    """Roughly what running `tokens` together takes on top of what they leave behind."""
    return item * tokens * (3 * text.intermediate_size + 8 * text.hidden_size)


def in_groups(
    items: Sequence[Item],
    size: int,
    run: Callable[[Sequence[Item]], list[Result]],
    done: Callable[[int], object] = lambda count: None,
) -> list[Result]:
    """Run items in groups; where memory runs out the group is halved and the work goes on.

    Args:
        items: all items, in order.
        size: how many to try at first; a smaller size that was needed is kept for the rest.
        run: a group -> its results, one an item; must leave nothing behind when it fails.
        done: told how many items each finished group had.

    Raises:
        torch.OutOfMemoryError, MemoryError: one item alone does not fit.
    """
    results: list[Result] = []
    while len(results) < len(items):
        group = items[len(results) : len(results) + size]
        try:
            results += run(group)
        except (RuntimeError, MemoryError) as error:
            if len(group) == 1 or not is_out_of_memory(error):
                raise
            size = len(group) // 2
        else:
            done(len(group))
            continue
        # outside the handler: the error held on to the tensors of the group that failed
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return results


def give_back_freed() -> None:
    """Give memory that was freed back to the system, where the C library can (glibc).

    glibc keeps freed blocks below one that is still in use. Large tensors that come and go between
    small ones that stay, as mask tiles do, make a process grow to several times what it holds.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is one of running out of memory, on an accelerator or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # the CPU allocator has no error type of its own
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
