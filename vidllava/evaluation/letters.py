"""The option that an answer names: one letter, or none where it names no option or several.

chosen("The best answer is (B).", ("red", "blue"))      # "B"
chosen("It is not red.", ("red", "blue"))               # None: an option that is denied is not chosen
chosen("I cannot tell", ("red", "blue"))                # None, and never a guess

A reasoning block is removed first (``texts.spoken``), then widths, markup and look-alike letters are put
right (``CLEANERS``). The kinds of evidence are asked in the order of ``EVIDENCE``; the first that says
anything decides, also where it says two things or a letter that is no option:

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
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from vidllava.evaluation import answer_grammar as grammar
from vidllava.evaluation.item import LETTERS
from vidllava.evaluation.texts import normalised, spoken

Letters = set[str]
"""What one kind of evidence says: letters; "" stands for a statement that names no single option."""


def chosen(answer: str, options: Sequence[str]) -> str | None:
    """The letter of the option that ``answer`` names; None where it names none, or several."""
    reader = _Reader(
        grammar.cleaned(spoken(answer), len(options)), [grammar.cleaned(one, 0) for one in options]
    )
    for evidence in EVIDENCE.values():
        found = evidence(reader)
        if found is not None:
            letter = found.pop() if len(found) == 1 else ""
            return letter if letter and letter in reader.allowed else None
    return None


class _Named(NamedTuple):
    """An option named at a place of the text."""

    letter: str
    """Empty where two options are named as one."""
    start: int
    end: int
    by: str
    """label or text."""


class _Reader:
    """One grammar.cleaned answer, read against the grammar.cleaned texts of its options."""

    def __init__(self, text: str, options: Sequence[str]) -> None:
        self.text, self.options = text, options
        self.allowed = LETTERS[: len(options)]
        self.forms = [normalised(option) for option in options]
        self._patterns = [grammar.text_pattern(form) for form in self.forms]

    # ---- where an option is named ----

    def text_at(self, start: int) -> _Named | None:
        """The option whose text begins at ``start``: the longest; "" where two are alike there."""
        found: list[tuple[int, int]] = []
        for number, pattern in enumerate(self._patterns):
            match = pattern.match(self.text, start) if pattern is not None else None
            if match is not None:
                found.append((match.end(), number))
        if not found:
            return None
        end = max(found)[0]
        numbers = [number for reached, number in found if reached == end]
        letters = self._word_for_word(self.text[start:end], numbers)
        return _Named(letters.pop() if len(letters) == 1 else "", start, end, "text")

    def _word_for_word(self, said: str, numbers: Sequence[int]) -> Letters:
        """Of options that are alike but for case and marks, the one that is said exactly."""
        exact = [number for number in numbers if said.strip() == self.options[number]]
        return {LETTERS[number] for number in (exact if len(exact) == 1 else numbers)}

    def equal(self, said: str) -> Letters:
        """The options whose text is ``said``."""
        form = normalised(said)
        return self._word_for_word(said, [n for n, each in enumerate(self.forms) if form and each == form])

    def texts(self) -> Iterator[_Named]:
        """Options' texts from left to right; within a longer one none."""
        place = 0
        while place < len(self.text):
            found = self.text_at(place) if _starts_word(self.text, place) else None
            if found is None:
                place += 1
            else:
                yield found
                place = found.end

    def label_at(self, start: int, *, sure: bool = False) -> _Named | None:
        """The label at ``start``, if it is one and no word. ``sure``: an article is not to be feared here."""
        match = grammar.LABEL.match(self.text, start)
        if match is None:
            return None
        letter = match["letter"].upper()
        named = _Named(letter, start, match.end(), "label")
        own = self._own_text_after(named)
        if own is not None:
            return own
        if re.search(r"[)\]}]", match["close"]):
            return named
        rest = self.text[match.end() :]
        if (
            match["letter"] in "ai"
            and not match["close"]
            and not sure
            and not re.match(r"\s*[.,;:!)\n]", rest)
        ):
            return None
        if letter == "I" and re.match(r"\s*,", rest):
            return None
        follows = (
            grammar.CLAUSE_END.match(rest) or grammar.REASON.match(rest) or grammar.CONFIRMED.match(rest)
        )
        return named if follows or _is_other_script(rest[:1]) else None

    def _own_text_after(self, label: _Named) -> _Named | None:
        """The label with its own option's text; "" with the whole text of another one."""
        place = re.compile(r"[\s).:,\]–—-]*").match(self.text, label.end)
        assert place is not None  # an empty match is one
        if place.end() == label.end:
            return None
        said = self.text_at(place.end())
        if said is None:
            return None
        if said.letter == label.letter:
            return label._replace(end=said.end)
        is_marked = bool(place[0].strip()) or self.text[label.start] in "([{"
        is_whole = re.compile(r"\s*(?:[.;!\n]|\Z)").match(self.text, said.end) is not None
        return label._replace(letter="", end=said.end) if is_marked and is_whole else None

    def named_at(self, start: int, *, labels_only: bool = False, sure: bool = False) -> _Named | None:
        """A label or an option's text at ``start``; both as one where they are the same word."""
        place = grammar.NAME_START.match(self.text, start)
        first = place.end() if place is not None else start
        label = self.label_at(first, sure=sure)
        opening = re.compile(rf"(?:{grammar.OPEN})*").match(self.text, first)
        said = None if labels_only or opening is None else self.text_at(opening.end())
        if said is not None and _is_place(self.text, said):
            said = None
        if label is None or said is None:
            return label or said
        if said.end - opening.end() == 1 and said.letter != label.letter:  # type: ignore[union-attr]
            is_bare = self.text[first] not in "(["
            return label._replace(letter="") if is_bare else label
        return said if said.end > label.end else label

    # ---- what does not count ----

    def is_denied(self, start: int, end: int) -> bool:
        """Whether the words between are denied by their clause or by what follows."""
        before, after = 0, len(self.text)
        for match in grammar.BREAK.finditer(self.text):
            if match.end() <= start:
                before = match.end()
            elif match.start() >= end:
                after = match.start()
                break
        parts = {"before": self.text[before:start], "after": self.text[end:after]}
        for where, pattern in grammar.DENIALS.values():
            found = pattern.match(self.text, end) if where == "next" else pattern.search(parts[where])
            if found is not None:
                return True
        return False

    def is_asked(self, end: int) -> bool:
        """Whether the sentence ends with a question mark."""
        match = re.compile(r"[^.!?\n]*([.!?\n]|\Z)").match(self.text, end)
        return match is not None and match[1] == "?"

    def counts(self, named: _Named, start: int | None = None) -> bool:
        """Whether an option is stated, from ``start`` on: neither denied nor asked."""
        return not self.is_asked(named.end) and not self.is_denied(
            named.start if start is None else start, named.end
        )

    def with_others(self, named: _Named) -> str:
        """The letter; "" where another option stands beside it: "B or C", "A, B"."""
        also = grammar.ALSO.match(self.text, named.end)
        if also is None:
            return named.letter
        other = self.named_at(also.end(), sure=True)
        is_choice = re.fullmatch(r",?\s*(?:and/)?or", also["word"], re.IGNORECASE) is not None
        if other is None:
            return "" if is_choice else named.letter
        if other.letter == named.letter or self.is_denied(other.start, other.end):
            return named.letter
        # "blue, and the red one leaves" goes on about something else.
        goes_on = other.by == "text" and grammar.CLAUSE_END.match(self.text, other.end) is None
        return named.letter if goes_on and not is_choice else ""


def _starts_word(text: str, place: int) -> bool:
    """Whether a word or a number may begin here."""
    if place == 0:
        return True
    before = text[max(place - 2, 0) : place]
    if before[-1].isalnum() or before[-1] in "_-−":
        return False
    return not (text[place].isdigit() and re.fullmatch(r"\d[.,:/–—]", before))


def _is_other_script(character: str) -> bool:
    return character.isalpha() and ord(character) >= 0x250


# ---- the kinds of evidence ----


def _whole(reader: _Reader) -> Letters | None:
    equal = reader.equal(reader.text)
    match = re.fullmatch(rf"(?:{grammar.OPEN}|\s)*([A-Za-z])(?:{grammar.CLOSE}|[\s.,:;!])*", reader.text)
    if match is None:
        return equal or None
    is_label = reader.text[0] in "([{" or re.search(r"[)\]:]", reader.text) is not None
    return {match[1].upper()} if is_label else {match[1].upper(), *equal}


def _contained(reader: _Reader) -> Letters | None:
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


def _json_answers(value: Any, reader: _Reader) -> list[str]:
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


def _read_apart(said: str, reader: _Reader) -> str:
    """The letter in a container, read as an answer of its own."""
    inner = _Reader(re.sub(r"[{}]", " ", said).strip(), reader.options)
    for name, evidence in EVIDENCE.items():
        found = None if name == "contained" else evidence(inner)
        if found is not None:
            return found.pop() if len(found) == 1 else ""
    return ""


def _settled(
    reader: _Reader, found: Sequence[tuple[int, int, str]], *, final: Sequence[int] = ()
) -> Letters | None:
    """One statement of several: the last if it is called final or corrects the others; else all of them."""
    if not found:
        return None
    marked = [one for one in found if one[0] in final]
    last = max(marked or found)
    different = [one for one in marked or found if one[2] != last[2]]
    if not different or all(grammar.CORRECTION.search(reader.text, one[1], last[0]) for one in different):
        return {last[2]}
    return {one[2] for one in found}


def _declared(reader: _Reader) -> Letters | None:
    found: list[tuple[int, int, str]] = []
    final: list[int] = []
    for name, (pattern, labels_only) in grammar.DECLARATIONS.items():
        for match in pattern.finditer(reader.text):
            named = reader.named_at(match.end(), labels_only=labels_only, sure=name == "noun and mark")
            if named is None or not reader.counts(named, match.start()):
                continue
            if name == "noun alone" and _is_discussed(reader, named):
                continue
            found.append((match.start(), named.end, reader.with_others(named)))
            if re.search(
                r"\bfinal\W+$|\bfinal\b", reader.text[max(match.start() - 8, 0) : match.end()], re.I
            ):
                final.append(match.start())
    for match in re.finditer(
        rf"(?:\b(?:option|choice|answer)\s+)?{grammar.OPEN}?\b([A-Z])\b{grammar.CLOSE}?(?=\s)", reader.text
    ):
        named = _Named(match[1], match.start(), match.end(), "label")
        if _affirmed(reader, match) and reader.counts(named):
            found.append((match.start(), match.end(), match[1]))
    settled = _settled(reader, found, final=final)
    first = reader.text.split("\n", 1)[0].strip()
    lone = re.fullmatch(rf"{grammar.OPEN}?([A-Z]){grammar.CLOSE}?[.:]?", first)
    # A letter on the first line is a statement too: what is declared below must not differ.
    return settled if settled is None or lone is None else settled | {lone[1]}


def _affirmed(reader: _Reader, match: re.Match[str]) -> bool:
    """ "Option B is correct", "B is the right answer", "B it is"; not "(B) is right" among other verdicts."""
    after = reader.text[match.end() :]
    confirmed = grammar.CONFIRMED.match(after)
    if confirmed is None:
        return re.match(r"\s+it\s+is\b", after, re.I) is not None
    is_called = re.match(r"(?:option|choice|answer)", match[0], re.I) is not None
    return is_called or re.search(r"\b(?:the|my)\s", confirmed[0]) is not None


def _is_discussed(reader: _Reader, named: _Named) -> bool:
    """ "Option A, which is red, is unlikely": the sentence speaks about it."""
    rest = re.compile(r"[^.!\n]*").match(reader.text, named.end)
    assert rest is not None  # an empty match is one
    return re.search(r"\bwhich\b|\bthat\b", rest[0]) is not None or any(
        pattern.search(rest[0]) for where, pattern in grammar.DENIALS.values() if where == "after"
    )


_MARKED = re.compile(
    rf"[\s\"']*(?:{grammar.OPEN}[A-Za-z]{grammar.CLOSE}|[A-Za-z][.):](?=\s|\Z)(?!\s*[A-Z]\.)|[A-Z](?=,\s|\s[-–—]\s))"
)


def _leading(reader: _Reader) -> Letters | None:
    start = len(reader.text) - len(reader.text.lstrip(" \n\t\"'"))
    named = reader.label_at(start)
    if named is None:
        return None
    match = grammar.LABEL.match(reader.text, start)
    assert match is not None  # a label was found there
    has_more = named.end > match.end()
    follows = reader.text[match.end() :]
    is_said = match["letter"].isupper() and (
        grammar.REASON.match(follows) or grammar.CONFIRMED.match(follows)
    )
    if not (_MARKED.match(reader.text) or has_more or is_said) or not reader.counts(named):
        return None
    others = set()
    for line in re.finditer(r"^[ \t]*(?=\S)", reader.text, re.MULTILINE):
        if _MARKED.match(reader.text, line.end()):
            label = reader.label_at(line.end())
            if label is not None and reader.counts(label):
                others.add(label.letter)
    return {reader.with_others(named), *others}


def _lone(reader: _Reader) -> Letters | None:
    found = set()
    for match in re.finditer(
        rf"(?:\A|(?<=[.;!?\n]))\s*(?:(?:no|yes|so|then|ok|okay|sure|well)[,:]?\s+)?{grammar.OPEN}*([A-Za-z])({grammar.CLOSE}*)\s*"
        r"(?=[.;!?\n]|\Z)",
        reader.text,
        re.IGNORECASE,
    ):
        named = _Named(match[1].upper(), match.start(1), match.end(), "label")
        if (match[1].isupper() or match[2]) and reader.counts(named):
            found.add(named.letter)
    return found or None


def _foreign(reader: _Reader) -> Letters | None:
    if not any(map(_is_other_script, reader.text)):
        return None
    forms = [re.escape(form) for form in reader.forms if len(form) > 1]
    texts = re.compile("|".join(forms) or r"(?!)", re.IGNORECASE)
    within = [match.span() for match in texts.finditer(reader.text)]
    found = set()
    for match in re.finditer(rf"(?<![{grammar.LATIN}0-9])([A-Z])(?![{grammar.LATIN}0-9])", reader.text):
        named = _Named(match[1], match.start(), match.end(), "label")
        inside = any(start <= named.start < end for start, end in within)
        if not inside and reader.counts(named):
            found.add(named.letter)
    return found or None


_POLAR = re.compile(
    r"[\s\"'(]*(yes|no)\b(?=\s*(?:[,.;:!)\n–—-]|\Z)|\s+(?:it|he|she|they|there|the|this|that|i|we|you)\b)",
    re.I,
)


def _polar(reader: _Reader) -> Letters | None:
    match = _POLAR.match(reader.text)
    if match is None:
        return None
    said = match[1].lower()
    numbers = [n for n, form in enumerate(reader.forms) if re.match(r"\w*", form)[0] == said]  # type: ignore[index]
    other = "no" if said == "yes" else "yes"
    is_both = re.search(rf"(?:\A|[,.;]\s*|\bbut\s+|\band\s+){other}\s*(?:[,.;!]|\Z)", reader.text, re.I)
    return None if not numbers else {""} if is_both else {LETTERS[number] for number in numbers}


def _mentioned(reader: _Reader) -> Letters | None:
    found: set[str] = set()
    is_sure = True
    for match in re.finditer(r"\(([A-Z])\)|(?<!\w)([A-Z])[.):]\s", reader.text):
        letter = match[1] or match[2]
        label = reader.label_at(match.start())
        has_text = label is not None and label.end > match.end()
        is_last = (
            bool(match[1]) and re.compile(r"\s*(?:[.!\n]|\Z)").match(reader.text, match.end()) is not None
        )
        if match[2] and not has_text:
            continue
        found.add(letter if label is None else label.letter)
        named = label or _Named(letter, match.start(), match.end(), "label")
        is_sure = is_sure and (has_text or is_last) and reader.counts(named)
    return (found if is_sure or len(found) > 1 else None) if found else None


def _texts(reader: _Reader) -> Letters | None:
    found = set()
    for said in reader.texts():
        word = reader.text[said.start : said.end]
        if len(word) == 1 and word.isalpha():  # an article, a pronoun, or a label that was no label
            continue
        if word.lower() in ("yes", "no") or _is_pronoun(reader.text, said):
            continue
        if _is_place(reader.text, said) or _is_enumerator(reader.text, said):
            continue
        if reader.counts(said):
            found.add(said.letter)
    return found or None


def _is_pronoun(text: str, said: _Named) -> bool:
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


def _is_place(text: str, said: _Named) -> bool:
    """ "Option 2": where an option stands, counted from 0 or 1, and not its text."""
    is_number = text[said.start : said.end].isdigit()
    return is_number and re.search(r"\b(?:option|choice)\s*[(#]?\s*\Z", text[: said.start], re.I) is not None


def _is_enumerator(text: str, said: _Named) -> bool:
    """ "1. First the ball falls": the number of a line."""
    is_first = said.start == 0 or text[: said.start].rstrip(" \t").endswith("\n")
    is_number = text[said.start : said.end].isdigit()
    return is_first and is_number and re.match(r"[.)]\s+\w", text[said.end :]) is not None


EVIDENCE: dict[str, Callable[[_Reader], Letters | None]] = {
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
