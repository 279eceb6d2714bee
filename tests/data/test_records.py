"""LLaVA rows: what is accepted, and that every fault is told with its file and row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vidllava.data.load import Loading, load_sources
from vidllava.data.records import MAX_SHOWN, RecordSource
from vidllava.data.source import Source
from vidllava.errors import DatasetError
from vidllava.media.timeline import SamplingRequest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / name)
    (folder / "clip.mp4").write_bytes(b"not opened here")
    (tmp_path / "outside.png").write_bytes(b"secret")
    return folder


def row(question: str = "hello", answer: str = "hi", **more: Any) -> dict[str, Any]:
    said = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"conversations": said, **more}


def write(path: Path, rows: list[Any], *, lines: bool = True) -> Path:
    text = "\n".join(json.dumps(one) for one in rows) if lines else json.dumps(rows)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("lines", [True, False], ids=["jsonl", "json"])
def test_rows_of_every_modality_are_read(tmp_path: Path, root: Path, lines: bool):
    rows = [
        row(id="t"),
        row("<image>\nwhat?", id=2, image="a.png"),
        row("<image> or <image>?", sample_id="many", image=["a.png", "b.png"]),
        row("<video>\nwhat?", video="clip.mp4", video_start=1, video_end=2.5, num_frames=4),
        row("<image>\nwhat?", id="llava", video="clip.mp4"),
        row("<image> and <video>", id="both", image="a.png", video="clip.mp4"),
    ]
    # The format is told by the content, whatever the name says.
    source = RecordSource(write(tmp_path / "rows.txt", rows, lines=lines), root)
    assert isinstance(source, Source)
    assert [source.modality(i) for i in range(6)] == [
        "text",
        "picture",
        "pictures",
        "video",
        "video",
        "video",
    ]
    samples = [source.sample(i) for i in range(6)]
    assert [sample.id for sample in samples] == ["t", "2", "many", "row-4", "llava", "both"]
    assert [v.path for v in samples[2].visuals] == [str(root / "a.png"), str(root / "b.png")]
    assert samples[3].visuals[0].request == SamplingRequest(num_frames=4, start_seconds=1, end_seconds=2.5)
    assert [v.kind for v in samples[5].visuals] == ["pictures", "video"]
    assert source.row(5) == 6  # type: ignore[attr-defined]


def test_bom_crlf_and_blank_lines_are_accepted_and_rows_are_lines(tmp_path: Path):
    text = "\ufeff" + json.dumps(row(id="1")) + "\r\n\r\n" + json.dumps(row(id="2")) + "\r\n"
    path = tmp_path / "rows.jsonl"
    path.write_bytes(text.encode())
    source = RecordSource(path)
    assert [source.sample(i).id for i in range(2)] == ["1", "2"]
    assert source.row(1) == 3


def test_several_turns_and_a_system_line_are_kept(tmp_path: Path, root: Path):
    said = [
        {"from": "system", "value": "Be brief."},
        {"role": "user", "content": "<image>\none?"},
        {"role": "assistant", "content": "1"},
        {"from": "human", "value": "two?"},
        {"from": "gpt", "value": "2"},
    ]
    path = write(tmp_path / "r.jsonl", [{"image": "a.png", "conversations": said}])
    roles = [turn.role for turn in RecordSource(path, root).sample(0).turns]
    assert roles == ["system", "user", "assistant", "user", "assistant"]


FAULTY: dict[str, tuple[Any, str]] = {
    "no object": (["x"], "must be an object, not a list"),
    "no turns": ({"id": "1"}, "needs `conversations`"),
    "turns are text": ({"conversations": "hi"}, "needs `conversations`"),
    "turn is text": ({"conversations": ["hi"]}, "turn 1 must be an object"),
    "unknown speaker": ({"conversations": [{"from": "cat", "value": "miau"}]}, "from 'cat'"),
    "text missing": ({"conversations": [{"from": "human"}]}, "turn 1 needs a text, not nothing"),
    "empty answer": (row(answer=" "), "turn 2 is an empty answer"),
    "two humans": ({"conversations": [{"from": "human", "value": "a"}] * 2}, "turn 2 is the user's"),
    "no answer": ({"conversations": [{"from": "human", "value": "a"}]}, "ends with the user's turn"),
    "no placeholder": (row(image="a.png"), "0 placeholders for 1 visuals"),
    "too many": (row("<image><image>", image="a.png"), "2 placeholders for 1 visuals"),
    "video for a picture": (row("<video>", image="a.png"), "placeholder 1 is <video>, visual 1 is a picture"),
    "image is a number": (row("<image>", image=3), "`image` must be a file name"),
    "fps is text": (row("<video>", video="clip.mp4", fps="two"), "`fps`: 'two' is not a rate"),
    "both": (row("<video>", video="clip.mp4", fps=2, num_frames=3), "`fps`: excludes `num_frames` 3"),
    "missing file": (row("<image>", image="c.png"), "'c.png': no such file"),
    "folder": (row("<image>", image="."), "not a regular file"),
    "dots": (row("<image>", image="../outside.png"), "outside the media root"),
    "absolute": (row("<image>", image="/etc/hostname"), "outside the media root"),
    "link": (row("<image>", image="link.png"), "outside the media root"),
    "url": (row("<image>", image="http://127.0.0.1:1/a.png"), "remote media are not supported"),
    "concat": (row("<video>", video="concat:a.mp4|b.mp4"), "remote media are not supported"),
}


@pytest.mark.parametrize("name", FAULTY)
def test_a_faulty_row_is_told_with_file_and_row(tmp_path: Path, root: Path, name: str):
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    record, what = FAULTY[name]
    path = write(tmp_path / "rows.jsonl", [row(), record])
    with pytest.raises(DatasetError) as caught:
        RecordSource(path, root)
    message = str(caught.value)
    assert message.startswith(f"{path}: 1 of 2 rows cannot be used: row 2: "), message
    assert what in message


def test_every_fault_is_collected(tmp_path: Path):
    bad = [{"id": str(number)} for number in range(MAX_SHOWN + 5)]
    lines = [json.dumps(one) for one in [row(), *bad, row()]]
    lines.insert(3, '{"id": 1,}')
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DatasetError) as caught:
        RecordSource(path)
    message = str(caught.value)
    assert f"{MAX_SHOWN + 6} of {MAX_SHOWN + 8} rows" in message
    assert "row 4: invalid JSON at line 1 column 10" in message
    assert message.endswith("; and 6 more (vidllava data check lists them all)")


def test_an_id_used_twice_is_refused(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", [row(id="x"), row(id="y"), row(id="x")])
    with pytest.raises(DatasetError, match="row 3: id 'x' was used by row 1"):
        RecordSource(path)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "holds no rows"),
        (b"[]", "holds no rows"),
        (b'[{"a": 1},\n nope]', "invalid JSON at line 2 column 2"),
        (b"\xff{}", "is not UTF-8"),
        (b"\xff\xfe{\0}\0", r"is UTF-16 text \(save it as UTF-8"),
        ("{}".encode("utf-16-be"), "is not text: it holds zero bytes"),
        (b"PAR1\x15\x04\0", "is not text: it holds zero bytes"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_an_unusable_file_is_told(tmp_path: Path, content: bytes, what: str):
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=what):
        load_sources(str(path), Loading())


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path):
    with pytest.raises(DatasetError, match=r"no such file .*nano-world:\.\.\."):
        load_sources("nope.json", Loading(schemes={"nano-world": lambda spec: pytest.fail(spec)}))
    with pytest.raises(DatasetError, match="is a folder"):
        load_sources(str(tmp_path), Loading())
    with pytest.raises(DatasetError, match="the media root is not a folder"):
        load_sources(str(write(tmp_path / "r.jsonl", [row()])), Loading(media_root=tmp_path / "nowhere"))


def test_a_scheme_opens_its_own_source():
    asked = []

    class World:
        name = "w"

    load_sources("w:train?n=3", Loading(schemes={"w": lambda spec: asked.append(spec) or World()}))  # type: ignore[func-returns-value, arg-type, return-value]
    assert asked == ["w:train?n=3"]


def test_media_are_found_beside_the_file_without_a_root(root: Path):
    source = RecordSource(write(root / "rows.jsonl", [row("<image>", image="a.png")]))
    assert source.sample(0).visuals[0].path == str(root / "a.png")
