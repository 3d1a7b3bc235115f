"""`diffad inspect` reads folders as they are, survives broken files, and writes one self-contained report that names
what it found; sizes, bits, colour and transparency mean what the docstring says.
"""

from __future__ import annotations

import io
import re
import struct
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from diffad import ImageDetector
from diffad.cli import app
from diffad.inspection.folders import decode, read_folder, resize
from diffad.inspection.pictures import plot_inspection
from diffad.inspection.report import Inspection

SIZE = 16


def parts(n, seed, height=SIZE, width=SIZE):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    base = 120 + 40 * np.sin(y / 3) + 20 * np.cos(x / 4)
    return (base + 8 * rng.standard_normal((n, 1, 1)) + 4 * rng.standard_normal((n, height, width))).astype(np.uint8)


def save(folder, images, prefix="part"):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{prefix}{i:02d}.png")


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "good", parts(40, 0))
    new = parts(6, 1)
    new[4, 5:9, 5:9] = 255
    save(tmp_path / "new", new)
    return tmp_path


def inspect(*arguments):
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)])


def said(result):
    return re.sub(r"\s+", " ", result.output)


class Page(HTMLParser):
    """Collects tags of a page, and fails where they are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags = [], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


# --- the report -------------------------------------------------------------------------------------------


def test_the_defective_part_is_first_in_a_report_that_needs_no_other_file(folders):
    result = inspect("new", "--fit-on", "good", "-o", "out.html", "--worst", 3)
    assert result.exit_code == 0, result.output
    assert "part04.png" in result.output
    text = (folders / "out.html").read_text()
    page = Page(text)
    sources = [a["src"] for tag, a in page.tags if tag == "img"]
    assert len(sources) == 1 + 3 and all(s.startswith("data:image/png;base64,") for s in sources)
    assert all(a.get("alt") for tag, a in page.tags if tag == "img")
    assert not [a for _, a in page.tags if "href" in a] and "http" not in re.sub(r"base64,[^\"]*", "", text)
    assert text.index("part04.png") < min(text.index(f"part0{k}.png") for k in (0, 1, 2, 3, 5))
    assert [p.name for p in folders.iterdir() if "partial" in p.name] == []


def test_scores_are_those_of_the_library(folders):
    assert inspect("new", "--fit-on", "good").exit_code == 0
    good = read_folder("good")
    detector = ImageDetector().fit(good.images)
    score = -detector.score_samples(read_folder("new", like=good).images)
    text = (folders / "report.html").read_text()
    for value in score:
        assert f'<td class="number">{value:.3g}</td>' in text
    assert f"above a score of {-detector.offset_:.3g}" in text


def test_names_cannot_break_the_page(folders):
    (folders / "new" / "part04.png").rename(folders / "new" / "a<b> & 'c'.png")
    assert inspect("new", "--fit-on", "good").exit_code == 0
    text = (folders / "report.html").read_text()
    Page(text)
    assert "a&lt;b&gt; &amp;" in text and "<b>" not in text


def test_dollars_in_names_are_no_formula(folders):
    (folders / "new" / "part04.png").rename(folders / "new" / "a$\\frac$.png")
    good = read_folder("good")
    found = Inspection.of(ImageDetector().fit(good.images), read_folder("new", like=good), 6)
    found.sheet().savefig("sheet.png")  # a formula that is none raises here
    assert "a$\\frac$.png" in [found.folder.names[i] for i in found.worst]


def test_broken_files_are_skipped_and_reported(folders):
    (folders / "good" / "bad.png").write_bytes(b"\x89PNG\r\n")
    cut = (folders / "new" / "part00.png").read_bytes()[:90]
    (folders / "new" / "cut.png").write_bytes(cut)
    (folders / "good" / "notes.txt").write_text("no picture")
    result = inspect("new", "--fit-on", "good")
    assert result.exit_code == 0, result.output
    text = (folders / "report.html").read_text()
    for name in ("bad.png", "cut.png"):
        assert name in result.output and name in text
    assert "notes.txt" not in result.output


def without_widths(pages):
    """Return a TIFF of several pages, all but the first of which have lost their width."""
    file = io.BytesIO()
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])
    found = bytearray(file.getvalue())
    (place,) = struct.unpack_from("<I", found, 4)
    for page in range(len(pages)):
        (entries,) = struct.unpack_from("<H", found, place)
        for entry in range(place + 2, place + 2 + 12 * entries, 12):
            if page and struct.unpack_from("<H", found, entry) == (256,):
                struct.pack_into("<H", found, entry, 255)
        (place,) = struct.unpack_from("<I", found, place + 2 + 12 * entries)
    return bytes(found)


def test_a_damaged_tiff_is_skipped_whatever_pillow_raises(folders):
    (folders / "good" / "damaged.tif").write_bytes(without_widths([Image.fromarray(p) for p in parts(2, 3)]))
    found = read_folder(folders / "good")
    assert len(found.names) == 40
    assert found.skipped == {"damaged.tif": "Missing dimensions"}


def test_other_sizes_are_resized_to_the_most_common_of_the_good_ones_and_named(folders):
    save(folders / "good", parts(3, 5, 24, 20), "odd")
    save(folders / "new", parts(1, 6, 32, 32), "large")
    result = inspect("new", "--fit-on", "good")
    assert result.exit_code == 0, result.output
    assert "16 x 16" in said(result) and "odd00.png" in result.output and "large00.png" in result.output
    assert "3 good images had another size" in (folders / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere", "--fit-on", "good"), ("nowhere",)),
        (("new", "--fit-on", "empty"), ("empty", "no picture", ".png")),
        (("empty", "--fit-on", "good"), ("empty", "no picture")),
        (("new", "--fit-on", "few"), ("7", "at least 8")),
        (("new", "--fit-on", "broken"), ("broken", "1 could not be read")),
        (("new", "--fit-on", "good", "--false-alarm-rate", "2"), ("--false-alarm-rate must",)),
        (("new", "--fit-on", "good", "--contamination", "0.7"), ("--contamination must",)),
        (("new", "--fit-on", "good", "--worst", "0"), ("--worst must",)),
        (("new", "--fit-on", "good", "--longest-side", "2"), ("--longest-side must",)),
        (("new", "--fit-on", "good", "-o", "nowhere/report.html"), ("nowhere",)),
    ],
)
def test_what_is_wrong_is_said_in_one_line(folders, arguments, words):
    (folders / "empty").mkdir()
    save(folders / "few", parts(7, 0))
    (folders / "broken").mkdir()
    (folders / "broken" / "a.png").write_bytes(b"nothing")
    result = inspect(*arguments)
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert "error:" in result.output
    for word in words:
        assert word in said(result), f"{word!r} is missing in: {said(result)}"
    assert not (folders / "report.html").exists()


def test_how_many_to_show_is_checked_before_anything_is_read(folders, monkeypatch):
    monkeypatch.setattr("diffad.inspection.folders.read_folder", None)
    assert "--worst must be" in said(inspect("new", "--fit-on", "good", "--worst", "0"))


# --- reading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "dtype"),
    [
        *(("png", "uint8"), ("tif", "uint8"), ("pgm", "uint8")),
        *(("tiff", "uint16"), ("png", "uint16"), ("pgm", "uint16")),
    ],
)
def test_grey_pictures_keep_their_values(tmp_path, ending, dtype):
    full = np.iinfo(dtype).max
    pixels = np.linspace(0, full, 20 * 12).reshape(20, 12).astype(dtype)
    Image.fromarray(pixels).save(tmp_path / f"a.{ending}")
    found = decode(tmp_path / f"a.{ending}")
    assert found.shape == (20, 12, 1) and found.dtype == np.float32
    np.testing.assert_allclose(found[..., 0], pixels / full, atol=1e-6)


def test_jpeg_and_colour(tmp_path):
    pixels = np.zeros((20, 12, 3), np.uint8) + np.array([200, 100, 50], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=95)
    np.testing.assert_allclose(decode(tmp_path / "a.jpg"), pixels / 255, atol=0.02)
    (tmp_path / "a.jpg").rename(tmp_path / "a.jfif")
    Image.fromarray(pixels).save(tmp_path / "a.ppm")
    assert read_folder(tmp_path).names == ["a.jfif", "a.ppm"]
    np.testing.assert_allclose(decode(tmp_path / "a.ppm"), pixels / 255, atol=1e-6)
    Image.fromarray(pixels).quantize(8).save(tmp_path / "palette.png")
    np.testing.assert_allclose(decode(tmp_path / "palette.png"), pixels / 255, atol=0.02)


def test_of_a_jpeg_of_several_pictures_the_first_is_taken(tmp_path):
    first, second = (Image.fromarray(np.full((16, 16), grey, np.uint8)) for grey in (60, 200))
    first.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[second])
    np.testing.assert_allclose(decode(tmp_path / "phone.jpg"), 60 / 255, atol=0.02)


def test_fully_transparent_pixels_are_missing_and_half_transparent_ones_are_not(tmp_path):
    pixels = np.full((10, 10, 4), 90, np.uint8)
    pixels[..., 3] = 255
    pixels[:3, :, 3], pixels[3:6, :, 3] = 0, 128
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = decode(tmp_path / "a.png")
    assert found.shape == (10, 10, 3)
    assert np.isnan(found[:3]).all()
    np.testing.assert_allclose(found[3:], 90 / 255, atol=1e-6)


@pytest.mark.filterwarnings("error")
def test_pictures_that_show_nothing_once_they_are_shrunk_are_skipped(tmp_path):
    save(tmp_path / "good", parts(3, 0, 48, 48))
    pixels = np.full((480, 480, 2), 90, np.uint8)
    pixels[..., 1] = 0
    pixels[200, 200, 1] = 255
    for where in ("good", "alone"):
        save(tmp_path / where, [pixels], "speck")
    found = read_folder(tmp_path / "good", longest_side=100)
    assert found.names == ["part00.png", "part01.png", "part02.png"] and found.resized == []
    assert len(found.images) == 3 and np.isfinite(found.images).all()
    assert found.skipped == {"speck00.png": "is transparent everywhere"}
    with pytest.raises(ValueError, match=r"no picture .*; 1 could not be read, such as speck00\.png"):
        read_folder(tmp_path / "alone", longest_side=100)


def test_the_transparent_value_of_sixteen_bits_is_missing_and_the_others_are_kept(tmp_path):
    pixels = np.linspace(0, 65535, 20 * 12).reshape(20, 12).astype(np.uint16)
    Image.fromarray(pixels).save(tmp_path / "a.png", transparency=int(pixels[3, 4]))
    found = decode(tmp_path / "a.png")[..., 0]
    assert np.argwhere(np.isnan(found)).tolist() == [[3, 4]]
    np.testing.assert_allclose(found[~np.isnan(found)], pixels[~np.isnan(found)] / 65535, atol=1e-6)


def test_a_picture_taken_sideways_is_turned_upright(tmp_path):
    pixels = np.arange(20 * 12, dtype=np.uint8).reshape(20, 12)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_allclose(decode(tmp_path / "a.png")[..., 0] * 255, np.rot90(pixels, -1), atol=1e-4)


def test_grey_and_colour_mixed_follow_the_majority(tmp_path):
    colour = np.stack([parts(1, 9)[0]] * 3, 2)
    save(tmp_path / "a", parts(3, 0))
    save(tmp_path / "a", [colour], "colour")
    grey = read_folder(tmp_path / "a")
    assert grey.images.shape == (4, SIZE, SIZE, 1)
    np.testing.assert_allclose(grey.images[grey.names.index("colour00.png"), ..., 0], colour[..., 0] / 255, atol=1e-5)
    save(tmp_path / "b", [colour] * 3)
    assert read_folder(tmp_path / "a", like=read_folder(tmp_path / "b")).images.shape == (4, SIZE, SIZE, 3)


def test_hidden_files_and_folders_do_not_count(tmp_path):
    save(tmp_path / "a", parts(2, 0))
    save(tmp_path / "a" / ".thumbnails", parts(2, 1))
    save(tmp_path / "a", parts(1, 2), ".old")
    assert read_folder(tmp_path / "a").names == ["part00.png", "part01.png"]
    save(tmp_path / ".b", parts(2, 0))  # one that is asked for by name
    assert len(read_folder(tmp_path / ".b").names) == 2


def test_subfolders_count_and_large_pictures_are_shrunk(tmp_path):
    save(tmp_path / "a" / "line 2", parts(2, 0, 64, 128))
    found = read_folder(tmp_path / "a", longest_side=32)
    assert found.names == ["line 2/part00.png", "line 2/part01.png"]
    assert found.images.shape == (2, 16, 32, 1) and found.size == (64, 128) and found.resized == []
    with pytest.raises(ValueError, match="no folder"):
        read_folder(tmp_path / "nowhere")


def test_what_is_not_judged_is_reported(tmp_path):
    rng = np.random.default_rng(0)
    save(tmp_path, rng.integers(0, 255, (3, 16, 16)).astype(np.uint8))
    page = [Image.fromarray(rng.integers(0, 255, (16, 16)).astype(np.uint8)) for _ in range(3)]
    page[0].save(tmp_path / "pages.tif", save_all=True, append_images=page[1:])
    page[0].save(tmp_path / "moving.gif")
    Image.fromarray(255 * rng.random((16, 16)).astype(np.float32)).save(tmp_path / "counts.tif")
    Image.fromarray(rng.random((16, 16)).astype(np.float32)).save(tmp_path / "share.tif")
    for name, kind in (("wide.tif", np.int32), ("wider.tif", np.uint32)):
        Image.fromarray(rng.integers(0, 60_000, (16, 16)).astype(kind)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    found = read_folder(tmp_path)
    assert found.names == ["part00.png", "part01.png", "part02.png", "share.tif"]
    assert sorted(found.skipped) == ["counts.tif", "moving.gif", "pages.tif", "wide.tif", "wider.tif"]
    assert found.skipped["wide.tif"] == "holds 32-bit integers of unknown range; save 8 or 16 bits"
    assert "32-bit" in found.skipped["wider.tif"]
    assert "3 pages" in found.skipped["pages.tif"] and "between 0 and 1" in found.skipped["counts.tif"]


def test_resizing_keeps_the_mean_and_what_is_missing():
    picture = np.random.default_rng(0).random((20, 20, 1)).astype(np.float32)
    assert resize(picture, (10, 10)).mean() == pytest.approx(picture.mean(), abs=0.01)
    picture[:10] = np.nan
    small = resize(picture, (10, 10))
    assert np.isnan(small[:5]).all() and np.isfinite(small[5:]).all()


# --- pictures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(SIZE, SIZE), (SIZE, 2 * SIZE), (SIZE, SIZE, 3), (SIZE, SIZE, 5)])
@pytest.mark.parametrize("n", [1, 3])
def test_each_image_is_drawn_with_heat_and_expectation(shape, n):
    images = np.random.default_rng(0).random((20, *shape))
    images[0, :3] = np.nan
    found = ImageDetector().fit(images).explain(images[:n])
    figure = plot_inspection(images[:n], found, [f"image {k}" for k in range(n)])
    drawn = [ax for ax in figure.axes if ax.images]
    assert len(drawn) == 3 * n
    np.testing.assert_array_equal(drawn[1].images[0].get_array(), found.heat[0])
    assert {ax.get_title(loc="left") for ax in drawn} >= {f"image {k}" for k in range(n)}
    figure.canvas.draw()
