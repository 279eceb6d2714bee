"""What surrounds the kernels is measured where that is quick, computed where it is not, and which is said."""

from __future__ import annotations

import pytest
import torch

from vidllava.bench import models
from vidllava.bench.kernel_cases import MODELS, KernelRequest, ModelSizes, cases, rotate_case, splice_case
from vidllava.bench.models import Prefills, language_flops, tower_flops

CPU = torch.device("cpu")


def test_operations_of_a_language_model_are_those_a_hand_counts():
    # 0.5B: 357,826,560 weights in its layers (config.json; biases and norms are not products).
    weights = 24 * (2 * 896**2 + 2 * 896 * 128 + 3 * 896 * 4864)
    assert weights == 357_826_560
    attention = 24 * 4 * 1000**2 * 896 / 2
    assert language_flops(MODELS["0.5b"], 1, 1000) == 2 * 1000 * weights + attention


def test_operations_of_the_tower_are_those_that_others_count():
    # 0.642 TFLOP a frame for 26 layers, without the projector.
    projector = 729 * 2 * (1152 * 896 + 896**2)
    assert tower_flops(MODELS["0.5b"], 729) - projector == pytest.approx(0.642e12, rel=0.01)


def test_nano_is_measured_whole_and_once(monkeypatch: pytest.MonkeyPatch):
    found = Prefills(CPU, threads=1)
    first = found.of(splice_case(MODELS["nano"], 2), torch.float32)
    assert first is not None
    assert first.how == "measured whole"
    assert 0.1 < first.ms < 60_000
    monkeypatch.setattr(Prefills, "_time", None)
    assert found.of(rotate_case(MODELS["nano"], 2), torch.float32) is first


def test_of_a_larger_model_one_layer_of_each_kind_is_measured(monkeypatch: pytest.MonkeyPatch):
    small = ModelSizes(**{**vars(MODELS["nano"]), "name": "small", "layers": 100, "tower_layers": 50})
    monkeypatch.setitem(models.MODELS, "small", small)
    found = Prefills(CPU, threads=1).of(splice_case(small, 2), torch.float32)
    whole = Prefills(CPU, threads=1).of(splice_case(MODELS["nano"], 2), torch.float32)
    assert found is not None
    assert whole is not None
    assert found.how == "measured: one language layer x 100, one tower layer x 50 and the projector"
    # 100 layers against 6: the exact figure is the machine's.
    assert found.ms > 3 * whole.ms


def test_what_would_take_long_is_computed_and_that_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(models, "MOST_SECONDS", 0.0)
    monkeypatch.setattr(Prefills, "_rate", lambda self, dtype: 1e9)
    case = splice_case(MODELS["7b"], 128)
    found = Prefills(CPU, threads=1).of(case, torch.float32)
    flops = language_flops(MODELS["7b"], 1, case.length) + tower_flops(MODELS["7b"], 128 * 729)
    assert found is not None
    assert found.ms == pytest.approx(flops / 1e6)
    assert found.how.startswith("computed: ")
    assert "1 GFLOP/s" in found.how


def test_a_decode_step_has_no_tower_and_an_odd_shape_no_prefill():
    found = Prefills(CPU, threads=1)
    shapes = cases(KernelRequest(models=("nano",)), on_cuda=False)
    step = next(case for case in shapes if case.length == 1)
    one = found.of(step, torch.float32)
    whole = found.of(rotate_case(MODELS["nano"], 8), torch.float32)
    assert one is not None
    assert whole is not None
    assert one.ms < whole.ms
    assert all(found.of(case, torch.float32) is None for case in shapes if case.model is None)
