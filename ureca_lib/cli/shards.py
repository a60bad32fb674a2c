"""`ureca annotate --shards`: the shards of a run on processes of this machine, or on Ray."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from contextlib import closing, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import typer
from filelock import FileLock, Timeout

from ureca_lib.engine import Progress, map_tasks, usable_cores

_OF_ALL = ("shards", "jobs", "engine", "ray_address", "gpus")  # options that no shard takes


def annotate_shards(options: Mapping[str, Any]) -> None:
    """Annotate the images of a run in shards, and print a line per shard.

    Args:
        options: all options of `ureca annotate`, by their names as parameters.

    Raises:
        typer.Exit: a shard failed, or is not complete; the others are finished.
    """
    from ureca_lib.annotate.shards import deal_images
    from ureca_lib.annotate.sources import SplitRule

    out, engine = Path(options["out"]), options["engine"]
    rule = SplitRule.parse(options["split"])
    dealt = deal_images(options["images"], out, options["shards"], rule)
    shared = {name: value for name, value in options.items() if name not in _OF_ALL}
    tasks = []
    for number, (store, files) in enumerate(dealt.items()):
        task = {**shared, "out": store, "images": files, "progress": False, "part": True}
        task["base_url"] = [_dealt(text, number) for text in options["base_url"] or []]
        task["verifier_url"] = options["verifier_url"] and _dealt(options["verifier_url"], number)
        tasks.append(json.loads(json.dumps(task, default=str)))
    out.mkdir(parents=True, exist_ok=True)
    report, left = Progress(len(tasks), options["progress"]), 0
    named = ((Path(task["out"]).name, task) for task in tasks)
    # on this machine a shard per core, on a cluster all that it has room for
    jobs = options["jobs"] or (len(tasks) if engine == "ray" else usable_cores())
    place = (engine, options["ray_address"])
    with closing(
        map_tasks(annotate_shard, report.begun(named), jobs, *place, gpus=options["gpus"])
    ) as outcomes:
        for task, ended, error, where in outcomes:
            name = Path(task["out"]).name
            summary, said, complete = ("failed", error, False) if error else ended
            left += not complete
            report.ended(f"{name}: {summary} ({where or 'lost'})")
            for line in said.splitlines():  # warnings and failures
                typer.echo(f"{name}: {line}", err=True)
    typer.echo(f"{len(tasks) - left} of {len(tasks)} shards are complete\nstores: {out}")
    if left:
        typer.echo(f"See `ureca status {out}`; rerun the command to resume.", err=True)
        raise typer.Exit(1)


def annotate_shard(task: Mapping[str, Any]) -> tuple[str, str, bool]:
    """Annotate one shard by `ureca annotate`; a process of the engine calls this.

    Args:
        task: options of the command.

    Returns:
        The command's summary, its messages, and whether the shard is complete.

    Raises:
        ValueError: another process, perhaps of another machine, is annotating the shard.
    """
    from ureca_lib.cli.annotate import annotate

    summary, said, complete = io.StringIO(), io.StringIO(), True
    try:
        with (
            # the system frees the lock when this process ends, however it ends
            FileLock(f"{task['out']}.lock", timeout=0),
            redirect_stdout(summary),
            redirect_stderr(said),
        ):
            annotate(ctx=None, **task)
    except Timeout:
        raise ValueError(f"{task['out']}: another process is annotating this shard") from None
    except typer.Exit:
        complete = False
    return summary.getvalue().partition("\n")[0], said.getvalue(), complete


def _dealt(text: str, number: int) -> str:
    """`test=URL,URL` -> `test=URL`: addresses are dealt out to the shards in turn."""
    split, addresses = re.fullmatch(r"(\w+=)?(.*)", text).groups(default="")
    choices = addresses.split(",")
    return split + choices[number % len(choices)]
