"""The PTB-like tokenizer against what Stanford's gives in pycocoevalcap 1.2."""

from __future__ import annotations

import pytest

from ureca_lib.evaluate.tokenizers import TOKENIZERS, ptb

STANFORD = {  # recorded from pycocoevalcap's PTBTokenizer in Java
    "A man riding a wave on top of a surfboard.": "a man riding a wave on top of a surfboard",
    "The dog's collar is red, isn't it?": "the dog 's collar is red is n't it",
    "A man. The dog sits on the mat. It can't move!": (
        "a man the dog sits on the mat it ca n't move"
    ),
    'A black-and-white cat (small) next to the T.V. set; it\'s "old".': (
        "a black-and-white cat -lrb- small -rrb- next to the t.v. set it 's old"
    ),
    "“Curly quotes” and ‘single’ – dash — long": "curly quotes and single dash long",
    "The shirt reads 'Yankees' in white.": "the shirt reads yankees in white",
    "Wait... what?! Really!!": "wait what ?! really !!",
    "end with abbreviation etc.": "end with abbreviation etc.",
    "a 3D-printed object's part, with 1,000 pieces.": (
        "a 3d-printed object 's part with 1,000 pieces"
    ),
    "Dr. Pepper can on No. 3 shelf vs. the other": "dr. pepper can on no. 3 shelf vs. the other",
    "Mr. Smith's U.S. flag. Another one.": "mr. smith 's u.s. flag another one",
    "the dogs' bowls and the boys' hats": "the dogs bowls and the boys hats",
    "the left/right wheel & the 3rd car": "the left/right wheel & the 3rd car",
    "the man’s hat and the woman’s don’t match": "the man 's hat and the woman 's do n't match",
    ".": "",
    "": "",
}


@pytest.mark.parametrize("text", STANFORD)
def test_ordinary_captions_are_cut_as_stanfords_tokenizer_cuts_them(text):
    assert ptb(text) == STANFORD[text]


@pytest.mark.parametrize(
    "text", ["一只狗。", "'''", "((((", "a" * 5000, "\x00\t", "..." * 99, "?! " * 50]
)
def test_odd_texts_never_fail_and_give_tokens_between_single_blanks(text):
    found = ptb(text)
    assert found == " ".join(found.split()) and found == found.lower()


def test_whitespace_leaves_the_text_alone():
    assert TOKENIZERS["whitespace"](" A  b.\n") == " A  b.\n"
