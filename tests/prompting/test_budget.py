"""Token budgets: the published frame tables, the choice of the factor, and what a refusal says."""

from __future__ import annotations

import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidllava.errors import UsageError
from vidllava.prompting.budget import (
    MAX_AUTO_FACTOR,
    OverBudget,
    budget,
    frames_that_fit,
    parse_rope_factor,
    scaled_limit,
)
from vidllava.prompting.layout import picture_layout, square_layout, video_layout

VICUNA_CONTEXT = 4096


def next_video(num_frames, stride):
    """LLaVA-NeXT-Video: CLIP at 336, average pooling, no newline."""
    return video_layout(num_frames, side=24, stride=stride, mode="average", newline="no_token")


def onevision(num_frames, stride=2):
    return video_layout(num_frames, side=27, stride=stride, mode="bilinear", newline="one_token")


# Derived from LLaVA-NeXT-Video's own formula, 4096-token context: stride -> frames at factor 1, 2, 3, 4.
WITH_RESERVE = {1: [5, 12, 19, 26], 2: [21, 49, 78, 106], 4: [86, 199, 313, 427]}
WITHOUT_RESERVE = {1: [7, 14, 21, 28], 2: [28, 56, 85, 113], 4: [113, 227, 341, 455]}


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_the_frame_table_of_next_video(stride):
    for reserve, table in ((1000, WITH_RESERVE), (0, WITHOUT_RESERVE)):
        counted = budget([next_video(8, stride)], 0, reserve_tokens=reserve, context_limit=VICUNA_CONTEXT)
        assert counted.frames_at_factor == dict(zip((1, 2, 3, 4), table[stride], strict=True))


@pytest.mark.parametrize(
    ("num_frames", "stride", "reserve", "factor"),
    [
        (16, 2, 1000, 1),
        (32, 2, 1000, 2),
        (56, 2, 1000, 3),
        (56, 2, 0, 2),
        (64, 2, 1000, 3),
        (8, 1, 1000, 2),
        (16, 1, 1000, 3),
        (64, 4, 1000, 1),
    ],
)
def test_auto_picks_the_factor_of_the_formula(num_frames, stride, reserve, factor):
    layouts = [next_video(num_frames, stride)]
    counted = budget(layouts, 0, reserve_tokens=reserve, context_limit=VICUNA_CONTEXT)
    assert (counted.rope_factor, counted.fits) == (factor, True)


def test_onevision_needs_no_scaling_up_to_162_frames():
    for num_frames, factor in ((32, 1), (162, 1), (163, 2)):
        counted = budget([onevision(num_frames)], 0, reserve_tokens=1000, context_limit=32768)
        assert counted.rope_factor == factor


def test_json_has_the_documented_keys():
    counted = budget([onevision(32)], 40, reserve_tokens=1000, context_limit=4096)
    assert json.loads(json.dumps(counted.to_json())) == {
        "visual_tokens": 6272,
        "newline_tokens": 1,
        "text_tokens": 40,
        "reserve_tokens": 1000,
        "total_tokens": 7313,
        "context_limit": 4096,
        "rope_factor": 2,
        "least_factor": 1,
        "fits": True,
        "frames_at_factor": {"1": 15, "2": 36, "3": 57, "4": 78},
    }


def test_several_visuals_share_the_context():
    picture = picture_layout(300, 400, side=27, tile_size=384, pinpoints=[(384, 384), (768, 768)])
    layouts = [onevision(8), picture, onevision(3), square_layout(side=27)]
    counted = budget(layouts, 10, reserve_tokens=100, context_limit=10000)
    assert counted.total_tokens == 110 + sum(layout.num_tokens for layout in layouts)
    others = 110 + picture.num_tokens + 730
    assert counted.frames_at_factor is not None
    for factor, frames in counted.frames_at_factor.items():
        assert others + 2 * onevision(frames).num_tokens <= 10000 * factor
        assert others + 2 * onevision(frames + 1).num_tokens > 10000 * factor


@pytest.mark.parametrize("num_videos", [1, 2, 3])
def test_frames_that_fit_leave_room_for_each_videos_newline(num_videos):
    """At the limit itself and one token below it; OneVision's 196 tokens a frame and one newline a video."""
    fixed = {"reserve_tokens": 12, "rope_factor": "off"}
    for frames in (1, 7):
        context = 30 + 12 + num_videos * (196 * frames + 1)
        almost = context + 196 * num_videos - 1
        for limit, fitting in ((context, frames), (context - 1, frames - 1), (almost, frames)):
            counted = budget([onevision(1)] * num_videos, 30, context_limit=limit, **fixed)
            assert counted.frames_at_factor is not None
            assert counted.frames_at_factor[1] == fitting
    counted = budget([onevision(9)] * num_videos, 30, context_limit=context, **fixed)
    assert counted.remedies[0].startswith("--max-frames 7")
    without = next_video(1, 2)
    counted = budget([without], 30, context_limit=42 + 144 * 3, **fixed)
    assert counted.frames_at_factor is not None
    assert counted.frames_at_factor[1] == 3


@pytest.mark.parametrize("over", [0, 1])
def test_the_largest_factor_of_auto_is_advised_up_to_its_own_limit(over):
    context = 1000
    text = MAX_AUTO_FACTOR * context - 12 - onevision(1).num_tokens + over
    counted = budget([onevision(1)], text, reserve_tokens=12, context_limit=context, rope_factor="off")
    assert (f"--rope-factor {MAX_AUTO_FACTOR}" in counted.remedies) == (over == 0)
    assert not any(remedy == f"--rope-factor {MAX_AUTO_FACTOR + 1}" for remedy in counted.remedies)
    auto = budget([onevision(1)], text, reserve_tokens=12, context_limit=context)
    assert (auto.fits, auto.rope_factor) == (over == 0, MAX_AUTO_FACTOR)


def test_frames_at_factor_is_none_without_a_video():
    counted = budget([square_layout(side=7)], 10, reserve_tokens=100, context_limit=1000)
    assert counted.frames_at_factor is None
    assert counted.to_json()["frames_at_factor"] is None


def test_auto_says_that_it_raised_the_factor_and_is_silent_otherwise():
    raised = budget([onevision(32)], 40, reserve_tokens=1000, context_limit=4096)
    assert raised.notice == (
        "RoPE factor 2: 6272 visual + 1 newline + 40 text + 1000 reserve = 7313 tokens "
        "exceed the trained context 4096"
    )
    assert budget([onevision(4)], 40, reserve_tokens=1000, context_limit=4096).notice is None
    assert budget([onevision(32)], 40, reserve_tokens=0, context_limit=4096, rope_factor=2).notice is None


def refusal(*arguments, **settings):
    counted = budget(*arguments, **settings)
    assert not counted.fits
    with pytest.raises(OverBudget) as caught:
        counted.require_fit()
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_off_refuses_in_one_line_that_says_what_would_fit():
    assert refusal([onevision(32)], 40, reserve_tokens=1000, context_limit=4096, rope_factor="off") == (
        "prompt: 6272 visual + 1 newline + 40 text + 1000 reserve = 7313 tokens exceed the limit 4096 "
        "(context 4096, RoPE factor 1) (would fit: --max-frames 15, or --pool-stride 3, or --rope-factor 2)"
    )


def test_a_fixed_factor_refuses_at_its_own_limit():
    line = refusal([onevision(32)], 40, reserve_tokens=1000, context_limit=4096, rope_factor=1.5)
    assert "exceed the limit 6144 (context 4096, RoPE factor 1.5)" in line
    assert "--max-frames 26" in line
    assert budget([onevision(32)], 40, reserve_tokens=0, context_limit=4096, rope_factor=2).require_fit().fits


def test_auto_stops_at_its_maximum_and_says_so():
    layouts = [onevision(400, stride=1)] * 2
    line = refusal(layouts, 40, reserve_tokens=1000, context_limit=4096)
    assert f"RoPE factor {MAX_AUTO_FACTOR}, the most that auto takes" in line
    assert "--max-frames 21 for each video, or --pool-stride 5" in line
    assert "--rope-factor" not in line
    by_hand = budget(layouts, 40, reserve_tokens=1000, context_limit=4096, rope_factor=143)
    assert by_hand.require_fit().rope_factor == 143


@pytest.mark.parametrize(
    ("layouts", "text_tokens", "hint"),
    [
        ([], 40000, "less text"),
        ([onevision(8)], 40000, "less text"),
        ([square_layout(side=27)] * 60, 40, "fewer or smaller media"),
    ],
)
def test_a_prompt_that_no_flag_can_fit_gets_other_advice(layouts, text_tokens, hint):
    line = refusal(layouts, text_tokens, reserve_tokens=1000, context_limit=4096)
    assert line.endswith(f"(would fit: {hint})")


def test_the_advised_stride_counts_the_newline_too():
    at_stride_three = onevision(8, stride=3).num_tokens
    for context, stride in ((at_stride_three, 3), (at_stride_three - 1, 4)):
        counted = budget([onevision(8)], 0, reserve_tokens=0, context_limit=context, rope_factor="off")
        assert f"--pool-stride {stride}" in counted.remedies


VIDEO = st.builds(
    video_layout,
    st.integers(1, 40),
    side=st.sampled_from([7, 24, 27]),
    stride=st.integers(1, 4),
    mode=st.sampled_from(["bilinear", "average", "max"]),
    newline=st.sampled_from(["one_token", "grid", "frame", "no_token"]),
)
LAYOUTS = st.lists(VIDEO | st.builds(square_layout, side=st.sampled_from([7, 27])), max_size=4)


@given(
    layouts=LAYOUTS,
    text=st.integers(0, 3000),
    reserve=st.integers(0, 1000),
    context=st.integers(200, 33000),
    rope=st.just("auto") | st.just("off") | st.integers(1, 9) | st.floats(1, 9),
)
@settings(deadline=None, derandomize=True, max_examples=400)
def test_laws_of_budgets(layouts, text, reserve, context, rope):
    counted = budget(layouts, text, reserve_tokens=reserve, context_limit=context, rope_factor=rope)
    total = text + reserve + sum(layout.num_tokens for layout in layouts)
    assert counted.total_tokens == total, "nothing is cut to make it fit"
    assert counted.fits == (total <= math.floor(context * counted.rope_factor))
    assert bool(counted.remedies) == (not counted.fits)
    if rope == "auto":
        assert isinstance(counted.rope_factor, int)
        assert 1 <= counted.rope_factor <= MAX_AUTO_FACTOR
        if counted.rope_factor > 1:
            assert total > context * (counted.rope_factor - 1), "the smallest factor that fits"
        assert counted.fits or counted.rope_factor == MAX_AUTO_FACTOR
    else:
        assert counted.rope_factor == (1 if rope == "off" else rope)
    if counted.frames_at_factor is not None:
        frames = list(counted.frames_at_factor.values())
        assert frames == sorted(frames), "more room, no fewer frames"


def applied(layouts, frames, stride):
    """The same visuals with `frames` or `stride` for every video, None leaving it as it is."""
    changed = []
    for layout in layouts:
        if layout.kind != "video":
            changed.append(layout)
            continue
        block = layout.blocks[0]
        newline = {"row": "grid", "end": "frame", "none": "no_token"}[block.newline]
        changed.append(
            video_layout(
                frames or layout.num_grids,
                side=block.tile_h,
                stride=stride or block.stride,
                mode="bilinear" if block.mode == "copy" else block.mode,
                newline="one_token" if layout.trailing_newline else newline,
            )
        )
    return changed


@given(layouts=LAYOUTS, text=st.integers(0, 900), context=st.integers(200, 4096))
@settings(deadline=None, derandomize=True, max_examples=400)
def test_every_remedy_is_true_and_is_the_mildest(layouts, text, context):
    counted = budget(layouts, text, reserve_tokens=100, context_limit=context, rope_factor="off")

    def fits(frames=None, stride=None, factor="off"):
        layouts_now = applied(layouts, frames, stride)
        return budget(layouts_now, text, reserve_tokens=100, context_limit=context, rope_factor=factor).fits

    strides = [layout.blocks[0].stride for layout in layouts if layout.kind == "video"]
    for remedy in counted.remedies:
        if match := re.fullmatch(r"--max-frames (\d+)( for each video)?", remedy):
            frames = int(match[1])
            assert fits(frames=frames) > fits(frames=frames + 1)
        elif match := re.fullmatch(r"--pool-stride (\d+)", remedy):
            stride = int(match[1])
            assert fits(stride=stride)
            assert stride == max(strides) + 1 or not fits(stride=stride - 1)
        elif match := re.fullmatch(r"--rope-factor (\d+)", remedy):
            factor = int(match[1])
            assert fits(factor=factor) > fits(factor=factor - 1)
        else:
            assert remedy in ("less text", "fewer or smaller media")
            assert counted.remedies == (remedy,)


@given(
    limit=st.integers(0, 10**6),
    other=st.integers(0, 10**6),
    per_frame=st.integers(1, 730),
    newlines=st.integers(0, 3),
)
@settings(deadline=None, derandomize=True)
def test_frames_that_fit_is_the_most(limit, other, per_frame, newlines):
    frames = frames_that_fit(limit, other, per_frame, newlines)
    assert frames >= 0
    assert other + newlines + (frames + 1) * per_frame > limit
    assert frames == 0 or other + newlines + frames * per_frame <= limit


def test_scaled_limit_is_whole_tokens():
    assert [scaled_limit(4096, factor) for factor in (1, 2, 2.5, 1.0001)] == [4096, 8192, 10240, 4096]


@pytest.mark.parametrize(
    ("text", "factor"), [("auto", "auto"), ("off", "off"), ("1", 1), ("2.0", 2), ("2.5", 2.5), ("100", 100)]
)
def test_rope_factor_reads_what_is_documented(text, factor):
    assert parse_rope_factor(text) == factor
    assert type(parse_rope_factor(text)) is type(factor)


@pytest.mark.parametrize("text", ["", "on", "0", "-2", "0.5", "nan", "inf", "1e999", "2x"])
def test_rope_factors_that_cannot_be_meant_are_refused(text):
    with pytest.raises(UsageError, match=f"--rope-factor {re.escape(text)}: is not a factor"):
        parse_rope_factor(text)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"context_limit": 0}, "--context-limit 0: must be at least 1"),
        ({"reserve_tokens": -1}, "reserve tokens -1: must be at least 0"),
        ({"rope_factor": 0.5}, "--rope-factor 0.5"),
        ({"rope_factor": math.nan}, "--rope-factor nan"),
        ({"rope_factor": "on"}, "--rope-factor on"),
    ],
)
def test_budget_values_that_cannot_be_meant_name_the_flag(settings, message):
    with pytest.raises(UsageError, match=message):
        budget([], 10, **({"reserve_tokens": 0, "context_limit": 4096} | settings))
