"""The contact sheet and the console: what stands where."""

from __future__ import annotations

import numpy as np
import pytest

from vidllava.cli.console import Console, printable
from vidllava.cli.outputs import CELL_PIXELS, SHEET_PIXELS, Strip, contact_sheet

COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8)


def plain_frames(count: int, size: int) -> np.ndarray:
    """uint8 [count, size, size, 3], each of one colour."""
    return np.broadcast_to(COLOURS[np.arange(count) % 3, None, None], (count, size, size, 3)).copy()


def test_frames_stand_in_reading_order_and_small_ones_are_enlarged():
    sheet = np.asarray(contact_sheet([Strip("clip", plain_frames(3, 84), ["a", "b", "c"])]))
    found = [
        [int(x.mean()) for x in np.nonzero((sheet == colour).all(axis=2))] for colour in COLOURS
    ]  # (row, column) centres
    assert found[0][0] == found[1][0] == found[2][0]
    assert found[0][1] < found[1][1] < found[2][1]
    assert (sheet == COLOURS[0]).all(axis=2).sum() == 168 * 168
    assert CELL_PIXELS <= 168


def test_a_long_strip_wraps_and_the_sheet_stays_narrow():
    sheet = contact_sheet([Strip("clip", plain_frames(20, 384), [str(n) for n in range(20)])])
    assert sheet.width <= SHEET_PIXELS
    assert sheet.height > 5 * 384


def test_every_frame_needs_a_label():
    with pytest.raises(ValueError, match="1 labels for 2 frames"):
        Strip("clip", plain_frames(2, 84), ["only one"])


def test_tables_are_as_wide_as_their_cells_in_a_pipe(capsys: pytest.CaptureFixture[str]):
    Console().table(("name", "what"), [("a", "x" * 300), ("bb", "[not markup]")])
    assert capsys.readouterr().out == f"name  what\na     {'x' * 300}\nbb    [not markup]\n"


def test_control_characters_are_spelled_out():
    assert printable("red \x1b[31m\rbell\x07\ttab\n") == "red \\x1b[31m\\rbell\\x07\ttab\n"


def test_quiet_drops_notes_only(capsys: pytest.CaptureFixture[str]):
    console = Console(quiet=True)
    for say in (console.note, console.detail, console.warn, console.error):
        say("words")
    assert capsys.readouterr() == ("", "warning: words\nerror: words\n")
