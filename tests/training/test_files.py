"""A run on files: grouped by true length, what hangs is recorded, and changed media are told at resume."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.bad_media import make_decoder_faulty, make_media
from tests.training.conftest import Run
from vidllava.errors import DatasetError
from vidllava.training.session import TrainingProcess


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """A mixture file, and the folder of its media."""
    make_decoder_faulty(monkeypatch)
    media = make_media(tmp_path)
    for path in media.rglob("*"):
        os.utime(path, (1e9, 1e9))
    rows = []
    for name in ("0.png", "hangs.png", "1.png", "2.png", "3.png", "clip.mkv", "frames"):
        key, mark = ("image", "<image>") if name.endswith(".png") else ("video", "<video>")
        said = [{"from": "human", "value": f"{mark}\nwhat?"}, {"from": "gpt", "value": "it"}]
        rows.append({"id": name, key: name, "conversations": said})
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "mix.yaml").write_text("datasets:\n- {json_path: rows.json, media_root: media}\n")
    return str(tmp_path / "mix.yaml"), media


def test_files_are_measured_recorded_and_compared_at_resume(
    run: Run, tmp_path: Path, files: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
):
    spec, media = files
    measured: list[list[int]] = []
    save = TrainingProcess.save

    def remember(self: TrainingProcess, step: int) -> None:
        lengths = self.trainer.batches.order.mixture.lengths
        measured.append([] if lengths is None else lengths.tolist())
        save(self, step)

    monkeypatch.setattr(TrainingProcess, "save", remember)
    options = {"data": (spec,), "max_steps": 4, "save_steps": 2, "max_bad_fraction": 1.0}
    run(tmp_path / "out", **options)
    ledger = [json.loads(line) for line in (tmp_path / "out" / "ledger.jsonl").read_text().splitlines()]
    assert {(one["id"], one["row"], Path(one["source"]).name) for one in ledger} == {
        ("hangs.png", 2, "rows.json")
    }
    assert all("was not decoded within the limit" in one["reason"] for one in ledger)
    assert [length > 0 for length in measured[0]] == [True, False, True, True, True, True, True]
    assert len(set(measured[0])) > 3
    run(tmp_path / "out", resume="latest", **options)
    Image.fromarray(np.zeros((700, 70, 3), np.uint8)).save(media / "0.png")
    with pytest.raises(DatasetError, match=r"the media, or what can be read of them, changed.*allow-changes"):
        run(tmp_path / "out", resume="latest", **options)
    run(tmp_path / "out", resume="latest", allow_changes=True, **options)
