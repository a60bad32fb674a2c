"""The tables of the store, and how records become rows."""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass
from typing import Any

from ureca_lib.annotate.records import Answer, FinalCaption, Step
from ureca_lib.annotate.reviews import Review
from ureca_lib.mask_tree import RegionId

SCHEMA_VERSION = 3
# what version 2 has more than version 1; a row is a decision, and none is changed or deleted
REVIEWS = """
CREATE TABLE reviews (
  id INTEGER PRIMARY KEY, image TEXT NOT NULL, region TEXT NOT NULL, decision TEXT NOT NULL,
  text TEXT NOT NULL, previous TEXT NOT NULL, reviewer TEXT NOT NULL, time REAL NOT NULL,
  note TEXT NOT NULL);
CREATE INDEX reviews_by_image ON reviews (image)
"""
_MADE_WITH = "CREATE TABLE made_with (digest TEXT PRIMARY KEY, settings TEXT NOT NULL)"
# what version 3 has more than version 2; an image that was finished before has none
_CAPTIONED = f"""
ALTER TABLE images ADD COLUMN masks TEXT;
ALTER TABLE images ADD COLUMN made_with TEXT;
{_MADE_WITH}
"""
UPGRADES = {1: REVIEWS, 2: _CAPTIONED}  # for each version what the next one has more
SCHEMA = f"""
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE runs (
  id INTEGER PRIMARY KEY, started REAL NOT NULL, updated REAL NOT NULL,
  images INTEGER NOT NULL DEFAULT 0, calls INTEGER NOT NULL DEFAULT 0, stopped TEXT);
CREATE TABLE images (
  image TEXT PRIMARY KEY, split TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'waiting', error TEXT,
  path TEXT, photo TEXT, width INTEGER, height INTEGER, left_out TEXT, inputs TEXT, worker TEXT,
  masks TEXT, made_with TEXT);
{_MADE_WITH};
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
  PRIMARY KEY (image, region)) WITHOUT ROWID;
{REVIEWS.strip()};
"""
SAVE_ANSWER = "INSERT OR REPLACE INTO answers VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
FAILED_BEFORE = (
    "SELECT count(*) FROM answers WHERE image=? AND region=? AND stage=? AND round=? "
    "AND status='failed'"
)
SAVE_CAPTION = "INSERT INTO captions VALUES (?,?,?,?,?,?,?,?,?,?,?,?)"
_REVIEW = "region, decision, text, previous, reviewer, time, note"
SAVE_REVIEW = f"INSERT INTO reviews (image, {_REVIEW}) VALUES (?,?,?,?,?,?,?,?)"
READ_REVIEWS = f"SELECT {_REVIEW} FROM reviews WHERE image=? ORDER BY id"
READ_IMAGE = (
    "SELECT image, split, status, error, path, photo, width, height, left_out, inputs, masks, "
    "made_with FROM images"
)


@dataclass(frozen=True)
class ImageRow:
    """An image of the store.

    Status "waiting": not finished; "done"; "partial": finished, but some answers failed;
    "failed": it could not be read, `error` says why.
    """

    image: str
    split: str
    status: str
    error: str | None
    path: str | None
    photo: str | None
    width: int | None
    height: int | None
    left_out: tuple[str, ...]
    inputs: str | None  # what it was finished with; equal inputs need no look at the image
    masks: str | None = None  # `masks_digest` of what was captioned
    made_with: str | None = None  # digest of the settings, see `Store.settings`


def region_key(region_id: RegionId | None) -> str | None:
    """A region's id as JSON, which keeps 7 and "7" apart."""
    return None if region_id is None else json.dumps(region_id, ensure_ascii=False)


def region_of(key: str | None) -> RegionId | None:
    """The id of such a key."""
    return None if key is None else json.loads(key)


def image_row(row: tuple[Any, ...]) -> ImageRow:
    """An image from the columns of `READ_IMAGE`."""
    left_out = tuple(json.loads(row[8])) if row[8] else ()
    return ImageRow(*row[:8], left_out, *row[9:])


def answer_row(image: str, answer: Answer) -> tuple[Any, ...]:
    """The values of `SAVE_ANSWER`."""
    stage, number, region_id = answer.step
    return (image, region_key(region_id), stage, number, *astuple(answer)[1:])


def answer_of(row: tuple[Any, ...]) -> Answer:
    """An answer from all columns of its table."""
    _, region, stage, number, *values, unique = row
    step = Step(stage, number, region_of(region))
    return Answer(step, *values, unique=None if unique is None else bool(unique))


def caption_row(image: str, place: int, caption: FinalCaption) -> tuple[Any, ...]:
    """The values of `SAVE_CAPTION`."""
    region_id, text, state, reason, stage, number, parent, depth, height, alike = astuple(caption)
    look_alikes = json.dumps(alike, ensure_ascii=False)
    head = (image, region_key(region_id), place, text, state, reason, stage, number)
    return (*head, region_key(parent), depth, height, look_alikes)


def caption_of(row: tuple[Any, ...]) -> FinalCaption:
    """A final caption from all columns of its table."""
    _, region, _, text, state, reason, stage, number, parent, depth, height, alike = row
    place = (region_of(parent), depth, height, tuple(json.loads(alike)))
    return FinalCaption(region_of(region), text, state, reason, stage, number, *place)


def review_row(image: str, review: Review) -> tuple[Any, ...]:
    """The values of `SAVE_REVIEW`."""
    region_id, *values = astuple(review)
    return (image, region_key(region_id), *values)


def review_of(row: tuple[Any, ...]) -> Review:
    """A review from the columns of `READ_REVIEWS`."""
    return Review(region_of(row[0]), *row[1:])
