"""The stages on random trees, with annotators that fail, clash and drop, end as they always did.

`data/stages.json` holds a digest per seed of everything that an image ends with: captions, states
and reasons, all answers, and the calls with their contexts. The digests were made by an
implementation that kept a plan of steps instead of coroutines.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pytest

from ureca_lib.annotate.pipeline import ImageCaptions
from ureca_lib.annotate.records import Answer
from ureca_lib.annotate.settings import CheckSettings
from ureca_lib.mask_tree import build_mask_tree
from ureca_lib.regions import Region

DIGESTS = json.loads((Path(__file__).parent / "data" / "stages.json").read_text())


def random_tree(chance):
    regions = []
    for number in range(chance.randint(1, 14)):
        mask = np.zeros((40, 40), bool)
        x, y = chance.randrange(30), chance.randrange(30)
        mask[y : y + chance.randint(2, 25), x : x + chance.randint(2, 25)] = True
        regions.append(Region.from_mask(number, mask))
    if len(regions) > 2 and chance.random() < 0.3:  # two regions with one mask
        regions.append(Region(99, regions[0].rle))
    return build_mask_tree(regions)


def random_case(seed):
    """A tree, the regions to caption, their look-alikes, the check, and what an annotator says."""
    chance = random.Random(seed)
    tree = random_tree(chance)
    chosen = [region.id for region in tree.top_down()]
    if chance.random() < 0.4:  # with a part, everything that holds it is captioned
        dropped, kept = set(chance.sample(chosen, chance.randint(0, len(chosen) // 2))), []
        for region_id in chosen:
            parent = tree.parent(region_id)
            if region_id not in dropped and (parent is None or parent in kept):
                kept.append(region_id)
        chosen = kept
    alike = {}
    for region_id in chosen:
        others = [other for other in chosen if other != region_id]
        alike[region_id] = tuple(chance.sample(others, min(len(others), chance.randint(0, 3))))
    check = CheckSettings(rounds=chance.randint(1, 3), most=chance.randint(1, 4))
    verify = chance.random() < 0.5
    fails, words = chance.choice([0, 0.05, 0.2]), chance.choice([2, 5, 50])

    def say(step, context):
        drawn = int(digest([seed, list(step), plain(context)]), 16)
        if (drawn % 1000) / 1000 < fails:
            return {"text": "", "status": "failed", "error": f"no {step.stage} {step.region_id}"}
        if step.stage == "verify":
            return {"text": "keep" if drawn % 3 else f"drop: bad {drawn % 7}"}
        unique = {0: False, 1: True}.get(drawn // 1000 % 6)
        return {"text": f"{step.stage} thing {drawn % words}", "unique": unique}

    return tree, chosen, alike, check, verify, say


def plain(context):
    lists = (context.siblings, context.children, context.look_alike_captions)
    known = [[[key, text] for key, text in captions.items()] for captions in lists]
    return [context.parent, context.current, list(context.look_alikes), known]


def digest(data):
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()[:12]


def outcome(finals, answers, calls):
    """Everything that an image ends with, as plain data."""
    captions = [
        [f.region_id, f.text, f.state, f.reason, f.stage, f.round, f.parent, f.depth, f.height]
        for f in finals
    ]
    given = [[*a.step, a.text, a.status, a.error, a.unique] for a in answers]
    alike = [list(f.look_alikes) for f in finals]
    return [
        captions,
        alike,
        sorted(given),
        sorted([*step, plain(context)] for step, context in calls),
    ]


def caption(seed, order=0):
    """The outcome of the pipeline; the answers arrive in an order drawn at random."""
    tree, chosen, alike, check, verify, say = random_case(seed)
    chance, calls = random.Random(order), []

    async def ask(step, context):
        calls.append((step, context))
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        return Answer(step, **say(step, context))

    image = ImageCaptions(tree, chosen, alike, check, verify)
    finals = asyncio.run(image.write(ask))
    return outcome(finals, image.answers.values(), calls)


@pytest.mark.parametrize("first", range(0, len(DIGESTS), 50))
def test_random_images_end_as_they_always_did(first):
    for seed in range(first, first + 50):
        assert digest(caption(seed, order=seed)) == DIGESTS[seed], seed


def test_the_random_images_reach_every_state():
    states = {final[2] for seed in range(200) for final in caption(seed)[0]}
    assert states == {"unique", "unresolved", "failed", "dropped", "skipped"}


@pytest.mark.parametrize("seed", range(20))
def test_the_order_of_answers_changes_nothing(seed):
    assert caption(seed, order=1) == caption(seed, order=2)
