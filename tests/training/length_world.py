"""One of two processes that need lengths: `python -m tests.training.length_world FOLDER`, by torchrun.

First looking takes longer than processes wait for each other, then it fails. FOLDER/rank-<r>.json says what
each process got, and what it was told.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from tests.training.conftest import Heard
from vidllava.backbone.settings import read_settings
from vidllava.backbone.tokens import read_codec
from vidllava.data.mixture import Mixture
from vidllava.data.records import RecordSource
from vidllava.data.token_counter import EncodeOptions
from vidllava.errors import ResourceError
from vidllava.media.limits import Limits
from vidllava.training import session

PATIENCE_SECONDS = 3.0
"""How long a process waits for another before torch gives the run up."""


def main(folder: Path) -> None:
    accelerator = Accelerator(
        cpu=True, kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=PATIENCE_SECONDS))]
    )
    look = session.measure
    told: dict[str, Any] = {}

    def slowly(*arguments: Any) -> Any:
        if not accelerator.is_main_process:
            raise AssertionError("two processes looked")
        if "lengths" in told:
            raise ResourceError("disk", "went away", "bring it back")
        time.sleep(2 * PATIENCE_SECONDS)
        return look(*arguments)

    session.measure = slowly
    backbone: Any = SimpleNamespace(
        settings=read_settings(folder / "tiny", "tiny"), codec=read_codec(folder / "tiny")
    )
    job: Any = SimpleNamespace(encode=EncodeOptions(), limits=Limits())
    heard = Heard()
    mixture = Mixture((RecordSource(folder / "rows.jsonl", folder),))
    found = session.with_measured_lengths(mixture, job, backbone, accelerator, heard).lengths
    assert found is not None
    told["lengths"], told["measurings"] = found.tolist(), len(heard.measurings)
    try:
        session.with_measured_lengths(mixture, job, backbone, accelerator, heard)
    except (ResourceError, SystemExit) as fault:
        told["fault"] = repr(fault)
    (folder / f"rank-{accelerator.process_index}.json").write_text(json.dumps(told))
    accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
