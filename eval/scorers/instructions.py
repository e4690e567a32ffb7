"""IFEval's verifiable instructions: does a response follow what its prompt asks of its form?

25 kinds by their published names, each with the arguments that the dataset gives it (Zhou et al. 2023, arXiv
2311.07911). Written from the paper and the dataset; sentences and words are counted by rules here, where the authors
use NLTK, and languages are told by py3langid, where they use langdetect. Reads and writes nothing.

    follows("punctuation:no_comma", {}, "No comma here.")      # True
"""

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from pipelines.errors import UserError

Arguments = Mapping[str, Any]
# No pattern here may take more than one look at a long run of the same mark: responses are anybody's.
_SENTENCE = re.compile(r"(?<![.!?])[.!?]+[\"')\]]*(?:\s+|$)")
_WORD = re.compile(r"\w+")
_CHOICES = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def follows(kind: str, arguments: Arguments, response: str) -> bool:
    """Whether a response follows one instruction; an empty one follows none.

    Raises:
        UserError: there is no such instruction, or it lacks an argument.
    """
    if kind not in KINDS:
        raise UserError(f"Unknown instruction '{kind}'. Known ones: {', '.join(KINDS)}.")
    try:
        return bool(response.strip()) and KINDS[kind](arguments, response)
    except (KeyError, TypeError, ValueError, re.error) as error:
        raise UserError(f"The instruction {kind} cannot be checked with {dict(arguments)!r}: {error!r}") from error


def variants(response: str) -> list[str]:
    """A response as the loose reading has it: whole, without first, last, and both lines; each without stars, too."""
    lines = response.split("\n")
    cut = [response, *("\n".join(lines[part]).strip() for part in (slice(1, None), slice(None, -1), slice(1, -1)))]
    return [*cut, *(text.replace("*", "") for text in cut)]


def _compared(count: int, relation: str, number: int) -> bool:
    if relation not in ("at least", "less than"):
        raise ValueError(f"relation '{relation}'")
    return count >= number if relation == "at least" else count < number


def _times(word: str, text: str, whole: bool = False) -> int:
    edge = r"\b" if whole else ""
    return len(re.findall(f"{edge}{re.escape(word)}{edge}", text, re.IGNORECASE))


def _words(text: str) -> int:
    return len(_WORD.findall(text))


def _sentences(text: str) -> int:
    return sum(bool(part.strip()) for part in _SENTENCE.split(text))


def _paragraphs(text: str, number: int) -> bool:
    parts = re.split(r"\s?\*\*\*\s?", text)
    # One that is empty may stand at either end, and nowhere else.
    if any(not part.strip() for part in parts[1:-1]):
        return False
    return sum(bool(part.strip()) for part in parts) == number


def _nth_paragraph(arguments: Arguments, text: str) -> bool:
    parts = re.split(r"\n\n", text)
    number, nth = int(arguments["num_paragraphs"]), int(arguments["nth_paragraph"])
    if sum(bool(part.strip()) for part in parts) != number or nth > len(parts):
        return False
    words = parts[nth - 1].strip().split()
    first = re.split(r"[.,?!'\"]", words[0].lstrip("'\""))[0] if words else ""
    return first.lower() == str(arguments["first_word"]).lower()


def _postscript(arguments: Arguments, text: str) -> bool:
    marker = str(arguments["postscript_marker"])
    forms = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}
    return re.search(forms.get(marker, re.escape(marker.lower())), text.lower()) is not None


def _bullets(text: str) -> int:
    return len(re.findall(r"^[ \t]*(?:\*[^*\n]|-)", text, re.MULTILINE))


def _highlights(text: str) -> int:
    single = [part for part in re.findall(r"\*[^\n\*]*\*", text) if part.strip("*").strip()]
    double = [part for part in re.findall(r"\*\*[^\n\*]*\*\*", text) if part.strip("*").strip()]
    return len(single) + len(double)


def _json(text: str) -> bool:
    bare = re.sub(r"^```(?:json)?\n|\n?```$", "", text.strip(), flags=re.IGNORECASE).strip()
    try:
        json.loads(bare)
    except (ValueError, RecursionError):
        return False
    return True


def _two_responses(text: str) -> bool:
    parts = text.split("******")
    if any(not part.strip() for part in parts[1:-1]):
        return False
    kept = [part.strip() for part in parts if part.strip()]
    return len(kept) == 2 and kept[0] != kept[1]


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)


def _capital_words(text: str) -> int:
    return sum(word.isupper() for word in re.findall(r"[^\W_]+(?:['-][^\W_]+)*", text))


KINDS: Mapping[str, Callable[[Arguments, str], bool]] = {
    "keywords:existence": lambda a, text: all(_times(word, text) for word in a["keywords"]),
    "keywords:forbidden_words": lambda a, text: (
        not any(_times(word, text, whole=True) for word in a["forbidden_words"])
    ),
    "keywords:frequency": lambda a, text: _compared(_times(a["keyword"], text), a["relation"], int(a["frequency"])),
    "keywords:letter_frequency": lambda a, text: _compared(
        text.lower().count(a["letter"].lower()), a["let_relation"], int(a["let_frequency"])
    ),
    "language:response_language": lambda a, text: str(_identifier().classify(text.lower())[0]) == a["language"],
    "length_constraints:number_sentences": lambda a, text: _compared(
        _sentences(text), a["relation"], int(a["num_sentences"])
    ),
    "length_constraints:number_paragraphs": lambda a, text: _paragraphs(text, int(a["num_paragraphs"])),
    "length_constraints:number_words": lambda a, text: _compared(_words(text), a["relation"], int(a["num_words"])),
    "length_constraints:nth_paragraph_first_word": _nth_paragraph,
    "detectable_content:number_placeholders": lambda a, text: (
        len(re.findall(r"\[[^\[\]\n]*\]", text)) >= int(a["num_placeholders"])
    ),
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": lambda a, text: _bullets(text) == int(a["num_bullets"]),
    "detectable_format:constrained_response": lambda a, text: any(choice in text for choice in _CHOICES),
    "detectable_format:number_highlighted_sections": lambda a, text: _highlights(text) >= int(a["num_highlights"]),
    "detectable_format:multiple_sections": lambda a, text: (
        len(re.split(rf"\s?{re.escape(a['section_spliter'])}\s?\d+\s?", text)) - 1 >= int(a["num_sections"])
    ),
    "detectable_format:json_format": lambda a, text: _json(text),
    "detectable_format:title": lambda a, text: any(
        line.partition("<<")[2].rpartition(">>")[0].strip("<> ") for line in text.split("\n")
    ),
    "combination:two_responses": lambda a, text: _two_responses(text),
    "combination:repeat_prompt": lambda a, text: text.strip().lower().startswith(a["prompt_to_repeat"].strip().lower()),
    "startend:end_checker": lambda a, text: text.strip().strip('"').lower().endswith(a["end_phrase"].strip().lower()),
    "startend:quotation": lambda a, text: len(text.strip()) > 1 and text.strip()[0] == '"' == text.strip()[-1],
    "change_case:capital_word_frequency": lambda a, text: _compared(
        _capital_words(text), a["capital_relation"], int(a["capital_frequency"])
    ),
    "change_case:english_capital": lambda a, text: text.isupper(),
    "change_case:english_lowercase": lambda a, text: text.islower(),
    "punctuation:no_comma": lambda a, text: "," not in text,
}
