"""The caption language: written, read back, and true of one region only."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ureca_lib.scenes import (
    STYLES,
    Description,
    Facts,
    GrammarError,
    Phrase,
    Scene,
    generate_scene,
    parse,
    resolve,
    vocabulary,
)
from ureca_lib.scenes.measure import split
from ureca_lib.scenes.phrases import fits, words
from ureca_lib.scenes.writing import shortened, unique_phrase, write_captions


@pytest.fixture(scope="module")
def street() -> Description:
    """Two red cars, a blue one in a pair with a red one, a house; by hand."""
    car = Facts(1, "car", None, "red", "striped", True, (), "left", "front")
    return Description(
        [
            car,
            Facts(2, "wheel", 1, "black", side=("left",)),
            Facts(3, "hub", 2, "grey"),
            Facts(4, "wheel", 1, "black", side=("right",)),
            Facts(5, "hub", 4, "grey"),
            Facts(6, "car", None, "red", "plain", True, (), "right", "back"),
            Facts(7, "wheel", 6, "black", side=("left",)),
            Facts(8, "pair", None, None, place="middle", row="back", member="car"),
            Facts(9, "car", 8, "blue", "plain", True, ("left",)),
            Facts(10, "car", 8, "red", "plain", True, ("right",)),
            Facts(11, "house", None, "brick", "plain", True, (), "right", "front"),
            Facts(12, "window", 11, "white", side=("top", "left")),
            Facts(13, "window", 11, "white", side=("bottom", "right")),
        ]
    )


def test_what_captions_are_true_of(street: Description) -> None:
    cases = {
        "the red car": {1, 6, 10},
        "the red car on the left": {1},
        "the striped car": {1},
        "the plain red car": {6, 10},
        "a car at the back": {6, 9, 10},
        "the car in the middle": {9, 10},
        "the wheel": {2, 4, 7},
        "the wheel on the left": {2, 4},
        "the left wheel of the red car": {2, 7},
        "the hub of the striped car": {3, 5},
        "the hub of the left wheel of the striped red car on the left": {3},
        "the pair of cars": {8},
        "the pair of houses": set(),
        "the left car of the pair in the middle": {9},
        "the left window": {12},
        "the top left white window of the brick house": {12},
        "the green car": set(),
        "the wheel of the house": set(),
        "the car in front with two black wheels": {1},
        "the car with three wheels": set(),
        "the car with two black wheels and a red wheel": set(),
        "the car with two wheels, two hubs and a grey hub": {1},
        "The red car stands on the left in front with two black wheels.": {1},
        "The right black wheel belongs to the red car on the left.": {4},
        "the car in the pair": {9, 10},
    }
    found = {caption: fits(parse(caption), street) for caption in cases}
    assert found == cases


@pytest.mark.parametrize(
    "caption",
    [
        "",
        ".",
        "the",
        "red",
        "a nice red car",
        "the red blue car",
        "the car car",
        "the car of",
        "the car on the left on the right",
        "the car stands",
        "the car floats on the left",
        "the car is in the background",
        "the car with wheels",
        "the car with two",
        "the car with two wheels and",
        "the left left wheel",
        "the cars",
        "the car belongs to",
        "the car, the house",
        "left",
        "the pair of",
    ],
)
def test_what_is_not_of_the_language_fits_nothing(caption: str, street: Description) -> None:
    with pytest.raises(GrammarError):
        parse(caption)


def test_resolve_gives_the_empty_set_for_what_is_not_of_the_language() -> None:
    scene = generate_scene(3)
    assert resolve("something or other", scene) == set()
    assert resolve("", scene) == set()


@pytest.mark.parametrize("style", STYLES)
def test_every_caption_of_every_style_fits_its_region_alone(
    scenes: list[Scene], style: str
) -> None:
    known = set(vocabulary())
    for scene in scenes:
        captions = scene.captions_in(style)
        assert list(captions) == [region.id for region in scene.regions]
        for region_id, caption in captions.items():
            assert resolve(caption, scene) == {region_id}, (scene.seed, caption)
            assert set(split(caption)) <= known


def test_nothing_can_be_left_out_of_a_minimal_caption(scenes: list[Scene]) -> None:
    """Brute force: no phrase with one of its attributes gone still fits one region."""
    for scene in scenes[:8]:
        for region_id, caption in scene.captions_in("minimal").items():
            phrase = parse(caption)
            for name, empty in (
                ("side", ()),
                ("pattern", None),
                ("surface", None),
                ("place", None),
                ("row", None),
                ("whole", None),
            ):
                if getattr(phrase, name):
                    found = fits(replace(phrase, **{name: empty}), scene.description)
                    assert {region_id} < found, (scene.seed, caption, name)


def test_styles_say_less_and_more(scenes: list[Scene]) -> None:
    for scene in scenes[:8]:
        short, phrase, long = (
            scene.captions_in(style) for style in ("minimal", "phrase", "sentence")
        )
        assert all(len(short[each]) <= len(phrase[each]) for each in phrase)
        assert sum(map(len, short.values())) < sum(map(len, phrase.values()))
        assert sum(map(len, phrase.values())) < sum(map(len, long.values()))


def test_written_captions_of_a_known_scene(street: Description) -> None:
    phrases, short, long = (write_captions(street, style) for style in STYLES)
    assert phrases[1] == "the striped red car on the left"
    assert phrases[3] == "the hub of the left wheel of the red car on the left"
    assert phrases[8] == "the pair of cars in the middle"
    assert phrases[9] == "the left blue car of the pair in the middle"
    assert phrases[12] == "the top left window of the brick house on the right"
    assert short[9] == "the blue car"
    assert short[11] == "the house"
    assert long[1] == "The striped red car stands on the left in front with two black wheels."
    assert long[9] == "The left blue car stands in the pair in the middle."
    assert long[2] == ("The left black wheel belongs to the red car on the left with a grey hub.")


def test_what_cannot_be_told_apart_is_an_error() -> None:
    twins = [Facts(number, "car", None, "red", "plain", True, (), "left") for number in (1, 2)]
    with pytest.raises(ValueError, match="region 1: 'the plain red car on the left'"):
        write_captions(Description(twins))


def test_pattern_and_row_are_added_where_they_are_needed() -> None:
    striped = Facts(1, "car", None, "red", "striped", True, (), "left", "front")
    plain = replace(striped, id=2, pattern="plain")
    behind = replace(striped, id=3, row="back")
    captions = write_captions(Description([striped, plain]))
    assert captions == {
        1: "the striped red car on the left",
        2: "the plain red car on the left in front",
    }
    assert write_captions(Description([striped, behind]))[3] == (
        "the striped red car on the left at the back"
    )


def test_an_unknown_style_is_an_error(scenes: list[Scene]) -> None:
    with pytest.raises(ValueError, match="'haiku'"):
        scenes[0].captions_in("haiku")


def test_a_description_has_its_parents_before_their_children() -> None:
    with pytest.raises(ValueError, match="region 1 has the parent 2"):
        Description([Facts(1, "wheel", 2, "black"), Facts(2, "car", None, "red")])
    with pytest.raises(ValueError, match="two regions have the id 1"):
        Description([Facts(1, "car", None, "red"), Facts(1, "car", None, "red")])


_nouns = st.sampled_from(["car", "house", "window", "wheel", "tree", "sky"])
_simple = st.builds(
    Phrase,
    _nouns,
    st.sampled_from([(), ("left",), ("right",), ("top", "left")]),
    st.sampled_from([None, "plain", "striped", "dotted"]),
    st.sampled_from([None, "red", "brick", "white"]),
    st.sampled_from([None, "left", "middle", "right"]),
    st.sampled_from([None, "front", "back"]),
)
_phrases = st.recursive(
    _simple,
    lambda inner: st.builds(
        lambda head, whole: replace(head, place=None, row=None, whole=whole), _simple, inner
    ),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None)
@given(_phrases)
def test_reading_undoes_writing(phrase: Phrase) -> None:
    assert parse(words(phrase)) == phrase
    assert parse(words(phrase).upper() + ".") == phrase


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(vocabulary()), max_size=12))
def test_any_sequence_of_known_words_is_read_or_refused(tokens: list[str]) -> None:
    try:
        phrase = parse(" ".join(tokens))
    except GrammarError:
        return
    assert phrase.kind in vocabulary()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_one_word_changed_is_judged_by_what_it_then_says(
    scenes: list[Scene], data: st.DataObject
) -> None:
    """A wrong color or place fits exactly the regions that brute force finds by their facts."""
    scene = data.draw(st.sampled_from(scenes[:6]))
    region_id = data.draw(st.sampled_from([facts.id for facts in scene.description.facts]))
    phrase = unique_phrase(scene.description, scene.description[region_id])
    surface = data.draw(st.sampled_from(["red", "blue", "green", "white", "black"]))
    changed = replace(phrase, surface=surface, whole=None, side=(), pattern=None, place=None)
    expected = {
        facts.id
        for facts in scene.description.facts
        if facts.kind == phrase.kind and facts.surface == surface
    }
    if phrase.member is None:
        assert resolve(words(changed), scene) == expected


def test_shortening_keeps_the_region(street: Description) -> None:
    phrase = unique_phrase(street, street[3])
    short = shortened(street, 3, phrase)
    assert fits(short, street) == {3}
    assert len(words(short)) < len(words(phrase))
