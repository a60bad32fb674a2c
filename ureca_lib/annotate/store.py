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
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

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
# from an empty file to schema version 1, and from each version to the next
_SCHEMAS = (
    """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE runs (
  id INTEGER PRIMARY KEY, started REAL NOT NULL, updated REAL NOT NULL,
  images INTEGER NOT NULL DEFAULT 0, calls INTEGER NOT NULL DEFAULT 0, stopped TEXT);
CREATE TABLE images (
  image TEXT PRIMARY KEY, split TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'waiting', error TEXT,
  path TEXT, photo TEXT, width INTEGER, height INTEGER, left_out TEXT, inputs TEXT);
CREATE INDEX images_by_status ON images (status);
CREATE TABLE answers (
  image TEXT NOT NULL, region TEXT NOT NULL, stage TEXT NOT NULL, round INTEGER NOT NULL,
  text TEXT NOT NULL, status TEXT NOT NULL, error TEXT, annotator TEXT NOT NULL,
  prompt_version TEXT NOT NULL, inputs_hash TEXT NOT NULL, seconds REAL NOT NULL,
  prompt_tokens INTEGER NOT NULL, reply_tokens INTEGER NOT NULL, attempts INTEGER NOT NULL,
  is_unique INTEGER, PRIMARY KEY (image, region, stage, round)) WITHOUT ROWID;
CREATE TABLE captions (
  image TEXT NOT NULL, region TEXT NOT NULL, place INTEGER NOT NULL, text TEXT NOT NULL,
  state TEXT NOT NULL, reason TEXT, stage TEXT, round INTEGER NOT NULL, parent TEXT,
  depth INTEGER NOT NULL, height INTEGER NOT NULL, look_alikes TEXT NOT NULL,
  PRIMARY KEY (image, region)) WITHOUT ROWID""",
    # an append-only log of review decisions
    """
CREATE TABLE reviews (
  id INTEGER PRIMARY KEY, image TEXT NOT NULL, region TEXT NOT NULL, decision TEXT NOT NULL,
  text TEXT NOT NULL, previous TEXT NOT NULL, reviewer TEXT NOT NULL, time REAL NOT NULL,
  note TEXT NOT NULL);
CREATE INDEX reviews_by_image ON reviews (image)""",
    """
ALTER TABLE images ADD COLUMN masks TEXT;
ALTER TABLE images ADD COLUMN made_with TEXT;
CREATE TABLE made_with (digest TEXT PRIMARY KEY, settings TEXT NOT NULL)""",
    f"""
ALTER TABLE answers ADD COLUMN checksum INTEGER;
ALTER TABLE captions ADD COLUMN checksum INTEGER;
ALTER TABLE reviews ADD COLUMN checksum INTEGER;
ALTER TABLE images ADD COLUMN checksum INTEGER;
ALTER TABLE images ADD COLUMN caption_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE images ADD COLUMN answer_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE images ADD COLUMN review_count INTEGER NOT NULL DEFAULT 0;
UPDATE answers SET checksum=row_checksum(image, region, stage, round, text, status, error,
  annotator, prompt_version, inputs_hash, seconds, prompt_tokens, reply_tokens, attempts,
  is_unique);
UPDATE captions SET checksum=row_checksum(image, region, place, text, state, reason, stage, round,
  parent, depth, height, look_alikes);
UPDATE reviews SET checksum=row_checksum(image, region, decision, text, previous, reviewer, time,
  note);
UPDATE images SET checksum=row_checksum({_SEALED}),
  caption_count=(SELECT count(*) FROM captions WHERE captions.image=images.image),
  answer_count=(SELECT count(*) FROM answers WHERE answers.image=images.image),
  review_count=(SELECT count(*) FROM reviews WHERE reviews.image=images.image);
CREATE TABLE recipe (version INTEGER NOT NULL)""",
)
SCHEMA_VERSION = len(_SCHEMAS)
_WAIT = "UPDATE images SET status='waiting', error=NULL WHERE image=?"
_SEAL = f"UPDATE images SET checksum=row_checksum({_SEALED}) WHERE image=?"
_SAVE_ANSWER = "INSERT OR REPLACE INTO answers VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
_SAVE_CAPTION = "INSERT INTO captions VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)"
_REVIEW = "image, region, decision, text, previous, reviewer, time, note, checksum"
_SAVE_REVIEW = f"INSERT INTO reviews ({_REVIEW}) VALUES (?,?,?,?,?,?,?,?,?)"
_READ_IMAGE = f"SELECT status, error, {_SEALED}, checksum FROM images"
# the rows of an image and their expected number, in one statement: other processes may write
_READ = (
    "SELECT images.status, {count}, {columns} FROM images "
    "LEFT JOIN {table} AS t ON t.image=images.image"
)


class StoreError(RuntimeError):
    """A file that is no store, is of another version, is damaged, or cannot be written."""


class Store:
    """A store, created if there is none. Close it, or use it in a `with` statement.

    One connection, guarded by a lock, so that all threads of a process may use it.

    Args:
        path: of the SQLite file.
        create: False raises if there is no file.

    Attributes:
        recipe: of the keys of stored answers, see `questions`: 1 in stores made before there were
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
                for statement in ";\n".join(_SCHEMAS[version:]).split(";\n"):
                    connection.execute(statement)
                connection.execute("INSERT INTO recipe VALUES (?)", (1 if version else 2,))
                connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        ((self.recipe,),) = self.rows("SELECT version FROM recipe") or ((0,),)
        if self.recipe not in (1, 2):
            raise self._damaged("the recipe of its keys")

    def _use_wal(self) -> None:
        """Switch to WAL. SQLite itself does not wait while another process does the same."""
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
        query = _READ.format(count=f"{table[:-1]}_count", columns=columns, table=table)
        found = self.rows(f"{query} WHERE images.image=? ORDER BY {order}", image)
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

    def set_settings(
        self, settings: Mapping[str, Any], made_with: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        """Record the settings of the latest run, by name.

        Args:
            settings: of the whole run.
            made_with: digest -> settings that decide the captions of images with that digest.
        """
        rows = [(name, json.dumps(value)) for name, value in settings.items()]
        kept = [(key, json.dumps(value)) for key, value in (made_with or {}).items()]
        with self._write() as connection:
            connection.execute("DELETE FROM settings")
            connection.executemany("INSERT INTO settings VALUES (?, ?)", rows)
            connection.executemany("INSERT OR REPLACE INTO made_with VALUES (?, ?)", kept)

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

    def begin_run(self) -> int:
        """Record that a run begins; returns its number."""
        now = time.time()
        with self._write() as connection:
            cursor = connection.execute(
                "INSERT INTO runs (started, updated) VALUES (?, ?)", (now, now)
            )
            return int(cursor.lastrowid)

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
            known = dict(connection.execute("SELECT image, split FROM images"))
            for image, split in images:
                if image not in known:
                    connection.execute(
                        "INSERT INTO images (image, split) VALUES (?, ?)", (image, split)
                    )
                elif known[image] != split:
                    connection.execute("UPDATE images SET split=? WHERE image=?", (split, image))
                else:
                    continue
                connection.execute(_SEAL, (image,))

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
            connection.execute(f"{_WAIT} AND status='failed'", (image,))
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
        failed = "SELECT count(*) FROM answers WHERE image=? AND region=? AND stage=? AND round=?"
        with self._write() as connection:
            again = False
            if answer.status == "failed":
                query = f"{failed} AND status='failed'"
                (again,) = connection.execute(query, row[:4]).fetchone()
            connection.execute(_SAVE_ANSWER, row)
            if not again:
                connection.execute(f"{_WAIT} AND status!='waiting'", (image,))

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
        rows = [_caption_row(row.image, place, one) for place, one in enumerate(captions)]
        place = (row.path, row.photo, row.width, row.height, json.dumps(row.left_out))
        values = (row.status, row.error, *place, row.inputs, row.masks, row.made_with)
        with self._write() as connection:
            if row.status != "failed":
                self._replace_answers(connection, row.image, answers)
            connection.execute("DELETE FROM captions WHERE image=?", (row.image,))
            connection.executemany(_SAVE_CAPTION, rows)
            connection.execute(
                "UPDATE images SET status=?, error=?, path=?, photo=?, width=?, height=?, "
                "left_out=?, inputs=?, masks=?, made_with=?, caption_count=?, answer_count="
                "(SELECT count(*) FROM answers WHERE image=images.image) WHERE image=?",
                (*values, len(rows), row.image),
            )
            connection.execute(_SEAL, (row.image,))
        self.release(row.image)

    def _replace_answers(
        self, connection: sqlite3.Connection, image: str, answers: Iterable[Answer]
    ) -> None:
        """Delete answers that no longer count, and add those that were not asked."""
        keep = {(region_key(a.step.region_id), a.step.stage, a.step.round): a for a in answers}
        query = "SELECT region, stage, round FROM answers WHERE image=?"
        stored = set(connection.execute(query, (image,)).fetchall())
        connection.executemany(
            "DELETE FROM answers WHERE image=? AND region=? AND stage=? AND round=?",
            [(image, *key) for key in stored - keep.keys()],
        )
        unasked = (a for a in keep.values() if a.status in ("blocked", "kept"))
        connection.executemany(_SAVE_ANSWER, [_answer_row(image, a) for a in unasked])

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
            connection.execute(_SAVE_REVIEW, _review_row(image, review))
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
    (stage, number, region_id), *values, unique = astuple(answer)
    text, status, error, annotator, version, key, seconds, *spent = values
    head = (image, region_key(region_id), stage, number, text, status, error)
    unique = None if unique is None else int(unique)
    return _sealed(*head, annotator, version, key, float(seconds), *spent, unique)


def _answer_of(row: tuple[Any, ...]) -> Answer:
    _, region, stage, number, *values, unique = row
    step = Step(stage, number, region_of(region))
    return Answer(step, *values, unique=None if unique is None else bool(unique))


def _caption_row(image: str, place: int, caption: FinalCaption) -> tuple[Any, ...]:
    """All columns of the table of captions, as SQLite returns them."""
    region_id, text, state, reason, stage, number, parent, depth, height, alike = astuple(caption)
    head = (image, region_key(region_id), place, text, state, reason, stage, number)
    look_alikes = json.dumps(alike, ensure_ascii=False)
    return _sealed(*head, region_key(parent), depth, height, look_alikes)


def _caption_of(row: tuple[Any, ...]) -> FinalCaption:
    _, region, _, text, state, reason, stage, number, parent, depth, height, alike = row
    place = (region_of(parent), depth, height, tuple(json.loads(alike)))
    return FinalCaption(region_of(region), text, state, reason, stage, number, *place)


def _review_row(image: str, review: Review) -> tuple[Any, ...]:
    region_id, decision, text, previous, reviewer, time_, note = astuple(review)
    head = (image, region_key(region_id), decision, text, previous, reviewer)
    return _sealed(*head, float(time_), note)
