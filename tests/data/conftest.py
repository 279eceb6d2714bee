"""A tiny checkpoint's settings and tokenizer, without its weights in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bad_media import make_decoder_faulty, make_media
from tests.tiny import tiny_checkpoint
from vidllava.backbone.settings import read_settings
from vidllava.backbone.tokens import TextCodec, read_codec
from vidllava.visuals.planner import ModelSettings


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"), preset="nano")


@pytest.fixture
def model_settings(checkpoint: Path) -> ModelSettings:
    return read_settings(checkpoint, "tiny")


@pytest.fixture
def codec(checkpoint: Path) -> TextCodec:
    return read_codec(checkpoint)


@pytest.fixture
def media(tmp_path: Path) -> Path:
    return make_media(tmp_path)


@pytest.fixture
def faulty_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    make_decoder_faulty(monkeypatch)
