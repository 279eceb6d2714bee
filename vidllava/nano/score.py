"""The score of nano: held-out lessons as real files, asked through the real decoder and the real model.

    python -m vidllava.nano.score                        the table
    python -m vidllava.nano.score --model out --lessons 20 --json score.json

Two held-out sets: ``test`` (unseen seeds) and ``combos`` (unseen seeds, every scene with a combination of
colour and form that training never shows). Exact: the whole answer is right. F1: over facts of free answers.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidllava.files.writing import write_json
from vidllava.nano.lessons import SETTINGS, Setting, make_lesson, write_exhibit
from vidllava.nano.questions import FREE_KINDS
from vidllava.nano.scene import Split

if TYPE_CHECKING:
    from vidllava.backbone.model import Backbone

HELD_OUT_SPLITS: tuple[Split, ...] = ("test", "combos")
# Clips are the main job; the other settings are asked a fraction as often.
_SHARE: dict[Setting, float] = {setting: 0.25 for setting in SETTINGS} | {"clip": 1.0, "picture": 0.5}


def facts(text: str) -> Counter[str]:
    """The facts of an answer: its sentences, and the parts of a list ("a red circle and a blue star")."""
    parts = re.split(r"[.!?]|,|\band\b", text.lower())
    words = (re.sub(r"^(?:the|an|a)\s+", "", " ".join(part.split())) for part in parts)
    return Counter(word for word in words if word)


def same_answer(given: str, true: str) -> bool:
    """Exact match, but for case, outer spaces and a final full stop."""
    return given.strip().rstrip(".").lower() == true.strip().rstrip(".").lower()


def fact_f1(answers: Iterable[tuple[str, str]]) -> float:
    """Harmonic mean of precision and recall over the facts of (given, true) answers; 0 without any."""
    shared = total = 0
    for given, true in answers:
        ours, theirs = facts(given), facts(true)
        shared, total = shared + (ours & theirs).total(), total + ours.total() + theirs.total()
    return 2 * shared / total if total else 0.0


@dataclass(frozen=True)
class Asked:
    """One question as it was asked and answered."""

    split: Split
    setting: Setting
    kind: str
    question: str
    true: str
    given: str


def ask_held_out(
    backbone: Backbone, splits: Sequence[Split], *, lessons: int, questions: int, seed: int = 0
) -> Iterator[Asked]:
    """Ask about ``lessons`` clips per split, and a share of that of each other setting, from real files."""
    from vidllava.backbone.answer import answer_question
    from vidllava.visuals.options import GenerateOptions
    from vidllava.visuals.question import plan_question

    options = GenerateOptions(max_new_tokens=64)
    with tempfile.TemporaryDirectory() as folder:
        for split in splits:
            for setting in SETTINGS:
                for index in range(max(1, round(lessons * _SHARE[setting]))):
                    lesson, _ = make_lesson(split, seed, index, setting, num_questions=questions, even=True)
                    media = [
                        str(write_exhibit(exhibit, Path(folder) / f"{number}"))
                        for number, exhibit in enumerate(lesson.exhibits)
                    ]
                    for made in lesson.questions:
                        question = plan_question(media, made.text, backbone.settings, backbone.codec)
                        given = answer_question(backbone, question, options).text
                        yield Asked(split, setting, made.kind, made.text, made.answer, given)


def summary(asked: Sequence[Asked]) -> dict[str, Any]:
    """Figures per split: single facts (exact), each kind, each setting, free answers (F1)."""
    report: dict[str, Any] = {}
    for split in dict.fromkeys(one.split for one in asked):
        mine = [one for one in asked if one.split == split]
        single = [one for one in mine if one.kind not in FREE_KINDS]
        report[split] = {
            "single_fact": _figures(single),
            "free": _figures([one for one in mine if one.kind in FREE_KINDS]),
            "kinds": _by(mine, "kind"),
            "settings_single_fact": _by(single, "setting"),
        }
    return report


def _by(asked: Sequence[Asked], key: str) -> dict[str, dict[str, float]]:
    names = sorted({getattr(one, key) for one in asked})
    return {name: _figures([one for one in asked if getattr(one, key) == name]) for name in names}


def _figures(asked: Sequence[Asked]) -> dict[str, float]:
    exact = sum(same_answer(one.given, one.true) for one in asked) / max(len(asked), 1)
    f1 = fact_f1((one.given, one.true) for one in asked)
    return {"asked": len(asked), "exact": round(exact, 4), "f1": round(f1, 4)}


def table(report: dict[str, Any]) -> str:
    """The report for people: a row per kind, a pair of columns per split."""
    splits = list(report)
    rows: list[tuple[str, list[dict[str, float] | None]]] = [
        ("all single facts", [report[split]["single_fact"] for split in splits]),
        ("all free answers", [report[split]["free"] for split in splits]),
    ]
    for group in ("kinds", "settings_single_fact"):
        names = dict.fromkeys(name for split in splits for name in report[split][group])
        rows += [(name, [report[split][group].get(name) for split in splits]) for name in names]
    heading = "".join(f"{split + ' exact':>14}{'F1':>8}{'asked':>7}" for split in splits)
    lines = [f"{'':20}{heading}"]
    for name, cells in rows:
        columns = (
            f"{'-':>14}{'':15}"
            if cell is None
            else f"{cell['exact']:>14.1%}{cell['f1']:>8.1%}{cell['asked']:>7}"
            for cell in cells
        )
        lines.append(f"{name:20}{''.join(columns)}".rstrip())
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; the table goes to stdout."""
    parser = argparse.ArgumentParser(prog="python -m vidllava.nano.score", description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="nano", help="nano, or a checkpoint folder")
    parser.add_argument("--lessons", type=int, default=60, help="clips per held-out set (60)")
    parser.add_argument("--questions", type=int, default=6, help="questions per lesson at most (6)")
    parser.add_argument("--seed", type=int, default=0, help="which lessons (0)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--wrong", action="store_true", help="print every wrong answer")
    options = parser.parse_args(arguments)
    from vidllava.backbone.load import load_backbone

    backbone = load_backbone(options.model)
    size = {"lessons": options.lessons, "questions": options.questions, "seed": options.seed}
    asked = list(ask_held_out(backbone, HELD_OUT_SPLITS, **size))
    report = summary(asked)
    if options.wrong:
        for one in asked:
            if not same_answer(one.given, one.true):
                print(f"{one.split} {one.setting}: {one.question} -> {one.given} (true: {one.true})")
    print(table(report))
    if options.json is not None:
        write_json(options.json, report)


if __name__ == "__main__":
    main()
