"""All regions of an image together, against one region at a time with everything recomputed.

Both sides use the same random weights at InternVL2.5-1B's shapes, in the same run: the vision tower
and the language model keep their widths, heads and vocabulary, and on a CPU lose the same share of
their layers. The baseline is the published way: the processor and transformers' `generate` for each
region. Both write the same number of tokens, since random weights seldom end a caption. Decoding
weighs more here than at full depth, because the vocabulary's matrix is not cut.

With a GPU: `--device cuda --dtype bfloat16 --depth-cut 1`.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.record import record
from tiny_models import tiny_tokenizer

from ureca_lib.captioner import Caption, RegionCaptioner
from ureca_lib.model import UrecaConfig, UrecaForConditionalGeneration
from ureca_lib.processor import UrecaProcessor
from ureca_lib.regions import Region

HEIGHT, WIDTH = 1500, 2250  # SA-1B's usual size: 3 x 2 tiles and a thumbnail
LAYERS = 24  # of InternVL2.5-1B's vision tower and of its language model alike
ORDERS = {"after_image": "mask after image, shared prefix", "before_image": "mask before image"}


def build(position: str, depth_cut: int, dtype: torch.dtype, device: str) -> RegionCaptioner:
    """InternVL2.5-1B (InternViT-300M and Qwen2.5-0.5B) with fewer layers and random weights."""
    tokenizer = tiny_tokenizer()
    layers = max(1, LAYERS // depth_cut)
    config = UrecaConfig(
        vision_config={
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_attention_heads": 16,
            "num_hidden_layers": layers,
            "attention_bias": True,
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": 151677,
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "num_hidden_layers": layers,
            "max_position_embeddings": 32768,
            "rope_theta": 1e6,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        mask_token_id=tokenizer.convert_tokens_to_ids("<MASK_CONTEXT>"),
        mask_position=position,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    model = UrecaForConditionalGeneration(config).to(device)
    torch.set_default_dtype(torch.float32)
    return RegionCaptioner(model, UrecaProcessor.from_config(config, tokenizer))


def scene(count: int) -> tuple[np.ndarray, list[Region]]:
    """A noisy image and as many ellipses of all sizes, seeded."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    regions = []
    for number in range(count):
        y, x = rng.uniform(0, HEIGHT), rng.uniform(0, WIDTH)
        a, b = np.exp(rng.uniform(np.log(20), np.log(500), 2))
        regions.append(
            Region.from_mask(number, ((rows - y) / a) ** 2 + ((columns - x) / b) ** 2 < 1)
        )
    return image, regions


@torch.inference_mode()
def one_at_a_time(
    captioner: RegionCaptioner, image: np.ndarray, regions: list[Region], tokens: int
) -> list[str]:
    """The published way: everything again for each region."""
    texts = []
    for region in regions:
        inputs = captioner.processor(image, region).to(captioner.device)
        out = captioner.model.generate(
            **inputs,
            max_new_tokens=tokens,
            do_sample=False,
            eos_token_id=captioner.processor.tokenizer.eos_token_id,
            pad_token_id=captioner.processor.tokenizer.pad_token_id,
        )
        new = out[0, inputs["input_ids"].shape[1] :]
        texts.append(captioner.processor.tokenizer.decode(new, skip_special_tokens=True).strip())
    return texts


def together(
    captioner: RegionCaptioner, image: np.ndarray, regions: list[Region], tokens: int
) -> list[Caption]:
    return captioner.caption(image, regions, max_new_tokens=tokens, progress=False)


def measured(device: str, run: Callable) -> tuple[float, float, list]:
    """Seconds, the peak of memory above what was held before in GiB (nan if unknown), result."""
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = reset_peak()
    start = time.perf_counter()
    result = run()
    if cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() if cuda else status("VmHWM")
    return seconds, (peak - before) / 2**30, result


def reset_peak() -> float:
    """Linux's record of the process's peak is set back; returns what it holds now, in bytes."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return float("nan")
    return status("VmRSS")


def status(field: str) -> float:
    text = Path("/proc/self/status").read_text() if Path("/proc/self/status").exists() else ""
    found = re.search(rf"{field}:\s+(\d+) kB", text)
    return int(found.group(1)) * 1024 if found else float("nan")


def compare(
    options: argparse.Namespace, position: str, image: np.ndarray, regions: list[Region]
) -> tuple[list[str], str]:
    """Table rows of one order, and a line about the agreement of the two ways."""
    captioner = build(position, options.depth_cut, options.dtype, options.device)
    few = regions[: options.baseline]
    one_at_a_time(captioner, image, few[:1], 2)  # warm up
    runs: dict[int, list[tuple[float, float]]] = {count: [] for count in options.counts}
    base: list[tuple[float, float]] = []
    for repeat in range(options.repeats):
        seconds, peak, texts = measured(
            options.device, lambda: one_at_a_time(captioner, image, few, options.tokens)
        )
        base.append((seconds / len(few), peak))
        for count in options.counts:
            if count > options.repeat_up_to and repeat:
                continue
            part = regions[:count]
            seconds, peak, found = measured(
                options.device, lambda p=part: together(captioner, image, p, options.tokens)
            )
            runs[count].append((seconds / count, peak))
            if count >= len(few):
                same = sum(a == b.text for a, b in zip(texts, found, strict=False))
    each, peak = (statistics.median(values) for values in zip(*base, strict=True))
    rows = [row(position, "one at a time", len(few), each, each, peak, options.tokens)]
    for count, values in runs.items():
        seconds, peak = (statistics.median(column) for column in zip(*values, strict=True))
        rows.append(row(position, "together", count, seconds, each, peak, options.tokens))
    return rows, f"{ORDERS[position]}: {same} of {len(few)} captions are the baseline's."


def row(
    position: str, way: str, count: int, each: float, base: float, peak: float, tokens: int
) -> str:
    cells = [
        ORDERS[position],
        way,
        str(count),
        f"{each:.2f}",
        f"{each * count:.1f}",
        f"{base / each:.1f}",
        f"{tokens / each:.1f}",
        f"{peak:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depth-cut", type=int, default=12, help="layers are divided by this")
    parser.add_argument("--tokens", type=int, default=32, help="new tokens of a caption")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--baseline", type=int, default=2, help="regions of the baseline")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--repeat-up-to", type=int, default=32, help="larger counts run once")
    parser.add_argument("--orders", nargs="+", default=list(ORDERS), choices=list(ORDERS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", type=lambda name: getattr(torch, name))
    return parser.parse_args()


def main() -> None:
    options = parse()
    image, regions = scene(max(options.counts))
    rows, notes = [], []
    for position in options.orders:
        found, note = compare(options, position, image, regions)
        rows += found
        notes.append(note)
    layers = max(1, LAYERS // options.depth_cut)
    table = [
        f"InternVL2.5-1B's shapes with {layers} of {LAYERS} layers in vision tower and language "
        f"model, {str(options.dtype).removeprefix('torch.')}, {WIDTH} x {HEIGHT} image (7 tiles), "
        f"{options.tokens} new tokens a caption. Peak: above weights and what was held before.\n",
        "| order | way | regions | s a region | s in all | times faster | tokens/s | peak GiB |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        " ".join(notes),
    ]
    command = " ".join(["python", "tests/benchmarks/caption_regions.py", *sys.argv[1:]])
    record(f"Captions of all regions together ({options.device})", "\n".join(table), command)


if __name__ == "__main__":
    main()
