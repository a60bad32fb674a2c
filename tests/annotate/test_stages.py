"""Captions are asked for in the order of Section 3, with the captions that the tables name."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest
from fake_annotators import small_image
from hypothesis import given, settings
from hypothesis import strategies as st

from ureca_lib.annotate.look_alikes import find_clashes, groups, normalized, word_overlaps
from ureca_lib.annotate.pipeline import ImageCaptions, parse_verdict
from ureca_lib.annotate.records import Answer, Step
from ureca_lib.annotate.settings import CheckSettings, TreeSettings
from ureca_lib.mask_tree import build_mask_tree
from ureca_lib.regions import Region, load_sa1b


def own_text(step: Step, context: object) -> str:
    return f"{step.stage} {step.round} {step.region_id!r}"


def walk(image: ImageCaptions, say=own_text, seed: int | None = None):
    """Write an image's captions; answers come in turn, or in an order drawn at random.

    `say` gives a text, or an `Answer`'s other fields.

    Returns:
        (step, context) of each question in the order of the answers, and the final captions.
    """
    chance, asked, waiting = random.Random(seed), [], []

    async def ask(step, context):
        waiting.append((step, context, asyncio.get_running_loop().create_future()))
        return await waiting[-1][2]

    async def write():
        task = asyncio.ensure_future(image.write(ask))
        while not task.done():
            for _ in range(50):  # until every question that can be asked is asked
                await asyncio.sleep(0)
            if waiting:
                place = 0 if seed is None else chance.randrange(len(waiting))
                step, context, answer = waiting.pop(place)
                asked.append((step, context))
                said = say(step, context)
                fields = said if isinstance(said, dict) else {"text": said}
                answer.set_result(Answer(step, **({"text": ""} | fields)))
        return task.result()

    return asked, asyncio.run(write())


@pytest.fixture(scope="module")
def tree():
    return build_mask_tree(small_image(0).regions)


def image_of(tree, look_alikes=None, check=None, verify=False, chosen=None) -> ImageCaptions:
    chosen = TreeSettings().chosen(tree) if chosen is None else chosen
    return ImageCaptions(tree, chosen, look_alikes or {}, check, verify)


def test_the_tree_of_these_tests(tree):
    parents = {region.id: tree.parent(region.id) for region in tree.regions}
    assert parents == {1: None, 2: None, 3: 1, 4: 1, 5: 3, "six": 2, "7": 2}


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_short_captions_go_down_with_siblings_in_turn(tree, seed):
    contexts = dict(walk(image_of(tree), seed=seed)[0])

    def seen(region_id):
        context = contexts[Step("short", 0, region_id)]
        return context.parent, dict(context.siblings)

    assert seen(1) == (None, {})
    assert seen(2) == (None, {1: "short 0 1"})
    assert seen(3) == ("short 0 1", {})
    assert seen(4) == ("short 0 1", {3: "short 0 3"})
    assert seen(5) == ("short 0 3", {})
    assert seen("7") == ("short 0 2", {"six": "short 0 'six'"})


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_long_captions_gather_those_of_the_children(tree, seed):
    contexts = dict(walk(image_of(tree), seed=seed)[0])
    leaf, parent = contexts[Step("long", 0, 5)], contexts[Step("long", 0, 1)]
    assert (leaf.current, leaf.children) == ("short 0 5", {})
    assert parent.current == "short 0 1"
    assert parent.children == {3: "long 0 3", 4: "long 0 4"}


def test_only_regions_with_look_alikes_are_refined(tree):
    image = image_of(tree, {3: [4], 4: [3], "six": ["7"]})
    asked, found = walk(image)
    contexts = dict(asked)
    refined = {step.region_id for step in contexts if step.stage == "unique"}
    assert refined == {3, 4, "six"}
    context = contexts[Step("unique", 1, "six")]
    assert (context.current, context.look_alikes) == ("long 0 'six'", ("7",))
    assert context.look_alike_captions == {"7": "long 0 '7'"}
    finals = {final.region_id: final for final in found}
    assert image.answers[Step("unique", 1, 5)].status == "kept"
    assert (finals[5].text, finals[5].stage, finals[5].state) == ("long 0 5", "long", "unique")
    assert (finals[3].text, finals[3].stage, finals[3].round) == ("unique 1 3", "unique", 1)
    assert finals["six"].look_alikes == ("7",) and finals["7"].look_alikes == ()


def test_families_are_asked_side_by_side(tree):
    asked = []

    async def ask(step, context):
        asked.append(step)
        if step.region_id != 1:
            await asyncio.Event().wait()  # forever
        return Answer(step, "text")

    async def write():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(image_of(tree).write(ask), 0.05)

    asyncio.run(write())
    assert set(asked) == {Step("short", 0, region_id) for region_id in (1, 2, 3)}


def test_an_error_ends_the_image_and_cancels_its_other_questions(tree):
    cancelled = []

    async def ask(step, context):
        if step.region_id == 2:
            raise RuntimeError("the annotator is gone")
        try:
            if step.region_id != 1:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(step.region_id)
            raise
        return Answer(step, "text")

    with pytest.raises(RuntimeError, match="the annotator is gone"):
        asyncio.run(image_of(tree).write(ask))
    assert cancelled == [3]


def test_captions_that_stay_alike_are_asked_again_in_turn(tree):
    twins = {"six": ["7"], "7": ["six"]}
    rounds = {1: "the square", 2: "a square", 3: "Square."}

    def say(step, context):
        if step.stage != "unique":
            return own_text(step, context)
        return rounds[step.round] if step.region_id == "7" else "The square"

    image = image_of(tree, twins)
    asked, found = walk(image, say)
    contexts = dict(asked)
    second = [step for step in contexts if step.round == 2]
    assert second == [Step("unique", 2, "six"), Step("unique", 2, "7")]
    assert contexts[second[0]].look_alike_captions == {"7": "the square"}
    assert contexts[second[1]].look_alike_captions == {"six": "The square"}
    assert contexts[Step("unique", 3, "7")].current == "a square"
    assert Step("unique", 4, "7") not in contexts
    finals = {final.region_id: final for final in found}
    assert finals["7"].state == finals["six"].state == "unresolved"
    assert finals["7"].reason == "reads like six" and finals["7"].text == "Square."
    assert finals[1].state == "unique"


def test_the_second_of_a_chain_sees_what_the_first_became(tree):
    def say(step, context):
        if step.stage != "unique":
            return own_text(step, context)
        return "it" if step.round == 1 else f"not {sorted(context.look_alike_captions.values())}"

    contexts = dict(walk(image_of(tree, {3: [4], 4: [3]}), say, seed=3)[0])
    assert contexts[Step("unique", 2, 3)].look_alike_captions == {4: "it"}
    assert contexts[Step("unique", 2, 4)].look_alike_captions == {3: "not ['it']"}
    assert not any(step.round == 3 for step in contexts)


def test_equal_captions_of_any_two_regions_are_refined(tree):
    def say(step, context):
        alike = step.stage == "long" and step.region_id in (1, "six")
        return "a box" if alike else own_text(step, context)

    contexts = dict(walk(image_of(tree, {1: [2], 2: [1]}, CheckSettings(rounds=2)), say)[0])
    assert {step.region_id for step in contexts if step.round == 2} == set()
    contexts = dict(walk(image_of(tree, {3: [4]}, CheckSettings(rounds=2)), say)[0])
    assert contexts[Step("unique", 2, "six")].look_alikes == (1,)


def test_one_round_is_the_papers(tree):
    image = image_of(tree, {3: [4], 4: [3]}, CheckSettings(rounds=1))
    asked, found = walk(image, lambda step, context: "same")
    assert max(step.round for step, _ in asked) == 1
    assert {final.state for final in found} == {"unresolved"}


def test_a_round_shows_those_that_clash_first_and_no_more_than_the_most(tree):
    def say(step, context):
        return "same" if step.region_id in (3, "six", "7") else own_text(step, context)

    image = image_of(tree, {3: [4, 5]}, CheckSettings(rounds=2, most=3))
    asked, _ = walk(image, say)
    contexts = dict(asked)
    assert contexts[Step("unique", 2, 3)].look_alikes == ("six", "7", 4)


def test_what_builds_on_a_failed_caption_is_not_asked(tree):
    def say(step, context):
        if step == Step("short", 0, 3):
            return {"status": "failed", "error": "refused"}
        return own_text(step, context)

    image = image_of(tree, {3: [4], 4: [3]})
    asked, found = walk(image, say)
    contexts = dict(asked)
    assert Step("long", 0, 3) not in contexts and Step("unique", 1, 3) not in contexts
    assert contexts[Step("short", 0, 4)].siblings == {}
    assert contexts[Step("short", 0, 5)].parent is None
    assert contexts[Step("long", 0, 1)].children == {4: "long 0 4"}
    assert contexts[Step("unique", 1, 4)].look_alike_captions == {}
    finals = {final.region_id: final for final in found}
    assert (finals[3].state, finals[3].text, finals[3].reason) == ("failed", "", "short: refused")
    assert image.answers[Step("unique", 1, 3)].status == "blocked"
    assert {finals[i].state for i in (1, 2, 4, 5, "six", "7")} == {"unique"}


def test_a_refinement_that_fails_later_leaves_the_caption_and_says_so(tree):
    def say(step, context):
        return {"status": "failed", "error": "late"} if step.round == 2 else "same"

    image = image_of(tree, {3: [4]}, CheckSettings(rounds=2))
    _, found = walk(image, say)
    final = next(final for final in found if final.region_id == 3)
    assert final.state == "unresolved" and final.text == "same" and "late" in final.reason


def test_what_the_annotator_calls_ambiguous_is_unresolved(tree):
    def say(step, context):
        return {"text": own_text(step, context), "unique": step.region_id != 5}

    image = image_of(tree)
    _, found = walk(image, say)
    states = {final.region_id: final.state for final in found}
    assert states.pop(5) == "unresolved" and set(states.values()) == {"unique"}


def test_regions_with_one_mask_are_unresolved_whatever_is_said_of_them():
    regions = small_image(0).regions
    regions = [*regions, Region.from_mask("again", next(r for r in regions if r.id == 5).mask)]
    image = image_of(build_mask_tree(regions), {5: ["again"], "again": [5]})
    _, found = walk(image)
    finals = {final.region_id: final for final in found}
    assert finals[5].state == finals["again"].state == "unresolved"
    assert finals[5].reason == "has the same mask as again" and finals[5].text
    assert finals[4].state == "unique"


def test_verification_drops_and_says_why(tree):
    def say(step, context):
        if step.stage != "verify":
            return own_text(step, context)
        if step.region_id == 5:
            return {"status": "failed", "error": "timeout"}
        return "Drop: it fits the left one too" if step.region_id == 3 else "keep"

    image = image_of(tree, {3: [4], 4: [3]}, verify=True)
    asked, found = walk(image, say)
    contexts = dict(asked)
    assert contexts[Step("verify", 0, 3)].current == "unique 1 3"
    assert contexts[Step("verify", 0, 3)].look_alike_captions == {4: "unique 1 4"}
    finals = {final.region_id: final for final in found}
    assert (finals[3].state, finals[3].reason) == ("dropped", "it fits the left one too")
    assert (finals[5].state, finals[5].reason) == ("failed", "verify: timeout")
    assert finals[1].state == "unique"


@pytest.mark.parametrize(
    ("text", "keep", "reason"),
    [
        ("keep", True, None),
        ("KEEP.", True, None),
        ('"Drop" - too vague', False, "too vague"),
        ("drop", False, None),
    ],
)
def test_verdicts(text, keep, reason):
    assert parse_verdict(text) == (keep, reason)


@pytest.mark.parametrize("text", ["", "keeper", "I would keep it", "dropped"])
def test_what_is_no_verdict(text):
    with pytest.raises(ValueError, match="keep or drop"):
        parse_verdict(text)


def test_leaves_keep_their_short_caption_where_the_published_rules_hold(tree):
    chosen = TreeSettings().chosen(tree)
    image = ImageCaptions(tree, chosen, {3: [4], 4: [3]}, describe_leaves=False)
    asked, found = walk(image)
    contexts, finals = dict(asked), {final.region_id: final for final in found}
    assert {step.region_id for step in contexts if step.stage == "long"} == {1, 2, 3}
    assert contexts[Step("long", 0, 3)].children == {5: "short 0 5"}
    assert contexts[Step("unique", 1, 4)].current == "short 0 4"
    assert contexts[Step("unique", 1, 3)].look_alike_captions == {4: "short 0 4"}
    assert (finals[5].text, finals[5].stage, finals[5].state) == ("short 0 5", "short", "unique")
    assert (finals[4].text, finals[4].stage) == ("unique 1 4", "unique")
    assert (finals[2].text, finals[2].stage) == ("long 0 2", "long")
    failed = {"status": "failed", "error": "refused"}
    image = ImageCaptions(tree, chosen, {}, describe_leaves=False)
    _, found = walk(image, lambda step, context: failed)
    assert {final.state for final in found} == {"failed"}


@pytest.mark.parametrize("seed", range(6))
def test_the_order_of_answers_changes_nothing(tree, seed):
    def say(step, context):
        if step.stage == "unique" and step.round < 3 and step.region_id in (3, 4, "six", "7"):
            return "the same" if step.region_id in (3, 4) else f"same {step.round}"
        return f"{step} {context}"[-60:]

    def run(order):
        image = image_of(tree, {3: [4], 4: ["six"], "six": ["7"], "7": [3]}, verify=False)
        asked, found = walk(image, say, order)
        return sorted(asked, key=str), found

    assert run(seed) == run(None)


def test_every_region_of_the_samples_gets_a_caption(samples):
    for path in sorted((samples / "photos").glob("*.json")):
        tree = build_mask_tree(load_sa1b(path).regions)
        image = image_of(tree)
        questions, found = walk(image)
        asked = [step for step, _ in questions]
        for stage in ("short", "long"):
            assert sorted(s.region_id for s in asked if s.stage == stage) == sorted(
                region.id for region in tree.regions
            )
        assert {final.state for final in found} == {"unique"}


def nested(*sides: int) -> list[Region]:
    """Squares that share a corner, on a canvas of 100 x 100, and a bar beside them."""
    regions = []
    for side in sides:
        mask = np.zeros((100, 100), bool)
        mask[:side, :side] = True
        regions.append(Region.from_mask(side, mask))
    bar = np.zeros((100, 100), bool)
    bar[95:, 20:] = True
    return [*regions, Region.from_mask("bar", bar)]


def test_the_published_rule_leaves_out_what_is_not_below_a_main_object():
    tree = build_mask_tree(nested(80, 60, 40, 20, 5), parent_rule="first")
    assert TreeSettings().chosen(tree) == [80, "bar", 60, 40, 20, 5]
    chosen = TreeSettings.paper().chosen(tree)
    assert chosen == [80, 60, 40, 20]  # 5 x 5 is under 0.7% of the image, the bar is a leaf
    image = image_of(tree, {20: ["bar"]}, chosen=chosen)
    asked, found = walk(image)
    assert {step.region_id for step, _ in asked} == {80, 60, 40, 20}
    assert image.look_alikes[20] == ()
    finals = {final.region_id: final for final in found}
    assert (finals["bar"].state, finals["bar"].text) == ("skipped", "")
    assert finals[5].state == "skipped" and finals[5].depth == 5
    assert TreeSettings.paper().chosen(build_mask_tree(nested(90, 60, 40, 20))) == []


def test_an_image_without_regions_ends():
    image = image_of(build_mask_tree([]), verify=True)
    assert walk(image) == ([], [])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rounds": 0}, "rounds is at least 1, not 0"),
        ({"most": -2}, "most is at least 1, not -2"),
    ],
)
def test_settings_out_of_range(wrong, said):
    with pytest.raises(ValueError) as error:
        CheckSettings(**wrong)
    assert str(error.value) == said


def test_captions_are_compared_without_case_articles_and_punctuation():
    assert normalized("The cat’s left eye, the one!") == normalized("a CAT's left EYE the one")
    assert normalized("left") != normalized("right")
    overlaps = word_overlaps(["red cup red", "red cup", "", "", "c"])
    assert overlaps[0, 1] == pytest.approx(3 / 5)
    assert overlaps[2, 3] == 1 and overlaps[1, 4] == 0


def test_words_in_another_order_say_another_thing():
    captions = {1: "cup left of plate", 2: "plate left of cup", 3: "one", 4: "The one."}
    assert find_clashes(captions) == [(3, 4)]
    assert word_overlaps(list(map(normalized, captions.values())))[0, 1] > 0.5


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)).filter(lambda p: p[0] != p[1])),
    st.permutations(range(8)),
)
def test_groups_are_the_connected_sets(pairs, order):
    found = groups(pairs, order)
    reach = {node: {node} for pair in pairs for node in pair}
    for _ in range(8):
        for one, other in pairs:
            reach[one] = reach[other] = reach[one] | reach[other]
            for node in reach[one]:
                reach[node] = reach[one]
    assert {frozenset(group) for group in found} == {frozenset(nodes) for nodes in reach.values()}
    assert [group for group in found] == [sorted(group, key=order.index) for group in found]
    assert found == sorted(found, key=lambda group: order.index(group[0]))
