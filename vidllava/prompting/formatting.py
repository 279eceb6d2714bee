"""Formatting prompts of LLaVA-OneVision, and the plain format of its first stage: visual and caption alone.

    found = formatting_prompt("chartqa", "picture")         # by the data set's name
    found = formatting_prompt(5, "picture")                 # or by its number in the paper's table
    with_format(turns, found)

A benchmark's answers are short words, letters or captions; asked in the same words at training and in the
test, a model gives them in that form. Texts: LLaVA-OneVision, Tables 18 and 19; data sets: Tables 16 and 17.
Only prompts whose text we know word for word stand here; a row may bring its own words instead.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vidllava.errors import DatasetError
from vidllava.prompting.template import IGNORE, SLOT, Control, Encoder, Template, TokenizedPrompt
from vidllava.prompting.turns import Placeholder, Turn


def tokenize_plain(
    turns: Sequence[Turn], template: Template, encoder: Encoder, *, source: str
) -> TokenizedPrompt:
    """Visuals and one answer, as ids with labels. Raises DatasetError for any other conversation."""
    spoken = [turn for turn in turns if turn.role != "system"]
    if len(spoken) != 2:
        what = f"has {len(spoken)} turns; the plain format of stage 1 takes a question and a caption"
        raise DatasetError(source, what, "--stage 1.5 or later for conversations")
    question, caption = spoken
    slots = [SLOT] * len(question.placeholders)
    if not slots:
        raise DatasetError(source, "has no picture or clip", "stage 1 learns from captions of visuals")
    begin = [encoder.special(piece.name) for piece in template.begin if isinstance(piece, Control)]
    begin = begin or list(encoder.bos())
    labels = encoder.encode(f"{caption.text}\n", "control")
    before = [*begin, *slots]
    targets = labels if caption.learned else [IGNORE] * len(labels)
    return TokenizedPrompt(tuple(before + labels), tuple([IGNORE] * len(before) + targets))


Position = Literal["head", "tail", "all"]
Table = Literal["picture", "pictures", "video", "text"]
"""The paper numbers the prompts of pictures, of several pictures and of videos each from 1."""


@dataclass(frozen=True)
class FormattingPrompt:
    """One text and where it stands: before the question, after it, or as the whole question."""

    position: Position
    text: str


_LETTER = FormattingPrompt("tail", "Answer with the option letter from the given choices directly.")
_LETTER_AND_OPTION = FormattingPrompt(
    "tail", "Please provide your answer by stating the letter followed by the full option."
)

PICTURE_PROMPTS: dict[int, FormattingPrompt] = {
    1: FormattingPrompt("tail", "Answer the question with a single word (or phrase)."),
    2: FormattingPrompt("head", "Hint: Please answer the question and provide the final answer at the end."),
    3: FormattingPrompt("tail", "Answer the question with Yes or No."),
    4: FormattingPrompt("tail", "Answer with the given letter directly"),
    5: _LETTER,
    6: FormattingPrompt(
        "head",
        "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the "
        "end.",
    ),
    7: FormattingPrompt("all", "Provide a short description for this region."),
    8: FormattingPrompt("all", "Provide the bounding box coordinate of the region this sentence describes."),
    11: FormattingPrompt("all", "Describe this image in detail."),
    13: FormattingPrompt("head", "Provide the requested information directly."),
    19: FormattingPrompt("all", "Compose the HTML code to achieve the same design as this screenshot."),
    20: FormattingPrompt(
        "head",
        "First perform reasoning, then finally select the question from the choices in the following "
        "format: Answer: xxx.",
    ),
    21: FormattingPrompt("tail", "Round computations to 2 decimal places."),
    22: FormattingPrompt(
        "all", "Please write out the expression of the formula in the image using LaTeX format."
    ),
    23: FormattingPrompt(
        "all", "What is written in the image? Answer this question using the text in the image directly."
    ),
    24: _LETTER_AND_OPTION,
}
VIDEO_PROMPTS: dict[int, FormattingPrompt] = {1: _LETTER, 2: _LETTER_AND_OPTION}
PICTURES_PROMPTS: dict[int, FormattingPrompt] = {
    **{number: FormattingPrompt("head", "What's the difference between 2 images?") for number in (3, 20, 22)},
    7: FormattingPrompt("head", "This is a 3D scenario."),
}
PROMPTS: dict[Table, dict[int, FormattingPrompt]] = {
    "text": {},
    "picture": PICTURE_PROMPTS,
    "pictures": PICTURES_PROMPTS,
    "video": VIDEO_PROMPTS,
}

_PICTURE_SETS = {
    1: "aokvqa vqav2 gqa okvqa chartqa docvqa dvqa infovqa infographicvqa ureaderqa ocrvqa tallyqa stvqa",
    2: "clevrmath superclevr tabmwp vizwiz",
    3: "vsr figureqa raven",
    4: "ai2dinternvl",
    5: "ai2d scienceqa iconqa tqa visual7w intergps",
    6: "geometry3k geos geoqa geoqaplus unigeo",
    11: "sharegpt4v sharegpt4o imagetextualization textocrgpt4v textocr",
    # Table 16 is one behind Table 18 from 13 on (it gives formula pictures the rounding prompt): corrected.
    19: "websight",
    22: "hme100k",
}
_VIDEO_SETS = {
    1: "activitynet activitynetqa charades charadessta",
    2: "nextqa ego4d youcook2",
}
_PICTURES_SETS = {3: "spotthediff", 7: "scanqa scannet"}


def _by_name(sets: dict[int, str]) -> dict[str, int]:
    return {name: number for number, names in sets.items() for name in names.split()}


DATASETS: dict[Table, dict[str, int]] = {
    "text": {},
    "picture": _by_name(_PICTURE_SETS),
    "pictures": _by_name(_PICTURES_SETS),
    "video": _by_name(_VIDEO_SETS),
}
# What file names add to a data set's name.
_ADDED = re.compile(r"[_\-. ]*(llava|cauldron|internvl|train|val|\d+k|onevision|gpt4v|v\d+)$")


def formatting_prompt(key: int | str, table: Table) -> FormattingPrompt | None:
    """The prompt of this number, or of the data set of this name; None for a set without one.

    "ChartQA", "chart_qa" and "chartqa_train_18k" are one name. Raises DatasetError for a number whose text is
    not known.
    """
    number = _number(key)
    if number is None:
        number = _set_number(str(key), table)
        return None if number is None else PROMPTS[table][number]
    if number not in PROMPTS[table]:
        known = ", ".join(map(str, PROMPTS[table])) or "none"
        raise DatasetError(
            f"format {number}", f"no such formatting prompt for {table}", f"numbers with a text: {known}"
        )
    return PROMPTS[table][number]


def _number(key: int | str) -> int | None:
    if isinstance(key, int):
        return key
    return int(key) if key.strip().isdecimal() else None


def _set_number(name: str, table: Table) -> int | None:
    """The number of a data set's prompt, whatever its file's name adds."""
    name = name.lower().replace("+", "plus")
    while True:
        found = DATASETS[table].get(re.sub(r"[^a-z0-9]", "", name))
        shorter = _ADDED.sub("", name)
        if found is not None or shorter == name:
            return found
        name = shorter


def with_format(turns: Sequence[Turn], prompt: FormattingPrompt) -> tuple[Turn, ...]:
    """The same conversation with the prompt in every question that lacks it.

    head and tail: on a line of its own before or after the question's words; the visuals stay where they
    are. all: it is the question, where there is none but visuals; a question with words keeps them.
    """
    return tuple(_formatted(turn, prompt) if turn.role == "user" else turn for turn in turns)


def _formatted(turn: Turn, prompt: FormattingPrompt) -> Turn:
    if _squeezed(prompt.text) in _squeezed(turn.text):
        return turn
    parts = list(turn.parts)
    first = next((n for n, part in enumerate(parts) if isinstance(part, str) and part.strip()), None)
    if first is None:
        visuals = [part for part in parts if isinstance(part, Placeholder)]
        return Turn.from_parts("user", [*visuals, "\n" if visuals else "", prompt.text])
    if prompt.position == "all":
        return turn
    if prompt.position == "tail":
        last = parts[-1]
        if isinstance(last, str):
            parts[-1] = last.rstrip()
        return Turn.from_parts("user", [*parts, f"\n{prompt.text}"])
    words = str(parts[first])
    lead = words[: len(words) - len(words.lstrip())]
    parts[first] = f"{lead}{prompt.text}\n{words.lstrip()}"
    return Turn.from_parts("user", parts)


def _squeezed(text: str) -> str:
    """For comparing: letters and digits only."""
    return re.sub(r"\W+", "", text).lower()
