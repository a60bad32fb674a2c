"""Speed on a GPU: decoding, mask tiles, training steps, and how long the GPU waits.

    python tests/benchmarks/gpu.py --out gpu.json            # on a machine with a card
    python tests/benchmarks/gpu.py --record gpu.json         # its table, into RESULTS.md

Without that file the table says of every part that it was not measured.

Five parts, at most eight minutes together on one modern card. Each measurement is written into the
JSON file at once, so that a run that is cut short still counts; a part that fails says why and the
others go on. Weights are random and are drawn on the device, at the full shapes of the presets.

It runs without a network and beside torch 2.8 or newer, transformers 5.6 or newer and Python 3.11
or newer. Besides torch, transformers, numpy and Pillow it needs pycocotools, safetensors, psutil
and tqdm, and the training part peft, accelerate, pydantic and filelock; wheels of those will do.

decode: captions of 1, 8, 32 and 128 regions of one image together, against one region at a time and
    against the card's copy bandwidth.
tiles: the masks of an image to mask tokens, from distinct tiles as bytes, against copy bandwidth.
train: a step of stage 1 and of stage 2 at 1b, the regions of an image grouped, against one sequence
    per region.
compiled: captioning and the mask encoder with torch.compile, against the same without it.
waits: the share of a captioning run in which the GPU has nothing to do.

The decode roofline: a step must read the language model's weights and the keys and values of all
tokens so far once. Those bytes over the card's measured copy bandwidth are the least time that a
step takes.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tiny_models import tiny_config, tiny_tokenizer

from ureca_lib.captioner import RegionCaptioner
from ureca_lib.model import UrecaForConditionalGeneration
from ureca_lib.presets import preset_config
from ureca_lib.processor import UrecaProcessor
from ureca_lib.regions import Region
from ureca_lib.tiling import distinct_mask_tiles

ROOT = Path(__file__).resolve().parents[2]
HEIGHT, WIDTH = 1500, 2250  # SA-1B's usual size
COUNTS = (1, 8, 32, 128)  # regions of one image captioned together
NEW_TOKENS = 48  # per caption; random weights seldom end one earlier
TRAIN_REGIONS = 8  # of one image in a training step
GIB = 2**30


class Results:
    """Measurements, written to a JSON file as they come."""

    def __init__(self, path: Path, device: torch.device):
        self.path, self.content = path, {"machine": environment(device), "rows": []}

    def add(self, part: str, **row: Any) -> None:
        """Append a measurement, print it, and write the file."""
        self.content["rows"].append({"part": part} | row)
        print(json.dumps(self.content["rows"][-1]), flush=True)
        self.path.write_text(json.dumps(self.content, indent=1) + "\n")


def environment(device: torch.device) -> dict[str, Any]:
    """The card, its driver, the versions and the commit."""
    import transformers

    card = driver = None
    if device.type == "cuda":
        card = torch.cuda.get_device_name(device)
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = output_of(query)
    return {
        "card": card,
        "driver": driver,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "commit": output_of(["git", "-C", str(ROOT), "rev-parse", "HEAD"]),
    }


def output_of(command: list[str]) -> str | None:
    """The first line that a command prints; None if there is no such command."""
    try:
        text = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return text.strip().partition("\n")[0] or None


def seconds(call: Callable[[], Any], device: torch.device, repeats: int = 3) -> float:
    """The median time of a call, after one to warm up."""
    times = []
    for _ in range(repeats + 1):
        synchronize(device)
        start = time.perf_counter()
        call()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free(device: torch.device) -> None:
    """Give memory back between measurements and reset the peak."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_gib(device: torch.device) -> float | None:
    """The most memory taken since `free`; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) / GIB if device.type == "cuda" else None


def copy_bandwidth(device: torch.device, size: int) -> float:
    """Bytes per second that a copy on the device reads and writes."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / seconds(lambda: target.copy_(source), device, 10)


def captioner_of(preset: str, device: torch.device, small: bool) -> RegionCaptioner:
    """A model of a preset's full shapes, or of tiny ones, with random weights."""
    tokenizer = tiny_tokenizer()
    if small:
        config = tiny_config(mask_position="after_image", max_tiles=2)
    else:
        config = preset_config(preset, mask_position="after_image")
    for kind in ("IMG", "MASK"):
        token = tokenizer.convert_tokens_to_ids(f"<{kind}_CONTEXT>")
        setattr(config, f"{'image' if kind == 'IMG' else 'mask'}_token_id", token)
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32 if small else torch.bfloat16)
    try:
        with device:
            model = UrecaForConditionalGeneration(config).eval()
    finally:
        torch.set_default_dtype(before)
    return RegionCaptioner(model, UrecaProcessor.from_config(config, tokenizer))


def scene(count: int, small: bool) -> tuple[np.ndarray, list[Region]]:
    """A noisy photo and ellipses whose areas are spread as SA-1B's: median 0.3% of the photo."""
    height, width = (120, 180) if small else (HEIGHT, WIDTH)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    rows, columns = np.ogrid[:height, :width]
    regions = []
    for number in range(count):
        area = np.exp(rng.normal(np.log(0.003), 1.6)).clip(1e-3 if small else 1e-5, 0.6)
        radius = np.sqrt(area * height * width / np.pi)
        y, x = rng.uniform(0, height), rng.uniform(0, width)
        stretch = np.exp(rng.normal(0, 0.3))
        inside = ((rows - y) / stretch) ** 2 + ((columns - x) * stretch) ** 2 <= radius**2
        inside[int(y), int(x)] = True
        regions.append(Region.from_mask(number, inside))
    return image, regions


def decode(results: Results, device: torch.device, preset: str, small: bool) -> None:
    """Captions per second together and one at a time, and the share of the decode roofline."""
    captioner = captioner_of(preset, device, small)
    counts, tokens = (COUNTS[:2], 4) if small else (COUNTS, NEW_TOKENS)
    image, regions = scene(counts[-1], small)
    bandwidth = copy_bandwidth(device, 2**20 if small else 2**30)
    results.add("bandwidth", gib_per_second=bandwidth / GIB)

    def caption(count: int, most: int) -> None:
        captioner.caption(image, regions[:count], max_new_tokens=most, progress=False)

    for attention in ("eager", "sdpa"):
        captioner.model.set_attn_implementation(attention)
        free(device)
        alone = seconds(lambda: caption(1, tokens), device)
        for count in counts:
            free(device)
            whole, first = (
                seconds(lambda count=count, most=most: caption(count, most), device)
                for most in (tokens, 1)
            )
            # what is left without the photo, the prompts and the first token: steps alone
            step = max(whole - first, 1e-9) / (tokens - 1)
            least = step_bytes(captioner, image, count, tokens) / bandwidth
            results.add(
                "decode",
                preset=preset,
                attention=attention,
                regions=count,
                captions_per_second=count / whole,
                times_one_alone=count * alone / whole,
                tokens_per_second=count / step,
                roofline_share=least / step,
                peak_gib=peak_gib(device),
            )


def step_bytes(captioner: RegionCaptioner, image: np.ndarray, count: int, tokens: int) -> int:
    """Bytes that the middle step of decoding must read: weights once, keys and values once."""
    model, processor = captioner.model, captioner.processor
    text, size = model.config.text_config, model.lm_head.weight.element_size()
    read = sum(p.numel() for p in model.model.language_model.layers.parameters())
    read += model.lm_head.weight.numel()
    tiles = len(processor.image_tiles(image))
    masks = processor.count_mask_tiles(image.shape[:2])
    prompt = tiles * processor.image_seq_length
    own = masks * processor.num_mask_tokens + tokens // 2  # per region, after the shared image
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    per_token = 2 * text.num_hidden_layers * text.num_key_value_heads * head
    return size * (read + (prompt + count * own) * per_token)


def tiles(results: Results, device: torch.device, preset: str, small: bool) -> None:
    """Masks of one image to mask tokens: tiles on the processor, copied and encoded as bytes."""
    captioner = captioner_of(preset, device, small)
    processor, model = captioner.processor, captioner.model
    _, regions = scene(8 if small else 100, small)
    bandwidth = copy_bandwidth(device, 2**20 if small else 2**30)
    options = {"max_tiles": processor.max_tiles, "tile_size": processor.mask_size}
    cut = distinct_mask_tiles(regions, thumbnail=True, **options)
    there = cut.to(device)

    @torch.inference_mode()
    def encode() -> None:
        values = there.values()[:, None]
        model.get_mask_features(values, None, there.index.flatten())

    making = seconds(lambda: distinct_mask_tiles(regions, thumbnail=True, **options), device)
    moving = seconds(lambda: cut.to(device), device)
    encoding = seconds(encode, device)
    dense = there.index.numel() * processor.mask_size**2
    results.add(
        "tiles",
        preset=preset,
        masks=len(regions),
        tiles=there.index.numel(),
        distinct=len(there.distinct),
        make_seconds=making,
        copy_seconds=moving,
        encode_seconds=encoding,
        # all tiles as bytes, read once, over the time that encoding takes
        bandwidth_share=dense / encoding / bandwidth,
        peak_gib=peak_gib(device),
    )


def train(results: Results, device: torch.device, preset: str, small: bool) -> None:
    """Regions per second of a training step, grouped and one sequence per region."""
    from accelerate.utils import send_to_device

    from ureca_lib.train.data import GroupSample, RegionCollator
    from ureca_lib.train.settings import TrainSettings
    from ureca_lib.train.stages import StageModel, freeze_for_stage

    image, regions = scene(2 if small else TRAIN_REGIONS, small)
    text = "the red house with a white door on the left of the picture"
    for stage, grouped in itertools.product((1, 2), (False, True)):
        captioner = captioner_of(preset, device, small)
        processor, rank = captioner.processor, 4 if small else 128
        # a group's image is run into a cache of keys and values, which checkpointing leaves out
        settings = TrainSettings(stage=stage, lora_rank=rank, gradient_checkpointing=not grouped)
        model = StageModel(freeze_for_stage(captioner.model, settings)).to(device).train()
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=1e-5)
        masks = processor.mask_tiles(regions, image.shape[:2])
        pixels = processor.image_tiles(image)
        row = processor.token_ids("Describe this region.", text, len(pixels), masks.shape[1])
        sample = GroupSample([row] * len(regions), masks, None, pixels)
        batch = send_to_device(RegionCollator(processor, grouped)([sample]), device)

        def step(model=model, optimizer=optimizer, batch=batch) -> None:
            with torch.autocast(device.type, torch.bfloat16, enabled=not small):
                loss = model(**batch)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        free(device)
        took = seconds(step, device)
        results.add(
            "train",
            preset=preset,
            stage=stage,
            grouped=grouped,
            regions_per_second=len(regions) / took,
            peak_gib=peak_gib(device),
        )
        del model, optimizer, parameters, captioner


def compiled(results: Results, device: torch.device, preset: str, small: bool) -> None:
    """Seconds of captioning and of encoding masks with and without `torch.compile`."""
    captioner = captioner_of(preset, device, small)
    model, processor = captioner.model, captioner.processor
    count, tokens = (2, 3) if small else (32, NEW_TOKENS)
    image, regions = scene(count, small)
    cut = processor.distinct_mask_tiles(regions, image.shape[:2]).to(device)
    values = cut.values(processor.mask_scale)[:, None]

    def caption() -> None:
        captioner.caption(image, regions, max_new_tokens=tokens, progress=False)

    @torch.inference_mode()
    def encode() -> None:
        model.get_mask_features(values, None, cut.index.flatten())

    calls = {"captions": caption, "mask encoder": encode}
    plain = {what: seconds(call, device) for what, call in calls.items()}
    # the tree of tokens grows at every step: a compiled step must take any length
    options = {"dynamic": True, "backend": "eager" if small else "inductor"}
    language, encoder = model.model.language_model, model.model.mask_encoder
    language.forward = torch.compile(language.forward, **options)
    encoder.encode = torch.compile(encoder.encode, **options)
    for what, call in calls.items():
        before, after = plain[what], seconds(call, device)
        results.add(
            "compiled",
            preset=preset,
            what=what,
            regions=count,
            seconds=before,
            compiled_seconds=after,
            times_faster=before / after,
        )


def waits(results: Results, device: torch.device, preset: str, small: bool) -> None:
    """The share of a captioning run in which no kernel runs on the GPU."""
    from torch.profiler import ProfilerActivity, profile

    if device.type != "cuda":
        results.add("waits", preset=preset, skipped="a CPU does not wait for itself")
        return
    captioner = captioner_of(preset, device, small)
    image, regions = scene(32, small)

    def run() -> None:
        captioner.caption(image, regions, max_new_tokens=NEW_TOKENS, progress=False)

    run()
    whole = seconds(run, device, 1)
    with profile(activities=[ProfilerActivity.CUDA]) as watched:
        run()
        synchronize(device)
    busy = sum(event.self_device_time_total for event in watched.key_averages()) / 1e6
    results.add("waits", preset=preset, regions=32, seconds=whole, waiting=1 - busy / whole)


PARTS = {
    "decode": decode,
    "tiles": tiles,
    "train": train,
    "compiled": compiled,
    "waits": waits,
}


def table(content: dict[str, Any]) -> str:
    """The measurements as Markdown; what was not measured is named."""
    machine, rows = content["machine"], content["rows"]
    card = f"{machine['card']}, driver {machine['driver']}" if machine["card"] else "No card"
    lines = [
        f"{card}; torch {machine['torch']}, transformers {machine['transformers']}, "
        f"commit {(machine['commit'] or 'unknown')[:8]}"
    ]
    for part in ("bandwidth", *PARTS):
        theirs = [
            {k: v for k, v in row.items() if k != "part"} for row in rows if row["part"] == part
        ]
        names = list(dict.fromkeys(name for row in theirs for name in row))
        lines += ["", f"**{part}**" + ("" if theirs else ": not measured")]
        if theirs:
            lines += ["", f"| {' | '.join(n.replace('_', ' ') for n in names)} |"]
            lines += [f"|{'---|' * len(names)}"]
            lines += [f"| {' | '.join(shown(row.get(name)) for name in names)} |" for row in theirs]
    return "\n".join(lines)


def shown(value: Any) -> str:
    """A value in a table's cell."""
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main(arguments: list[str] | None = None) -> int:
    """Measure, or write a table; exit status 1 if a part failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated")
    parser.add_argument("--presets", default="1b,8b", help="of decode; the others take the first")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--small", action="store_true", help="tiny shapes, as the tests run it")
    parser.add_argument("--record", type=Path, help="put a JSON file's table into RESULTS.md")
    chosen = parser.parse_args(arguments)
    if chosen.record:
        from benchmarks.record import record

        content = {"machine": environment(torch.device("cpu")), "rows": []}
        if chosen.record.is_file():
            content = json.loads(chosen.record.read_text())
        record("GPU", table(content), "python tests/benchmarks/gpu.py --out gpu.json")
        return 0
    device, presets = torch.device(chosen.device), chosen.presets.split(",")
    results, failed = Results(chosen.out, device), 0
    for name in chosen.parts.split(","):
        for preset in presets if name == "decode" else presets[:1]:
            try:
                PARTS[name](results, device, preset, chosen.small)
            except Exception as error:  # the other parts still count
                failed += 1
                reason = f"{type(error).__name__}: {error}".partition("\n")[0]
                results.add(name, preset=preset, failed=reason[:300])
            free(device)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
