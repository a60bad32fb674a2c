"""Tasks on processes of this machine, or on a Ray cluster; a task that dies fails alone.

Each task has a Python process of its own. On this machine, the first line of its standard input is
the task as JSON. The pipe then stays open without data: its end means that the caller has stopped
or is gone, even after SIGKILL, and the task stops too.

Nothing else in this package knows that Ray exists. It starts a process per task as well, with the
CPUs and the share of a GPU that the task asks for, and starts the task again where its process or
its machine is lost. Tasks must therefore be such that a second start resumes what the first did.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import typer

from ureca_lib.options import setting

ENGINES = ("processes", "ray")
GRACE = 10.0  # seconds that a task has to stop
_CONNECT = 10.0  # seconds that a Ray cluster has to answer; Ray itself tries for minutes
RETRIES = 3  # of a task on Ray whose process was lost
_PAUSE = 0.1  # seconds between looks at the processes
_THREADS = [f"{name}_NUM_THREADS" for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")]
_THREADS += ["VECLIB_MAXIMUM_THREADS"]
stopping = threading.Event()  # in a task's process: set as soon as the task shall stop


@dataclass(frozen=True)
class EngineOptions:
    """Options of commands whose work is dealt out to processes."""

    jobs: int | None = setting(
        None, "Processes at a time; on Ray all by default.", "-j", "--jobs", min=1
    )
    engine: str = setting(
        "processes", "Processes of this machine, or ray: also of others, on a shared file system."
    )
    ray_address: str | None = setting(
        None, "Address of the Ray cluster; default: RAY_ADDRESS, else on this machine."
    )
    gpus: float = setting(0, "GPUs of each process on Ray; 0.5: two share one.")

    def map(
        self, function: Callable[[Any], Any], items: Iterable[Mapping[str, Any]], count: int
    ) -> Iterator[Outcome]:
        """Call `map_tasks` for items of that number."""
        jobs = self.jobs or (count if self.engine == "ray" else usable_cores())
        return map_tasks(function, items, jobs, self.engine, self.ray_address, gpus=self.gpus)


@dataclass(frozen=True)
class ShardOptions(EngineOptions):
    """The same for commands that deal their images out."""

    shards: int | None = setting(
        None,
        "Deal the images out to so many processes. Addresses URL,URL are dealt out too.",
        min=1,
    )


class Outcome(NamedTuple):
    """End of a task."""

    item: Any
    value: Any  # of the function; None after an error
    error: str | None  # the exit status or signal, and the last line on standard error
    where: str  # the process, and on Ray its machine


class Progress:
    """Lines about tasks that begin and end, with the time left.

    Args:
        tasks: number of all.
        shown: False prints nothing.
    """

    def __init__(self, tasks: int, shown: bool = True):
        self._tasks, self._shown = tasks, shown
        self._ended, self._start = 0, time.monotonic()

    def say(self, text: str) -> None:
        """Print a line."""
        if self._shown:
            # a notebook shows standard error as a red block
            typer.echo(text, err=not hasattr(builtins, "__IPYTHON__"))

    def begun(self, tasks: Iterable[tuple[str, Any]]) -> Iterator[Any]:
        """Print the name of each task when it is taken.

        Args:
            tasks: each with its name.
        """
        for name, task in tasks:
            self.say(f"begins: {name}")
            yield task

    def ended(self, text: str) -> None:
        """Print a line about a task that ended, with the number of those that did."""
        self._ended += 1
        todo = self._tasks - self._ended
        minutes = (time.monotonic() - self._start) / self._ended * todo / 60
        left = f"; about {minutes:.0f} min left" if minutes >= 1 else ""
        self.say(f"[{self._ended}/{self._tasks}] {text}{left}")


def run_parts(
    function: Callable[[Any], Any],
    tasks: Mapping[str, Mapping[str, Any]],
    options: EngineOptions,
    progress: bool = True,
) -> int:
    """Run the parts of a command, and print a line as each begins and ends.

    Args:
        function: of one part; returns what `call_command` does.
        tasks: options of the command for each part, by the part's name; texts stand for paths.
        options: the engine.
        progress: False prints only what the parts say.

    Returns:
        The number of parts that failed or are not complete.
    """
    report, left = Progress(len(tasks), progress), 0
    # texts for paths
    plain = json.loads(json.dumps(tasks, default=str))
    named = ((name, {"name": name, "options": each}) for name, each in plain.items())
    with contextlib.closing(options.map(function, report.begun(named), len(tasks))) as outcomes:
        for task, value, error, where in outcomes:
            summary, said, complete = ("failed", error, False) if error else value
            left += not complete
            report.ended(f"{task['name']}: {summary} ({where or 'lost'})")
            for line in said.splitlines():  # warnings and failures
                typer.echo(f"{task['name']}: {line}", err=True)
    return left


def call_command(command: Callable[..., None], options: Mapping[str, Any]) -> tuple[str, str, bool]:
    """Call a command within a task.

    Returns:
        The first line that it prints, its messages, and whether it completed its work.
    """
    summary, said, complete = io.StringIO(), io.StringIO(), True
    try:
        with contextlib.redirect_stdout(summary), contextlib.redirect_stderr(said):
            command(**options)
    except typer.Exit:
        complete = False
    return summary.getvalue().partition("\n")[0], said.getvalue(), complete


def dealt(text: str | None, number: int) -> str | None:
    """`test=URL,URL` -> `test=URL`: addresses are dealt out to the parts in turn."""
    split, addresses = re.fullmatch(r"(\w+=)?(.*)", text or "").groups(default="")
    choices = addresses.split(",")
    return (split + choices[number % len(choices)]) or None


def map_tasks(
    function: Callable[[Any], Any],
    items: Iterable[Mapping[str, Any]],
    jobs: int = 1,
    engine: str = "processes",
    address: str | None = None,
    cpus: float = 1,
    gpus: float = 0,
) -> Iterator[Outcome]:
    """Call a function on each item, each in a process of its own; results come as they end.

    Closing the iterator, as Ctrl-C does, stops the running tasks: each gets a KeyboardInterrupt,
    and is killed after `GRACE` seconds.

    Args:
        function: of a module's top level; its result must be JSON.
        items: each JSON; the next is taken when a process is free for it.
        jobs: tasks at a time; on this machine each gets its share of the cores as threads.
        engine: "processes" of this machine, or "ray".
        address: of a Ray cluster. None is the one of the variable RAY_ADDRESS, or the one that
            runs on this machine, or else a new one that ends with the tasks.
        cpus, gpus: that Ray reserves for each task. 0.5 GPUs: two tasks share one.

    Raises:
        ValueError: an unknown engine.
        ImportError: Ray is not installed.
        ConnectionError: there is no Ray cluster at the address.
    """
    name = f"{function.__module__}:{function.__qualname__}"
    if engine == "ray":
        return _on_ray(name, iter(items), jobs, address, {"num_cpus": cpus, "num_gpus": gpus})
    if engine == "processes":
        return _on_processes(name, iter(items), jobs)
    raise ValueError(f"engine {engine!r}: there are {' and '.join(ENGINES)}")


def _on_processes(name: str, items: Iterator[Mapping[str, Any]], jobs: int) -> Iterator[Outcome]:
    environment, running = worker_environment(jobs), list[_Task]()
    try:
        while True:
            while len(running) < jobs and (item := next(items, None)) is not None:
                running.append(_Task(name, item, environment))
            if not running:
                return
            ended = [task for task in running if task.process.poll() is not None]
            for task in ended:
                running.remove(task)
                yield task.outcome()
            if not ended:
                time.sleep(_PAUSE)
    finally:
        for task in running:  # all of them first, so that they stop at the same time
            task.stop()
        for task in running:
            task.wait()


def _on_ray(
    name: str,
    items: Iterator[Mapping[str, Any]],
    jobs: int,
    address: str | None,
    resources: Mapping[str, float],
) -> Iterator[Outcome]:
    _check_address(address or os.environ.get("RAY_ADDRESS", ""))
    try:
        import ray
    except ImportError:
        raise ImportError("the engine ray needs Ray: pip install 'ureca-lib[ray]'") from None
    starts = not ray.is_initialized()
    if starts:
        quiet = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
        ray.init(address, **quiet)
    # one call per process: the memory of a model, also on a GPU, is free after each task
    call = ray.remote(max_retries=RETRIES, max_calls=1, **resources)(_call)
    running: dict[Any, Mapping[str, Any]] = {}
    try:
        while True:
            while len(running) < jobs and (item := next(items, None)) is not None:
                running[call.remote(name, item, os.getcwd())] = item
            if not running:
                return
            # the pause lets Ctrl-C through
            for ended in ray.wait(list(running), timeout=1)[0]:
                yield _outcome_of_ray(ray, running.pop(ended), ended)
    finally:
        for task in running:
            ray.cancel(task)  # a KeyboardInterrupt
        late = (
            ray.wait(list(running), num_returns=len(running), timeout=GRACE)[1] if running else []
        )
        for task in late:
            ray.cancel(task, force=True)
        if starts:
            ray.shutdown()


def _outcome_of_ray(ray: Any, item: Mapping[str, Any], task: Any) -> Outcome:
    try:
        return Outcome(item, *ray.get(task))
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error  # of the function, or the process was lost
        reason = " ".join(str(cause).split())
        return Outcome(item, None, f"{type(cause).__name__}: {reason}", "")


def _check_address(address: str) -> None:
    """Raise ConnectionError if nothing answers at the address of a cluster."""
    place = re.fullmatch(r"(?:ray://)?(.+):(\d+)", address)
    try:
        if place:
            socket.create_connection((place[1], int(place[2])), _CONNECT).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(f"{address}: no Ray cluster answers there ({error})") from None


def _call(name: str, item: Mapping[str, Any], folder: str) -> tuple[Any, None, str]:
    """Call the function of a task; Ray starts this in a process of its own."""
    module, _, function = name.partition(":")
    with contextlib.suppress(OSError):  # another machine may not have the caller's folder
        os.chdir(folder)
    value = getattr(import_module(module), function)(item)
    return json.loads(json.dumps(value)), None, f"process {os.getpid()} of {socket.gethostname()}"


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def worker_environment(jobs: int, cores: int | None = None) -> dict[str, str]:
    """Return this process's environment with the threads of each of `jobs` processes capped.

    Args:
        jobs: processes at a time.
        cores: cores that they share; by default those that this process may use.

    Returns:
        The environment. The smallest number that any of the variables has already holds for all
        of them, because torch heeds MKL's as well as OpenMP's.
    """
    given = [os.environ.get(name, "") for name in _THREADS]
    limits = [int(each) for each in given if each.isdigit() and int(each) > 0]
    cap = min([max(1, (cores or usable_cores()) // jobs), *limits])
    threads = dict.fromkeys(_THREADS, str(cap))
    return {**os.environ, **threads, "TOKENIZERS_PARALLELISM": "false"}


class _Task:
    """A process that works on one item, and the folder of its result and messages."""

    def __init__(self, function: str, item: Mapping[str, Any], environment: Mapping[str, str]):
        self.item = dict(item)
        self._folder = tempfile.TemporaryDirectory(prefix="ureca-")
        self._result = Path(self._folder.name) / "result.json"
        self._messages = Path(self._folder.name) / "messages.txt"
        with self._messages.open("wb") as messages:
            self.process = subprocess.Popen(
                [sys.executable, "-c", "from ureca_lib.engine import work; work()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=messages,
                env=dict(environment),
                start_new_session=True,  # Ctrl-C reaches the caller, which stops its tasks
            )
        task = {"function": function, "item": self.item, "result": str(self._result)}
        # a process that died at once is seen by its exit status
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(task).encode() + b"\n")
            self.process.stdin.flush()

    def outcome(self) -> Outcome:
        """Return the result of a process that has ended, and remove its files."""
        value, error, status = None, None, self.process.returncode
        if status == 0:
            value = json.loads(self._result.read_text(encoding="utf-8"))
        else:
            error = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
            lines = self._messages.read_text(encoding="utf-8", errors="replace").split("\n")
            if last := next((line.strip() for line in reversed(lines) if line.strip()), ""):
                error = f"{error}: {last}"
        self.wait()
        return Outcome(self.item, value, error, f"process {self.process.pid}")

    def stop(self) -> None:
        """Ask the process to stop, and return at once."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def wait(self) -> None:
        """Wait for the process to end, kill it if it does not, and remove its files."""
        self.stop()
        try:
            self.process.wait(GRACE + 2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._folder.cleanup()


def work() -> None:
    """Work on the task of standard input: the main program of a task's process."""
    # a shell's background job starts with the signal ignored, and so do its children
    signal.signal(signal.SIGINT, signal.default_int_handler)
    task = json.loads(sys.stdin.readline())
    threading.Thread(target=_watch, daemon=True).start()
    try:
        value, *_ = _call(task["function"], task["item"], os.getcwd())
        Path(task["result"]).write_text(json.dumps(value), encoding="utf-8")
        stopping.set()  # the task is over: the watch has nothing to interrupt
    except (Exception, KeyboardInterrupt):
        traceback.print_exc()
        sys.exit(1)


def _watch() -> None:
    # not through sys.stdin, whose lock a thread must not hold when Python ends
    while os.read(0, 1):
        pass
    if stopping.is_set():
        return
    stopping.set()
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(GRACE)
    os._exit(1)
