"""A WordNet of two senses in WordNet's own file format."""

from __future__ import annotations

from pathlib import Path

HEAD = "  1 This software and database is being provided: WordNet 3.0 Copyright 2006\n"
LEXNAMES = 45


def write_wordnet(folder: Path, lexnames: bool = True) -> Path:
    """Write a folder in which cup and mug share a sense, and child has the odd plural children."""
    folder.mkdir(parents=True, exist_ok=True)
    senses = {"noun": (["cup", "mug"], ["child", "kid", "small_fry"])}
    for part in ("noun", "verb", "adj", "adv"):
        data, index = HEAD, HEAD
        lines: dict[str, list[int]] = {}
        for words in senses.get(part, ()):
            offset = len(data.encode())
            listed = " ".join(f"{word} 0" for word in words)
            data += f"{offset:08d} 06 n {len(words):02x} {listed} 000 | a thing  \n"
            for word in words:
                lines.setdefault(word, []).append(offset)
        for word, offsets in sorted(lines.items()):
            places = " ".join(f"{offset:08d}" for offset in offsets)
            index += f"{word} n {len(offsets)} 0 {len(offsets)} 0 {places}  \n"
        (folder / f"data.{part}").write_text(data)
        (folder / f"index.{part}").write_text(index)
        (folder / f"{part}.exc").write_text("children child\n" if part == "noun" else "")
    if lexnames:
        names = [f"{number:02d}\tnoun.n{number}\t1\n" for number in range(LEXNAMES)]
        (folder / "lexnames").write_text("".join(names))
    return folder
