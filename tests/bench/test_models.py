"""Random models have the published architecture; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlavaOnevisionForConditionalGeneration

from vidllava.bench import models
from vidllava.errors import UsageError


@pytest.mark.parametrize(("size", "millions"), [("0.5b", 894), ("7b", 8030)])
def test_the_published_architecture_has_the_published_number_of_parameters(size: str, millions: int) -> None:
    """894 M and 8.03 B are what the hub counts for llava-onevision-qwen2-0.5b-ov-hf and 7b-ov-hf."""
    with torch.device("meta"):
        hf = LlavaOnevisionForConditionalGeneration._from_config(models.published_config(size))
    count = sum(parameter.numel() for parameter in hf.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.01)


def test_random_weights_of_a_folder_are_of_its_architecture_and_not_its_own() -> None:
    trained = models.open_model("nano")
    drawn = models.open_model("nano", weights="random")
    assert drawn.hf.config.text_config.hidden_size == trained.hf.config.text_config.hidden_size
    pixels = torch.zeros(1, 3, 84, 84, dtype=torch.uint8)
    with torch.inference_mode():
        assert not torch.allclose(drawn.encode(pixels), trained.encode(pixels))


def test_a_model_whose_sizes_are_not_known_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="sizes are not known"):
        models.open_model("no-such-model", weights="random")
