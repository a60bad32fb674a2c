"""Noun phrases."""

from __future__ import annotations

import pytest

from ureca_lib.annotate.referring.english import (
    LIGHT,
    counted,
    indefinite,
    is_kind,
    ordinal,
    plural,
    preposition,
)
from ureca_lib.annotate.referring.expressions import phrase
from ureca_lib.annotate.referring.predicates import Attribute


def noun(value: str) -> tuple[Attribute, ...]:
    return (Attribute("type", value),)


@pytest.mark.parametrize(
    ("number", "word"),
    [
        *((1, "first"), (2, "second"), (3, "third"), (12, "twelfth"), (15, "fifteenth")),
        *((20, "twentieth"), (21, "twenty-first"), (42, "forty-second"), (90, "ninetieth")),
        *((100, "one hundredth"), (101, "one hundred and first"), (1000, "one thousandth")),
        *((999, "nine hundred and ninety-ninth"), (2005, "two thousand and fifth")),
    ],
)
def test_ordinals(number, word):
    assert ordinal(number) == word


def test_ordinals_are_all_different_words():
    words = [ordinal(number) for number in range(1, 2000)]
    assert len(set(words)) == len(words)
    assert not any(character.isdigit() for word in words for character in word)


@pytest.mark.parametrize(
    ("one", "many"),
    [
        *(("coin", "coins"), ("space suit", "space suits"), ("row of coins", "rows of coins")),
        *(("patch", "patches"), ("berry", "berries"), ("key", "keys"), ("tooth", "teeth")),
        *(("glass", "glasses"), ("fire man", "fire men"), ("sheep", "sheep"), ("box", "boxes")),
        *(("knife", "knives"), ("person", "people")),
    ],
)
def test_plurals(one, many):
    assert plural(one) == many


@pytest.mark.parametrize(
    ("part", "whole", "word"),
    [
        *(("eye", "cat", "of"), ("spot", "whisker pad", "on"), ("highlights", "spoon", "on")),
        *(("highlight", "eye", "in"), ("cloud", "sky", "in"), ("coin", "row of coins", "in")),
        *(("head", "coin", "on"), ("edge", "coin", "of"), ("name tag", "space suit", "on")),
    ],
)
def test_prepositions(part, whole, word):
    assert preposition(part, whole) == word


@pytest.mark.parametrize(
    ("noun", "text"),
    [
        *(("eye", "an eye"), ("nose", "a nose"), ("eyes", "eyes"), ("hair", "hair")),
        *(
            ("uniform", "a uniform"),
            ("umbrella", "an umbrella"),
            ("one-way sign", "a one-way sign"),
        ),
    ],
)
def test_indefinite_articles(noun, text):
    assert indefinite(noun) == text


def test_numbers_of_things():
    assert [counted("eye", number) for number in (1, 2, 9)] == ["an eye", "two eyes", "nine eyes"]
    assert counted("eye", 12) == "many eyes" and counted("whiskers", 2) == "whiskers"


def test_light_has_no_color_of_its_own():
    assert is_kind("highlight", LIGHT) and is_kind("reflections", LIGHT)
    assert not is_kind("lamp", LIGHT)


@pytest.mark.parametrize(
    ("rank", "text"),
    [
        *((("left", 1, 2), "the left coin"), (("left", 1, 5), "the leftmost coin")),
        *((("left", 2, 3), "the middle coin"), (("top", 1, 2), "the upper coin")),
        *((("right", 2, 5), "the second coin from the right"), (("top", 1, 4), "the top coin")),
        *((("largest", 1, 2), "the larger coin"), (("smallest", 1, 3), "the smallest coin")),
        *((("largest", 2, 6), "the second largest coin"), (("widest", 1, 2), "the wider coin")),
        (("far left", 2, 6), "the coin that reaches second furthest left"),
    ],
)
def test_ranks(rank, text):
    value, number, of = rank
    attribute = Attribute("rank", value, number, of, noun("coin"))
    assert phrase((*noun("coin"), attribute)) == text


def test_adjectives_stand_in_the_order_of_english():
    description = (
        *noun("plate"),
        Attribute("color", "dark red"),
        Attribute("shape", "round"),
        Attribute("rank", "largest", 1, 4),
    )
    assert phrase(description) == "the largest round dark red plate"


def test_rows_places_parts_and_wholes():
    row = (*noun("row of coins"), Attribute("rank", "top", 1, 4))
    in_row = (*noun("coin"), Attribute("whole", "row of coins", among=row))
    third = (*in_row, Attribute("rank", "left", 3, 6, in_row))
    assert phrase(third) == "the third coin from the left in the top row"
    head = (*noun("head"), Attribute("whole", "coin", among=third))
    assert phrase(head) == "the head on the third coin from the left in the top row"
    computed = (*noun("coin"), Attribute("row", "bottom", 2, 4), Attribute("rank", "left", 1, 6))
    assert phrase(computed) == "the leftmost coin in the second row from the bottom"
    placed = (*noun("cup"), Attribute("color", "brown"), Attribute("place", "left"))
    assert phrase(placed) == "the brown cup on the left"
    inside = (
        *noun("spot"),
        Attribute("whole", "plate", among=noun("plate")),
        Attribute("place", "left", among=noun("plate")),
    )
    assert phrase(inside) == "the spot on the left side of the plate"
