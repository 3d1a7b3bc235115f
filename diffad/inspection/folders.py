"""Folders of picture files as one array: formats, sizes, channels, and what could not be read.

Pillow decodes; what a pixel means afterwards is decided here and nowhere else.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Picture = NDArray[np.float32]

ENDINGS = (".png", ".jpg", ".jpeg", ".jfif", ".tif", ".tiff", ".bmp", ".pgm", ".ppm")
#: Endings of pictures that are not read, and reported.
OTHERS = (".gif", ".webp", ".jp2", ".heic", ".heif", ".avif", ".svg", ".pdf", ".dng", ".raw")
#: Largest value of what Pillow decodes to whole numbers, by kind of pixel.
FULL = {"uint8": 255.0, "uint16": 65535.0}
#: Why a picture without any pixel is skipped.
TRANSPARENT = "is transparent everywhere"
#: Tag of a TIFF that holds the bits of a value.
BITS = 258
#: Weights of red, green and blue in grey (ITU-R 601).
GREY = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Folder:
    """Pictures of a folder at one size.

    Attributes
    ----------
    names : list of str
        Files, relative to the folder, in alphabetical order.
    images : array (n, height, width, 1 or 3)
        Between 0 and 1; transparent pixels are NaN.
    skipped : dict of str to str
        Files that could not be read, with the reason.
    resized : list of str
        Files whose size differed from the common one.
    size : tuple of int
        Height and width that pictures had before they were shrunk to `images`.
    """

    names: list[str]
    images: Picture
    skipped: dict[str, str] = field(default_factory=dict)
    resized: list[str] = field(default_factory=list)
    size: tuple[int, int] = (0, 0)


def read_folder(folder: Path | str, like: Folder | None = None, longest_side: int = 256) -> Folder:
    """Read all pictures below a folder.

    PNG, JPEG, TIFF, BMP, PGM and PPM of 8 or 16 bits, grey or colour, upright by their EXIF tag; TIFF also of floats
    between 0 and 1; of the several pictures that some phones put into a JPEG the first.  All are brought to the most
    common size and to the majority of grey or colour.  A pixel that is fully transparent is missing; half transparency
    is ignored.  Pillow gives colour of 16 bits as 8.

    Parameters
    ----------
    folder : path
        Searched with its subfolders; what is hidden (a name that starts with a dot) is left out.
    like : Folder, optional
        Take size and channels from it, as a fitted detector wants them.
    longest_side : int, default=256
        Larger pictures are shrunk to this; a detector's memory grows with the pixels.

    Returns
    -------
    Folder

    Raises
    ------
    ValueError
        For a folder without a picture that can be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder")
    if longest_side < 8:
        raise ValueError(f"longest_side must be at least 8 pixels, got {longest_side}")
    found = [p.relative_to(folder) for p in folder.rglob("*") if p.suffix.lower() in (*ENDINGS, *OTHERS)]
    files = sorted(folder / p for p in found if not any(part.startswith(".") for part in p.parts))
    names, pictures, sizes, skipped = [], [], [], {}
    for file in files:
        name = file.relative_to(folder).as_posix()
        if file.suffix.lower() in OTHERS:
            skipped[name] = f"{file.suffix} is not read; save it as PNG or TIFF"
            continue
        try:
            picture = decode(file)
        except Exception as error:  # a broken picture may make Pillow raise anything
            skipped[name] = str(error).splitlines()[0] if str(error) else type(error).__name__
            continue
        names.append(name)
        sizes.append(picture.shape[:2])
        pictures.append(resize(picture, _shrunk(picture.shape[:2], longest_side)))
    _refuse_nothing(names, folder, skipped)
    # Of equally common sizes the one that comes first in the alphabet of files.
    size = like.size if like else Counter(sizes).most_common(1)[0][0]
    target = like.images.shape[1:3] if like else _shrunk(size, longest_side)
    channels = like.images.shape[3] if like else Counter(p.shape[2] for p in pictures).most_common(1)[0][0]
    images = np.stack([_recoloured(resize(p, target), channels) for p in pictures])
    resized = [name for name, own in zip(names, sizes, strict=True) if own != size]
    shown = _without_empty(Folder(names, images, skipped, resized, size))
    _refuse_nothing(shown.names, folder, shown.skipped)
    return shown


def _without_empty(folder: Folder) -> Folder:
    """Skip pictures that show nothing: few pixels are outvoted by transparent ones around them in shrinking."""
    empty: NDArray[np.bool_] = np.asarray(np.isnan(folder.images).all((1, 2, 3)))
    if not empty.any():
        return folder
    reasons = {name: TRANSPARENT for name, nothing in zip(folder.names, empty, strict=True) if nothing}
    names, resized = ([name for name in some if name not in reasons] for some in (folder.names, folder.resized))
    return Folder(names, folder.images[~empty], folder.skipped | reasons, resized, folder.size)


def _refuse_nothing(names: list[str], folder: Path, skipped: dict[str, str]) -> None:
    if names:
        return
    broken = f"; {len(skipped)} could not be read, such as {next(iter(skipped))}" if skipped else ""
    raise ValueError(f"{folder} holds no picture ({', '.join(ENDINGS)}){broken}")


def decode(file: Path | str) -> Picture:
    """Return a picture file as (height, width, 1 or 3) between 0 and 1, NaN where fully transparent."""
    with Image.open(file) as opened:
        pages = getattr(opened, "n_frames", 1)
        # What follows the picture in a JPEG of several (MPO) are previews, depths and second eyes.
        if pages > 1 and opened.format != "MPO":
            raise ValueError(f"holds {pages} pages; save them one by one")
        if opened.mode.startswith("I") and 32 in getattr(opened, "tag_v2", {}).get(BITS, ()):
            raise ValueError("holds 32-bit integers of unknown range; save 8 or 16 bits")
        picture = ImageOps.exif_transpose(opened)
        alpha = None
        if picture.mode.startswith("I") and isinstance(picture.info.get("transparency"), int):
            # Pillow would cut grey of 16 bits down to 8.
            alpha = np.asarray(picture) != picture.info["transparency"]
        elif "A" in picture.getbands() or "transparency" in picture.info:
            picture = picture.convert("RGBA" if picture.mode not in ("LA", "La") else "LA")
            alpha = np.asarray(picture.getchannel("A"))
            picture = picture.convert("RGB" if picture.mode == "RGBA" else "L")
        if picture.mode == "1":
            picture = picture.convert("L")
        elif picture.mode not in ("L", "RGB", "F") and not picture.mode.startswith("I"):
            picture = picture.convert("RGB")
        pixels = np.asarray(picture)
    # Pillow opens grey of 16 bits as 32 here and there.
    kind = "uint16" if pixels.dtype.kind in "iu" and pixels.dtype.itemsize > 1 else str(pixels.dtype)
    values = np.array(pixels, np.float32).reshape(*pixels.shape[:2], -1) / FULL.get(kind, 1.0)
    if not np.isfinite(values).all():
        raise ValueError("holds values that are no numbers")
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"holds floats from {values.min():g} to {values.max():g}; bring them to between 0 and 1")
    if alpha is not None:
        values[alpha == 0] = np.nan
        if np.isnan(values).all():
            raise ValueError(TRANSPARENT)
    return values


def resize(picture: Picture, size: tuple[int, ...]) -> Picture:
    """Bring a picture (height, width, channels) to another height and width; shrinking averages."""
    if picture.shape[:2] == tuple(size):
        return picture
    missing: NDArray[np.bool_] = np.asarray(np.isnan(picture).any(2))
    if missing.all():
        return np.full((*size, picture.shape[2]), np.nan, np.float32)
    filled = np.where(missing[..., None], np.nanmean(picture, (0, 1)), picture)
    planes = [_resized(np.asarray(filled[..., k]), size) for k in range(picture.shape[2])]
    result = np.stack(planes, 2)
    if missing.any():
        result[_resized(missing.astype(np.float32), size) > 0.5] = np.nan
    return result


def _resized(plane: NDArray[np.floating], size: tuple[int, ...]) -> Picture:
    image = Image.fromarray(plane.astype(np.float32))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR), np.float32)


def _shrunk(size: tuple[int, ...], longest_side: int) -> tuple[int, int]:
    factor = min(1.0, longest_side / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _recoloured(picture: Picture, channels: int) -> Picture:
    if picture.shape[2] == channels:
        return picture
    return np.repeat(picture, 3, 2) if channels == 3 else (picture @ GREY)[..., None]
