-- The tables of a store: from an empty file to version 1, and from each version to the next.
-- A version is one step; it begins with a line "-- version".
-- version 1
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
  PRIMARY KEY (image, region)) WITHOUT ROWID;
-- version 2: an append-only log of review decisions
CREATE TABLE reviews (
  id INTEGER PRIMARY KEY, image TEXT NOT NULL, region TEXT NOT NULL, decision TEXT NOT NULL,
  text TEXT NOT NULL, previous TEXT NOT NULL, reviewer TEXT NOT NULL, time REAL NOT NULL,
  note TEXT NOT NULL);
CREATE INDEX reviews_by_image ON reviews (image);
-- version 3: what the captions of an image were made with
ALTER TABLE images ADD COLUMN masks TEXT;
ALTER TABLE images ADD COLUMN made_with TEXT;
CREATE TABLE made_with (digest TEXT PRIMARY KEY, settings TEXT NOT NULL);
-- version 4: checksums and counts, by which a damaged file is noticed
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
UPDATE images SET checksum=row_checksum(image, split, path, photo, width, height, left_out, inputs, masks, made_with),
  caption_count=(SELECT count(*) FROM captions WHERE captions.image=images.image),
  answer_count=(SELECT count(*) FROM answers WHERE answers.image=images.image),
  review_count=(SELECT count(*) FROM reviews WHERE reviews.image=images.image);
CREATE TABLE recipe (version INTEGER NOT NULL);
