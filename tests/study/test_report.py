"""The page: self-contained, complete on the way, and the same facts in its three forms."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from bothways.errors import BothwaysError
from bothways.study import report


class Fetches(HTMLParser):
    """Gathers every attribute that makes a browser fetch something, and the style sheets."""

    def __init__(self):
        super().__init__()
        self.found, self.ids, self.text, self._inside = [], set(), [], None

    def handle_starttag(self, tag, attrs):
        self._inside = tag
        for name, value in attrs:
            if name == "id":
                self.ids.add(value)
            if name in ("src", "srcset", "data", "poster", "action", "href", "xlink:href"):
                self.found.append((tag, value))

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside == "style":
            assert "@import" not in data
            assert "url(" not in data
        elif self._inside != "script":
            self.text.append(data)


@pytest.fixture(scope="module")
def page(synthetic, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    synthetic.study(folder, leave_out=("text/masked-seed2",))
    failed = folder / "runs/text/diffusion-seed1"
    (failed / "result.json").rename(failed / "failure.json")
    (failed / "failure.json").write_text('{"message": "the loss is nan at step 7"}')
    report.write(folder)
    return folder


def parsed(folder):
    reader = Fetches()
    reader.feed((folder / "report.html").read_text(encoding="utf-8"))
    return reader


def test_the_page_fetches_nothing(page):
    reader = parsed(page)
    assert [found for found in reader.found if not str(found[1]).startswith("#")] == []
    own = re.sub(r"<script>.*?</script>", "", (page / "report.html").read_text(encoding="utf-8"), flags=re.S)
    assert "http" not in own


def test_every_link_in_the_page_leads_somewhere(page):
    reader = parsed(page)
    assert {value[1:] for _, value in reader.found} <= reader.ids


def test_the_page_begins_with_the_answer_and_says_what_is_missing(page):
    text = " ".join(parsed(page).text)
    assert text.index("Which one for what") < text.index("Distance from the truth")
    assert "1 of 38 runs failed" in " ".join(text.split())
    assert "1 of 38 runs have not finished" in " ".join(text.split())
    assert "the loss is nan at step 7" in text


def test_text_of_models_is_escaped(page):
    html = (page / "report.html").read_text(encoding="utf-8")
    assert "<of>" not in html
    assert "&lt;of&gt;" in html


def test_numbers_are_the_same_in_all_three_forms(page):
    facts = json.loads((page / "report.json").read_text(encoding="utf-8"))
    text, html = ((page / f"report.{kind}").read_text(encoding="utf-8") for kind in ("md", "html"))
    for part in facts["sources"]:
        for board in part["boards"]:
            for line in board["contenders"]:
                assert line["value"] in text
                assert line["value"] in html


def test_bound_and_exact_lines_carry_their_estimators(page):
    facts = json.loads((page / "report.json").read_text(encoding="utf-8"))
    board = next(board for board in facts["sources"][1]["boards"] if board["key"] == "suffix-bits")
    kinds = {line["contender"]: (line["kind"], line["value"][0]) for line in board["contenders"] if line["headline"]}
    assert kinds["causal"][0] == "exact"
    assert kinds["diffusion"] == ("bound", "≤")
    assert board["note"]


def test_a_report_of_nothing_yet(synthetic, tmp_path):
    plan = synthetic.study(tmp_path)
    for job in plan.jobs():
        (tmp_path / "runs" / job.name / "result.json").unlink()
    report.write(tmp_path)
    assert "have not finished" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_a_folder_that_is_no_study(tmp_path):
    with pytest.raises(BothwaysError, match="is no study"):
        report.write(tmp_path)
