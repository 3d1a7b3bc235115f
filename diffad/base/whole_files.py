"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def ending(path: Path) -> str:
    """Return what a file's name ends with; what is packed has two endings.

    Examples
    --------
    >>> ending(Path("june.2026.csv.gz")), ending(Path("june.2026.csv"))
    ('.csv.gz', '.csv')
    """
    return "".join(path.suffixes[-2:]) if path.suffix.lower() == ".gz" else path.suffix


def beside(path: Path, tail: str) -> Path:
    """Return a file of the same folder and name with another ending.

    Examples
    --------
    >>> print(beside(Path("june.csv.gz"), ".alarms.csv"))
    june.alarms.csv
    """
    if not path.name:
        raise ValueError(f"{path} is a folder; name a file")
    return path.with_name(path.name.removesuffix(ending(path)) + tail)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a draft beside a file, of the same suffix; it takes the file's place when the block ends.

    A file that is replaced hands down its mode; a link is followed; a block that fails, on a full disk for one, leaves
    nothing behind and an older file as it was.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder) / "a.txt") as draft:
    ...         _ = draft.write_text("whole")
    ...     print([file.name for file in Path(folder).iterdir()])
    ['a.txt']
    """
    place = Path(path).resolve()
    if place.exists() and not place.is_file():
        raise ValueError(f"{path} is no file that could be replaced, but a folder or a device; name a file")
    draft = place.with_name(f"{place.stem}.partial-{secrets.token_hex(4)}{ending(place)}")
    try:
        yield draft
        if place.exists():
            shutil.copymode(place, draft)
        os.replace(draft, place)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        draft.unlink(missing_ok=True)
