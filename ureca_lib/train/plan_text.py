"""A plan as text for a terminal, and the command that starts the run."""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path

from ureca_lib.presets import LEARNT
from ureca_lib.train.plan import PEAKS, UTILISATION, Plan
from ureca_lib.train.settings import TrainSettings, load_settings

GIB = 2**30
BARS = " ▁▂▃▄▅▆▇█"
CURVE = 60  # columns of the learning rate's curve


def launch_command(settings: TrainSettings, processes: int, out: str | Path = "runs/NAME") -> str:
    """What starts the run on so many GPUs of one machine."""
    bfloat = settings.precision != "float32"
    mixed = "bf16" if bfloat else "no"
    many = " --multi_gpu" if processes > 1 else ""
    start = f"accelerate launch{many} --num_processes {processes} --mixed_precision {mixed}"
    words = ["--preset", settings.preset, "--stage", str(settings.stage), "--out", str(out)]
    words += ["--model", settings.model or "BASE"]
    preset = (settings.preset, settings.stage)
    other_data = settings.data != load_settings(*preset).data
    usual = load_settings(*preset, {"data": settings.data} if other_data else {})
    for each in fields(settings):
        value = getattr(settings, each.name)
        told = value != getattr(usual, each.name) or (other_data and each.name == "data")
        if told and each.name not in ("model", "preset", "stage"):
            words += ["--set", f"{each.name}={_toml(value)}"]
    return f"{start} -m ureca_lib.cli train {shlex.join(words)}"


def plan_text(plan: Plan, out: str | Path = "runs/NAME") -> str:
    """The whole plan; what is estimated says so."""
    settings = plan.settings
    parts = [
        f"stage {settings.stage} of preset {settings.preset}",
        "",
        *_data_lines(plan),
        "",
        *_model_lines(plan),
        "",
        *_memory_lines(plan),
        "",
        *_time_lines(plan),
        "",
        *_rate_lines(plan),
        "",
        "start it with",
        f"  {launch_command(settings, plan.processes, out)}",
        "a run that was stopped goes on when the same command is given again",
        "",
        *(f"note: {note}" for note in plan.notes),
        *(f"PROBLEM: {problem}" for problem in plan.problems),
    ]
    if not plan.problems:
        parts.append("nothing stands in the way, as far as was checked")
    return "\n".join(parts)


def _data_lines(plan: Plan) -> list[str]:
    settings, tokens = plan.settings, plan.tokens
    how = "counted by the tokenizer" if tokens.counted else "text estimated from words"
    a_step = f"{plan.micro_batch} x {plan.accumulation} x {plan.processes} = {settings.batch_size}"
    return [
        f"data: {settings.data}",
        f"  {plan.images:,} images read, {plan.samples:,} regions with a caption: an epoch",
        f"  in groups of up to {settings.regions_per_image}: {plan.groups:,} groups",
        f"  {plan.held_out:,} images held out, evaluated every {settings.eval_every} steps",
        f"steps: {plan.steps:,}, of {settings.batch_size} images each "
        f"({plan.steps * settings.batch_size / plan.groups:.2f} epochs)",
        f"  at once x accumulated x GPUs: {a_step}",
        f"tokens of a sample, mean: {tokens.image:.0f} image ({tokens.tiles:.1f} tiles) + "
        f"{tokens.mask:.0f} mask + {tokens.text:.0f} text; longest {tokens.longest:,} ({how})",
    ]


def _model_lines(plan: Plan) -> list[str]:
    total = sum(plan.trained.values())
    share = total / plan.parameters
    lines = [f"learnt: {total:,} numbers, {share:.2%} of {plan.parameters:,}"]
    width = max(map(len, plan.trained))
    return lines + [f"  {name:<{width}}  {n:>13,}" for name, n in plan.trained.items()]


def _memory_lines(plan: Plan) -> list[str]:
    total = sum(plan.memory.values())
    lines = [f"memory of each GPU, estimated: {total / GIB:.1f} GiB"]
    lines += [f"  {name:<34}{size / GIB:>8.2f}" for name, size in plan.memory.items()]
    kept = "inputs of each layer, one layer at work, logits"
    recomputed = "recomputed" if plan.settings.gradient_checkpointing else "all layers kept"
    return [
        *lines,
        f"  weights on every GPU; {LEARNT} bytes a learnt number; a sample's {kept} ({recomputed})",
    ]


def _time_lines(plan: Plan) -> list[str]:
    lines = [
        f"work: {plan.step_flops:.3g} operations a step, {plan.steps * plan.step_flops:.3g} in all",
        "  hours = steps x operations a step / (GPUs x peak x utilisation) / 3600",
    ]
    for gpu, peak in PEAKS.items():
        lines.append(
            f"  {plan.processes} x {gpu}: {plan.hours(gpu):.2f} h, if {UTILISATION:.0%} of "
            f"{peak / 1e12:.0f} TFLOP/s is reached (assumed)"
        )
    lines.append("  evaluations and reading of photos come on top; log.jsonl tells the real pace")
    return lines


def _rate_lines(plan: Plan) -> list[str]:
    rates, peak = plan.rates, max(plan.rates)
    columns = min(CURVE, len(rates))
    shown = [rates[int(i * (len(rates) - 1) / max(1, columns - 1))] for i in range(columns)]
    curve = "".join(BARS[round(rate / peak * (len(BARS) - 1))] for rate in shown)
    points = sorted({0, plan.warmup, len(rates) // 4, len(rates) // 2, 3 * len(rates) // 4})
    points = [p for p in points if p < len(rates)] + [len(rates) - 1]
    told = ", ".join(f"{rates[p]:.2e} at {p + 1:,}" for p in dict.fromkeys(points))
    scheduler = plan.settings.scheduler
    return [
        f"learning rate: {scheduler}, {plan.warmup:,} steps of warm-up, peak {peak:.2e}",
        f"  [{curve}]",
        f"  {told}",
    ]


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)
