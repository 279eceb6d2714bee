"""An answer read against its options: where it names one, and where a name does not count.

reader = Reader("B, not A", ("red", "blue"))
reader.named_at(0)                      # Named(letter="B", start=0, end=1, by="label")
reader.counts(reader.named_at(7))       # False: it is denied

A name is a label ("(B)", "B.") or an option's text. ``letters`` asks for names at the places that count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from vidllava.evaluation import answer_grammar as grammar
from vidllava.evaluation.item import LETTERS
from vidllava.evaluation.texts import normalised

Letters = set[str]
"""Letters of options; "" stands for a statement that names no single one."""


class Named(NamedTuple):
    """An option named at a place of the text."""

    letter: str
    """Empty where two options are named as one."""
    start: int
    end: int
    by: str
    """label or text."""


class Reader:
    """One grammar.cleaned answer, read against the grammar.cleaned texts of its options."""

    def __init__(self, text: str, options: Sequence[str]) -> None:
        self.text, self.options = text, options
        self.allowed = LETTERS[: len(options)]
        self.forms = [normalised(option) for option in options]
        self._patterns = [grammar.text_pattern(form) for form in self.forms]

    # ---- where an option is named ----

    def text_at(self, start: int) -> Named | None:
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
        after = grammar.LABEL_AFTER.match(self.text, end)
        if after is not None and after["letter"] in self.allowed:
            letters.add(after["letter"])
        return Named(letters.pop() if len(letters) == 1 else "", start, end, "text")

    def _word_for_word(self, said: str, numbers: Sequence[int]) -> Letters:
        """Of options that are alike but for case and marks, the one that is said exactly."""
        exact = [number for number in numbers if said.strip() == self.options[number]]
        return {LETTERS[number] for number in (exact if len(exact) == 1 else numbers)}

    def equal(self, said: str) -> Letters:
        """The options whose text is ``said``."""
        form = normalised(said)
        return self._word_for_word(said, [n for n, each in enumerate(self.forms) if form and each == form])

    def texts(self) -> Iterator[Named]:
        """Options' texts from left to right; within a longer one none."""
        place = 0
        while place < len(self.text):
            found = self.text_at(place) if _starts_word(self.text, place) else None
            if found is None:
                place += 1
            else:
                yield found
                place = found.end

    def label_at(self, start: int, *, sure: bool = False) -> Named | None:
        """The label at ``start``, if it is one and no word. ``sure``: an article is not to be feared here."""
        match = grammar.LABEL.match(self.text, start)
        if match is None:
            return None
        letter = match["letter"].upper()
        named = Named(letter, start, match.end(), "label")
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
        return named if follows or is_other_script(rest[:1]) else None

    def unclear_at(self, start: int) -> Named | None:
        """A letter that is not an article, before words that do not tell what it is: "B shows red"."""
        match = re.compile(r"\s*([B-HJ-Z])(?=\s+\w)").match(self.text, start)
        if match is None or match[1] not in self.allowed:
            return None
        return Named("", start, match.end(), "label")

    def _own_text_after(self, label: Named) -> Named | None:
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

    def named_at(self, start: int, *, labels_only: bool = False, sure: bool = False) -> Named | None:
        """A label or an option's text at ``start``; both as one where they are the same word."""
        place = grammar.NAME_START.match(self.text, start)
        first = place.end() if place is not None else start
        label = self.label_at(first, sure=sure)
        opening = re.compile(rf"(?:{grammar.OPEN})*").match(self.text, first)
        said = None if labels_only or opening is None else self.text_at(opening.end())
        if said is not None and is_place(self.text, said):
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

    def counts(self, named: Named, start: int | None = None) -> bool:
        """Whether an option is stated, from ``start`` on: neither denied nor asked, alone or in a list."""
        first = named.start if start is None else start
        if self.is_asked(named.end) or self.is_denied(first, named.end):
            return False
        end = named.end
        while (also := grammar.ALSO.match(self.text, end)) is not None:
            other = self.named_at(also.end(), sure=True) or grammar.LABEL.match(self.text, also.end())
            if other is None:
                break
            end = other.end if isinstance(other, Named) else other.end()
        is_plural = grammar.PLURAL.match(self.text, end) is not None
        return not (is_plural and self.is_denied(first, end))

    def with_others(self, named: Named) -> str:
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


def is_other_script(character: str) -> bool:
    return character.isalpha() and ord(character) >= 0x250


def is_place(text: str, said: Named) -> bool:
    """ "Option 2": where an option stands, counted from 0 or 1, and not its text."""
    is_number = text[said.start : said.end].isdigit()
    return is_number and re.search(r"\b(?:option|choice)\s*[(#]?\s*\Z", text[: said.start], re.I) is not None
