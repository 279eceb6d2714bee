"""MVBench: twenty tasks, a JSON file each; the published figure is the plain mean of the twenty accuracies.

Records: video, question, candidates, answer (a candidate's text), and start and end where the question is on
a part. Files json/<task>.json of OpenGVLab/MVBench; prompt of lmms_eval/tasks/mvbench; 16 new tokens. The
folders are those of the data set's own archives. A clip that is cut already (folder ``..._segment``) is used
as it is; one that is a folder of pictures has three of them a second (episodic_reasoning).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from vidllava.data.source import RowFault
from vidllava.evaluation.item import LETTERS, DataEntry, EvalItem, Record, Task, lettered

_CLEVRER, _PERCEPTION = ("clevrer/video_validation",), ("perception/videos",)
# Of tvqa/frames_fps3_hq: as the name says.
PICTURES_PER_SECOND = 3.0
_STAR = ("star/Charades_segment", "star/Charades_v1_480")
FOLDERS: dict[str, tuple[str, ...]] = {
    "action_sequence": _STAR,
    "action_prediction": _STAR,
    "action_antonym": ("ssv2_video", "ssv2_video_mp4"),
    "fine_grained_action": ("Moments_in_Time_Raw/videos",),
    "unexpected_action": ("FunQA_test/test",),
    "object_existence": _CLEVRER,
    "object_interaction": _STAR,
    "object_shuffle": _PERCEPTION,
    "moving_direction": _CLEVRER,
    "action_localization": ("sta/sta_video_segment", "sta/sta_video"),
    "scene_transition": ("scene_qa/video",),
    "action_count": _PERCEPTION,
    "moving_count": _CLEVRER,
    "moving_attribute": _CLEVRER,
    "state_change": _PERCEPTION,
    "fine_grained_pose": ("nturgbd", "nturgbd_convert"),
    "character_order": _PERCEPTION,
    "egocentric_navigation": ("vlnqa",),
    "episodic_reasoning": ("tvqa/video_fps3_hq_segment", "tvqa/frames_fps3_hq"),
    "counterfactual_inference": _CLEVRER,
}


def recognises(record: Record, path: Path) -> bool:
    """By the name of the file, or by its keys."""
    known = {"video", "question", "candidates", "answer"}
    extra = record.keys() - known - {"start", "end", "fps", "accurate_start", "accurate_end", "subtitle"}
    in_folders = path.stem in FOLDERS and "question_type" not in record
    return known <= record.keys() and (in_folders or not extra)


def read(entry: DataEntry) -> Iterator[EvalItem]:
    """One question."""
    task = entry.path.stem
    video, question = entry.name("video"), entry.text("question")
    options = entry.texts("candidates")
    answer = entry.get("answer")
    if not isinstance(answer, str) or options.count(answer.strip()) != 1:
        raise RowFault("`answer` is not one of the `candidates`")
    clip = entry.clip(video, *FOLDERS.get(task, ()), of_pictures=True)
    (path,) = clip["paths"]
    shown = lettered(options, "({letter}) {option}")
    yield EvalItem(
        id=f"{task}_{entry.number}",
        **clip,
        question=question,
        prompt=f"Question:{question}\nOption:\n{shown}\nOnly give the best option.\n",
        options=options,
        answer=LETTERS[options.index(answer.strip())],
        scoring="choice",
        groups=(("task", task),),
        own=(
            *(() if "_segment" in os.path.basename(os.path.dirname(path)) else _range(entry.record)),
            *((("frame_rate", PICTURES_PER_SECOND),) if os.path.isdir(path) else ()),
        ),
        max_new_tokens=16,
    )


def _range(record: Record) -> tuple[tuple[str, float], ...]:
    found = []
    for key in ("start", "end"):
        value = record.get(key)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise RowFault(f"`{key}` must be seconds")
            found.append((f"{key}_seconds", float(value)))
    return tuple(found)


TASKS = (Task("mvbench", recognises, read, average_over="task"),)
