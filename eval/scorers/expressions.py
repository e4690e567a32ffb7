r"""Two mathematical expressions in LaTeX compared: math-verify, with what it gets wrong put right around it.

math-verify 0.9 takes 1/2^99 for 1/2^98 (its differences are cut off at 15 digits), drops `\mathrm{e}`, reads a thin
space between digits as a product, and takes the right-hand side of any equation for the answer. So text is made plain
before it is parsed, and an equality is checked again by value.

Reads and writes nothing. `eval/scorers/grading.py` calls `equal` in worker processes, since a comparison may not end.
"""

import re
import unicodedata
from collections.abc import Iterator
from itertools import product
from typing import Any

from eval.scorers.european import decimal_beside, english

# Of values at one point: two expressions that differ by more are not the same, whatever simplification says.
_APART = 1e-12
# Beside a decimal, which is rounded: 1/3 is 0.333333, and 2e-7 is not 1e-7.
_APART_ROUNDED = 1e-2
_DIGITS = 30

_ROMAN = re.compile(r"\\(?:mathrm|mathit|mathsf|mathbf|mathop|operatorname|text|textit|textrm)\s*\{\s*([ei])\s*\}")
_ROMAN_SWITCH = re.compile(r"\{\s*\\(?:rm|it)\s+([ei])\s*\}")
_IMAGINARY = re.compile(r"\\[ij]math\b")
# What separates digits in threes: thin and other spaces of TeX, braces around a comma, spaces of Unicode.
_SPACE = r"(?:\\[,;:! ]|\\(?:thinspace|enspace|quad)\b\s*|\{\s*[,']\s*\}|~|[\u00a0\u2007\u2008\u2009\u200a\u202f])+"
_THOUSANDS = re.compile(rf"(?<=[0-9]){_SPACE}(?=[0-9]{{3}}(?![0-9]))")
_SCIENTIFIC = re.compile(r"([+-]?[0-9]+(?:\.[0-9]+)?)[eE]([+-]?[0-9]+)")
# What keyboards and fonts have for TeX.
_SIGNS = str.maketrans({"\u221e": r"\infty ", "\u22c5": r"\cdot ", "\u00b7": r"\cdot ", "\u2205": r"\emptyset "})
_ROOT = re.compile(r"\u221a\s*(?:([0-9A-Za-z]+)|\(([^()]*)\)|(?=\{))")
_RAISED = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+")
_PART_OF_ONE = re.compile("([0-9]*)([\u00bc-\u00be\u2150-\u215e])")
_REPEATING = re.compile(r"([0-9]*)\.([0-9]*)\\(?:overline|bar|dot)\s*\{?([0-9]+)\}?")
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree\b|\u00b0")
_TRIGONOMETRY = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_UNDERLINED = re.compile(r"\\underline\s*\{([^{}]*)\}")
# What an answer says its value is of, where math-verify cannot read that: `\text{Area} =`, `P(A \mid B) =`.
_NAMED = re.compile(r"(?:\\(?:text|textbf|mathrm)\s*\{[^{}=]*\}|[A-Za-z]\s*\([^=()]*\\mid[^=()]*\))\s*=\s*")
_RELATION = re.compile(r"\\(?:leq?|geq?|neq?|lt|gt|not)(?![A-Za-z])|[<>\u2264\u2265\u2260]")
# 1 1/4, which is no product.
_MIXED = re.compile(r"([+-]?)([0-9]{1,9})\s+([0-9]{1,9})\s*/\s*([0-9]{1,9})")
_SPACED = re.compile(r"[+-]?[0-9]{1,3}(?:[ '][0-9]{3})+(?:\.[0-9]+)?")
# {x : condition}, {x | condition}, {x \in R | condition}
_BUILDER = re.compile(
    r"(?:\\left)?\\\{\s*[A-Za-z](?:\s*\\in\s*\\mathbb\s*\{?\s*[RQ]\s*\}?)?\s*(?::|\\mid|\\vert|\||\\colon)\s*(.+?)"
    r"\s*(?:\\right)?\\\}"
)
_OR = re.compile(r"\\(?:text|mathrm|textrm)\s*\{\s*(?:or|OR)\s*\}|\\lor\b|\\vee\b|(?<![A-Za-z])or(?![A-Za-z])")


class Unreadable(Exception):
    """The gold answer cannot be read, or a comparison failed and none succeeded; with the reason."""


def equal(gold: str, answer: str) -> bool:
    """Whether an answer means what the gold answer does, both LaTeX without dollars. An unreadable answer does not.

    Raises:
        Unreadable: the gold cannot be read, or a comparison failed and no other succeeded.
    """
    wanted, given = plain(gold), plain(answer)
    wanted, given = decimal_beside(wanted, given), decimal_beside(given, wanted)
    if wanted and wanted == given:
        return True
    expected = _parsed(wanted)
    if not expected:
        raise Unreadable(f"the gold answer {gold[:40]!r} cannot be read")
    if _of_another_kind(wanted, given):
        return False
    found = [*_parsed(given), *_union(given)]
    failures = []
    for mine, theirs in product(expected, found):
        try:
            if _same(mine, theirs):
                return True
        except Exception as error:  # noqa: BLE001 - whatever sympy stumbles over
            failures.append(f"{type(error).__name__}: {error}"[:200])
    if failures:
        raise Unreadable(f"the comparison failed ({failures[0]})")
    return False


def plain(text: str) -> str:
    r"""LaTeX as math-verify reads it: roman e and i in italics, digits without what separates thousands, the condition
    of a set `\{x : ...\}`."""
    text = _IMAGINARY.sub("i", _ROMAN_SWITCH.sub(r"\1", _ROMAN.sub(r"\1", _typed(text)))).strip()
    text = _NAMED.sub("", _UNDERLINED.sub(r"\1", _THOUSANDS.sub("", text))).rstrip(" .,;")
    if scientific := _SCIENTIFIC.fullmatch(text):
        return rf"{scientific[1]} \cdot 10^{{{scientific[2]}}}"
    if _TRIGONOMETRY.search(text):
        text = _DEGREES.sub(r"\\cdot\\frac{\\pi}{180}", text)
    text = _REPEATING.sub(_fraction, text).replace(r"\varnothing", r"\emptyset")
    if (mixed := _MIXED.fullmatch(text)) and int(mixed[3]) < int(mixed[4]):
        return rf"{mixed[1]}\frac{{{int(mixed[2]) * int(mixed[4]) + int(mixed[3])}}}{{{mixed[4]}}}"
    if _SPACED.fullmatch(text):
        text = re.sub(r"[ ']", "", text)
    builder = _BUILDER.fullmatch(text)
    return builder[1] if builder else english(text)


def _typed(text: str) -> str:
    """Signs of keyboards and fonts as TeX: \u00bd, x\u00b2, \u221a2, full-width digits."""
    if text.isascii():
        return text
    text = "".join(unicodedata.normalize("NFKC", sign) if "\uff10" <= sign <= "\uff5e" else sign for sign in text)
    text = _RAISED.sub(lambda found: f"^{{{unicodedata.normalize('NFKC', found[0])}}}", text)
    text = _PART_OF_ONE.sub(
        lambda found: rf"{found[1]}\frac{{{'}{'.join(unicodedata.normalize('NFKC', found[2]).split(chr(0x2044)))}}}",
        text,
    )
    return _ROOT.sub(
        lambda found: rf"\sqrt{{{found[1] or found[2]}}}" if found[1] or found[2] else r"\sqrt", text.translate(_SIGNS)
    )


def _fraction(found: re.Match[str]) -> str:
    """A repeating decimal as the fraction that it is."""
    before, once, again = found[1] or "0", found[2], found[3]
    whole = int(before + once + again) - int(before + once)
    return rf"\frac{{{whole}}}{{{(10 ** len(again) - 1) * 10 ** len(once)}}}"


def _of_another_kind(gold: str, answer: str) -> bool:
    """Whether an answer is a bound where a value is asked for, or a set where an interval or a pair is."""
    if _RELATION.match(answer) and not _RELATION.search(gold) and gold[:1] not in "([" and "\\infty" not in gold:
        return True
    forms = [re.sub(r"\\left|\s", "", text) for text in (gold, answer)]
    # A set of pairs is another matter.
    return all("," in one for one in forms) and any(
        one[:1] in ("(", "[") and other[:2] == r"\{" and "(" not in other for one, other in (forms, forms[::-1])
    )


def _parsed(text: str) -> list[Any]:
    """What math-verify makes of a text, nothing where it read a piece of it only."""
    from math_verify import parse

    found = parse(f"${text}$", parsing_timeout=None)
    # The text it read comes with it; where a brace is missing, it is a piece.
    pieces = [one for one in found if isinstance(one, str)]
    return [] if any(piece.count("{") != piece.count("}") for piece in pieces) else list(found)


def _union(text: str) -> Iterator[Any]:
    """`x < 1 or x > 2` as the set it describes."""
    parts = _OR.split(text)
    if len(parts) > 1:
        from sympy import Union

        sets = [next((_as_set(one) for one in _parsed(part.strip(" ,"))), None) for part in parts]
        if all(one is not None for one in sets):
            yield Union(*sets)


def _as_set(expression: Any) -> Any:
    from sympy import Set

    if isinstance(expression, Set):
        return expression
    return expression.as_set() if hasattr(expression, "as_set") and expression.free_symbols else None


def _same(mine: Any, theirs: Any) -> bool:
    """Whether math-verify takes one for the other and nothing speaks against it."""
    from math_verify import verify
    from sympy import I, Symbol

    if isinstance(mine, str) or isinstance(theirs, str):
        return isinstance(mine, str) and isinstance(theirs, str) and mine.strip() == theirs.strip() != ""
    mine, theirs = _operands(mine, theirs)
    if theirs is None:
        return False
    pairs = [(mine, theirs)]
    if any(symbol.name == "i" for one in pairs[0] for symbol in getattr(one, "free_symbols", ())):
        letters = [Symbol("i"), Symbol("i", real=True)]
        known = {symbol: I for one in pairs[0] for symbol in one.free_symbols if symbol.name == "i"}
        known |= dict.fromkeys(letters, I)
        pairs.append((_done(mine.subs(known)), _done(theirs.subs(known))))
    return any(
        verify(one, other, timeout_seconds=None, raise_on_error=True, allow_set_relation_comp=True)
        and not _apart(one, other)
        for one, other in pairs
    )


def _operands(mine: Any, theirs: Any) -> tuple[Any, Any]:
    """Both, without what an answer says its value is of: `m+n=33` is 33. An equation of a curve is no number: None."""
    from sympy import Eq
    from sympy.core.relational import Relational

    if isinstance(theirs, Eq) and not isinstance(mine, Relational) and hasattr(mine, "is_number") and mine.is_number:
        return mine, theirs.rhs if _is_name(theirs.lhs) else None
    return mine, theirs


def _is_name(expression: Any) -> bool:
    """Whether an expression names a quantity: `x`, `f(2)`, `sin x`, `m+n`, `a/b`, a sum of numbers; not `x^2+y^2`."""
    from sympy import Add, Function, Mul, Pow, Symbol
    from sympy.core.function import AppliedUndef

    if isinstance(expression, Symbol | AppliedUndef) or not getattr(expression, "free_symbols", None):
        return True
    if isinstance(expression, Function):
        return True
    if isinstance(expression, Add | Mul):
        parts = [one.base if isinstance(one, Pow) and one.exp == -1 else one for one in expression.args]
        return len(set(parts)) == len(parts) and all(isinstance(one, Symbol | AppliedUndef) for one in parts)
    return False


def _apart(mine: Any, theirs: Any) -> bool:
    """Whether two expressions that are taken for equal have different values: part by part, or at a point."""
    from sympy import Eq, Expr, FiniteSet, Interval, Tuple

    if isinstance(mine, Eq) and isinstance(theirs, Eq):
        return mine.lhs == theirs.lhs and _apart(mine.rhs, theirs.rhs)
    if isinstance(mine, Interval) and isinstance(theirs, Interval):
        return _apart(mine.start, theirs.start) or _apart(mine.end, theirs.end)
    if isinstance(mine, FiniteSet) and isinstance(theirs, FiniteSet):
        return any(all(_apart(one, other) for other in theirs.args) for one in mine.args)
    if isinstance(mine, Tuple) and isinstance(theirs, Tuple):
        return any(_apart(one, other) for one, other in zip(mine.args, theirs.args, strict=False))
    if hasattr(mine, "flat") and hasattr(theirs, "flat"):
        return any(_apart(one, other) for one, other in zip(mine.flat(), theirs.flat(), strict=False))
    if isinstance(mine, Eq):
        return _apart(mine.rhs, theirs)
    return isinstance(mine, Expr) and isinstance(theirs, Expr) and _values_differ(mine, theirs)


def _values_differ(mine: Any, theirs: Any) -> bool:
    """Whether two expressions have values at one point that are too far from each other; unknown values have not."""
    from sympy import Float, N, Rational, Symbol, UnevaluatedExpr

    words = isinstance(mine, Symbol) or isinstance(theirs, Symbol)
    # 90 % is taken for 90 as well as for 0.9.
    if words or mine.has(UnevaluatedExpr) != theirs.has(UnevaluatedExpr):
        return False
    symbols = sorted(mine.free_symbols | theirs.free_symbols, key=str)
    point = {symbol: Rational(7 + 2 * number, 5) for number, symbol in enumerate(symbols)}
    try:
        one, other = (_done(side.subs(point)) for side in (mine, theirs))
        difference, size = abs(N(one - other, _DIGITS)), max(abs(N(one, _DIGITS)), abs(N(other, _DIGITS)))
        if not (difference.is_number and size.is_number and size.is_finite and difference.is_finite):
            return False
        rounded = mine.has(Float) or theirs.has(Float)
        return bool(difference > (_APART_ROUNDED if rounded else _APART) * size)
    except (TypeError, ValueError, ArithmeticError, AttributeError, NotImplementedError):
        return False


def _done(expression: Any) -> Any:
    """With everything computed that math-verify left for later."""
    return expression.doit() if hasattr(expression, "doit") else expression
