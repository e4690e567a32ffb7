"""Expressions compared by what they mean: what math-verify alone gets wrong, and that what is equal stays equal."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.scorers.expressions import Unreadable, equal, plain

CASES = Path(__file__).parents[3] / "shared" / "cases" / "17-math-grading" / "pairs.jsonl"
PAIRS = [
    # Values that differ in what is cut off at 15 digits.
    (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}", False),
    (r"\frac{1}{2004!}", r"\frac{1}{2006!}", False),
    (r"1 - \frac{1}{\mathrm{e}}", r"1 + \frac{1}{\mathrm{e}}", False),
    ("4", "x^2+y^2=4", False),
    ("10080", r"10\,080", True),
    ("(3,4]", r"3 < x \le 4", True),
    (r"\sqrt{-1}", "i", True),
    # Neighbours of these.
    ("(3,4]", r"x \in (3,4]", True),
    (r"(3,\infty)", "x>3", True),
    ("[3,4)", r"4 > x \ge 3", True),
    (r"(-\infty,2)\cup(2,\infty)", r"x\ne 2", True),
    ("[-2,7]", r"-2\le x\le 7", True),
    ("(3,4]", r"\{x : 3 < x \le 4\}", True),
    ("(3,4]", r"\left\{x \in \mathbb{R} \mid 3 < x \le 4\right\}", True),
    ("(3,4]", r"3 \le x \le 4", False),
    ("(3,4]", "(3,4)", False),
    ("10080", "10{,}080", True),
    ("10080", r"10,\!080", True),
    ("10080", "10 080", True),
    ("10080", "10~080", True),
    ("10080", r"10\;080", True),
    ("10080", "10,080", True),
    ("10080", r"10\ 080", True),
    ("10080", "10\u2009080", True),
    ("10080", "10'080", True),
    ("1010080", r"1\,010\,080", True),
    ("10080", r"10\,08", False),
    ("33", "m+n=33", True),
    ("5", "AB=5", True),
    ("30", r"\angle ABC = 30", True),
    ("5", "f(2)=5", True),
    ("4", "2+2=4", True),
    ("4", "x=4", True),
    ("6", "2x+3y=6", False),
    (r"(0,9)\cup(9,36)", r"0<x<9 \text{ or } 9<x<36", True),
    (r"(-\infty,1)\cup(2,\infty)", "x<1 or x>2", True),
    ("1+2i", r"1+2\mathrm{i}", True),
    ("i", r"\sqrt{-1}", True),
    ("2i", r"\sqrt{-4}", True),
    ("-i", r"\sqrt{-1}", False),
    ("i", "i", True),
    ("i", "j", False),
    ("i", "1", False),
    (r"\frac{1}{e}", r"\frac{1}{\mathrm{e}}", True),
    ("e^2", r"\mathrm{e}^{2}", True),
    ("e^2", r"{\rm e}^2", True),
    ("e^{-50}", "e^{-51}", False),
    ("e^{-50}", r"\frac{1}{e^{50}}", True),
    ("10^{-7}", "0.0000002", False),
    ("10^{-7}", "0.0000001", True),
    (r"\frac{x}{2^{99}}", r"\frac{x}{2^{98}}", False),
    (r"90\%", "0.9", True),
    (r"90\%", "90", True),
    (r"\frac{1}{3}", "0.333333", True),
    ("1/2^{60}", "0", False),
    ("2^{-99}", r"\frac{1}{2^{99}}", True),
    (r"(1,\frac{1}{2^{99}})", r"(1,\frac{1}{2^{98}})", False),
    (r"\frac{1}{2004!}", r"\frac{1}{2004!}", True),
    (r"\frac{2005!}{2006!}", r"\frac{1}{2006}", True),
    (r"\sqrt{2}+\sqrt{3}", r"\sqrt{5+2\sqrt{6}}", True),
    ("x+1", "1+x", True),
    (r"\sin^2 x+\cos^2 x", "1", True),
    ("x^2+y^2=4", "x^2+y^2=4", True),
    ("x^2+y^2=4", "4", False),
    ("x=5", "5", True),
    ("y = 2x + 3", "y=3+2x", True),
    (r"\text{Evelyn}", "Evelyn", True),
    (r"\text{(C)}", "C", True),
    (r"\{1,2\}", r"\{2,1\}", True),
    ("1,2", "2,1", True),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}", True),
    (r"\begin{pmatrix}1\\2^{-99}\end{pmatrix}", r"\begin{pmatrix}1\\2^{-98}\end{pmatrix}", False),
    ("2^{1000}", "2^{1000}+1", False),
    ("x^2 = 4", "x^2=4", True),
    ("3.14", r"\pi", False),
    ("12", "12.0", True),
    (r"3 \text{ hours}", "3", True),
    ("6000", r"6\,000", True),
    (r"11\sqrt2", r"11\sqrt{2}", True),
    (r"\$32,348", "32348", True),
    (r"-\frac{1}{e}", "1/e", False),
    (r"1 - \frac{1}{e}", r"1 - \frac{1}{\mathrm{e}}", True),
    ("10^{-20}", "10^{-21}", False),
    ("10^{20}", "10^{21}", False),
    (r"\frac{1}{1+2^{-70}}", "1", False),
    ("3+4i", "4i+3", True),
    ("1500", "1.5e3", True),
    ("0.001", "1E-3", True),
    (r"0.\overline{3}", r"\frac{1}{3}", True),
    (r"0.\overline{3}", "0.3", False),
    (r"\sin 30^\circ", r"\frac12", True),
    (r"\emptyset", r"\varnothing", True),
    (r"\frac{1}{2}", "\u00bd", True),
    ("3\u221a2", r"3\sqrt{2}", True),
    ("x\u00b2+1", "x^2+1", True),
    ("42", r"\underline{42}.", True),
    ("42", r"\text{Area} = 42 \text{ square units}", True),
    (r"\frac{3}{4}", r"\sin\theta = \frac{3}{4}", True),
    (r"\frac{3}{4}", r"P(A\mid B)=\frac{3}{4}", True),
    ("42", r"\le 42", False),
    ("42", r"\neq 42", False),
    ("(0,1)", r"\{0,1\}", False),
    (r"\{0,1\}", "(0,1)", False),
    ("9^{9^{9}}", "9^{9^{9}}", True),
    (r"\frac{5}{4}", "1 1/4", True),
    ("-2.5", "-2 1/2", True),
    ("2", "2 2/3", False),
    ("10", "4 10/3", False),
]


# What French and German answers write: reversed brackets, semicolons, decimal commas.
EUROPEAN = [
    ("(2,3)", "]2,3[", True),
    ("]2;3]", "(2,3]", True),
    (r"\left]2;3\right[", "2<x<3", True),
    (r"(-\infty,1)\cup(2,\infty)", r"x \in ]-\infty;1[ \cup ]2;+\infty[", True),
    ("(0.5,1]", "]0,5; 1]", True),
    ("(0.5,1)", "(0,5; 1)", True),
    ("[2,3]", "]2,3[", False),
    ("(2,3)", "]2,4[", False),
    ("(2,1)", "(1;2)", False),
    ("0,5", "0.5", True),
    ("0.5", "0{,}5", True),
    ("-0,75", r"-\frac{3}{4}", True),
    (r"12.5\%", r"12,5\%", True),
    ("3.05", "3,05", True),
    ("1.234", "1,234", False),
    ("1{,}234", "1234", True),
    ("0,5", r"\frac{1}{5}", False),
    ("0,5", "5", False),
    ("2,5", "5,2", True),
    ("2,5", r"\{2,5\}", True),
    ("2.5", "5,2", False),
]


@pytest.mark.parametrize(("gold", "answer", "right"), [*PAIRS, *EUROPEAN])
def test_answers_are_compared_by_what_they_mean(gold: str, answer: str, right: bool) -> None:
    assert equal(gold, answer) is right


@pytest.mark.skipif(not CASES.exists(), reason="the shared cases are not here")
def test_shared_pairs_are_graded_right() -> None:
    pairs = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]
    assert [equal(pair["gold"], pair["answer"]) for pair in pairs] == [pair["equal"] for pair in pairs]


@settings(max_examples=25)
@given(st.integers(2, 12), st.integers(1, 400), st.integers(1, 400))
def test_small_powers_are_told_apart_at_any_size(base: int, one: int, other: int) -> None:
    assert equal(rf"\frac{{1}}{{{base}^{{{one}}}}}", f"{base}^{{-{other}}}") is (one == other)


@pytest.mark.parametrize("text", ["", "\\frac{1}{"])
def test_gold_that_cannot_be_read_is_told(text: str) -> None:
    with pytest.raises(Unreadable, match="cannot be read"):
        equal(text, "1")


def test_plain_text_keeps_what_is_no_thousand() -> None:
    assert plain(r"2\, \frac{1}{3}") == r"2\, \frac{1}{3}"
    assert plain(r"(1,\,200)") == r"(1,\,200)"
    assert plain("12 34") == "12 34"
