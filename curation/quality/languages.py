"""Which script and language a text is in, and whether a response leaves its prompt's: the check `language_differs`.

Reads texts, writes nothing; `register` puts `language_difference(prompt, text)` into a DuckDB connection for the query.
Scripts are Unicode's. Languages are py3langid's (Lui & Baldwin, "langid.py", ACL 2012; a naive Bayes over byte n-grams,
4.6 MB): it is asked only where both texts are long enough, and believed only where it is sure.
"""

import re
import unicodedata
from collections import Counter
from functools import cache, lru_cache
from typing import Any

import duckdb

# What is not prose: code, addresses, markup. Its letters say nothing about the language around it.
_CODE = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+|[^\s@]{1,64}@[^\s@]{1,80}|</?[A-Za-z][^<>\n]{0,80}>|\\[A-Za-z]+",
    re.DOTALL,
)
_LETTERS = re.compile(r"[^\W\d_]+")
# A letter of these stands for a syllable or a word, and weighs as much as three others.
_DENSE = {"CJK", "HANGUL", "HIRAGANA", "KATAKANA"}
_DENSE_LETTERS = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]")
_SAME = {"HIRAGANA": "JAPANESE", "KATAKANA": "JAPANESE"}
# A script is the prompt's own from this share of its letters on.
_OWN_SHARE = 0.1
# What a text may hold of another script: a name, a quoted phrase. Latin letters stand in names and code everywhere.
_FOREIGN_SHARE, _LATIN_SHARE = 0.1, 0.5
# Longer than any name: two dozen letters in a row (eight dense ones) are a sentence, whatever else there is.
_FOREIGN_PASSAGE = 24
# A language is told from this many letters on, a prompt's from fewer, and believed from this probability on.
_FEWEST, _FEWEST_IN_PROMPT = 40, 20
_SURE, _SURE_OF_PROMPT = 0.9, 0.6
_PIECE, _PIECES = 500, 8
_PIECE_SHARE = 0.3
# A prompt that names a language may be answered in it.
_NAMED = re.compile(
    r"\b(?:translat\w+|chinese|mandarin|cantonese|japanese|korean|russian|ukrainian|arabic|hebrew|persian|farsi|hindi|urdu"
    r"|bengali|tamil|thai|vietnamese|indonesian|turkish|greek|spanish|french|german|italian|portuguese|dutch|polish|czech"
    r"|swedish|danish|norwegian|finnish|hungarian|romanian|latin|english|swahili|zulu|language"
    # English, as those name it who ask for it in their own language.
    r"|inglés|ingles|inglês|inglese|anglais|englisch|engels|engelska|angielsku|anglicky|angolul|ingilizce\w*|inggris"
    r"|английск\w+|англійськ\w+|по-английски|الإنجليزية|بالإنجليزية|انگلیسی|अंग्रेज़ी|tiếng anh)\b|英文|英语|英語|영어",
    re.IGNORECASE,
)
_ENGLISH = re.compile(r"\b(?:the|and|of|to|is|that|this|it|for|with|you|would|should|not|i)\b", re.IGNORECASE)
# What many people write. Most of the detector's mistakes are made among the other languages that it knows; between
# Indonesian and Malay it is never sure.
_LANGUAGES = re.findall(
    r"\w+",
    "af ar bg bn bs ca cs da de el en es et eu fa fi fr gl gu he hi hr hu hy id it ja ka kk kn ko lt lv mk ml mr ne"
    " nl no pa pl pt ro ru sk sl sq sr sv sw ta te th tl tr uk ur vi zh",
)
# Pairs that a short text cannot be told apart in.
_ALIKE = (
    {"bs", "hr", "sr", "sl"},
    {"no", "da", "sv"},
    {"cs", "sk"},
    {"es", "gl", "ca", "pt"},
    {"hi", "mr", "ne"},
    {"af", "nl"},
    {"ru", "uk", "bg", "mk", "sr", "kk"},
    {"ar", "fa", "ur"},
)


def language_difference(prompt: str, text: str) -> str:
    """How a text leaves its prompt's script or language: "script: what" or "language: what", "" where it does not."""
    prompt_text, response_text = _CODE.sub(" ", prompt[:8000]), _CODE.sub(" ", text)
    own = _scripts(prompt_text)
    if not own:
        return ""
    allowed = {script for script, weight in own.items() if weight >= _OWN_SHARE * own.total()}
    found = _scripts(response_text)
    foreign = Counter({script: weight for script, weight in found.items() if script not in allowed})
    named = bool(_NAMED.search(prompt))
    for script, weight in foreign.most_common():
        most = (_LATIN_SHARE if script == "LATIN" else _FOREIGN_SHARE) * found.total()
        passage = "" if script == "LATIN" else _passage(response_text, script)
        if not named and (weight > most or passage):
            return f"script: {passage or _passage(response_text, script, 1)}"
    return "" if named else _other_language(prompt_text, response_text)


def _other_language(prompt: str, text: str) -> str:
    expected = _language(prompt[:1000], _FEWEST_IN_PROMPT, _SURE_OF_PROMPT)
    if expected is None:
        return ""
    step = max(_PIECE, len(text) // _PIECES)
    languages = [_language(text[at : at + _PIECE], _FEWEST, _SURE) for at in range(0, len(text), step)]
    known = [name for name in languages if name is not None]
    others = [name for name in known if name != expected and not any({name, expected} <= group for group in _ALIKE)]
    if len(others) <= _PIECE_SHARE * len(known):
        return ""
    return f"language: {Counter(others).most_common(1)[0][0]}, the prompt {expected}"


def _scripts(text: str) -> Counter[str]:
    """The weight of each script's letters."""
    weights: Counter[str] = Counter()
    for letter, times in Counter("".join(_LETTERS.findall(text))).items():
        script = _script(letter)
        weights[_SAME.get(script, script)] += times * (3 if script in _DENSE else 1)
    return weights


@lru_cache(maxsize=20_000)
def _script(letter: str) -> str:
    """The first word of a letter's name in Unicode: LATIN, CYRILLIC, CJK, HANGUL."""
    name = unicodedata.name(letter, "OTHER").split()[0]
    return "LATIN" if name in ("FULLWIDTH", "MODIFIER", "FEMININE", "MASCULINE") else name


def _passage(text: str, script: str, least: int = _FOREIGN_PASSAGE) -> str:
    """The first passage of one script that weighs at least so much, spaces and punctuation within it."""
    start, weight = -1, 0
    for at, char in enumerate(text):
        if not char.isalpha():
            continue
        name = _script(char)
        if _SAME.get(name, name) != script:
            start, weight = -1, 0
            continue
        start = at if start < 0 else start
        weight += 3 if name in _DENSE else 1
        if weight >= least:
            return text[start : start + 40].strip()
    return ""


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(_LANGUAGES)
    return identifier


@lru_cache(maxsize=10_000)
def _language(text: str, fewest: int, sure: float) -> str | None:
    """The language of a text, None where it is too short or the detector is not sure."""
    if sum(map(str.isalpha, text)) < fewest and 3 * len(_DENSE_LETTERS.findall(text)) < fewest:
        return None
    # A hundred times as fast as the detector, and most texts are English.
    if 26 * len(_ENGLISH.findall(text)) >= len(text):
        return "en"
    name, probability = _identifier().classify(text.lower())
    return str(name) if probability >= sure else None


def register(db: duckdb.DuckDBPyConnection) -> None:
    """Make `language_difference(prompt, text)` a function of a connection's queries."""
    db.create_function("language_difference", language_difference, ["VARCHAR", "VARCHAR"], "VARCHAR")
