"""The README says what the results and the files say."""

import re
import shlex
from pathlib import Path

import pytest

from harness.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def test_its_tables_are_those_of_the_results():
    with pytest.raises(SystemExit) as left:
        main(["results", "--page", f"{ROOT}/README.md", "--check", "--results", f"{ROOT}/results"])
    assert not left.value.code


@pytest.mark.parametrize("name", re.findall(r"<!-- file:(\S+) -->", README))
def test_a_file_it_shows_is_the_file(name):
    shown = re.search(rf"<!-- file:{name} -->\n```python\n(.*?)```\n", README, re.DOTALL)
    assert shown and shown[1] == (ROOT / name).read_text("utf-8")


def test_every_file_it_links_to_is_there():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links and all((ROOT / link).exists() for link in links)


@pytest.mark.parametrize(
    "line", re.findall(r"^(harness (?:compare|explain|results|show|list) .*)", README, re.MULTILINE)
)
def test_what_it_asks_of_the_results_is_answered(line, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as left:
        main(shlex.split(re.split(r" {2,}", line)[0])[1:])
    assert not left.value.code and capsys.readouterr().out


def test_its_first_two_commands_are_the_ones_ci_runs():
    blocks = re.findall(r"^```bash\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert "harness run" in blocks[0] and blocks[1].strip().endswith("pytest")
    assert "block 1" in (script := (ROOT / ".ci/run").read_text()) and "block 2" in script


@pytest.mark.slow
def test_no_page_or_picture_is_behind_the_results():
    with pytest.raises(SystemExit) as left:
        main(["pages", "--check", "--results", f"{ROOT}/results"])
    assert not left.value.code
