"""The store: what is true while a run goes on, in one SQLite file.

An answer is finished when it is committed. In WAL mode with `synchronous=NORMAL` a process that is
killed at any point loses nothing that was committed: it is in the system's page cache. A power
loss or a crash of the system may take the last commits back, never half of one, and never damages
the file; those steps are asked again.

Several processes of one machine may work on one store. SQLite's WAL needs shared memory, so a
store on a network drive is for one machine at a time.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

from ureca_lib.annotate.leases import Lease, is_alive
from ureca_lib.annotate.records import Answer, FinalCaption, Step
from ureca_lib.annotate.reviews import CaptionChangedError, Review, reviewed
from ureca_lib.annotate.schema import (
    FAILED_BEFORE,
    READ_IMAGE,
    READ_REVIEWS,
    SAVE_ANSWER,
    SAVE_CAPTION,
    SAVE_REVIEW,
    SCHEMA,
    SCHEMA_VERSION,
    UPGRADES,
    ImageRow,
    answer_of,
    answer_row,
    caption_of,
    caption_row,
    image_row,
    region_key,
    review_of,
    review_row,
)

_WAIT = "UPDATE images SET status='waiting', error=NULL WHERE image=?"
_BUSY = 60.0  # seconds to wait for another process's write


class StoreError(RuntimeError):
    """A file that is not a store, is of another version, or cannot be written."""


class Store:
    """A store, made where there is none. Close it, or use it in a `with` statement.

    One connection, guarded by a lock, so that all threads of a process may use it.

    Args:
        path: of the SQLite file.
        create: False raises where there is none.

    Raises:
        StoreError: naming the file and what is wrong.
    """

    def __init__(self, path: str | Path, create: bool = True):
        self.path = Path(path)
        if not create and not self.path.is_file():
            raise StoreError(f"{self.path}: there is no store")
        self._lock = threading.RLock()
        self._lease: Lease | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                self.path, timeout=_BUSY, isolation_level=None, check_same_thread=False
            )
            self._prepare()
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self.path}: {error}") from error

    def _prepare(self) -> None:
        connection = self._connection
        self._use_wal()
        connection.execute("PRAGMA synchronous=NORMAL")
        with self._write():
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            known = version in UPGRADES
            missing = [UPGRADES[old] for old in range(version, SCHEMA_VERSION)] if known else []
            if version == 0 and tables == 0:
                missing = [SCHEMA]
            if missing:
                for statement in ";\n".join(missing).split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            elif version != SCHEMA_VERSION:
                raise StoreError(
                    f"{self.path}: not a store of version {SCHEMA_VERSION} (it says {version})"
                )

    def _use_wal(self) -> None:
        """Switch to WAL; SQLite does not wait by itself where another process does so too."""
        deadline = time.monotonic() + _BUSY
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """One transaction; takes the write lock at once, so that it cannot fail half-way."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise StoreError(f"{self.path}: {error}") from error
                raise

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """All rows of a query that only reads."""
        with self._lock:
            try:
                return self._connection.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise StoreError(f"{self.path}: {error}") from error

    def close(self) -> None:
        """Give back what this process holds, and close the file."""
        with self._lock:
            if self._lease is not None:
                self._lease.close()
            self._connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def set_settings(
        self, settings: Mapping[str, Any], made_with: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        """Record the settings of the latest run, by name.

        Args:
            settings: of the whole run.
            made_with: for each digest that its images get those that decide their captions.
        """
        rows = [(name, json.dumps(value)) for name, value in settings.items()]
        kept = [(key, json.dumps(value)) for key, value in (made_with or {}).items()]
        with self._write() as connection:
            connection.execute("DELETE FROM settings")
            connection.executemany("INSERT INTO settings VALUES (?, ?)", rows)
            connection.executemany("INSERT OR REPLACE INTO made_with VALUES (?, ?)", kept)

    def settings(self, made_with: str | None = None) -> dict[str, Any]:
        """The settings of the latest run, or those that images of that digest were made with."""
        if made_with is not None:
            query = "SELECT settings FROM made_with WHERE digest=?"
            return json.loads(self.rows(query, made_with)[0][0])
        return {name: json.loads(value) for name, value in self.rows("SELECT * FROM settings")}

    def begin_run(self) -> int:
        """Record that a run begins; returns its number."""
        now = time.time()
        with self._write() as connection:
            cursor = connection.execute(
                "INSERT INTO runs (started, updated) VALUES (?, ?)", (now, now)
            )
            return int(cursor.lastrowid)

    def update_run(self, run: int, images: int, calls: int, stopped: str | None = None) -> None:
        """Record how far a run has come."""
        with self._write() as connection:
            connection.execute(
                "UPDATE runs SET updated=?, images=?, calls=?, stopped=? WHERE id=?",
                (time.time(), images, calls, stopped, run),
            )

    def register(self, images: Iterable[tuple[str, str]]) -> None:
        """Add images, as (name, split); a known one only changes its split."""
        with self._write() as connection:
            connection.executemany(
                "INSERT INTO images (image, split) VALUES (?, ?) ON CONFLICT (image) "
                "DO UPDATE SET split=excluded.split WHERE split != excluded.split",
                images,
            )

    def images(self) -> list[ImageRow]:
        """Every image, in the order in which they were added."""
        found = self.rows(f"{READ_IMAGE} ORDER BY rowid")
        return [image_row(row) for row in found]

    def image(self, image: str) -> ImageRow:
        """One image.

        Raises:
            KeyError: the store has none of that name.
        """
        found = self.rows(f"{READ_IMAGE} WHERE image=?", image)
        if not found:
            raise KeyError(f"{self.path} has no image {image!r}")
        return image_row(found[0])

    def claim(self, image: str) -> bool:
        """Take an image to work on, unless a process that lives has it.

        What a finished image has stays in use until `save` brings something new; one that failed
        has nothing, and waits.
        """
        with self._lock:
            if self._lease is None:
                self._lease = Lease(self.path)
        with self._write() as connection:
            query = "SELECT worker FROM images WHERE image=?"
            (worker,) = connection.execute(query, (image,)).fetchone()
            if worker not in (None, self._lease.worker) and is_alive(self.path, worker):
                return False
            connection.execute(
                "UPDATE images SET worker=? WHERE image=?", (self._lease.worker, image)
            )
            connection.execute(f"{_WAIT} AND status='failed'", (image,))
            return True

    def is_held(self, image: str) -> bool:
        """Whether another process, which lives, works on an image."""
        own = None if self._lease is None else self._lease.worker
        found = self.rows("SELECT worker FROM images WHERE image=?", image)
        return any(w not in (None, own) and is_alive(self.path, w) for (w,) in found)

    def release(self, image: str) -> None:
        """Give an image back; without a new answer it is what it was."""
        with self._write() as connection:
            connection.execute("UPDATE images SET worker=NULL WHERE image=?", (image,))

    def answers(self, image: str) -> dict[Step, Answer]:
        """Every answer of an image, by step."""
        query = "SELECT * FROM answers WHERE image=? ORDER BY stage, round, region"
        found = (answer_of(row) for row in self.rows(query, image))
        return {answer.step: answer for answer in found}

    def save(self, image: str, answer: Answer) -> None:
        """Commit one answer; it replaces what the step had.

        The image is "waiting" then, unless the step has only failed again.
        """
        row = answer_row(image, answer)
        with self._write() as connection:
            again = False
            if answer.status == "failed":
                (again,) = connection.execute(FAILED_BEFORE, row[:4]).fetchone()
            connection.execute(SAVE_ANSWER, row)
            if not again:
                connection.execute(f"{_WAIT} AND status!='waiting'", (image,))

    def finish(
        self, row: ImageRow, answers: Iterable[Answer] = (), captions: Iterable[FinalCaption] = ()
    ) -> None:
        """Commit an image's end in one transaction, and give it back.

        The answers of an image that failed stay: they may be of use once it is mended.

        Args:
            row: what is known of the image; its split is left as it is.
            answers: all that count; what else the store holds of the image is deleted.
            captions: one a region, in file order.
        """
        with self._write() as connection:
            if row.status != "failed":
                self._replace_answers(connection, row.image, answers)
            connection.execute("DELETE FROM captions WHERE image=?", (row.image,))
            rows = (caption_row(row.image, *numbered) for numbered in enumerate(captions))
            connection.executemany(SAVE_CAPTION, rows)
            values = (*astuple(row)[2:8], json.dumps(row.left_out), row.inputs)
            connection.execute(
                "UPDATE images SET status=?, error=?, path=?, photo=?, width=?, height=?, "
                "left_out=?, inputs=?, masks=?, made_with=?, worker=NULL WHERE image=?",
                (*values, row.masks, row.made_with, row.image),
            )

    def set_made_with(self, image: str, made_with: str) -> None:
        """Record what an image that is finished was made with, for a store from before that."""
        with self._write() as connection:
            connection.execute("UPDATE images SET made_with=? WHERE image=?", (made_with, image))

    def _replace_answers(
        self, connection: sqlite3.Connection, image: str, answers: Iterable[Answer]
    ) -> None:
        """Delete what no longer counts, and add what was not asked; the rest is there."""
        keep = {(region_key(a.step.region_id), a.step.stage, a.step.round): a for a in answers}
        query = "SELECT region, stage, round FROM answers WHERE image=?"
        stored = set(connection.execute(query, (image,)).fetchall())
        connection.executemany(
            "DELETE FROM answers WHERE image=? AND region=? AND stage=? AND round=?",
            [(image, *key) for key in stored - keep.keys()],
        )
        unasked = (a for a in keep.values() if a.status in ("blocked", "kept"))
        connection.executemany(SAVE_ANSWER, [answer_row(image, a) for a in unasked])

    def captions(self, image: str) -> list[FinalCaption]:
        """Where each region of an image ended, in file order; empty until the image is finished."""
        query = "SELECT * FROM captions WHERE image=? ORDER BY place"
        return [caption_of(row) for row in self.rows(query, image)]

    def add_review(self, image: str, review: Review) -> Review:
        """Commit what a person decided about a caption; earlier decisions stay.

        Returns:
            The review with its time.

        Raises:
            KeyError: the store has no such image, or no caption of such a region.
            CaptionChangedError: the caption is not the one that the reviewer saw.
        """
        name, region_id = self.image(image).image, review.region_id
        review = replace(review, time=review.time or time.time())
        with self._write() as connection:  # from here on nobody else can change the caption
            texts = {caption.region_id: caption.text for caption in self.reviewed_captions(name)}
            if region_id not in texts:
                raise KeyError(f"{self.path}: {image} has no caption of region {region_id!r}")
            if texts[region_id] != review.previous:
                raise CaptionChangedError(
                    f"the caption of region {region_id!r} was changed meanwhile; "
                    f"it is now {texts[region_id]!r}"
                )
            connection.execute(SAVE_REVIEW, review_row(image, review))
        return review

    def reviews(self, image: str) -> list[Review]:
        """Every decision about an image's captions, the oldest first."""
        return [review_of(row) for row in self.rows(READ_REVIEWS, image)]

    def reviewed_captions(self, image: str) -> list[FinalCaption]:
        """An image's captions as people's reviews left them, in file order."""
        reviews = self.reviews(image)
        return [reviewed(caption, reviews) for caption in self.captions(image)]
