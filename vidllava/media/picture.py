"""A picture file as upright RGB pixels.

Named formats only, so that no exotic parser is reached; a picture that is too large, cut or damaged is
refused. Transparent parts are laid over white, as a page would show them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, TiffImagePlugin

from vidllava.errors import MediaError, ResourceError
from vidllava.media.files import check_file, impostor, picture_format, read_head
from vidllava.media.limits import DEFAULT_LIMITS, Limits

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
_WIDTH, _HEIGHT = 256, 257  # TIFF tags
_ORIENTATION, _TURNED = 274, (5, 6, 7, 8)  # EXIF: the tag, and its values that swap the sides
_HINTS = {
    "HEIC": "convert it to JPEG, for example with pillow-heif",
    "ICO": "convert it to PNG",
    "JPEG 2000": "convert it to PNG or JPEG",
    "Photoshop": "export it as PNG",
}


def load_picture(path: str | Path, limits: Limits = DEFAULT_LIMITS) -> npt.NDArray[np.uint8]:
    """uint8 [H, W, 3], upright (EXIF orientation applied), alpha over white, 16-bit scaled down.

    Raises MediaError for a path that is no readable file, an unknown or refused format, and truncated or
    damaged data; ResourceError for a picture over the ``limits`` (and over 178 million pixels, whatever they
    say: Pillow's own bound).
    """
    with _opened(path, limits) as image:
        return _upright_rgb(image)


def picture_size(path: str | Path, limits: Limits = DEFAULT_LIMITS) -> tuple[int, int]:
    """(height, width) of the upright picture, from its header: no pixel is decoded.

    Raises what ``load_picture`` raises for a header; what damage follows it is not seen. A PNG's orientation
    is known only where it stands before the pixels, as it does wherever a camera or an editor wrote it.
    """
    with _opened(path, limits) as image:
        width, height = image.size
        if isinstance(image, TiffImagePlugin.TiffImageFile):  # its size is turned already, or not, by version
            width, height = image.tag_v2[_WIDTH], image.tag_v2[_HEIGHT]
        told = image.format != "PNG" or "exif" in image.info  # else Pillow would decode it to look
        turned = told and image.getexif().get(_ORIENTATION, 1) in _TURNED
        return (width, height) if turned else (height, width)


@contextmanager
def _opened(path: str | Path, limits: Limits) -> Iterator[Image.Image]:
    """The picture with its header read; whatever goes wrong inside the block is a line of ours."""
    name = str(path)
    limits.check_file(name, check_file(path).st_size)
    head = read_head(path)
    kind, found = picture_format(head), impostor(head)
    if found is not None:
        raise MediaError(name, f"is {found[0]}", found[1])
    if kind in _HINTS:
        raise MediaError(name, f"is a {kind} picture, a format that is not read", _HINTS[kind])
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd tags, and of pictures above a limit that is not ours.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as image:
                limits.check_picture(name, *image.size)
                yield image
    except Image.DecompressionBombError:
        what = f"has more than the limit of {limits.max_frame_pixels:,} pixels"
        raise ResourceError(name, what, "scale it down") from None
    except ResourceError:
        raise
    except Exception as error:
        # Pillow's parsers raise whatever a damaged file makes them stumble over (struct, zlib, Syntax, ...).
        raise _unreadable(name, kind) from error


def _upright_rgb(image: Image.Image) -> npt.NDArray[np.uint8]:
    image.load()
    upright = _to_eight_bits(ImageOps.exif_transpose(image))
    if upright.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in upright.info:
        rgba = upright.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        upright = Image.alpha_composite(white, rgba)
    return np.array(upright.convert("RGB"), dtype=np.uint8)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Grey pictures of 16 or 32 bits as 8 bits; Pillow's own conversion would clip them to white."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image, dtype=np.float64)
    top = 65535.0 if image.mode.startswith("I") else max(float(np.nanmax(values)), 1e-9)
    levels = np.nan_to_num(values) / top * 255.0
    return Image.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))


def _unreadable(name: str, kind: str | None) -> MediaError:
    if kind is None:
        return MediaError(
            name, "is no picture of a known format", "JPEG, PNG, WebP, GIF, BMP, TIFF and AVIF are read"
        )
    return MediaError(name, f"is a truncated or damaged {kind} picture", "copy or download it again")
