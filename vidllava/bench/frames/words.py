"""The sweep in words: what was used, on which questions and machine, and how each figure came about."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vidllava.bench.frames.advice import against, alike, choose, interval
from vidllava.bench.frames.request import factor_word
from vidllava.bench.frames.summary import CellSummary, Spread, SweepSummary, count_of


def used_factor(one: CellSummary) -> str:
    """``auto: 2``, ``off``, ``auto: 2 to 3``."""
    assert one.cell is not None
    word = factor_word(one.cell.rope_factor)
    if word != "auto" or not one.factors:
        return word
    low, high = one.factors[0], one.factors[-1]
    return f"auto: {low:g}" if low == high else f"auto: {low:g} to {high:g}"


def context_word(one: CellSummary) -> str:
    """Where the prompts with their reserve lie: within the trained context, within it x factor, or beyond."""
    told = [row for row in one.rows if "beyond" in row]
    if not told:
        return "too long" if one.summary.overall.statuses["over_budget"] else "-"
    if one.beyond:
        return "beyond" if one.beyond == len(told) else f"beyond: {one.beyond} of {len(told)}"
    if not one.exceeding:
        return "within"
    return "scaled" if one.exceeding == len(told) else f"scaled: {one.exceeding} of {len(told)}"


def cell_legend(found: SweepSummary) -> tuple[str, ...]:
    """What stands in the cells of the table, a line each."""
    limit = next((row["context_limit"] for row in found.rows if row.get("context_limit")), None)
    context = "the trained context" if limit is None else f"the trained context of {limit:,} tokens"
    lines = [
        f"context: where prompt and reserve lie. within = {context}; scaled = longer than it, within it x "
        "factor; beyond = longer than that too, so that the answers mean little; too long = not asked."
    ]
    if found.measure is not None:
        those = "right" if found.measure == "accuracy" else f"those of {_name(found)}"
        lines.append(
            f"{found.measure}: share of the answers that are {those}, with Wilson's 95 % interval. Two "
            "settings are compared by the paired test, not by whether their intervals overlap."
        )
    return (
        *lines,
        "failed: questions without an answer. visual, tokens: of the video, of the whole prompt (median). "
        "ms: medians; decode, vision and memory of the questions that shared nothing. - = none measured.",
    )


def _name(found: SweepSummary) -> str:
    return "the richest setting" if found.richest is None else found.richest.name


def spread_words(value: Spread | None, scale: float = 1.0) -> str:
    """``12 / 15``: median / 90th percentile."""
    return "-" if value is None else f"{value.median * scale:,.0f} / {value.p90 * scale:,.0f}"


def facts(found: SweepSummary, told: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, value) of the question set, the model and the machine."""
    rows = found.cells[0].rows if found.cells else found.rows
    clips = {name for row in rows for name in row["media"]}
    pairs = [
        ("questions", f"{len(rows)} about {len(clips)} files, {told['set']}"),
        *((name.replace("_", " "), _counts(rows, name)) for name in _groups_of(rows)),
        ("trained context", _context(found)),
        ("model", f"{told['model']}, {told['weights']} weights, {told['dtype']}"),
        ("device", f"{told['device']}, {told['threads']} CPU threads"),
        ("versions", ", ".join(f"{name} {told[name]}" for name in _VERSIONS if told.get(name))),
        ("commit", _commits(found)),
        ("measured", _dates(found)),
    ]
    return [(name, value) for name, value in pairs if value]


_VERSIONS = ("vidllava", "torch", "transformers", "triton", "python", "driver")


def _groups_of(rows: Any) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row["groups"]))


def _counts(rows: Any, group: str) -> str:
    found: dict[str, int] = {}
    for row in rows:
        value = row["groups"].get(group)
        if value is not None:
            found[value] = found.get(value, 0) + 1
    if not 2 <= len(found) <= 20:
        return ""
    return ", ".join(f"{value}: {count}" for value, count in sorted(found.items(), key=_order))


def _order(pair: tuple[str, int]) -> tuple[float, int, str]:
    """Numbers by size, then words by how often they come up."""
    try:
        return float(pair[0]), 0, ""
    except ValueError:
        return math.inf, -pair[1], pair[0]


def _context(found: SweepSummary) -> str:
    sizes = sorted({row["context_limit"] for row in found.rows if row.get("context_limit")})
    reserve = sorted({row["reserve_tokens"] for row in found.rows if row.get("context_limit")})
    if not sizes:
        return ""
    return f"{sizes[0]:,} tokens, of which {reserve[0]:,} are kept free for the answer"


def _commits(found: SweepSummary) -> str:
    shown = []
    for commit, count in count_of(found.rows, "commit").items():
        changed = any(row["commit"] == commit and row["uncommitted_changes"] for row in found.rows)
        part = f" ({count} rows)" if count < len(found.rows) else ""
        shown.append(f"{commit[:12]}{', with uncommitted changes' if changed else ''}{part}")
    return "; ".join(shown)


def _dates(found: SweepSummary) -> str:
    dates = sorted(row["date"] for row in found.rows)
    loads = sorted(row["load_1min"] for row in found.rows if row.get("load_1min") is not None)
    load = f"; load of the machine {loads[0]:.1f} to {loads[-1]:.1f}" if loads else ""
    return f"{dates[0]} to {dates[-1]}, {len(dates):,} rows{load}"


def how_measured(found: SweepSummary, told: Mapping[str, Any]) -> list[str]:
    """How each figure came about, for those who doubt it."""
    timed = {row["id"] for row in found.rows if row.get("features") == "fresh" and row["cell"] != "blind"}
    lines = [
        "Every question was asked in every cell, greedily. A clip was decoded once for all cells, and "
        "each of its frames encoded once; prefill and generating were timed for every question. Cells "
        "that come to the same frames, tokens and factor were measured once and are shown in each.",
        f"{len(timed)} questions shared nothing: each of their cells went from the file to the answer as "
        "`vidllava ask` does. Milliseconds of decoding and tower, those to the first token, and peak "
        "memory are theirs.",
        "A question is beyond the trained context where its prompt and the tokens kept free for the "
        "answer exceed trained context x factor. Factor off and factors given by number are measured "
        "there too; auto takes the smallest whole factor that fits.",
    ]
    if found.measure == "agreement" and found.richest is not None:
        lines.append(
            f"Without labels: the share of answers that are those of {found.richest.name}, right or wrong."
        )
    if found.measure == "accuracy":
        lines.append(
            "Accuracy is over the questions that were answered, with Wilson's 95 % interval; failures are "
            "counted apart. Without the video: the same questions, asked of the language model alone."
        )
    if found.measure is not None:
        lines.append(
            "Settings are compared over the questions that both answered: by the exact McNemar test where "
            "answers are right or wrong, by a paired bootstrap where they are graded; beyond chance is "
            "p < 0.05, two-sided and not corrected for the number of settings."
        )
    if told.get("memory_method"):
        lines.append(
            f"Memory: {told['memory_method']}. The decoder works in a process of its own and is not in it."
        )
    return lines


Value = Callable[[CellSummary, Sequence[CellSummary]], str]
_MS, _MB = 1e3, 1e-6
NONE = "-"


def columns(found: SweepSummary) -> list[tuple[str, Value]]:
    """(heading as HTML, what stands there for a cell and those that are the same)."""
    shown: list[tuple[str, Value]] = [
        ("cell", lambda one, same: short_name(one, found)),
        ("factor", factor_words),
        ("trained<br>context", lambda one, same: context_word(one) if one.cell is not None else NONE),
    ]
    if found.measure is not None:
        shown.append((f"{found.measure}<br>(95 % interval)", lambda one, same: interval(one)))
        best, _ = choose(found)
        if best is not None and found.measure == "accuracy":
            shown.append(("against the best<br>+ better, - worse", lambda one, same: _against(one, best)))
    shown.append(("failed", lambda one, same: str(one.failed)))
    if any(one.frames != one.cell.num_frames for one in found.cells if one.cell is not None and one.frames):
        # Rates, and clips of few frames: a cell's name does not tell.
        frames: Value = lambda one, same: NONE if one.frames is None else f"{one.frames:.3g}"  # noqa: E731
        shown.append(("frames<br>(mean)", frames))
    return [
        *shown,
        ("visual<br>tokens", lambda one, same: _median(one.visual_tokens)),
        ("prompt<br>tokens", lambda one, same: _median(one.prompt_tokens)),
        ("decode<br>ms", lambda one, same: _seen(one, "decode")),
        ("tower<br>ms", lambda one, same: _seen(one, "vision")),
        ("first token<br>ms", lambda one, same: spread_words(one.seconds["first_token"], _MS)),
        ("prefill<br>ms", lambda one, same: spread_words(one.seconds["prefill"], _MS)),
        ("a token<br>ms", lambda one, same: _median(one.seconds["per_token"], _MS, ".1f")),
        ("peak<br>MB", lambda one, same: _megabytes(one)),
    ]


def merged(found: SweepSummary) -> list[tuple[CellSummary, list[CellSummary]]]:
    """Each cell that was measured, with those that came to the same; last the questions without video."""
    lines: dict[str, tuple[CellSummary, list[CellSummary]]] = {}
    for one in found.cells:
        first = lines.get(one.same_as[0]) if len(one.same_as) == 1 else None
        if first is not None and alike(first[0], one):
            first[1].append(one)
        else:
            lines[one.name] = (one, [])
    return [*lines.values(), *([(found.blind, [])] if found.blind is not None else [])]


def short_name(one: CellSummary, found: SweepSummary) -> str:
    """Frames and pooling; the mode where there are several."""
    if one.cell is None:
        return one.name
    modes = {each.cell.pool_mode for each in found.cells if each.cell is not None}
    mode = f" · {one.cell.pool_mode}" if len(modes) > 1 and one.cell.pool_stride > 1 else ""
    return f"{one.cell.frames} · stride {one.cell.pool_stride}{mode}"


def factor_words(one: CellSummary, same: Sequence[CellSummary]) -> str:
    """``off, auto: 1``: all that came to the same."""
    return NONE if one.cell is None else ", ".join(used_factor(each) for each in (one, *same))


def _against(one: CellSummary, best: CellSummary) -> str:
    """``+0 -1, p = 1``: questions answered better and worse than by the best."""
    pairs = None if one is best else against(one, best)
    return NONE if pairs is None else f"+{pairs.better} -{pairs.worse}, p = {pairs.p:.2g}"


def _seen(one: CellSummary, stage: str) -> str:
    return NONE if one.cell is None else spread_words(one.seconds[stage], _MS)


def _median(value: Spread | None, scale: float = 1.0, form: str = ",.0f") -> str:
    return NONE if value is None else f"{value.median * scale:{form}}"


def _megabytes(one: CellSummary) -> str:
    return NONE if one.peak_memory_bytes is None else f"{one.peak_memory_bytes * _MB:,.0f}"
