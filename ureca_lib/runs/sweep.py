"""A sweep: its runs, several at a time, each once, each in a process of its own."""

from __future__ import annotations

import datetime
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from filelock import Timeout

from ureca_lib.runs.grid import PlannedRun, Sweep, SweepError
from ureca_lib.runs.record import RunRecord, path_in_project
from ureca_lib.runs.runner import finished_run
from ureca_lib.runs.sweep_progress import SweepProgress
from ureca_lib.runs.worker import DONE, ELSEWHERE
from ureca_lib.runs.workers import Worker, is_running, run_lock, worker_environment

_PAUSE, _LOOK_AGAIN = 0.1, 2.0  # seconds between looks at our workers, and at those of others


@dataclass
class SweepResult:
    """What became of the runs, by the names of their folders."""

    done: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)  # done before, by us or by others
    failed: list[str] = field(default_factory=list)
    stopped: bool = False  # by Ctrl-C


def runs_folder(root: Path) -> Path:
    """Where the runs of all sweeps lie, so that those which share a run do it once."""
    return root / "runs"


def run_sweep(
    sweep: Sweep, root: str | Path, jobs: int = 1, keep: bool = False, progress: bool = True
) -> SweepResult:
    """Execute what is not done yet of a sweep; what fails does not stop the others.

    Several processes may run sweeps into one folder at the same time: each run is done by one of
    them, and one that fails there has failed here too. A killed sweep is started again the same
    way, and repeats only what was not finished, or failed.

    Args:
        sweep: from `load_sweep`.
        root: folder of the sweeps; each run gets `runs/NAME` in it.
        jobs: runs at a time; each gets its share of the cores as threads.
        keep: a run that is done stays even if the notebook or the library was changed since, or
            nothing but its record is there, as in a clone of a repository.
        progress: show bars.

    Returns:
        What became of the runs. After Ctrl-C `.stopped` is set, and the workers have ended.

    Raises:
        ValueError: fewer than one job.
        SweepError: a run's folder holds a run of another notebook with the same file name.
    """
    if jobs < 1:
        raise ValueError(f"a sweep takes at least one job, not {jobs}")
    return _Execution(sweep, Path(root), jobs, keep, progress).run()


def check_folders(sweeps: Sequence[tuple[Sweep, Path]]) -> None:
    """See that no run would go where one of another notebook with the same file name goes.

    Args:
        sweeps: each with the folder of the sweeps that it is for.

    Raises:
        SweepError: naming the sweep, the folder and both notebooks.
    """
    notebooks: dict[Path, Path] = {}
    for sweep, root in sweeps:
        for run in sweep.runs:
            earlier_record(sweep, run, root)
            folder = (runs_folder(root) / run.name).resolve()
            other = notebooks.setdefault(folder, sweep.notebook)
            if other != sweep.notebook:
                raise _shared_folder(sweep, folder, path_in_project(other))


def earlier_record(sweep: Sweep, run: PlannedRun, root: Path) -> RunRecord | None:
    """The record in a run's folder, or None where there is none.

    Args:
        sweep: that the run is of.
        run: one of the sweep's.
        root: folder of the sweeps.

    Raises:
        SweepError: it is another notebook's, which has the same file name, and would be lost.
    """
    folder = runs_folder(root) / run.name
    record = RunRecord.load(folder)
    if record is None or record.is_of(sweep.notebook):
        return record
    raise _shared_folder(sweep, folder, record.path or record.notebook)


def _shared_folder(sweep: Sweep, folder: Path, other: str) -> SweepError:
    return SweepError(
        f"{sweep.path}: {folder} is for runs of {other}, and those of "
        f"{path_in_project(sweep.notebook)} would go there too: give the sweep another folder "
        "(--out), or the notebook another name"
    )


class _Execution:
    def __init__(self, sweep: Sweep, root: Path, jobs: int, keep: bool, progress: bool):
        self.sweep, self.root, self.jobs, self.keep = sweep, root, jobs, keep
        self.environment = worker_environment(jobs)
        self.waiting = deque(sweep.runs)
        self.elsewhere: dict[str, PlannedRun] = {}  # running in other processes
        self.workers: dict[str, tuple[PlannedRun, Worker]] = {}
        self.result = SweepResult()
        # of each run, what was there before our own try: a failure after that need not be repeated
        self.before = {run.name: _seen(self._record(run)) for run in sweep.runs}
        self.progress = SweepProgress(sweep, runs_folder(root), progress)

    def run(self) -> SweepResult:
        looked = time.monotonic()
        try:
            while self.waiting or self.elsewhere or self.workers:
                while self.waiting and len(self.workers) < self.jobs:
                    self._start(self.waiting.popleft())
                for name in list(self.workers):
                    self._collect(name)
                if self.elsewhere and time.monotonic() - looked > _LOOK_AGAIN:
                    self._look_elsewhere()
                    looked = time.monotonic()
                self.progress.refresh()
                time.sleep(_PAUSE)
        except KeyboardInterrupt:
            self.result.stopped = True
        finally:
            self._end()
        return self.result

    def _start(self, run: PlannedRun) -> None:
        folder = runs_folder(self.root) / run.name
        if self._is_done(run):
            self.result.kept.append(run.name)
            self.progress.end(run, "done before")
        elif is_running(self.root, run.name):
            self._leave(run)
        elif self._failed_elsewhere(run):
            self._note_failure(run)
        else:
            self.before[run.name] = _seen(self._record(run))
            worker = Worker(
                self.root,
                run.name,
                self.sweep.notebook,
                run.parameters,
                folder,
                self.sweep.settings.timeout,
                self.environment,
            )
            self.workers[run.name] = (run, worker)
            self.progress.begin(run)

    def _collect(self, name: str) -> None:
        run, worker = self.workers[name]
        status = worker.status()
        if status is None:
            return
        del self.workers[name]
        if status == DONE or (status != ELSEWHERE and self._is_done(run)):
            self.result.done.append(name)
            self.progress.end(run, "done")
        elif status == ELSEWHERE:
            self._leave(run)
        else:
            self._note_death(run, status, worker.last_words())
            self.result.failed.append(name)
            self.progress.end(run, "failed")
        worker.close()

    def _is_done(self, run: PlannedRun) -> bool:
        folder = runs_folder(self.root) / run.name
        return bool(finished_run(self.sweep.notebook, run.parameters, folder, self.keep))

    def _record(self, run: PlannedRun) -> RunRecord | None:
        return earlier_record(self.sweep, run, self.root)

    def _failed_elsewhere(self, run: PlannedRun) -> bool:
        """Whether another process has tried since, in vain; one that was stopped has not."""
        record = self._record(run)
        if record is None or _seen(record) == self.before[run.name]:
            return False
        return record.status == "failed" and (record.error or {}).get("name") != "Interrupted"

    def _note_failure(self, run: PlannedRun) -> None:
        self.result.failed.append(run.name)
        self.progress.end(run, "failed in another process")

    def _leave(self, run: PlannedRun) -> None:
        self.elsewhere[run.name] = run
        self.progress.leave(run)

    def _look_elsewhere(self) -> None:
        for name, run in list(self.elsewhere.items()):
            if is_running(self.root, name):
                continue
            del self.elsewhere[name]
            record = self._record(run)
            # a lock may be held for an instant only, by one who looks, as here
            if record and record.status == "done" and _seen(record) != self.before[name]:
                self.result.kept.append(name)
                self.progress.end(run, "done in another process")
            elif self._failed_elsewhere(run):
                self._note_failure(run)
            else:
                self.waiting.append(run)  # stopped there, and now ours

    def _note_death(self, run: PlannedRun, status: int, last_words: str) -> None:
        """Where a worker died without a word in the record, put one there."""
        folder = runs_folder(self.root) / run.name
        lock = run_lock(self.root, run.name)
        try:
            lock.acquire(timeout=0)
        except Timeout:  # another process has begun it anew
            return
        try:
            record = self._record(run)
            fresh = _seen(record) != self.before[run.name]
            if record and fresh and record.status == "failed":  # it says why itself
                return
            if record is None or not fresh:
                record = self._empty_record(run)
            how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
            message = f"{how}: {last_words}" if last_words else how
            record.status = "failed"
            record.error = {"cell": None, "source": "", "name": "WorkerDied", "message": message}
            folder.mkdir(parents=True, exist_ok=True)
            record.save(folder)
        finally:
            lock.release()

    def _empty_record(self, run: PlannedRun) -> RunRecord:
        name = self.sweep.notebook.name
        record = RunRecord(name, "", dict(run.parameters), "failed", name, seed=run.seed)
        record.path = path_in_project(self.sweep.notebook)
        record.started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        record.note_environment(self.sweep.notebook.parent)
        return record

    def _end(self) -> None:
        for _, worker in self.workers.values():
            worker.stop()
        for _, worker in self.workers.values():
            worker.wait()
            worker.close()
        self.progress.close()


def _seen(record: RunRecord | None) -> tuple[str, str] | None:
    """What tells one try of a run from the next, and its end from its beginning."""
    return (record.started, record.status) if record else None
