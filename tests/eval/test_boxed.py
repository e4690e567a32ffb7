r"""The last `\boxed` of an answer, whatever stands in it and around it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.scorers.boxed import last_boxed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"So it is $\boxed{42}$.", "42"),
        (r"First \boxed{1}, then \boxed{2}.", "2"),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x : x > 0 \right\}}", r"\left\{ x : x > 0 \right\}"),
        (r"\boxed {7}", "7"),
        (r"\fbox{7}", "7"),
        (r"\boxed 5", "5"),
        (r"\boxed 42.", "42"),
        (r"\boxed -3", "-3"),
        (r"$\boxed\pi$", r"\pi"),
        (r"\boxed{ 7 }", "7"),
        (r"\boxed{2} and an open \boxed{3", "2"),
        (r"\boxed{2} and an empty \boxed{}", "2"),
        (r"\boxed{\boxed{8}}", "8"),
        (r"\boxed{\\}", r"\\"),
        (r"\boxed", None),
        (r"\boxed{", None),
        (r"\boxedeq 3", None),
        ("42", None),
        ("", None),
    ],
)
def test_last_boxed_finds_what_was_meant(text: str, expected: str | None) -> None:
    assert last_boxed(text) == expected


# LaTeX with balanced braces: letters, escaped braces, groups in groups.
balanced = st.recursive(
    st.sampled_from(["x", "1", "+", " ", r"\{", r"\}", r"\\", r"\frac", "é"]),
    lambda inner: st.one_of(st.lists(inner, max_size=4).map("".join), inner.map("{{{}}}".format)),
)


@settings(deadline=None)
@given(balanced, st.text(max_size=20), balanced)
def test_last_boxed_gives_back_what_was_boxed(content: str, before: str, earlier: str) -> None:
    text = f"{before}\n\\boxed{{{earlier}}} \\boxed{{{content}}} done"
    if content.strip():
        assert last_boxed(text) == content.strip()


@settings(deadline=None)
@given(st.text(alphabet=r"\boxedf{} 1$", max_size=60))
def test_last_boxed_never_fails_and_returns_a_part_of_the_text(text: str) -> None:
    found = last_boxed(text)
    assert found is None or (found and found in text)
