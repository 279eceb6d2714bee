"""One random checkpoint of the true format for all backbone tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"), preset="nano")
