"""HDR pictures come out as people would see them on an ordinary screen."""

from __future__ import annotations

import av
import numpy as np
import pytest

from tests.clips import write_clip
from vidllava.media.decode import decode
from vidllava.media.hdr import WHITE_NITS, nits_to_pq, pq_to_nits, roll_off, to_sdr
from vidllava.media.pixels import resize_frames
from vidllava.media.probe import probe
from vidllava.media.timeline import SamplingRequest, plan_frames


def coded(nits: float) -> np.ndarray:
    """One PQ pixel of neutral light."""
    return np.full((1, 1, 3), round(float(nits_to_pq(np.array(nits))) * 65535), np.uint16)


def srgb(share: float) -> float:
    """IEC 61966-2-1, as it is written there."""
    return 255 * (12.92 * share if share <= 0.0031308 else 1.055 * share ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize(("nits", "value"), [(0.0, 0.0), (100.0, 0.5081), (1000.0, 0.7518), (10_000.0, 1.0)])
def test_pq_has_the_values_of_its_standard(nits, value):
    assert float(nits_to_pq(np.array(nits))) == pytest.approx(value, abs=1e-4)
    assert float(pq_to_nits(np.array(nits_to_pq(np.array(nits))))) == pytest.approx(nits, abs=1e-6 * 1e4)


def test_shadows_and_skin_keep_their_light_and_only_highlights_are_rolled_off():
    dark = np.array([0.5, 5.0, 50.0, 80.0])
    assert roll_off(dark) == pytest.approx(dark, rel=1e-6)
    bright = roll_off(np.array([150.0, 203.0, 400.0, 1000.0, 4000.0]))
    assert np.all(np.diff(bright) >= 0)
    assert bright[-1] == bright[-2] == pytest.approx(WHITE_NITS, rel=1e-6)


@pytest.mark.parametrize("nits", [1.0, 10.0, 50.0, 80.0])
@pytest.mark.parametrize("wide", [True, False])
def test_neutral_light_stays_neutral_and_has_its_srgb_level(nits, wide):
    pixel = to_sdr(coded(nits), "PQ", wide=wide)[0, 0].astype(int)
    assert np.ptp(pixel) <= 1
    assert pixel == pytest.approx(srgb(nits / WHITE_NITS), abs=1.5)


def test_hlg_reference_white_is_nearly_white_and_black_is_black():
    # BT.2408: diffuse white is 75 % of the HLG signal and 203 cd/m2 on a 1000 cd/m2 display.
    white = to_sdr(np.full((1, 1, 3), round(0.75 * 65535), np.uint16), "HLG", wide=True)
    assert 215 <= white.min() <= white.max() <= 245
    assert to_sdr(np.zeros((1, 1, 3), np.uint16), "HLG", wide=True).max() == 0


def test_a_saturated_colour_of_the_wide_gamut_keeps_its_hue():
    red = np.array([[[0.6, 0.3, 0.3]]])
    out = to_sdr((red * 65535).astype(np.uint16), "PQ", wide=True)[0, 0].astype(int)
    assert out[0] > out[1] + 40
    assert out[0] > out[2] + 40


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
def test_a_file_that_says_it_is_hdr_is_brightened_and_said(tmp_path, transfer):
    tags = f"log-level=none:pools=1:colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc"
    path = write_clip(
        tmp_path / "hdr.mp4",
        num_frames=6,
        codec="libx265",
        pixel_format="yuv420p10le",
        options={"x265-params": tags},
    )
    info = probe(path)
    assert any(note.startswith("HDR (") for note in info.notes)
    plan = plan_frames(info.frame_times, SamplingRequest(num_frames=2), source=str(path))
    with av.open(str(path)) as container:
        flat = next(container.decode(video=0)).to_ndarray(format="rgb24")
    shown = decode(info, plan).pixels[0]
    assert shown.shape == flat.shape
    assert shown.std() > 1.1 * flat.std()  # more contrast than the flat picture
    small = decode(info, plan, size=24).pixels
    assert np.array_equal(small, resize_frames(decode(info, plan).pixels, 24).permute(0, 2, 3, 1).numpy())


def test_eight_bits_are_never_taken_for_hdr(tmp_path):
    path = write_clip(
        tmp_path / "tagged.mp4",
        num_frames=3,
        options={"x264-params": "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"},
    )
    assert not any("HDR" in note for note in probe(path).notes)
