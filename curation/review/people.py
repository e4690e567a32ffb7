"""Each person's votes beside the others': how often they differ, and who differs so often that it is no chance.

Reads and writes nothing; `status.py` shows it while people vote, `agree.py` once votes are pulled.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# All people together, one is called far from the others by chance with at most this probability.
_RISK = 0.05


@dataclass(frozen=True, slots=True)
class Person:
    """Of `rows` on which others agree among themselves, one person differs from them on `differs`; `far` where that is
    more often than the others differ from theirs, by more than chance."""

    annotator: str
    rows: int
    differs: int
    far: bool


def compared_people(by_row: Mapping[str, Mapping[str, Any]]) -> list[Person]:
    """Everybody against the majority of the others, on rows that others saw as well.

    Where one of three errs, the other two differ from him as often as he does, with each other never: so each is
    compared with the others on the rows where the others are of one mind.

    Args:
        by_row: For each row each person's vote.

    Sources: Fisher's exact test, one-sided, at 5 % over the number of people (Bonferroni).

    >>> votes = {n: {"ann": "no", "ben": "no", "cem": "yes" if n % 2 else "no"} for n in range(40)}
    >>> [(one.annotator, one.differs, one.rows, one.far) for one in compared_people(votes)]
    [('ann', 0, 20, False), ('ben', 0, 20, False), ('cem', 20, 40, True)]
    """
    from scipy.stats import fisher_exact  # type: ignore[import-untyped]

    found: dict[str, list[bool]] = defaultdict(list)
    for by in by_row.values():
        for annotator, value in by.items():
            others = Counter(other for name, other in by.items() if name != annotator).most_common(2)
            if others and (len(others) == 1 or others[0][1] > others[1][1]):
                found[annotator].append(value != others[0][0])
    people = []
    for name, differs in sorted(found.items()):
        others_differ = [one for other, own in found.items() if other != name for one in own]
        table = [
            [sum(differs), len(differs) - sum(differs)],
            [sum(others_differ), len(others_differ) - sum(others_differ)],
        ]
        far = bool(fisher_exact(table, alternative="greater").pvalue < _RISK / len(found))
        people.append(Person(name, len(differs), sum(differs), far))
    return people
