"""The option that an answer names: one letter, or none where it names no option or several.

chosen("The best answer is (B).", ("red", "blue"))      # "B"
chosen("It is not red.", ("red", "blue"))               # None: an option that is denied is not chosen
chosen("I cannot tell", ("red", "blue"))                # None, and never a guess

A reasoning block is removed first (``texts.spoken``), then widths, markup and look-alike letters are put
right (``CLEANERS``). The kinds of evidence are asked in the order of ``EVIDENCE``; the first that says
anything decides, also where it says two things or a letter that is not an option:

1. whole      the answer is one letter, or an option's text word for word
2. contained  <answer>, \\boxed{} and JSON
3. declared   "the answer is B", "Option B", "I choose B", in several languages (``DECLARATIONS``)
4. leading    the answer begins with a label: "B. blue", "(B) blue", "B because"
5. lone       a sentence or a line is nothing but a label
6. foreign    one Latin letter stands among words of another script
7. polar      the answer begins with yes or no, and so does one option
8. mentioned  one label stands at a sentence's end, or before its own option's text
9. texts      one option's text stands in the answer

A letter before words is a label only where its marks, what follows or the option's own text say so: "A" may
be the article, "I" the pronoun. What is denied (``DENIALS``) or asked is no evidence. Forms after lmms-eval's
shared extractor (lmms_eval/tasks/_task_utils/mcq_extract.py), and after reports of what such readers miss.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from vidllava.evaluation import answer_grammar as grammar
from vidllava.evaluation.answer_reader import Letters, Named, Reader, is_other_script, is_place
from vidllava.evaluation.item import LETTERS
from vidllava.evaluation.texts import normalised, spoken


def chosen(answer: str, options: Sequence[str]) -> str | None:
    """The letter of the option that ``answer`` names; None where it names none, or several."""
    reader = Reader(
        grammar.cleaned(spoken(answer), len(options)), [grammar.cleaned(one, 0) for one in options]
    )
    for evidence in EVIDENCE.values():
        found = evidence(reader)
        if found is not None:
            letter = found.pop() if len(found) == 1 else ""
            return letter if letter and letter in reader.allowed else None
    return None


def _whole(reader: Reader) -> Letters | None:
    equal = reader.equal(reader.text)
    match = re.fullmatch(rf"(?:{grammar.OPEN}|\s)*([A-Za-z])(?:{grammar.CLOSE}|[\s.,:;!])*", reader.text)
    if match is None:
        return equal or None
    is_label = reader.text[0] in "([{" or re.search(r"[)\]:]", reader.text) is not None
    return {match[1].upper()} if is_label else {match[1].upper(), *equal}


def _contained(reader: Reader) -> Letters | None:
    found: list[tuple[int, int, str]] = []
    for match in grammar.CONTAINERS.finditer(reader.text):
        said = match["tagged"] or match["boxed"] or match["bare"] or ""
        found.append((match.start(), match.end(), _read_apart(said, reader)))
    for place in [match.start() for match in re.finditer(r"\{", reader.text)][:8]:
        try:
            value, length = json.JSONDecoder().raw_decode(reader.text[place:])
        except (ValueError, RecursionError):
            continue
        found += [(place, place + length, letter) for letter in _json_answers(value, reader)]
    return _settled(reader, found)


def _json_answers(value: Any, reader: Reader) -> list[str]:
    if not isinstance(value, dict):
        return []
    named = {re.sub(r"[\W_]", "", key.lower()): one for key, one in value.items()}
    answers = [one for key, one in named.items() if grammar.JSON_KEY.fullmatch(key) and one is not None]
    return [
        _read_apart(str(one), reader)
        if isinstance(one, str | int | float) and not isinstance(one, bool)
        else ""
        for one in answers
    ]


def _read_apart(said: str, reader: Reader) -> str:
    """The letter in a container, read as an answer of its own."""
    inner = Reader(re.sub(r"[{}]", " ", said).strip(), reader.options)
    for name, evidence in EVIDENCE.items():
        found = None if name == "contained" else evidence(inner)
        if found is not None:
            return found.pop() if len(found) == 1 else ""
    return ""


def _settled(
    reader: Reader, found: Sequence[tuple[int, int, str]], *, final: Sequence[int] = ()
) -> Letters | None:
    """One statement of several: the last if it is called final or corrects the others; else all of them."""
    if not found:
        return None
    marked = [one for one in found if one[0] in final]
    last = max(marked or found)
    different = [one for one in marked or found if one[2] != last[2]]
    if not different or all(grammar.CORRECTION.search(reader.text, one[1], last[1]) for one in different):
        return {last[2]}
    return {one[2] for one in found}


def _declared(reader: Reader) -> Letters | None:
    found: list[tuple[int, int, str]] = []
    bare: list[tuple[int, int, str]] = []
    final: list[int] = []
    for name, (pattern, labels_only) in grammar.DECLARATIONS.items():
        for match in pattern.finditer(reader.text):
            named = reader.named_at(match.end(), labels_only=labels_only, sure=name == "noun and mark")
            if named is None and name.startswith("noun"):
                named = reader.unclear_at(match.end())
            if named is None or not reader.counts(named, match.start()):
                continue
            if name == "noun alone" and _is_discussed(reader, named):
                continue
            if name == "noun alone":
                bare.append((match.start(), named.end, reader.with_others(named)))
                continue
            found.append((match.start(), named.end, reader.with_others(named)))
            if re.search(
                r"\bfinal\W+$|\bfinal\b", reader.text[max(match.start() - 8, 0) : match.end()], re.I
            ):
                final.append(match.start())
    for match in re.finditer(
        rf"(?:\b(?:option|choice|answer)\s+)?{grammar.OPEN}?\b([A-Z])\b{grammar.CLOSE}?(?=\s)", reader.text
    ):
        named = Named(match[1], match.start(), match.end(), "label")
        if _affirmed(reader, match) and reader.counts(named):
            found.append((match.start(), match.end(), match[1]))
    if not found or len({letter for *_, letter in bare}) == 1:
        found += bare  # "Option A: red", "Option B: blue" above an answer are the options
    settled = _settled(reader, found, final=final)
    first = reader.text.split("\n", 1)[0].strip()
    lone = re.fullmatch(rf"{grammar.OPEN}?([A-Z]){grammar.CLOSE}?[.:]?", first)
    # A letter on the first line is a statement too: what is declared below must not differ.
    return settled if settled is None or lone is None else settled | {lone[1]}


def _affirmed(reader: Reader, match: re.Match[str]) -> bool:
    """ "Option B is correct", "B is the right answer", "B it is"; not "(B) is right" among other verdicts."""
    after = reader.text[match.end() :]
    confirmed = grammar.CONFIRMED.match(after)
    if confirmed is None:
        return re.match(r"\s+it\s+is\b", after, re.I) is not None
    is_called = re.match(r"(?:option|choice|answer)", match[0], re.I) is not None
    return is_called or re.search(r"\b(?:the|my)\s", confirmed[0]) is not None


def _is_discussed(reader: Reader, named: Named) -> bool:
    """ "Option A, which is red, is unlikely": the sentence speaks about it."""
    rest = re.compile(r"[^.!\n]*").match(reader.text, named.end)
    assert rest is not None  # an empty match is one
    return re.search(r"\bwhich\b|\bthat\b", rest[0]) is not None or any(
        pattern.search(rest[0]) for where, pattern in grammar.DENIALS.values() if where == "after"
    )


_MARKED = re.compile(
    rf"[\s\"']*(?:{grammar.OPEN}[A-Za-z]{grammar.CLOSE}|[A-Za-z][.):](?=\s|\Z)(?!\s*[A-Z]\.)|[A-Z](?=,\s|\s[-–—]\s))"
)


def _leading(reader: Reader) -> Letters | None:
    start = len(reader.text) - len(reader.text.lstrip(" \n\t\"'"))
    named = reader.label_at(start)
    if named is None:
        return None if reader.unclear_at(start) is None else {""}
    match = grammar.LABEL.match(reader.text, start)
    assert match is not None  # a label was found there
    has_more = named.end > match.end()
    follows = reader.text[match.end() :]
    is_reasoned = grammar.REASON.match(follows) or grammar.CONFIRMED.match(follows)
    is_said = match["letter"].isupper() and is_reasoned
    if not (_MARKED.match(reader.text) or has_more or is_said) or not reader.counts(named):
        return None
    goes_on = grammar.CLAUSE_END.match(follows) is None and not is_reasoned and not has_more
    if goes_on and {label for label in re.findall(r"\(([A-Z])\)", follows)} - {named.letter}:
        return {""}  # "(A) shows red. (B) shows blue."
    others = set()
    for line in re.finditer(r"^[ \t]*(?=\S)", reader.text, re.MULTILINE):
        if _MARKED.match(reader.text, line.end()):
            label = reader.label_at(line.end())
            if label is not None and reader.counts(label):
                others.add(label.letter)
    if len(others) > 1:  # the options themselves; an answer may stand below them
        return _lone(reader) or {""}
    return {reader.with_others(named), *others}


def _lone(reader: Reader) -> Letters | None:
    found = set()
    for match in re.finditer(
        rf"(?:\A|(?<=[.;!?\n]))\s*(?:(?:no|yes|so|then|ok|okay|sure|well|maybe|perhaps|\w+ly)[,:]?\s+)?{grammar.OPEN}*([A-Za-z])({grammar.CLOSE}*)\s*"
        r"(?=[.;!?\n]|\Z)",
        reader.text,
        re.IGNORECASE,
    ):
        named = Named(match[1].upper(), match.start(1), match.end(), "label")
        if (match[1].isupper() or match[2]) and reader.counts(named):
            found.add(named.letter)
    return found or None


def _foreign(reader: Reader) -> Letters | None:
    if not any(map(is_other_script, reader.text)):
        return None
    forms = [re.escape(form) for form in reader.forms if len(form) > 1]
    texts = re.compile("|".join(forms) or r"(?!)", re.IGNORECASE)
    within = [match.span() for match in texts.finditer(reader.text)]
    found = set()
    for match in re.finditer(rf"(?<![{grammar.LATIN}0-9])([A-Z])(?![{grammar.LATIN}0-9])", reader.text):
        named = Named(match[1], match.start(), match.end(), "label")
        inside = any(start <= named.start < end for start, end in within)
        if not inside and reader.counts(named):
            found.add(named.letter)
    return found or None


_POLAR = re.compile(
    r"[\s\"'(]*(yes|no)\b(?=\s*(?:[,.;:!)\n–—-]|\Z)|\s+(?:it|he|she|they|there|the|this|that|i|we|you)\b)",
    re.I,
)


def _polar(reader: Reader) -> Letters | None:
    match = _POLAR.match(reader.text)
    if match is None:
        return None
    said = match[1].lower()
    numbers = [n for n, form in enumerate(reader.forms) if re.match(r"\w*", form)[0] == said]  # type: ignore[index]
    other = "no" if said == "yes" else "yes"
    is_both = re.search(rf"(?:\A|[,.;]\s*|\bbut\s+|\band\s+){other}\s*(?:[,.;!]|\Z)", reader.text, re.I)
    return None if not numbers else {""} if is_both else {LETTERS[number] for number in numbers}


def _mentioned(reader: Reader) -> Letters | None:
    if any(not said.letter for said in reader.texts()):  # "red (B)"
        return {""}
    found: set[str] = set()
    is_sure = True
    for match in re.finditer(r"\(([A-Z])\)|(?<!\w)([A-Z])[.):]\s", reader.text):
        letter = match[1] or match[2]
        label = reader.label_at(match.start())
        has_text = label is not None and label.end > match.end()
        is_last = (
            bool(match[1]) and re.compile(r"\s*(?:[.!\n]|\Z)").match(reader.text, match.end()) is not None
        )
        found.add(letter if label is None else label.letter)
        named = label or Named(letter, match.start(), match.end(), "label")
        is_sure = is_sure and (has_text or is_last) and reader.counts(named)
    return (found if is_sure or len(found) > 1 else None) if found else None


def _texts(reader: Reader) -> Letters | None:
    found = set()
    for said in reader.texts():
        word = reader.text[said.start : said.end]
        if re.fullmatch(r"[^\W\d]", normalised(word)):  # an article, a pronoun, or no label
            continue
        if word.lower() in ("yes", "no") or _is_pronoun(reader.text, said):
            continue
        if is_place(reader.text, said) or _is_enumerator(reader.text, said):
            continue
        if reader.counts(said):
            found.add(said.letter)
    return found or None


def _is_pronoun(text: str, said: Named) -> bool:
    """ "The blue one", "one of them": no count."""
    if text[said.start : said.end].lower() != "one":
        return False
    before = re.search(r"(\w+)\s+\Z", text[: said.start])
    counts = (
        "is",
        "are",
        "was",
        "only",
        "exactly",
        "just",
        "has",
        "have",
        "see",
        "shows",
        "contains",
        "with",
    )
    return (before is not None and before[1].lower() not in counts) or re.match(
        r"\s+of\b", text[said.end :]
    ) is not None


def _is_enumerator(text: str, said: Named) -> bool:
    """ "1. First the ball falls": the number of a line."""
    is_first = said.start == 0 or text[: said.start].rstrip(" \t").endswith("\n")
    is_number = text[said.start : said.end].isdigit()
    return is_first and is_number and re.match(r"[.)]\s+\w", text[said.end :]) is not None


EVIDENCE: dict[str, Callable[[Reader], Letters | None]] = {
    "whole": _whole,
    "contained": _contained,
    "declared": _declared,
    "leading": _leading,
    "lone": _lone,
    "foreign": _foreign,
    "polar": _polar,
    "mentioned": _mentioned,
    "texts": _texts,
}
