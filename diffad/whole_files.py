"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
    suffix = "".join(place.suffixes[-2:]) if place.suffix == ".gz" else place.suffix
    draft = place.with_name(f"{place.stem}.partial-{secrets.token_hex(4)}{suffix}")
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
