"""Rules for the replies of models: the output formats of Tables 7, 8 and 9.

A reply is cleaned of harmless dressing (quotes around it, bold, "Caption:", "Certainly!"), then
checked. The model is told its remaining faults and asked again a few times. Replies are never
obeyed: an instruction or a tag in them is text like any other.

Most rules are about form, and hold in any language; those about words know English, and the most
common words of a few other languages.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from ureca_lib.annotate.protocol import STAGES, Reply, Stage
from ureca_lib.chat import ChatReply, NoAnswerError, Turn

MAX_CHARACTERS = {"short": 320, "long": 1600, "unique": 1600, "verify": 320}
_LONGEST = 20_000  # characters of a reply that are looked at
_EXCERPT = 160  # characters of a bad reply that an error shows
_QUOTES = ('""', "''", "“”", "‘’", "„“", "«»", "「」", "『』", "``")
_INVISIBLE = dict.fromkeys(map(ord, "\ufeff\u200b\u2060\u00ad\u200e\u200f"))

_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which no file can hold
_THOUGHT_END = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_END_OF_TURN = re.compile(
    r"(?:(?:<\|(?:im_end|end|eot_id|eom_id|endoftext|end_of_text)\|>|</s>|<end_of_turn>|<eos>)\s*)+$"
)
_MARKED = (
    re.compile(r".*<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE),
    re.compile(r".*<\|begin_of_box\|>(.*?)<\|end_of_box\|>", re.DOTALL),
    re.compile(r".*\\boxed\{(?:\\text\{)?((?:[^{}]|\{[^{}]*\})*?)\}", re.DOTALL),
)
_LISTED = re.compile(r"^(?:[-*•‣–]\s|\d{1,2}[.)]\s|#{1,6}\s|\||```)")
_BULLET = re.compile(r"^(?:[-*•‣–]|\d{1,2}[.)]|#{1,6})\s+(?=\S)")
_SURE = re.compile(
    r"^(?:certainly|sure(?: thing)?|of course|absolutely|okay|ok)\s*[!.,:]\s*", re.IGNORECASE
)
_CAPTION = r"(?:caption|description|phrase|answer|output)"
_HERE = re.compile(
    rf"^here(?: is|['’]s) (?:the|a|an|your|my)\b[^:\n]{{0,60}}\b{_CAPTION}\b[^:\n]{{0,80}}[:：]\s*",
    re.IGNORECASE,
)
_LABEL = re.compile(
    rf"^(?:the )?(?:(?:refined|revised|unique|short|detailed|final|new)\s+)*{_CAPTION}"
    r"(?: (?:for|of) [^:\n]{0,40})?\s*[:：]\s*",
    re.IGNORECASE,
)
_VERDICT = re.compile(r"(keep)\W*|(drop)\s*(?:[:：,;.–—-]+\s*(.*))?", re.IGNORECASE | re.DOTALL)

_ABBREVIATION = re.compile(
    r"\b(?:[A-Za-z]|St|Mrs?|Ms|Dr|Mt|Nos?|Jr|Sr|Ave|Inc|Ltd|Co|vs|etc|approx|ca|cf|e\.g|i\.e)$"
)
_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|‘[^’]*’|«[^»]*»|「[^」]*」|(?<!\w)'[^']*'(?!\w)")
_STOP = re.compile(r"[.!?]+[\"'”’)\]]*\s+(?=[^\W\d_])|[。！？](?=\s*\S)")
_BAD_CATEGORIES = ("Cc", "Cs", "Co", "Cn")
_BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


_DRAWN = r"(?:outlined|highlighted|marked|circled) (?:in|with|by) (?:a |the )?"
# fault -> pattern; case does not count, but for the "I" of a writer: "i" is an ordinary letter
_FAULTS = {
    "holds a tag or a special token": r"</?[A-Z!][^<>]*>?|<\||\|>|\[/?INST",
    "holds markdown": r"\*\*|__|```|^#{1,6}\s|\]\(|^\|",
    "is JSON or code instead of words": r"^\s*[\[{]",
    "is a refusal or speaks of its writer": r"^sorry[,.]|^unfortunately,? i\b|\bas an ai\b"
    r"|\bai (?:language )?(?:model|assistant)\b|^lo siento|^(?:je suis )?désolé"
    r"|^(?:es )?tut mir leid|^mi dispiace|^很?抱歉|^对不起|^對不起|^申し訳|^すみません"
    r"|(?:^|[.!?,;:]\s+|\b(?:and|but|so|that)\s)(?-i:I)(?:['’](?:m|ve|d|ll)\b|\s(?:am|can|cannot"
    r"|can['’]t|couldn?['’]?t?|do|don['’]t|have|hope|will|would|see|think|apologize)\b)",
    "addresses the reader": r"\blet me know\b|\bhope this helps\b",
    "starts with words about the answer": r"^(?:certainly|of course|absolutely)\b"
    rf"|^here(?: is|['’]s) [^.]*\b{_CAPTION}\b",
    "says nothing": r"^(?:none|null|nil|n/?a|nothing|unknown|undefined)\W*$",
    "mentions a contour": r"\bcontours?\b|\bcontoured in\b|\bbounding box|\bcontornos?\b|\bkontur"
    r"|контур|轮廓|輪廓|輪郭",
    "mentions the color of the contour, yellow": rf"\byellow outline|\b{_DRAWN}yellow\b",
    "mentions the color of the contour, blue": rf"\bblue outline|\b{_DRAWN}blue\b",
    "mentions an index": r"\bind(?:ex|ices|exes|ice)\s*(?:#|no\.?|number)?\s*\d|\bindices\b"
    r"|\bindexed\b|\b(?:other|this) index\b(?! (?:finger|card|tab|page))",
    'calls it the "main object"': r"\bmain object\b|主要(?:对象|物体)",
    "speaks of the image it was shown": r"^(?:in )?(?:the|this) (?:given |provided |cropped )?"
    r"(?:image|picture|photo(?:graph)?)"
    r"(?:,| (?:shows|depicts|features|displays|contains|captures|presents)\b)"
    r"|\bimage[- ]?[12]\b|^l['’]image |^das bild |^la imagen |^这张|^這張|^图中|^图片",
    "mentions the blurred background": r"\bblur(?:red|ry)? background\b",
    'says "distinguished by" or the like': r"\bdistinguish(?:ed|es|ing|able)\b"
    r"|\bdifferentiat(?:ed|es|ing)\b|\bset(?:s|ting)? (?:it|this \w+|itself) apart\b",
}
_CAPTIONS = ("short", "long", "unique")
# the stages whose table has a rule, if they are not the three that write captions
_STAGES = dict.fromkeys([*_FAULTS][:3], STAGES) | {
    "mentions the color of the contour, yellow": ("short", "long"),  # Sec. 3
    "mentions the color of the contour, blue": ("unique",),  # Table 9
    "mentions the blurred background": ("short",),
    'says "distinguished by" or the like': ("unique",),
}
_RULES = [
    (_STAGES.get(fault, _CAPTIONS), fault, re.compile(pattern, re.IGNORECASE))
    for fault, pattern in _FAULTS.items()
]


async def answer_checked(
    stage: Stage,
    ask: Callable[[Sequence[Turn]], Awaitable[ChatReply]],
    prompt: str = "",
    max_corrections: int = 2,
) -> Reply:
    """Ask, check, and ask again with the fault named until the reply is good.

    Args:
        stage: whose rules hold.
        ask: asks the question and, after it, the given turns: none at first, then the last bad
            reply and its faults.
        prompt: the question; a caption in another script is refused.
        max_corrections: most times that a bad reply is sent back.

    Returns:
        The cleaned reply. If none was good, a failed reply: its text is the last one cleaned, its
        error names the faults and quotes the beginning. Tokens and attempts are those of all turns.
    """
    turns: tuple[Turn, ...] = ()
    reply = Reply("", "failed", attempts=0)
    for _ in range(max_corrections + 1):
        try:
            raw = await ask(turns)
        except NoAnswerError as none:
            error = f"{none}; before that, {reply.error}" if reply.error else str(none)
            return replace(reply, error=error, attempts=reply.attempts + none.attempts)
        text = clean_reply(stage, raw.text)
        tokens = (reply.prompt_tokens + raw.prompt_tokens, reply.reply_tokens + raw.reply_tokens)
        spent = (*tokens, reply.attempts + raw.attempts)
        found = ([raw.problem] if raw.problem else []) + faults(stage, text, prompt)
        if not found:
            return Reply(text, "done", None, *spent)
        shown = text[: MAX_CHARACTERS[stage]]
        error = f"the reply {'; '.join(found)}: {shown[:_EXCERPT]!r}"
        reply = Reply(text, "failed", error, *spent)
        # only the last one: a long talk would outgrow the context, and repeat old faults
        said = shown.replace("<", "&lt;").replace(">", "&gt;") or "..."  # no tag ends a turn
        turns = (Turn("assistant", said), Turn("user", correction(stage, found)))
    return reply


def correction(stage: Stage, found: Sequence[str]) -> str:
    """The turn that sends a bad reply back."""
    form = {
        "short": "the caption alone, as one phrase or sentence",
        "verify": "one line: keep, or drop, a colon and the reason",
    }
    what = form.get(stage, "the caption alone, as one paragraph")
    return f"This answer is not acceptable: it {'; it '.join(found)}. Answer again with {what}."


def final_answer(text: str) -> str:
    """A reply without what models of today write around it.

    Removed are thoughts (up to `</think>`, with or without the opening tag), end-of-turn tokens,
    and everything outside `<answer>...</answer>` or `\\boxed{...}`, if there is one.
    """
    text = _END_OF_TURN.sub("", _THOUGHT_END.split(text)[-1][:_LONGEST])
    for marked in _MARKED:
        if found := marked.match(text):
            text = found.group(1)
    return text


def clean_reply(stage: Stage, text: str) -> str:
    """A reply without what does no harm; cleaning it again changes nothing.

    Removed are thoughts and marks around an answer (`final_answer`), quotes and bold around the
    whole, leading labels and courtesies, invisible characters, superfluous white space, and one
    lonely bullet. Paragraphs stay apart, by an empty line, and lists keep their lines, for
    `faults` to find. A verdict is written "keep" or "drop: reason".
    """
    text = _SURROGATE.sub("\ufffd", final_answer(text)).translate(_INVISIBLE)
    before = None
    while text != before:
        before = text
        text = unicodedata.normalize("NFC", _clean_once(final_answer(text)))
    if stage == "verify":
        verdict = _VERDICT.fullmatch(text)
        if verdict and verdict.group(1):
            return "keep"
        if verdict and verdict.group(3):
            return f"drop: {verdict.group(3)}"
    return text


def faults(stage: Stage, text: str, prompt: str = "") -> list[str]:
    """Faults of a cleaned reply, each to be read after "it"; empty if the reply is good.

    Args:
        stage: whose rules hold.
        text: the cleaned reply.
        prompt: the question, whose script a caption must have.
    """
    if not any(character.isalnum() for character in text):
        return ["is empty"]
    found = _faults_of_form(stage, text)
    scripts = [_script(_QUOTED.sub("", words)) for words in (text, prompt)]
    if stage in _CAPTIONS and all(scripts) and scripts[0] != scripts[1]:
        found.append("is written in {}, not in {}, the script of the question".format(*scripts))
    return found + [f for stages, f, rule in _RULES if stage in stages and rule.search(text)]


def count_sentences(text: str) -> int:
    """Sentences of a paragraph; what stands in quotes, such as a sign's words, is not counted."""
    plain = _QUOTED.sub("x", text)
    stops = [
        m
        for m in _STOP.finditer(plain)
        if not _ABBREVIATION.search(plain[max(0, m.start() - 9) : m.start()])
    ]
    return 1 + len(stops)


def _script(text: str) -> str | None:
    """The script of most letters, such as "Latin", "Cyrillic" or "CJK"; None without letters."""
    names = [unicodedata.name(letter, "?").split()[0] for letter in text if letter.isalpha()]
    # Japanese mixes three scripts
    names = ["CJK" if name in ("HIRAGANA", "KATAKANA") else name for name in names]
    script = max(names, key=Counter(names).get, default=None)
    return script if script in (None, "CJK") else script.capitalize()


def _faults_of_form(stage: Stage, text: str) -> list[str]:
    found = []
    limit = MAX_CHARACTERS[stage]
    if len(text) > limit:
        found.append(f"has {len(text)} characters, more than {limit}")
    lines = [line for line in text.split("\n") if line]
    if any(_LISTED.match(line) for line in lines):
        found.append("holds a list")
    elif len(lines) > 1:
        found.append("has several paragraphs" if stage != "verify" else "has several lines")
    if stage == "short" and len(lines) == 1 and count_sentences(text) > 1:
        found.append("has several sentences")
    if _is_wrapped(text):
        found.append("stands in quotes")
    if any(map(_is_garbage, text)):
        found.append("holds control characters or garbled text")
    if stage == "verify" and text != "keep" and not re.fullmatch(r"drop: .*\w.*", text, re.DOTALL):
        found.append("is neither keep nor drop with a reason")
    return found


def _is_garbage(character: str) -> bool:
    bad = unicodedata.category(character) in _BAD_CATEGORIES and character != "\n"
    return bad or character == "\ufffd" or character in _BIDI


def _clean_once(text: str) -> str:
    text = _unwrap(_join_lines(text))
    for pattern in (_SURE, _HERE, _LABEL):
        rest = pattern.sub("", text, count=1).strip()
        text = rest or text
    return text if "\n" in text else _BULLET.sub("", text)


def _join_lines(text: str) -> str:
    """Wrapped lines are joined; empty lines, and lines of a list, stay apart."""
    paragraphs = []
    for block in re.split(r"\r?\n\s*\n", text.strip()):
        lines: list[str] = []
        for line in re.split(r"[\r\n\u2028\u2029]+", block):
            line = re.sub(r"[^\S\n]+", " ", line).strip()
            if lines and line and not _LISTED.match(line) and not _LISTED.match(lines[-1]):
                lines[-1] = f"{lines[-1]} {line}".strip()
            elif line:
                lines.append(line)
        if lines:
            paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs)


def _unwrap(text: str) -> str:
    """Without quotes or bold around the whole; bold and emphasis of words is dropped too."""
    text = re.sub(r"(\*\*|__)(?=\S)([^*_\n]+?)(?<=\S)\1", r"\2", text)
    text = re.sub(r"(?<![\w*])\*(?=[^\s*])([^*\n]+?)(?<=[^\s*])\*(?![\w*])", r"\1", text)
    if text.endswith((".", "。")) and _is_wrapped(text[:-1]):
        text = text[:-1]
    return text[1:-1].strip() if _is_wrapped(text) else text


def _is_wrapped(text: str) -> bool:
    if len(text) < 3:
        return False
    first, last = text[0], text[-1]
    inside = re.sub(r"(?<=\w)['’](?=\w)", "", text[1:-1])  # no apostrophes
    return f"{first}{last}" in _QUOTES and first not in inside and last not in inside
