"""Each benchmark is read from small files in its published format: the prompt, the right answer, the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.published import EGO, EGO_OPTIONS, LVB, NEXTQA, VIDEOMME, clips, write_csv, write_json
from vidllava.evaluation.item import EvalItem
from vidllava.evaluation.read import EvalSet, read_set
from vidllava.evaluation.scoring import score

LETTERS_PLEASE = "Answer with the option's letter from the given choices directly."


def only(found: EvalSet, name: str) -> EvalItem:
    """The one question, of the task that its content told."""
    assert found.task.name == name
    (item,) = found.items
    return item


def test_nextqa_mc(tmp_path: Path):
    clips(tmp_path, "NExTVideo/1101/4010069381.mp4")
    options = {"a0": "to dance", "a1": "to rest", "a2": "to eat", "a3": "to play", "a4": "to sing"}
    row = {**NEXTQA, "question": "why did the girl sit down ", "answer": 1, **options}
    item = only(read_set(write_csv(tmp_path / "test.csv", [row])), "nextqa-mc")
    assert item.prompt == (
        "why did the girl sit down\nA. to dance\nB. to rest\nC. to eat\nD. to play\nE. to sing"
    )
    assert (item.id, item.answer, item.scoring, item.groups) == (
        *("4010069381_6", "B", "choice"),
        (("type", "CW"),),
    )
    assert item.paths == (str(tmp_path / "NExTVideo/1101/4010069381.mp4"),)
    assert score(item, "He sat down to rest a while").score == 1.0
    assert score(item, "no idea").status == "unparsed"


def test_nextqa_oe(tmp_path: Path):
    clips(tmp_path, "4010069381.mp4")
    rows = [
        {**NEXTQA, "question": "where is it", "answer": "garden", "additional_ref_answer": "yard"},
        {
            **NEXTQA,
            "qid": 7,
            "type": "DC",
            "question": "how many",
            "answer": "two",
            "additional_ref_answer": "",
        },
    ]
    found = read_set(write_csv(tmp_path / "test.csv", rows))
    assert found.task.name == "nextqa-oe"
    free, count = found.items
    assert free.prompt == "where is it\nAnswer a question using a short phrase or sentence."
    assert (free.scoring, free.answer, free.alternatives) == ("wups", "garden", ("yard",))
    assert (count.scoring, score(count, "Two.").score) == ("exact", 1.0)


HEAD = (
    "Select the best answer to the following multiple-choice question based on the video and the subtitles. "
    "Respond with only the letter (A, B, C, or D) of the correct option."
)


def test_videomme(tmp_path: Path):
    clips(tmp_path, "data/fFjv93ACGo8.mp4")
    item = only(read_set(write_json(tmp_path / "test.json", [VIDEOMME])), "videomme")
    asked = "How many?\nA. One.\nB. Two.\nC. Three.\nD. Four."
    assert item.prompt == f"{HEAD}\n{asked}\n{LETTERS_PLEASE}"
    assert (item.answer, item.max_new_tokens, item.subtitles) == ("C", 16, None)
    assert dict(item.groups) == {
        key: VIDEOMME[key] for key in ("duration", "domain", "sub_category", "task_type")
    }


def test_videomme_in_the_nested_form(tmp_path: Path):
    clips(tmp_path, "videos/001.mp4")
    question = {key: VIDEOMME[key] for key in ("question_id", "task_type", "question", "options", "answer")}
    video = {"video_id": "001", "duration": "short", "domain": "Knowledge", "sub_category": "History"}
    second = {**question, "question_id": "001-2"}
    found = read_set(write_json(tmp_path / "all.json", [{**video, "questions": [question, second]}]))
    assert [(item.id, item.answer) for item in found.items] == [("001-1", "C"), ("001-2", "C")]


def test_videomme_with_subtitles_names_the_file_or_says_that_there_is_none(tmp_path: Path):
    clips(tmp_path, "data/fFjv93ACGo8.mp4", "data/other.mp4", "subtitle/fFjv93ACGo8.srt")
    rows = [VIDEOMME, {**VIDEOMME, "videoID": "other", "question_id": "002-1"}]
    found = read_set(write_json(tmp_path / "test.json", rows), task="videomme-subtitles")
    assert [item.subtitles for item in found.items] == [str(tmp_path / "subtitle/fFjv93ACGo8.srt"), ""]
    assert found.items[0].prompt.endswith("D. Four.\nThe best answer is:")


def test_mvbench_is_a_folder_of_tasks(tmp_path: Path):
    clips(tmp_path, "video/star/Charades_v1_480/ZS9XR.mp4", "video/clevrer/video_validation/video_1.mp4")
    moves = {
        "video": "ZS9XR.mp4",
        "question": "What happened?",
        "candidates": ["Ate.", "Sat."],
        "answer": "Sat.",
    }
    write_json(tmp_path / "json/action_sequence.json", [{**moves, "start": 11.1, "end": 19.6}])
    counts = {"video": "video_1.mp4", "question": "How many?", "candidates": ["1", "2", "3"], "answer": "1"}
    write_json(tmp_path / "json/moving_count.json", [counts])
    found = read_set(tmp_path / "json", media_root=tmp_path / "video")
    assert (found.task.name, found.task.average_over) == ("mvbench", "task")
    sequence, count = found.items
    assert sequence.prompt == (
        "Question:What happened?\nOption:\n(A) Ate.\n(B) Sat.\nOnly give the best option.\n"
    )
    assert (sequence.answer, sequence.groups) == ("B", (("task", "action_sequence"),))
    assert sequence.own == (("start_seconds", 11.1), ("end_seconds", 19.6))
    assert (count.id, count.answer, count.own) == ("moving_count_1", "A", ())


def test_a_clip_of_mvbench_that_is_cut_already_is_not_cut_again(tmp_path: Path):
    clips(tmp_path, "star/Charades_segment/ZS9XR.mp4")
    row = {"video": "ZS9XR.mp4", "question": "What?", "candidates": ["a", "b"], "answer": "a"}
    data = write_json(tmp_path / "action_sequence.json", [{**row, "start": 11.1, "end": 19.6}])
    assert only(read_set(data), "mvbench").own == ()


def test_egoschema_takes_the_public_labels_from_beside(tmp_path: Path):
    clips(tmp_path, "videos/0074f737.mp4", "videos/ffff.mp4")
    rows = [{**EGO, **EGO_OPTIONS}, {**EGO, **EGO_OPTIONS, "q_uid": "ffff"}]
    write_json(tmp_path / "questions.json", rows)
    write_json(tmp_path / "subset_answers.json", {"0074f737": 3})
    found = read_set(tmp_path / "questions.json")
    assert (found.task.name, found.task.submission) == ("egoschema", True)
    assert [item.answer for item in found.items] == ["D", None]
    assert found.items[0].prompt == (
        f"What is C doing?\nA. cooks\nB. sews\nC. reads\nD. runs\nE. digs\n{LETTERS_PLEASE}"
    )
    assert "the labels of 1 of 2 questions are hidden" in found.notes
    assert score(found.items[1], "B").score is None
    subset = read_set(tmp_path, task="egoschema-subset")
    assert [item.id for item in subset.items] == ["0074f737"]
    assert any("subset_answers.json" in note for note in subset.notes)


def test_egoschema_in_lettered_rows(tmp_path: Path):
    clips(tmp_path, "videos/0074f737.mp4")
    row = {"question_idx": "1", "question": "What?", "video_idx": "0074f737", "answer": "1"}
    data = write_json(tmp_path / "subset.json", [{**row, "option": ["A. cooks", "B. sews"]}])
    item = only(read_set(data), "egoschema")
    assert (item.options, item.answer) == (("cooks", "sews"), "B")


def test_perceptiontest_has_an_entry_for_each_video(tmp_path: Path):
    clips(tmp_path, "videos/video_8241.mp4")
    question = {
        **{"id": 0, "question": "Is it stable?", "options": ["yes", "no", "cannot tell"], "answer_id": 2},
        **{"area": "physics", "reasoning": "predictive", "tag": ["stability", "collision"]},
    }
    entry = {"video_8241": {"metadata": {"split": "valid"}, "mc_question": [question]}}
    item = only(read_set(write_json(tmp_path / "mc_question_valid.json", entry)), "perceptiontest")
    assert item.prompt == f"Is it stable?\nA. yes\nB. no\nC. cannot tell\n{LETTERS_PLEASE}"
    assert (item.id, item.answer) == ("video_8241_0", "C")
    assert item.groups == (
        *(("area", "physics"), ("reasoning", "predictive")),
        *(("tag", "stability"), ("tag", "collision")),
    )


def test_activitynetqa_asks_a_judge(tmp_path: Path):
    clips(tmp_path, "all_test/v_1QIUV7WYKXg.webm")
    question = {
        "video_name": "1QIUV7WYKXg",
        "question_id": "v_1QIUV7WYKXg_3",
        "question": "is the Athlete wearing",
    }
    write_json(tmp_path / "test_q.json", [question])
    write_json(tmp_path / "test_a.json", [{"question_id": "v_1QIUV7WYKXg_3", "answer": "yes", "type": 3}])
    item = only(read_set(tmp_path / "test_q.json"), "activitynetqa")
    assert item.prompt == "Is the athlete wearing? Answer the question using a single word or phrase."
    assert (item.answer, item.scoring, item.max_new_tokens) == ("yes", "judge", 64)
    assert item.groups == (("type", "yes/no"),)
    assert item.paths == (str(tmp_path / "all_test/v_1QIUV7WYKXg.webm"),)
    assert score(item, "yes") == (None, "ok", "yes", "a judge must say")


def test_mlvu_leaves_out_its_captions_and_says_so(tmp_path: Path):
    clips(tmp_path, "video/1_plotQA/movie101_66.mp4")
    row = {
        "video": "movie101_66.mp4",
        "duration": 480.0,
        "question": "What colour?",
        "question_type": "plotQA",
    }
    plot = {**row, "candidates": ["Yellow", "Red"], "answer": "Red"}
    write_json(tmp_path / "json/1_plotQA.json", [plot])
    write_json(tmp_path / "json/9_summary.json", [{**row, "question_type": "summary", "answer": "long"}])
    found = read_set(tmp_path / "json", media_root=tmp_path / "video")
    item = only(found, "mlvu")
    assert item.prompt == "What colour?\n(A) Yellow\n(B) Red\nOnly give the best option.\nBest option: ("
    assert (item.answer, found.task.average_over) == ("B", "task")
    assert any("9_summary.json" in note for note in found.notes)
    assert score(item, "B) Red").score == 1.0


def test_mlvu_in_lettered_rows(tmp_path: Path):
    clips(tmp_path, "needle_1.mp4")
    text = "What colour?\n(A) Yellow\n(B) Red"
    row = {"video_name": "needle_1.mp4", "task_type": "findNeedle", "question": text, "answer": "A"}
    item = only(read_set(write_json(tmp_path / "dev.json", [row])), "mlvu")
    assert item.prompt == f"{text}\nOnly give the best option.\nBest option: ("
    assert (item.options, item.answer) == (("Yellow", "Red"), "A")


@pytest.mark.parametrize(
    "options",
    [
        {"candidates": ["promise", "chase", "tempting"]},
        {**dict.fromkeys(("option3", "option4"), "N/A"), "option0": "promise", "option1": "chase"}
        | {"option2": "tempting"},
    ],
    ids=["json", "rows"],
)
def test_longvideobench(tmp_path: Path, options: dict[str, Any]):
    clips(tmp_path, "videos/86C.mp4")
    data = write_json(tmp_path / "lvb_val.json", [{**LVB, **options, "correct_choice": 1}])
    item = only(read_set(data), "longvideobench")
    assert item.prompt == f"Which subtitle?\nA. promise\nB. chase\nC. tempting\n{LETTERS_PLEASE}\n"
    assert (item.answer, item.max_new_tokens) == ("B", 32)
    assert dict(item.groups) == {"duration_group": "600", "question_category": "TOS", "level": "L1"}


def test_interleave_bench_scores_every_turn(tmp_path: Path):
    clips(tmp_path, "Split1/a.jpg", "Split1/b.jpg")
    said = ["<image>\n<image>\nWhat differs?", "the red car is gone", "Which is older?", "the first"]
    turns = [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(said)]
    row = {
        **{"sample_id": 5, "conversations": turns, "image": ["Split1/a.jpg", "Split1/b.jpg"]},
        "metadata": {"dataset": "Spot-the-Diff", "question_type": "open-ended"},
    }
    choice = {
        **{"sample_id": 6, "image": ["Split1/a.jpg"]},
        "conversations": [
            {"from": "human", "value": "<image> Which? (A) one (B) two"},
            {"from": "gpt", "value": "B"},
        ],
        "metadata": {"dataset": "RAVEN", "question_type": "multi-choice"},
    }
    found = read_set(write_json(tmp_path / "multi_image_in_domain.json", [row, choice]))
    assert found.task.name == "interleave-bench"
    first, second, third = found.items
    assert (first.prompt, first.earlier, first.scoring) == (said[0], (), "rouge")
    assert (second.prompt, second.earlier, second.answer) == (said[2], (said[0],), "the first")
    assert score(first, "the red car left").score == pytest.approx(2 * (3 / 4) * (3 / 5) / (3 / 4 + 3 / 5))
    assert (third.scoring, score(third, "B: two").score, score(third, "(A)").score) == ("choice", 1.0, 0.0)
