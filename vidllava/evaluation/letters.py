"""Which option does an answer name? One letter, or none where it names several or no option.

chosen("The best answer is (B).", ("red", "blue"))      # "B"
chosen("blue", ("red", "blue"))                         # "B": the option's own text
chosen("I cannot tell", ("red", "blue"))                # None, and never a guess

The formats are those of lmms-eval's shared extractor (lmms_eval/tasks/_task_utils/mcq_extract.py): <answer>
and boxed containers, declared answers ("the answer is B", the last one counts), "B", "B.", "(B)", "B) blue".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from vidllava.evaluation.item import LETTERS
from vidllava.evaluation.texts import normalised

_CONTAINER = re.compile(
    r"<answer>(.*?)(?:</answer>|$)|\\boxed\{(?:\\text\{)?([^{}]*)\}", re.DOTALL | re.IGNORECASE
)
_DECLARED = re.compile(
    r"\b(?:(?:answer|option|choice)\s*(?:is\b|[:=])|i\s+(?:choose|select|pick)\b)"
    r"[\s:*\"'_`(\[]*(?:option\s+|choice\s+)?[\s*\"'_`(\[]*([A-Za-z])\b(?!['-]\w)",
    re.IGNORECASE,
)
_CONFIRMED = re.compile(r"\b[Oo]ption\s+\(?([A-Z])\)?\s+is\s+(?:the\s+)?(?:correct|right|best)\b")
_WHOLE = re.compile(r"[\s(\[*\"'_`]*([A-Za-z])[\s)\]*\"'_`.:,;!]*")
_LEADING = re.compile(
    r"[\s*\"'_`]*(?:\(([A-Z])\)|([A-Z])(?:[.):](?=\s|\*|$)|(?=,\s)|\s+(?:because|is\s+(?:correct|right|best))\b))"
)
# A second letter right after the first: "A or B" is no choice.
_ALTERNATIVE = re.compile(r"[\s)*.\"'`]*(?:or\b|and\b|[/,&+])\s*[(*\"'`]*[A-Z](?![\w'])")
_PARENTHESISED = re.compile(r"\(([A-Z])\)")
_LINE = re.compile(r"^[\s*\"'_`(]*([A-Z])[\s)*\"'_`.]*$", re.MULTILINE)


def chosen(answer: str, options: Sequence[str]) -> str | None:
    """The letter of the option that ``answer`` names; None where it names none, or several."""
    contained = [first or second for first, second in _CONTAINER.findall(answer)]
    text = contained[-1] if contained else answer
    allowed = LETTERS[: len(options)]
    for find in (_whole, _declared, _leading):
        found = find(text)
        if found is not None:
            # "Answer: Z" is an answer, if not one of the options: nothing further down may overrule it.
            return found if found and found in allowed else None
    by_text = _by_text(text, options)
    if by_text is not None:
        return by_text
    for pattern in (_PARENTHESISED, _LINE):
        letters = {found for found in pattern.findall(text) if found in allowed}
        if letters:
            return letters.pop() if len(letters) == 1 else None
    return None


def _whole(text: str) -> str | None:
    match = _WHOLE.fullmatch(text)
    return match[1].upper() if match else None


def _declared(text: str) -> str | None:
    found = [match for match in _DECLARED.finditer(text) if not _is_article(text, match)]
    found += _CONFIRMED.finditer(text)
    if not found:
        return None
    last = max(found, key=re.Match.start)
    return "" if _ALTERNATIVE.match(text, last.end()) else last[1].upper()


def _is_article(text: str, match: re.Match[str]) -> bool:
    """Whether the letter is the word "a" of a sentence: "the answer is a red circle"."""
    return match[1] in "aAiI" and re.match(r"\s+[a-z]", text[match.end() :]) is not None


def _leading(text: str) -> str | None:
    """ "B. blue", "(B) blue": the first label, if no other one follows at the beginning of a line."""
    match = _LEADING.match(text)
    if match is None:
        return None
    if _ALTERNATIVE.match(text, match.end()):
        return ""
    others = {first or second for line in text.splitlines() for first, second in _LEADING.findall(line)[:1]}
    return (match[1] or match[2]) if len(others) == 1 else ""


def _by_text(text: str, options: Sequence[str]) -> str | None:
    """The one option whose text is the answer, or stands in it."""
    said = normalised(text)
    texts = [normalised(option) for option in options]
    if texts.count(said) == 1:
        return LETTERS[texts.index(said)]
    found = [option for option in texts if option and re.search(rf"(?<!\w){re.escape(option)}(?!\w)", said)]
    # "dark red" holds "red": the longer one is meant.
    found = [option for option in found if not any(option != other and option in other for other in found)]
    return LETTERS[texts.index(found[0])] if len(found) == 1 else None
