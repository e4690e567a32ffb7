"""The tests of a programming problem as LiveCodeBench ships them, and whether a program's output passes one.

Public tests are JSON. Private ones are JSON, or JSON as a pickled string, compressed, in base64. Unpickling
is code execution, so nothing is unpickled: the string is read off the pickle's opcodes, and there may be no others. The
decompressed size is bounded.

Reads and writes nothing. `decoded(public, private)` gives the tests; `same_output` and `same_value` compare.
"""

import base64
import binascii
import json
import pickletools
import zlib
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

# The largest private tests of a problem that are known take some tens of megabytes.
DECODED_LIMIT = 256 << 20

# All that a pickle of a string is made of, whatever the protocol.
_TEXT = ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
_AROUND_TEXT = ("PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "STOP")

# What a file's tests may be, and all of them.
_IN_FILES = ("stdin", "functional")
Kind = Literal["stdin", "functional", "checks"]


@dataclass(frozen=True, slots=True)
class Case:
    """One test. Functional: `input` holds the arguments, a JSON value a line, `output` the JSON value expected. Checks:
    the program checks itself, and `output` is what it prints last when it has come to its end."""

    kind: Kind
    input: str
    output: str


def decoded(public: str, private: str, limit: int = DECODED_LIMIT) -> tuple[Case, ...]:
    """Public tests, then private ones.

    Args:
        public: The column public_test_cases.
        private: The column private_test_cases; "" where there are none.
        limit: Most bytes that private tests may decompress to.

    Raises:
        ValueError: a column holds something else, or decompresses to more than `limit`.
    """
    return (*_cases(public), *(_cases(_plain(private, limit)) if private.strip() else ()))


def same_output(found: str, expected: str) -> bool:
    """Whether a printed output passes: line by line without the white space around, numbers as decimals.

    As LiveCodeBench compares: blank lines at both ends do not count, `1.0` equals `1`, a line of numbers equals
    another number by number.
    """
    mine, theirs = ([line.strip() for line in text.strip().split("\n")] for text in (found, expected))
    return len(mine) == len(theirs) and all(map(_same_line, mine, theirs))


def ends_with(found: str, expected: str) -> bool:
    """Whether an output's last line is the expected one."""
    return found.rstrip().rpartition("\n")[2] == expected


def same_value(found: str, expected: str) -> bool:
    """Whether two JSON values are equal. A value that is no JSON equals none.

    Raises:
        ValueError: the expected one is no JSON.
    """
    wanted = json.loads(expected)
    try:
        return bool(json.loads(found) == wanted)
    except (ValueError, RecursionError):
        return False


def _same_line(mine: str, theirs: str) -> bool:
    if mine == theirs:
        return True
    try:
        return [Decimal(word) for word in mine.split()] == [Decimal(word) for word in theirs.split()]
    except InvalidOperation:  # words, or a signalling NaN
        return False


def _cases(text: str) -> tuple[Case, ...]:
    entries = json.loads(text)
    if not isinstance(entries, list):
        raise ValueError(f"tests are a list, this is {type(entries).__name__}")
    return tuple(map(_case, entries))


def _case(entry: Any) -> Case:
    if not isinstance(entry, dict) or not {"input", "output", "testtype"} <= entry.keys():
        raise ValueError("a test has input, output and testtype")
    if entry["testtype"] not in _IN_FILES:
        raise ValueError(f"a test is of type {' or '.join(_IN_FILES)}, not {entry['testtype']!r}")
    if not isinstance(entry["input"], str) or not isinstance(entry["output"], str):
        raise ValueError("input and output of a test are texts")
    return Case(entry["testtype"], entry["input"], entry["output"])


def _plain(text: str, limit: int) -> str:
    if text.lstrip().startswith("["):
        return text
    try:
        packed = base64.b64decode(text, validate=True)
        inflater = zlib.decompressobj()
        content = inflater.decompress(packed, limit)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"private tests are neither JSON nor compressed base64 ({error})") from error
    if inflater.unconsumed_tail or not inflater.eof:
        raise ValueError(f"private tests are cut short, or decompress to more than {limit} bytes")
    return _only_text(content)


def _only_text(content: bytes) -> str:
    """The one string that a pickle holds, read off its opcodes: nothing is unpickled."""
    texts: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name in _TEXT:
                texts.append(str(argument))
            elif opcode.name not in _AROUND_TEXT:
                raise ValueError(f"private tests are a pickled text, this pickle has {opcode.name}")
    except UnicodeDecodeError as error:
        raise ValueError("private tests are a pickled text that is no UTF-8") from error
    if len(texts) != 1:
        raise ValueError(f"private tests are one pickled text, this pickle has {len(texts)}")
    return texts[0]
