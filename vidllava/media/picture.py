"""A picture file as upright RGB pixels, and notes on what else the file holds.

Named formats only, so that no exotic parser is reached; a picture that is too large, cut or damaged is
refused. Transparent parts are laid over white, as a page would show them. Of several pages or pictures the
first (of HEIC the primary one) is read, and ``picture_notes`` says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, TiffImagePlugin, features

from vidllava.errors import MediaError, ResourceError
from vidllava.media.files import check_file, impostor, picture_format, read_head
from vidllava.media.hdr import hdr_transfer, to_sdr
from vidllava.media.limits import DEFAULT_LIMITS, Limits
from vidllava.media.structure import boxes, has_clip_behind, jpegs, mapped

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
_WIDTH, _HEIGHT, _NEW_SUBFILE = 256, 257, 254  # TIFF tags
_REDUCED = 1  # bit of NewSubfileType: a smaller copy of another page
_ORIENTATION, _TURNED = 274, (5, 6, 7, 8)  # EXIF: the tag, and its values that swap the sides
_BT2020 = 9  # colour primaries, ITU-T H.273, table 2
_HINTS = {
    "ICO": "convert it to PNG",
    "JPEG 2000": "convert it to PNG or JPEG",
    "Photoshop": "export it as PNG",
}


def load_picture(path: str | Path, limits: Limits = DEFAULT_LIMITS) -> npt.NDArray[np.uint8]:
    """uint8 [H, W, 3], upright (EXIF orientation applied), alpha over white, 16 and 32 bits scaled down.

    Grey of 16 bits is divided by 65535; grey of 32 bits (whole numbers or floats), whose range no file says,
    goes from its smallest value (or 0) to its largest. HDR in HEIC is brought to SDR as video is.

    Raises MediaError for a path that is not a readable file, an unknown or refused format, and truncated or
    damaged data; ResourceError for a picture over the ``limits`` (and over 178 million pixels, whatever they
    say: Pillow's own bound).
    """
    with _opened(path, limits) as image:
        return _upright_rgb(path, image)


def picture_notes(path: str | Path, limits: Limits = DEFAULT_LIMITS) -> tuple[str, ...]:
    """What the file holds besides the picture that is read, and what was assumed to read it; often nothing.

    Raises what ``load_picture`` raises for a header.
    """
    notes = []
    with _opened(path, limits) as image:
        num_pictures = _num_pictures(image)
        if num_pictures is None:
            notes.append("what follows its first picture cannot be read")
        elif num_pictures > 1:
            what = "pages" if image.format == "TIFF" else "pictures"
            which = "primary one" if image.format == "HEIF" else "first"
            notes.append(f"holds {num_pictures} {what}: only the {which} is read")
        if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(_NEW_SUBFILE, 0) & _REDUCED:
            notes.append("its first page is a reduced copy (a preview): that is what is read")
        if image.mode in ("I", "F") and image.format != "PNG":
            notes.append("grey of 32 bits: its values are spread from black to white")
        if image.format == "HEIF" and _heif_transfer(image) is not None:
            notes.append(f"HDR ({_heif_transfer(image)}): shown as SDR, highlights rolled off (BT.2390)")
        several = num_pictures != 1
    with mapped(path) as data:
        found = list(jpegs(data, 2))
        if len(found) > 1 and not several and not found[0].has_index:
            notes.append("holds more than one JPEG picture: only the first is read")
        in_jpeg = bool(found) and has_clip_behind(data, found[-1].stop)
        if in_jpeg or (data[4:8] == b"ftyp" and any(box.kind == b"mpvd" for box in boxes(data))):
            notes.append("holds a clip behind the still (a motion photo): only the still is read")
    return tuple(notes)


def _num_pictures(image: Image.Image) -> int | None:
    """Pages of a TIFF, pictures of an MPO or HEIC file; None where damage hides it."""
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # as in ``_opened``: parsers raise whatever damage makes them stumble over
        return None


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
    hint = _HINTS.get(kind or "") or _missing_reader(kind)
    if hint is not None:
        raise MediaError(name, f"is {_a(kind)} picture, a format that is not read", hint)
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd tags, and of pictures above a limit that is not ours.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=(*_FORMATS, *(["HEIF"] if kind == "HEIC" else []))) as image:
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


def _missing_reader(kind: str | None) -> str | None:
    """What to try where the library that reads this format is not here; None where it is."""
    if kind == "AVIF" and not features.check("avif"):
        return "install a Pillow that reads AVIF: pip install --upgrade pillow; or convert it to PNG"
    if kind != "HEIC":
        return None
    try:
        import pillow_heif
    except ImportError:
        return "pip install pillow-heif, or convert it to JPEG"
    pillow_heif.register_heif_opener()  # changes nothing where it was done before
    return None


def _heif_transfer(image: Image.Image) -> Literal["PQ", "HLG"] | None:
    """The HDR curve that a HEIC picture is coded by, or None."""
    profile = image.info.get("nclx_profile") or {}
    return hdr_transfer(int(profile.get("transfer_characteristics", 2)), int(image.info.get("bit_depth", 8)))


def _heif_as_sdr(path: str | Path, image: Image.Image, transfer: Literal["PQ", "HLG"]) -> Image.Image:
    import pillow_heif

    found = pillow_heif.open_heif(path, convert_hdr_to_8bit=False)[image.tell()]
    coded = np.asarray(found)  # uint16 [H, W, 3 or 4], scaled to 16 bits
    wide = int(image.info["nclx_profile"].get("color_primaries", 2)) == _BT2020
    colours = to_sdr(np.ascontiguousarray(coded[..., :3]), transfer, wide=wide)
    if coded.shape[2] == 3:
        return Image.fromarray(colours)
    return Image.fromarray(np.dstack([colours, (coded[..., 3] >> 8).astype(np.uint8)]))


def _upright_rgb(path: str | Path, image: Image.Image) -> npt.NDArray[np.uint8]:
    transfer = _heif_transfer(image) if image.format == "HEIF" else None
    if transfer is not None:
        image = _heif_as_sdr(path, image, transfer)
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
    low, top = 0.0, 65535.0
    # Pillow opened PNGs of 16 bits in mode I for a long time.
    if image.mode in ("I", "F") and image.format != "PNG":
        finite = values[np.isfinite(values)]
        low = min(float(finite.min(initial=0.0)), 0.0)
        top = float(finite.max(initial=low))
    span = max(top - low, 1e-30)
    levels = (np.nan_to_num(values, nan=low, posinf=top, neginf=low) - low) / span * 255.0
    return Image.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))


def _unreadable(name: str, kind: str | None) -> MediaError:
    if kind is None:
        return MediaError(
            name,
            "is not a picture of a known format",
            "JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC and AVIF are read",
        )
    return MediaError(name, f"is a truncated or damaged {kind} picture", "copy or download it again")


def _a(kind: str | None) -> str:
    return f"an {kind}" if kind in ("AVIF", "ICO") else f"a {kind}"
