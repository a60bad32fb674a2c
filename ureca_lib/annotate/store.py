"""The store of a run: answers, captions and reviews in one SQLite file.

An answer is finished when it is committed. In WAL mode with `synchronous=NORMAL`, a process that
is killed loses nothing that was committed. A power loss or a crash of the system may undo the last
commits, never half of one, and never damages the file; those questions are asked again.

Several processes of one machine may use one store. SQLite's WAL needs shared memory, so a store on
a network drive is for one machine at a time. Which process annotates an image is decided by lock
files beside the store, which the system frees when a process ends, however it ends.

Every row has a checksum, and each image the number of its rows: if bytes of the file were changed
by a faulty disk or copy, reading them raises an error instead of returning other captions.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import tenacity
from filelock import FileLock, Timeout

from ureca_lib.annotate.records import (
    Answer,
    FinalCaption,
    ImageRow,
    Step,
    region_key,
    region_of,
)
from ureca_lib.annotate.reviews import CaptionChangedError, Review, reviewed

_BUSY = 60.0  # seconds to wait for another process's write
_UNREADABLE = (sqlite3.Error, UnicodeDecodeError)  # the latter from damaged messages of SQLite
_STATUSES = ("waiting", "done", "partial", "failed")
# columns of an image that its checksum covers. Status and counts change often: a damaged status is
# none of the four words, and the counts are compared with the rows
_SEALED = "image, split, path, photo, width, height, left_out, inputs, masks, made_with"
# the steps from an empty file to version 1, and from each version to the next
_SQL = (resources.files("ureca_lib.annotate") / "store.sql").read_text(encoding="utf-8")
_SCHEMAS = re.split(r"^-- version.*$", _SQL, flags=re.MULTILINE)[1:]
SCHEMA_VERSION = len(_SCHEMAS)
_SEAL = f"UPDATE images SET checksum=row_checksum({_SEALED})"
_REGISTER = (
    "INSERT INTO images (image, split) VALUES (?, ?) ON CONFLICT (image) DO UPDATE "
    "SET split=excluded.split, checksum=NULL WHERE split!=excluded.split"
)
# a new answer opens a finished image again, unless the same step has only failed again
_REOPEN = (
    "UPDATE images SET status='waiting', error=NULL WHERE image=? AND status!='waiting' "
    "AND NOT (?='failed' AND EXISTS (SELECT 1 FROM answers "
    "WHERE image=? AND region=? AND stage=? AND round=? AND status='failed'))"
)
_FINISH = (
    "UPDATE images SET status=:status, error=:error, path=:path, photo=:photo, width=:width, "
    "height=:height, left_out=:left_out, inputs=:inputs, masks=:masks, made_with=:made_with, "
    "caption_count=(SELECT count(*) FROM captions WHERE captions.image=images.image), "
    "answer_count=(SELECT count(*) FROM answers WHERE answers.image=images.image) "
    "WHERE image=:image"
)
_SAVE_ANSWER = "INSERT OR REPLACE INTO answers VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
_SAVE_CAPTION = "INSERT INTO captions VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)"
_REVIEW = "image, region, decision, text, previous, reviewer, time, note, checksum"
_SAVE_REVIEW = f"INSERT INTO reviews ({_REVIEW}) VALUES (?,?,?,?,?,?,?,?,?)"
_READ_IMAGE = f"SELECT status, error, {_SEALED}, checksum FROM images"


class StoreError(RuntimeError):
    """A file that is no store, is of another version, is damaged, or cannot be written."""


class Store:
    """A store, created if there is none. Close it, or use it in a `with` statement.

    One connection, guarded by a lock, so that all threads of a process may use it.

    Args:
        path: of the SQLite file.
        create: False raises if there is no file.

    Attributes:
        recipe: of the keys of stored answers, see `run`: 1 in stores made before there were
            several, else 2.

    Raises:
        StoreError: naming the file and what is wrong.
    """

    def __init__(self, path: str | Path, create: bool = True):
        self.path = Path(path)
        if not create and not self.path.is_file():
            raise StoreError(f"{self.path}: there is no store")
        self._lock = threading.RLock()
        self._claims: dict[str, FileLock] = {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                self.path, timeout=_BUSY, isolation_level=None, check_same_thread=False
            )
            self._prepare()
        except (*_UNREADABLE, OSError) as error:
            raise StoreError(f"{self.path}: {error}") from error

    def _prepare(self) -> None:
        """Create the tables, or upgrade them."""
        connection = self._connection
        self._use_wal()
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.create_function("row_checksum", -1, _checksum, deterministic=True)
        with self._write():
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if not 0 <= version <= SCHEMA_VERSION or (version == 0 and tables):
                raise StoreError(
                    f"{self.path}: not a store of version {SCHEMA_VERSION} (it says {version})"
                )
            if version < SCHEMA_VERSION:
                # not by executescript, which would end the transaction
                for statement in "".join(_SCHEMAS[version:]).split(";\n"):
                    connection.execute(statement)
                connection.execute("INSERT INTO recipe VALUES (?)", (1 if version else 2,))
                connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        ((self.recipe,),) = self.rows("SELECT version FROM recipe") or ((0,),)
        if self.recipe not in (1, 2):
            raise self._damaged("the recipe of its keys")

    @tenacity.retry(
        retry=tenacity.retry_if_exception_message(match=".*locked"),
        wait=tenacity.wait_fixed(0.01),
        stop=tenacity.stop_after_delay(_BUSY),
        reraise=True,
    )
    def _use_wal(self) -> None:
        """Switch to WAL. SQLite itself does not wait while another process does the same."""
        self._connection.execute("PRAGMA journal_mode=WAL")

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
                if isinstance(error, _UNREADABLE):
                    raise StoreError(f"{self.path}: {error}") from error
                raise

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """All rows of a query that only reads."""
        with self._lock:
            try:
                return self._connection.execute(query, values).fetchall()
            except _UNREADABLE as error:
                raise StoreError(f"{self.path}: {error}") from error

    def _rows_of(self, image: str, table: str, columns: str, order: str) -> list[tuple[Any, ...]]:
        """The rows of an image without their checksums.

        Raises:
            StoreError: a row was changed outside the pipeline, or their number is not the
                recorded one.
        """
        # rows and their expected number in one statement: other processes may write
        found = self.rows(
            f"SELECT images.status, {table[:-1]}_count, {columns} FROM images "
            f"LEFT JOIN {table} AS t ON t.image=images.image WHERE images.image=? ORDER BY {order}",
            image,
        )
        rows = [row[2:] for row in found if row[2] is not None]  # none: one row without values
        if any(_checksum(*row[:-1]) != row[-1] for row in rows):
            raise self._damaged(f"{image}: one of its {table}")
        # answers are added while an image is annotated, and counted when it is finished
        counted = found and (table != "answers" or found[0][0] in ("done", "partial"))
        if counted and found[0][1] != len(rows):
            raise self._damaged(f"{image}: it has {len(rows)} {table}, not {found[0][1]}")
        return [row[:-1] for row in rows]

    def _damaged(self, item: str) -> StoreError:
        return StoreError(
            f"{self.path}: the file is damaged, {item} (bytes were changed since they were "
            "written); restore the file from a copy"
        )

    def close(self) -> None:
        """Release the images that this process has claimed, and close the file."""
        with self._lock:
            for image in list(self._claims):
                self.release(image)
            self._connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def begin_run(
        self, settings: Mapping[str, Any], made_with: Mapping[str, Mapping[str, Any]] | None = None
    ) -> int:
        """Record that a run begins, and its settings by name, which replace the latest run's.

        Args:
            settings: of the whole run.
            made_with: digest -> settings that decide the captions of images with that digest.

        Returns:
            The number of the run.
        """
        rows = [(name, json.dumps(value)) for name, value in settings.items()]
        kept = [(key, json.dumps(value)) for key, value in (made_with or {}).items()]
        with self._write() as connection:
            connection.execute("DELETE FROM settings")
            connection.executemany("INSERT INTO settings VALUES (?, ?)", rows)
            connection.executemany("INSERT OR REPLACE INTO made_with VALUES (?, ?)", kept)
            begun = "INSERT INTO runs (started, updated) VALUES (?1, ?1)"
            return int(connection.execute(begun, (time.time(),)).lastrowid)

    def settings(self, made_with: str | None = None) -> dict[str, Any]:
        """The settings of the latest run, or those that images of a digest were made with."""
        try:
            if made_with is None:
                found = self.rows("SELECT name, value FROM settings")
                return {name: json.loads(value) for name, value in found}
            query = "SELECT settings FROM made_with WHERE digest=?"
            return json.loads(self.rows(query, made_with)[0][0])
        except (IndexError, ValueError, TypeError):
            raise self._damaged("its settings") from None

    def update_run(self, run: int, images: int, calls: int, stopped: str | None = None) -> None:
        """Record a run's progress."""
        with self._write() as connection:
            connection.execute(
                "UPDATE runs SET updated=?, images=?, calls=?, stopped=? WHERE id=?",
                (time.time(), images, calls, stopped, run),
            )

    def register(self, images: Iterable[tuple[str, str]]) -> None:
        """Add images, as (name, split). Known images stay as they are, but for the split."""
        with self._write() as connection:
            connection.executemany(_REGISTER, images)
            connection.execute(f"{_SEAL} WHERE checksum IS NULL")

    def images(self) -> list[ImageRow]:
        """Every image, in the order in which they were added."""
        # the index has every image a second time, so that a lost row is noticed
        index = "SELECT count(*) FROM images INDEXED BY images_by_status WHERE status >= ''"
        found = self.rows(f"{_READ_IMAGE.replace('SELECT', f'SELECT ({index}),')} ORDER BY rowid")
        if found and found[0][0] != len(found):
            raise self._damaged("the list of its images")
        return [self._image_of(row[1:]) for row in found]

    def image(self, image: str) -> ImageRow:
        """One image.

        Raises:
            KeyError: the store has no image of that name.
        """
        found = self.rows(f"{_READ_IMAGE} WHERE image=?", image)
        if not found:
            raise KeyError(f"{self.path} has no image {image!r}")
        return self._image_of(found[0])

    def _image_of(self, row: tuple[Any, ...]) -> ImageRow:
        status, error, *sealed, stored = row
        if status not in _STATUSES or _checksum(*sealed) != stored:
            raise self._damaged(f"the record of the image {sealed[0]}")
        name, split, *place, left_out, inputs, masks, made_with = sealed
        left = tuple(json.loads(left_out)) if left_out else ()
        return ImageRow(name, split, status, error, *place, left, inputs, masks, made_with)

    def claim(self, image: str) -> bool:
        """Take an image to annotate, unless another process that runs has it.

        A finished image stays finished until `save` adds a new answer; a failed one waits.
        """
        if not self._lock_image(image):
            return False
        with self._write() as connection:
            wait = "UPDATE images SET status='waiting', error=NULL WHERE image=?"
            connection.execute(f"{wait} AND status='failed'", (image,))
        return True

    def is_held(self, image: str) -> bool:
        """Whether another process that runs is annotating an image."""
        if image in self._claims:
            return False
        free = self._lock_image(image)
        self.release(image)
        return not free

    def release(self, image: str) -> None:
        """Give an image back; without a new answer it is as it was."""
        lock = self._claims.pop(image, None)
        if lock is not None:
            # removed while it is still held: another process that has opened it will see that
            # it is gone, and create its own
            with suppress(PermissionError):  # Windows removes it on release
                Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()

    def _lock_image(self, image: str) -> bool:
        """Lock an image's file beside the store; the system frees it when the process ends."""
        if image in self._claims:
            return True
        name = hashlib.sha256(image.encode()).hexdigest()[:32]
        path = self.path.with_name(f"{self.path.name}.workers") / f"{name}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path, timeout=0, thread_local=False)
            lock.acquire()
        except Timeout:
            return False
        except OSError as error:
            raise StoreError(f"{path}: the image cannot be locked: {error}") from error
        self._claims[image] = lock
        return True

    def answers(self, image: str) -> dict[Step, Answer]:
        """Every answer of an image, by step."""
        found = self._rows_of(image, "answers", "t.*", "t.stage, t.round, t.region")
        return {answer.step: answer for answer in map(_answer_of, found)}

    def save(self, image: str, answer: Answer) -> None:
        """Commit one answer; it replaces the answer that the step had.

        The image is "waiting" then, unless the step has only failed again.
        """
        row = _answer_row(image, answer)
        with self._write() as connection:
            connection.execute(_REOPEN, (image, answer.status, *row[:4]))
            connection.execute(_SAVE_ANSWER, row)

    def finish(
        self, row: ImageRow, answers: Iterable[Answer] = (), captions: Iterable[FinalCaption] = ()
    ) -> None:
        """Commit the end of an image in one transaction, and give it back.

        The answers of an image that failed stay: they may be of use once it is repaired.

        Args:
            row: of the image; its split is left as it is.
            answers: all that count; other stored answers of the image are deleted.
            captions: one per region, in file order.
        """
        name = row.image
        captions = [_caption_row(name, place, one) for place, one in enumerate(captions)]
        with self._write() as connection:
            if row.status != "failed":
                connection.execute("DELETE FROM answers WHERE image=?", (name,))
                connection.executemany(_SAVE_ANSWER, [_answer_row(name, one) for one in answers])
            connection.execute("DELETE FROM captions WHERE image=?", (name,))
            connection.executemany(_SAVE_CAPTION, captions)
            connection.execute(_FINISH, vars(row) | {"left_out": json.dumps(row.left_out)})
            connection.execute(f"{_SEAL} WHERE image=?", (name,))
        self.release(name)

    def captions(self, image: str) -> list[FinalCaption]:
        """The final state of each region, in file order; empty until the image is finished."""
        return [_caption_of(row) for row in self._rows_of(image, "captions", "t.*", "t.place")]

    def add_review(self, image: str, review: Review) -> Review:
        """Commit a person's decision about a caption; earlier decisions stay.

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
            _, *values = vars(review).values()
            connection.execute(_SAVE_REVIEW, _sealed(image, region_key(region_id), *values))
            connection.execute(
                "UPDATE images SET review_count=review_count+1 WHERE image=?", (image,)
            )
        return review

    def reviews(self, image: str) -> list[Review]:
        """Every decision about an image's captions, the oldest first."""
        columns = ", ".join(f"t.{name}" for name in _REVIEW.split(", "))
        found = self._rows_of(image, "reviews", columns, "t.id")
        return [Review(region_of(row[1]), *row[2:]) for row in found]

    def reviewed_captions(self, image: str) -> list[FinalCaption]:
        """An image's captions with the reviews applied, in file order."""
        reviews = self.reviews(image)
        return [reviewed(caption, reviews) for caption in self.captions(image)]


def _checksum(*values: Any) -> int:
    """A checksum of a row's values: any error of up to 32 bits in a row changes it."""
    return zlib.crc32(json.dumps(values, default=repr).encode())


def _sealed(*values: Any) -> tuple[Any, ...]:
    return (*values, _checksum(*values))


def _answer_row(image: str, answer: Answer) -> tuple[Any, ...]:
    """All columns of the table of answers, as SQLite returns them."""
    step, *values, unique = vars(answer).values()
    head = (image, region_key(step.region_id), step.stage, step.round)
    return _sealed(*head, *values, None if unique is None else int(unique))


def _answer_of(row: tuple[Any, ...]) -> Answer:
    _, region, stage, number, *values, unique = row
    step = Step(stage, number, region_of(region))
    return Answer(step, *values, unique=None if unique is None else bool(unique))


def _caption_row(image: str, place: int, caption: FinalCaption) -> tuple[Any, ...]:
    """All columns of the table of captions, as SQLite returns them."""
    region_id, *values, parent, depth, height, alike = vars(caption).values()
    tree = (region_key(parent), depth, height, json.dumps(alike, ensure_ascii=False))
    return _sealed(image, region_key(region_id), place, *values, *tree)


def _caption_of(row: tuple[Any, ...]) -> FinalCaption:
    _, region, _, *values, parent, depth, height, alike = row
    tree = (region_of(parent), depth, height, tuple(json.loads(alike)))
    return FinalCaption(region_of(region), *values, *tree)
