"""Pickle files read without the `pickle` module: only plain data can come out.

The package unpickles nothing: a pickle is a program, and Python's own loader runs it. RefCOCOg,
however, is published as `refs(umd).p`, a pickle of lists and dictionaries. So this module reads
the pickle *format* by an interpreter of its own, which is plain by construction:

- it never imports `pickle`, imports nothing by name and calls nothing that the file names: the
  opcodes that would (GLOBAL, REDUCE, BUILD, INST, OBJ, NEWOBJ, persistent ids, extensions,
  buffers) are not in its table, and a file that has one is refused with the name it asked for;
- what it builds are None, bool, int, float, str, list, tuple and dict, and nothing else;
- sizes, depth and counts are bounded, and a container is closed when it is put into another, so
  that nothing can hold itself or grow exponentially when it is walked through.

A restricted `pickle.Unpickler` would fall short: it allocates whatever index a memo opcode names
(gigabytes for five bytes), takes cached extensions without asking, and looks attributes up for
BUILD. `pickletools.genops` fails on Python 2's protocol 0 strings beyond ASCII. Those strings are
read as UTF-8, else as Latin-1.
"""

from __future__ import annotations

import codecs
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ureca_lib.datasets.plain_stack import MARK, PickleRefusedError, PlainStack
from ureca_lib.regions.errors import FileMissingError

MAX_BYTES = 2**27  # a file of RefCOCOg's 49,822 references has 15 to 25 million
MAX_DEPTH = 16  # refs of sentences of tokens have four
MAX_VALUES = 20_000_000  # of which RefCOCOg's references have some three million

# opcodes that name code, run it, or make something that is not plain, by what they are called
_REFUSED = {
    b"c": "GLOBAL", b"\x93": "STACK_GLOBAL", b"R": "REDUCE", b"b": "BUILD", b"i": "INST",
    b"o": "OBJ", b"\x81": "NEWOBJ", b"\x92": "NEWOBJ_EX", b"P": "PERSID", b"Q": "BINPERSID",
    b"\x82": "EXT1", b"\x83": "EXT2", b"\x84": "EXT4", b"B": "BINBYTES", b"C": "SHORT_BINBYTES",
    b"\x8e": "BINBYTES8", b"\x96": "BYTEARRAY8", b"\x97": "NEXT_BUFFER",
    b"\x98": "READONLY_BUFFER", b"\x8f": "EMPTY_SET", b"\x90": "ADDITEMS", b"\x91": "FROZENSET",
    b"0": "POP", b"1": "POP_MARK", b"2": "DUP", b"\x8b": "LONG4",
}  # fmt: skip


def read_plain_pickle(
    path: str | Path,
    max_bytes: int = MAX_BYTES,
    max_depth: int = MAX_DEPTH,
    max_values: int = MAX_VALUES,
) -> Any:
    """What a pickle file of plain data holds.

    Args:
        path: the file, of any protocol from 0 to 5.
        max_bytes: the largest file read.
        max_depth: how deep lists, tuples and dictionaries may lie in one another.
        max_values: how many values there may be, counted as often as they are met in a walk; also
            how many steps the pickle may take.

    Raises:
        FileMissingError: there is no such file.
        PickleRefusedError: naming the file, the byte, and what is wrong there.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise PickleRefusedError(f"the file has {size:,} bytes, {max_bytes:,} are read", path)
        data = path.read_bytes()
    except FileNotFoundError:
        raise FileMissingError("the file does not exist", path) from None
    except OSError as error:
        raise PickleRefusedError(f"the file cannot be read ({error})", path) from None
    try:
        return parse_plain_pickle(data, max_depth, max_values)
    except PickleRefusedError as error:
        raise error.located(path) from None


def parse_plain_pickle(
    data: bytes, max_depth: int = MAX_DEPTH, max_values: int = MAX_VALUES
) -> Any:
    """`read_plain_pickle` of bytes."""
    return _Reader(data, max_depth, max_values).run()


class _Reader(PlainStack):
    """The stack machine of the pickle format, with the opcodes of plain data alone."""

    def __init__(self, data: bytes, max_depth: int, max_values: int):
        super().__init__(max_depth, max_values)
        self.data, self.place = data, 0

    def run(self) -> Any:
        """What the pickle holds."""
        for _ in range(self.max_values):
            self.at = self.place
            code = self.take(1)
            if code == b".":
                return self.result()
            step = _STEPS.get(code)
            if step is None:
                raise self.unknown(code)
            try:
                step(self)
            except PickleRefusedError:
                raise
            except (ValueError, OverflowError, struct.error) as error:
                raise self.wrong(f"a value cannot be read ({error})") from None
        raise self.wrong(f"the pickle takes more than {self.max_values:,} steps")

    def unknown(self, code: bytes) -> PickleRefusedError:
        if code not in _REFUSED:
            return self.wrong(f"{code!r} is no pickle opcode; the file is damaged or no pickle")
        asked = ""
        if code in b"ci":
            names = [self.line(), self.line()]
            asked = f" of {'.'.join(name.decode('latin-1') for name in names)[:80]!r}"
        elif code == b"\x93":
            names = [name for name in self.stack[-2:] if isinstance(name, str)]
            asked = f" of {'.'.join(names)[:80]!r}"
        return self.wrong(
            f"the pickle asks for {_REFUSED[code]}{asked}; only plain data are read (numbers, "
            "texts, lists, tuples, dictionaries), and nothing of it was run"
        )

    def result(self) -> Any:
        if len(self.stack) != 1 or self.stack[0] is MARK:
            raise self.wrong(f"the end leaves {len(self.stack)} values, not one")
        return self.stack[0]

    # bytes

    def take(self, count: int) -> bytes:
        found = self.data[self.place : self.place + count]
        if len(found) < count:
            raise PickleRefusedError(f"byte {self.place}: the pickle is truncated")
        self.place += count
        return found

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.place)
        if end < 0:
            raise PickleRefusedError(f"byte {self.place}: the pickle is truncated")
        found, self.place = self.data[self.place : end], end + 1
        return found

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]


def _text(raw: bytes) -> str:
    """A Python 2 string: UTF-8, else Latin-1."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _quoted(raw: bytes) -> str:
    if len(raw) < 2 or raw[:1] != raw[-1:] or raw[:1] not in b"'\"":
        raise ValueError("a text is not in quotes")
    return _text(codecs.escape_decode(raw[1:-1])[0])


def _decimal(raw: bytes) -> int | bool:
    if raw in (b"00", b"01"):  # protocol 1 and before had no other bool
        return raw == b"01"
    if not re.fullmatch(rb"-?\d{1,20}L?", raw):
        raise ValueError(f"{raw[:30]!r} is no number that data would have")
    return int(raw.rstrip(b"L"))


def _small_long(reader: _Reader) -> int:
    size = reader.number("<B")
    if size > 16:
        raise ValueError("a number of more than 16 bytes")
    return int.from_bytes(reader.take(size), "little", signed=True)


def _push(read: Callable[[_Reader], Any]) -> Callable[[_Reader], None]:
    return lambda reader: reader.stack.append(read(reader))


def _unicode(form: str) -> Callable[[_Reader], None]:
    # lone surrogates are what Python itself would give
    return _push(lambda r: r.take(r.number(form)).decode("utf-8", "surrogatepass"))


def _list(reader: _Reader) -> None:
    items = reader.since_mark()
    reader.open([])
    reader.extend(reader.stack[-1], items)


def _dict(reader: _Reader) -> None:
    items = reader.since_mark()
    reader.open({})
    reader.put(reader.stack[-1], items)


def _append(reader: _Reader) -> None:
    item = reader.pop()
    reader.extend(reader.top(list), [item])


def _appends(reader: _Reader) -> None:
    items = reader.since_mark()
    reader.extend(reader.top(list), items)


def _set_item(reader: _Reader) -> None:
    value, key = reader.pop(), reader.pop()
    reader.put(reader.top(dict), [key, value])


def _set_items(reader: _Reader) -> None:
    items = reader.since_mark()
    reader.put(reader.top(dict), items)


def _some(count: int) -> Callable[[_Reader], None]:
    return lambda reader: reader.tuple([reader.pop() for _ in range(count)][::-1])


def _protocol(reader: _Reader) -> None:
    if (version := reader.number("<B")) > 5:
        raise reader.wrong(f"pickle protocol {version}; 0 to 5 are read")


_STEPS: dict[bytes, Callable[[_Reader], Any]] = {
    b"\x80": _protocol,
    b"\x95": lambda r: r.number("<Q"),  # a frame's length, which nothing here needs
    b"(": lambda r: r.stack.append(MARK),
    b"N": _push(lambda r: None),
    b"\x88": _push(lambda r: True),
    b"\x89": _push(lambda r: False),
    b"I": _push(lambda r: _decimal(r.line())),
    b"L": _push(lambda r: _decimal(r.line())),
    b"J": _push(lambda r: r.number("<i")),
    b"K": _push(lambda r: r.number("<B")),
    b"M": _push(lambda r: r.number("<H")),
    b"\x8a": _push(_small_long),
    b"F": _push(lambda r: float(r.line())),
    b"G": _push(lambda r: r.number(">d")),
    b"S": _push(lambda r: _quoted(r.line().rstrip(b"\r"))),
    b"T": _push(lambda r: _text(r.take(r.number("<I")))),
    b"U": _push(lambda r: _text(r.take(r.number("<B")))),
    b"V": _push(lambda r: r.line().decode("raw-unicode-escape")),
    b"X": _unicode("<I"),
    b"\x8c": _unicode("<B"),
    b"\x8d": _unicode("<Q"),
    b"]": lambda r: r.open([]),
    b"l": _list,
    b"a": _append,
    b"e": _appends,
    b"}": lambda r: r.open({}),
    b"d": _dict,
    b"s": _set_item,
    b"u": _set_items,
    b")": lambda r: r.tuple([]),
    b"t": lambda r: r.tuple(r.since_mark()),
    b"\x85": _some(1),
    b"\x86": _some(2),
    b"\x87": _some(3),
    b"p": lambda r: r.note(_decimal(r.line())),
    b"q": lambda r: r.note(r.number("<B")),
    b"r": lambda r: r.note(r.number("<I")),
    b"\x94": lambda r: r.note(len(r.memo)),
    b"g": lambda r: r.recall(_decimal(r.line())),
    b"h": lambda r: r.recall(r.number("<B")),
    b"j": lambda r: r.recall(r.number("<I")),
}
