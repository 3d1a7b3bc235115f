"""Files are written whole, in place of files alone."""

import os

import pytest

from diffad.base.whole_files import replacing


@pytest.mark.skipif(os.name == "nt", reason="no named pipes here")
def test_what_is_no_file_is_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for place in (pipe, tmp_path):
        with pytest.raises(ValueError, match="no file that could be replaced"), replacing(place) as draft:
            draft.write_text("anything")
    assert pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]
