"""Tone mapping of HDR frames: PQ and HLG in BT.2020 to 8-bit sRGB, by the curves of their standards.

Left as it is, such a picture looks grey and flat, and a model has seen none like it. Light is restored (SMPTE
ST 2084 or ITU-R BT.2100), what is brighter than diffuse white is rolled off (ITU-R BT.2390-11, 5.4.1, from
1000 to 203 cd/m2), colours are moved to BT.709 primaries (ITU-R BT.2087, 2.2) and coded as sRGB.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

Transfer = Literal["PQ", "HLG"]
TRANSFERS: dict[int, Transfer] = {16: "PQ", 18: "HLG"}  # ITU-T H.273, table 3
PEAK_NITS, WHITE_NITS = 1000.0, 203.0  # mastering peak assumed; diffuse white (ITU-R BT.2408)

_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
_HLG_A = 0.17883277
_HLG_B, _HLG_C = 1 - 4 * _HLG_A, 0.5 - _HLG_A * np.log(4 * _HLG_A)
_HLG_SYSTEM_GAMMA = 1.2  # for a display of 1000 cd/m2
_LUMA_2020 = np.array([0.2627, 0.6780, 0.0593], np.float32)
_TO_709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
_STEPS = 4096  # of the tables for tone curve and sRGB: half a level of 8 bits at most
_ROWS = 256  # at a time, so that an 8K frame needs no gigabyte

_EIGHT_BITS = 8  # a picture of so few cannot hold HDR, whatever it is tagged

Light = npt.NDArray[np.float32]


def hdr_transfer(tag: int, num_bits: int) -> Transfer | None:
    """The HDR curve of pictures tagged ``tag`` (ITU-T H.273, table 3) with ``num_bits`` a colour, or None."""
    return TRANSFERS.get(tag) if num_bits > _EIGHT_BITS else None


def to_sdr(coded: npt.NDArray[np.uint16], transfer: Transfer, *, wide: bool) -> npt.NDArray[np.uint8]:
    """uint16 [H, W, 3] of full-range coded RGB to uint8 sRGB; ``wide``: its primaries are BT.2020's."""
    picture = np.empty(coded.shape, np.uint8)
    for top in range(0, len(coded), _ROWS):
        rows = slice(top, top + _ROWS)
        picture[rows] = _srgb(_rolled_off(_nits(coded[rows], transfer)) / WHITE_NITS, wide)
    return picture


def _nits(coded: npt.NDArray[np.uint16], transfer: Transfer) -> Light:
    """Display light in cd/m2, [H, W, 3]."""
    if transfer == "PQ":
        return _pq_table()[coded]
    scene = _hlg_table()[coded]
    # The display's gamma acts on luminance, not on each colour alone (BT.2100, table 5).
    luminance = np.maximum(_weighted(scene, _LUMA_2020), 1e-6)
    return scene * (PEAK_NITS * luminance ** np.float32(_HLG_SYSTEM_GAMMA - 1))[..., None]


def _rolled_off(nits: Light) -> Light:
    """At most ``WHITE_NITS``: one factor for the three colours of a pixel, so that hues stay."""
    brightest = nits.max(-1)
    step = np.sqrt(np.minimum(brightest / 10_000.0, 1.0)) * (_STEPS - 1)
    return nits * _roll_off_table()[step.astype(np.int32)][..., None]


def _srgb(light: Light, wide: bool) -> npt.NDArray[np.uint8]:
    if wide:
        light = np.stack([_weighted(light, row) for row in _TO_709], -1)
    step = np.sqrt(np.clip(light, 0.0, 1.0)) * (_STEPS - 1) + 0.5
    return _srgb_table()[step.astype(np.int32)]


def _weighted(light: Light, weights: Light) -> Light:
    # Not a matrix product: its rounding depends on how many threads share it, and a frame must not.
    return light[..., 0] * weights[0] + light[..., 1] * weights[1] + light[..., 2] * weights[2]


def pq_to_nits(coded: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """SMPTE ST 2084: 0..1 to 0..10000 cd/m2."""
    power = coded ** (1 / _M2)
    return 10_000.0 * (np.maximum(power - _C1, 0.0) / (_C2 - _C3 * power)) ** (1 / _M1)


def nits_to_pq(nits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The inverse of ``pq_to_nits``."""
    power = (nits / 10_000.0) ** _M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2


def roll_off(nits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """BT.2390's curve: unchanged up to a knee, then a spline that meets ``WHITE_NITS`` at ``PEAK_NITS``."""
    source = float(nits_to_pq(np.array(PEAK_NITS)))
    value = np.minimum(nits_to_pq(nits) / source, 1.0)
    most = float(nits_to_pq(np.array(WHITE_NITS))) / source
    knee = 1.5 * most - 0.5
    t = (value - knee) / (1 - knee)
    curve = (
        (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * most
    )
    return pq_to_nits(np.where(value < knee, value, curve) * source)


@lru_cache(maxsize=1)
def _pq_table() -> Light:
    return pq_to_nits(np.arange(65536) / 65535).astype(np.float32)


@lru_cache(maxsize=1)
def _hlg_table() -> Light:
    """BT.2100, table 5: 0..1 coded to 0..1 of scene light."""
    coded = np.arange(65536) / 65535
    bright = (np.exp((coded - _HLG_C) / _HLG_A) + _HLG_B) / 12
    return np.where(coded <= 0.5, coded**2 / 3, bright).astype(np.float32)


@lru_cache(maxsize=1)
def _roll_off_table() -> Light:
    """Factor for the brightest colour of a pixel, by the square root of its share of 10,000 cd/m2."""
    nits = np.maximum((np.arange(_STEPS) / (_STEPS - 1)) ** 2 * 10_000.0, 1e-4)
    return (roll_off(nits) / nits).astype(np.float32)


@lru_cache(maxsize=1)
def _srgb_table() -> npt.NDArray[np.uint8]:
    """IEC 61966-2-1, by the square root of linear light."""
    light = (np.arange(_STEPS) / (_STEPS - 1)) ** 2
    coded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(coded * 255).astype(np.uint8)
