"""From rows to cells, to advice: figures that a hand can check."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench.frames_rows import REQUEST, made_up
from vidllava.bench.frames.advice import advice, choose, compared, mcnemar, pareto, scaling
from vidllava.bench.frames.summary import CellSummary, SweepSummary, stage_seconds, summarise_cells
from vidllava.bench.frames.words import cell_legend, context_word, merged
from vidllava.evaluation.summary import wilson


def name(frames: int, stride: int, factor: str) -> str:
    return f"{frames} frames, stride {stride}, bilinear, factor {factor}"


def some(right: int, of: int = 20) -> list[int]:
    return [1] * right + [0] * (of - right)


RIGHT = {
    "blind": some(4),
    **{name(2, stride, factor): some(8) for stride in (1, 2) for factor in ("off", "auto")},
    name(8, 1, "off"): some(6),
    name(8, 1, "auto"): some(18),
    name(8, 2, "off"): some(17),
    name(8, 2, "auto"): some(17),
}


@pytest.fixture
def found() -> SweepSummary:
    return summarise_cells(made_up(RIGHT), REQUEST.cells)


def cell(found: SweepSummary, wanted: str) -> CellSummary:
    return next(one for one in found.cells if one.name == wanted)


def test_accuracy_has_its_interval_and_its_groups(found: SweepSummary) -> None:
    one = cell(found, name(8, 1, "auto"))
    assert found.measure == "accuracy"
    assert one.quality.mean == pytest.approx(0.9)
    assert (one.quality.low, one.quality.high) == pytest.approx(wilson(18, 20))
    assert one.summary.groups["kind"]["colour"].total == 10
    assert found.blind is not None
    assert found.blind.quality.mean == pytest.approx(0.2)


def test_times_of_the_file_are_those_of_questions_that_shared_nothing(found: SweepSummary) -> None:
    one = cell(found, name(8, 2, "off"))
    decode, prefill, first = (one.seconds[stage] for stage in ("decode", "prefill", "first_token"))
    assert decode is not None
    assert prefill is not None
    assert first is not None
    assert (decode.number, prefill.number, first.number) == (1, 20, 1)
    assert first.median == pytest.approx(0.02 + 0.008 - 0.001 + prefill.median)
    assert one.seconds["per_token"] is not None
    assert one.seconds["per_token"].median == pytest.approx(0.005)
    assert one.peak_memory_bytes == 500_000_000 + 1000 * 129


def test_a_row_without_an_answer_has_no_seconds() -> None:
    assert stage_seconds({"status": "decode_error"}, "prefill") is None
    assert stage_seconds({"seconds": {"prefill": 1.0, "generate": 1.0}, "new_tokens": 0}, "per_token") is None
    assert stage_seconds({"seconds": {"prefill": 1.0}}, "first_token") is None


def test_failures_are_counted_apart_and_are_no_wrong_answers() -> None:
    rows = made_up(RIGHT)
    lost = [row for row in rows if row["cell"] == name(8, 1, "auto")][:5]
    for row in lost:
        row["status"] = "decode_error"
        del row["score"], row["given"]
    one = cell(summarise_cells(rows, REQUEST.cells), name(8, 1, "auto"))
    assert one.failed == 5
    assert one.quality.number == 15
    assert one.quality.mean == pytest.approx(13 / 15)


def test_without_labels_the_richest_cell_is_the_measure() -> None:
    found = summarise_cells(made_up(RIGHT, answers=False), REQUEST.cells)
    assert found.measure == "agreement"
    assert found.richest is not None
    assert found.richest.name == name(8, 1, "auto")
    assert cell(found, name(8, 1, "auto")).quality.mean == 1.0
    # 18 answers were red there, 17 of them here too, and the last two are blue in both.
    assert cell(found, name(8, 2, "off")).quality.mean == pytest.approx(19 / 20)


def test_random_weights_have_no_accuracy_and_no_advice() -> None:
    found = summarise_cells([{**row, "weights": "random"} for row in made_up(RIGHT)], REQUEST.cells)
    assert found.measure is None
    assert all(one.quality.mean is None for one in found.cells)
    assert choose(found) == (None, None)
    assert "random weights" in advice(found)[0]


def test_without_labels_the_measure_is_a_cell_within_the_trained_context_where_there_is_one() -> None:
    rows = [row for row in made_up(RIGHT, answers=False) if row["cell"] != name(8, 1, "auto")]
    found = summarise_cells(rows, REQUEST.cells)
    assert found.richest is not None
    assert found.richest.name == name(8, 2, "auto")  # 8 frames at stride 1 and factor off are beyond


def test_without_labels_it_is_said_what_agreement_is_with_and_nothing_is_called_the_best() -> None:
    found = summarise_cells(made_up(RIGHT, answers=False), REQUEST.cells)
    richest, cheapest = choose(found)
    assert richest is not None
    assert cheapest is not None
    assert (richest.name, cheapest.name) == (name(8, 1, "auto"), name(8, 2, "off"))
    first, second, how = advice(found)
    assert first == (
        f"No labels: agreement is the share of answers that are those of {name(8, 1, 'auto')}, the setting "
        "that sees most. Whether those are right is not known, and no setting is called the best."
    )
    assert second.startswith(
        f"{name(8, 2, 'off')} is the cheapest setting that answers 90 % of the questions as"
    )
    assert how.startswith("To ask that way: ")
    for line in (second, how, *cell_legend(found)):
        for word in ("best", "accura", "right"):
            assert word not in line
    assert f"agreement: share of the answers that are those of {name(8, 1, 'auto')}, " in " ".join(
        cell_legend(found)
    )
    few = summarise_cells(made_up({**RIGHT, name(8, 2, "off"): some(9)}, answers=False), REQUEST.cells)
    same = summarise_cells([row for row in few.rows if row["cell"] != name(8, 2, "auto")], REQUEST.cells)
    assert advice(same)[1] == "No cheaper setting answers 90 % of the questions as it does."


def test_the_advice_is_the_cheapest_that_the_best_is_not_better_than_beyond_chance(
    found: SweepSummary,
) -> None:
    best, cheapest = choose(found)
    assert best is not None
    assert cheapest is not None
    assert best.name == name(8, 1, "auto")
    assert cheapest.name == name(8, 2, "off")
    sentence = advice(found)[0]
    assert sentence.startswith(
        f"{cheapest.name} is the cheapest setting that is not worse than the best beyond chance"
    )
    assert "85.0 % (64.0 to 94.8)" in sentence
    told = "Of 20 questions, 0 are answered better by the cheapest and 1 by the best"
    assert sentence.endswith(f"{told} (exact McNemar test, p = 1).")


def test_overlapping_intervals_do_not_make_two_settings_alike_that_the_same_questions_tell_apart() -> None:
    """60 and 50 of 100: the intervals overlap widely; all ten questions that differ go one way."""
    answers = {cell.name: some(50, 100) for cell in REQUEST.cells} | {name(8, 1, "auto"): some(60, 100)}
    found = summarise_cells(made_up(answers), REQUEST.cells)
    best, cheapest = choose(found)
    assert best is cheapest
    assert best is not None
    assert best.name == name(8, 1, "auto")
    other = cell(found, name(8, 2, "off"))
    assert other.quality.high > best.quality.low  # type: ignore[operator]
    assert advice(found)[0].endswith("every cheaper setting is worse beyond chance, question by question.")
    # The same two shares, of which 25 questions go one way and 15 the other: chance.
    crossed = [1] * 35 + [0] * 25 + [1] * 15 + [0] * 25
    found = summarise_cells(made_up({**answers, name(8, 2, "off"): crossed}), REQUEST.cells)
    assert choose(found)[1] is cell(found, name(8, 2, "off"))


def test_settings_that_share_too_few_questions_are_not_compared() -> None:
    rows = made_up(RIGHT | {cell.name: some(20, 40) for cell in REQUEST.cells})
    for row in rows:
        first = int(row["id"]) < 20
        if first == (row["cell"] == name(8, 1, "auto")):
            row["status"] = "decode_error"
            row.pop("score", None), row.pop("given", None)
    found = summarise_cells(rows, REQUEST.cells)
    best, cheapest = choose(found)
    assert best is not None
    assert best is not cell(found, name(8, 1, "auto"))
    assert cheapest is not cell(found, name(8, 1, "auto"))


@pytest.mark.parametrize(
    ("better", "worse", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 0, 0.0625),
        (6, 0, 0.03125),
        (0, 6, 0.03125),
        (8, 2, 0.109375),
        (5, 5, 1.0),
    ],
)
def test_mcnemar_is_exact(better: int, worse: int, p: float) -> None:
    assert mcnemar(better, worse) == p


def test_graded_answers_are_compared_by_a_paired_bootstrap() -> None:
    rng = np.random.default_rng(1)
    one = {str(n): float(value) for n, value in enumerate(rng.uniform(0.1, 0.9, 50))}
    shifted = {key: value - 0.05 for key, value in one.items()}
    noisy = {key: value + float(rng.normal(0, 0.1)) for key, value in one.items()}
    found = compared(one, shifted)
    assert found is not None
    assert (found.test, found.better, found.worse, found.number) == ("paired bootstrap", 50, 0, 50)
    assert found.tells
    assert "p < 0.001" in found.words("a", "b")
    other = compared(one, noisy)
    assert other is not None
    assert not other.tells
    assert other == compared(one, noisy)
    assert compared(one, dict(one)).p == 1.0  # type: ignore[union-attr]
    assert compared(one, {"other": 1.0}) is None


def test_a_prompt_longer_than_the_trained_context_is_scaled_and_does_not_fit(found: SweepSummary) -> None:
    assert context_word(cell(found, name(2, 1, "auto"))) == "within"
    assert context_word(cell(found, name(8, 1, "auto"))) == "scaled"
    assert context_word(cell(found, name(8, 1, "off"))) == "beyond"
    rows = made_up(RIGHT)
    for row in rows:
        if row["cell"] == name(8, 1, "auto") and row["id"] in ("1", "2"):
            row["visual_tokens"] = 10
    assert context_word(cell(summarise_cells(rows, REQUEST.cells), name(8, 1, "auto"))) == "scaled: 18 of 20"
    for legend in (cell_legend(found), cell_legend(summarise_cells(rows, REQUEST.cells))):
        assert "within = the trained context of 384 tokens; scaled = longer than it" in legend[0]


def test_what_ask_would_refuse_is_not_advised() -> None:
    better = {**RIGHT, name(8, 1, "off"): some(20)}
    found = summarise_cells(made_up(better), REQUEST.cells)
    beyond = cell(found, name(8, 1, "off"))
    assert beyond.beyond == 20
    assert beyond not in choose(found)
    rows = made_up(better)
    for row in rows:
        if row["cell"] == name(8, 1, "auto") and row["id"] == "3":
            row["status"] = "over_budget"
    lost = summarise_cells(rows, REQUEST.cells)
    best, _ = choose(lost)
    assert best is not None
    assert best.name == name(8, 2, "off")


def test_whether_scaling_pays_is_said_with_the_same_frames_unscaled(found: SweepSummary) -> None:
    (said,) = scaling(found)
    assert f"With linear scaling the best is {name(8, 1, 'auto')} (2): 90.0 %" in said
    assert f"within the trained context it is {name(8, 2, 'off')}: 85.0 %" in said
    assert said.endswith("Without scaling, the frames and pooling of the former have 30.0 % (14.5 to 51.9).")


def test_no_cell_on_the_front_is_beaten_with_fewer_tokens(found: SweepSummary) -> None:
    front = [one.name for one in pareto(found.cells)]
    assert front == [name(2, 2, "off"), name(8, 2, "off"), name(8, 1, "auto")]


def test_cells_that_are_the_same_share_a_line() -> None:
    rows = made_up(RIGHT)
    for row in rows:
        if row["cell"] == name(2, 1, "auto"):
            row["same_as"] = name(2, 1, "off")
    lines = merged(summarise_cells(rows, REQUEST.cells))
    (line,) = [(one, same) for one, same in lines if one.name == name(2, 1, "off")]
    assert [one.name for one in line[1]] == [name(2, 1, "auto")]
    assert len(lines) == len(REQUEST.cells)  # one fewer, and the questions without their video


def test_a_factor_that_nothing_needed_is_no_scaling() -> None:
    rows = [row for row in made_up(RIGHT) if row["num_frames"] != 8 or row["pool_stride"] == 2]
    for row in rows:
        if row["rope_factor"] == "auto":
            row["factor"] = 2
    assert scaling(summarise_cells(rows, REQUEST.cells)) == ()


def test_noise_between_cells_that_differ_in_the_factor_alone_advises_no_factor() -> None:
    rows = made_up(RIGHT)
    for row in rows:
        if row["cell"] == name(8, 2, "auto"):
            row["factor"] = 32
            if "decode" in row["seconds"]:
                row["seconds"]["decode"] = 0.001
    found = summarise_cells(rows, REQUEST.cells)
    _, cheapest = choose(found)
    assert cheapest is not None
    assert cheapest.name == name(8, 2, "off")


def test_of_equals_fewer_tokens_are_cheaper_though_a_busy_machine_took_longer() -> None:
    rows = made_up({cell.name: some(20) for cell in REQUEST.cells})
    for row in rows:
        if row["num_frames"] == 2 and row["pool_stride"] == 2:
            row["seconds"]["prefill"] = 9.0
    best, cheapest = choose(summarise_cells(rows, REQUEST.cells))
    assert best is not None
    assert best is cheapest
    assert best.name == name(2, 2, "off")


def test_too_few_answers_advise_nothing_and_say_so() -> None:
    few = summarise_cells(made_up({key: marks[:19] for key, marks in RIGHT.items()}), REQUEST.cells)
    assert choose(few) == (None, None)
    assert advice(few) == ("too few questions (19) to tell the settings apart: none is advised.",)


def test_where_none_is_right_none_is_advised() -> None:
    found = summarise_cells(made_up({"blind": some(0)}), REQUEST.cells)
    assert choose(found) == (None, None)
    assert advice(found) == ("no setting has an accuracy above 0: none is advised.",)


@pytest.mark.parametrize(
    ("status", "said"),
    [("decode_error", "no question was answered"), ("ok", "no answer has a score")],
)
def test_where_nothing_was_answered_or_scored_that_is_said(status: str, said: str) -> None:
    rows = [{**row, "status": status, "score": None} for row in made_up(RIGHT)]
    found = summarise_cells(rows, REQUEST.cells)
    assert choose(found) == (None, None)
    assert advice(found) == (f"{said}: no setting is advised.",)
