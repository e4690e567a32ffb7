"""Each person's votes beside the others': how often they differ, and who differs so often that it is no chance.

Reads and writes nothing; `status.py` shows it while people vote, `agree.py` once votes are pulled.
"""

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.records import content_id

# All people together, one is called far from the others by chance with at most this probability.
_RISK = 0.05


@dataclass(frozen=True, slots=True)
class Person:
    """One person, who differs from the others' majority on `differs` of the `rows` where they have one, and from one of
    the others, drawn by lot, on `apart` of the `shared` rows. `far`: beyond chance, against two others."""

    annotator: str
    rows: int
    differs: int
    shared: int
    apart: int
    far: bool


def compared_people(by_row: Mapping[str, Mapping[str, Any]]) -> list[Person]:
    """Everybody against the others, on rows that others saw as well.

    Where one of three always errs, the others have no majority against each other; so who is far is found by pairs: a
    person and one of the others, against two of the others, a pair of each a row. Of two people nobody is far.

    Args:
        by_row: For each row each person's vote.

    Source: Fisher's exact test, one-sided, at 5 % over the number of people (Bonferroni).

    >>> votes = {str(n): {"ann": "no", "ben": "no", "cem": "yes" if n % 4 else "no"} for n in range(40)}
    >>> [(one.annotator, one.differs, one.rows, one.far) for one in compared_people(votes)]
    [('ann', 0, 10, False), ('ben', 0, 10, False), ('cem', 30, 40, True)]
    """
    from scipy.stats import fisher_exact  # type: ignore[import-untyped]

    names = sorted({name for by in by_row.values() if len(by) > 1 for name in by})
    people = []
    for name in names:
        majority, own, theirs = [], [], []
        for row, by in by_row.items():
            others = [vote for other, vote in sorted(by.items()) if other != name]
            if name not in by or not others:
                continue
            ranked = Counter(others).most_common(2)
            if len(ranked) == 1 or ranked[0][1] > ranked[1][1]:
                majority.append(by[name] != ranked[0][0])
            lot = random.Random(content_id("pair", row, name))
            own.append(by[name] != lot.choice(others))
            if len(others) > 1:
                one, two = lot.sample(others, 2)
                theirs.append(one != two)
        table = [[sum(pairs), len(pairs) - sum(pairs)] for pairs in (own, theirs)]
        far = bool(fisher_exact(table, alternative="greater").pvalue < _RISK / len(names))
        people.append(Person(name, len(majority), sum(majority), len(own), sum(own), far))
    return people
