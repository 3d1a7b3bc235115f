"""What the README shows works: its Python runs, its shell lines are the Makefile's, its links lead somewhere."""

import re
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def run(number):
    space = {}
    exec(compile(blocks("python")[number], "README.md", "exec"), space)
    return space


def test_snippet_fills_gaps(capsys):
    space = run(0)
    assert not space["filled"].isna().iloc[2000:2012].any(axis=None)
    assert space["samples"].shape == (20, *space["rows"].shape)
    assert capsys.readouterr().out


def test_snippet_finds_faults():
    space = run(1)
    events = space["detector"].events(space["new"])
    first = space["faults"].iloc[0]
    assert ((events["start"] <= first["end"]) & (events["end"] >= first["start"])).any()
    assert set(space["result"].explain().index) == set(space["new"].columns)


def numbers(text):
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d*)?", text)]


def test_snippet_of_tables_and_images_prints_what_is_shown(capsys):
    run(2)
    printed, (shown,) = capsys.readouterr().out, blocks("text")
    assert len(printed.splitlines()) == len(shown.splitlines())
    # Processors round differently, and figures of one decimal with them.
    np.testing.assert_allclose(numbers(printed), numbers(shown), atol=0.11, err_msg=printed)


def test_every_snippet_is_tested():
    assert len(blocks("python")) == 3


def test_pip_lines_are_what_make_runs():
    makefile = (ROOT / "Makefile").read_text().replace("$(BIN)", ".venv/bin").replace(" --quiet", "")
    lines = [line for block in blocks("sh") for line in block.splitlines() if "pip install" in line]
    assert len(lines) == 2
    for line in lines:
        assert line in makefile


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert f"\n{target}:" in makefile


def test_links_lead_to_files_of_the_repository():
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / link).exists(), link
