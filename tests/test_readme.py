"""What the README shows works: its Python runs, its shell lines are the Makefile's, its links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("snippet", blocks("python"))
def test_snippet_runs(snippet, capsys):
    space = {}
    exec(compile(snippet, "README.md", "exec"), space)
    assert not space["filled"].isna().iloc[2000:2012].any(axis=None)
    assert space["samples"].shape == (20, *space["rows"].shape)
    assert capsys.readouterr().out


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
