import ast

import pytest

from bothways.text import code, library
from bothways.text.corpora import read

SOURCE = '''"""Module text that says what this is."""
import os.path as p, sys


class Thing(Base):
    """A thing
    in two lines."""

    def run(self, x, *rest, key=None):
        """Run it."""
        y = helper(x, depth=3)  # go
        for z in rest:
            self.done.append(z)
        return y if key is None else key.value

    def empty(self):
        "Nothing else."
'''


def test_anatomy_of_a_module():
    found = code.anatomy(SOURCE)
    assert found.docstrings == ("Module text that says what this is.", "A thing\nin two lines.", "Run it.",
                                "Nothing else.")
    assert '"' not in found.bare and "..." in found.bare
    ast.parse(found.bare)
    run, empty = found.functions
    assert run.summary == "Run it." and run.source.startswith("def run(") and '"""Run it."""' in run.source
    assert run.bare.splitlines()[:2] == ["def run(self, x, *rest, key=None):", "    y = helper(x, depth=3)  # go"]
    assert empty.bare == "def empty(self):\n    ..."
    assert code.anatomy("def (") is None


def test_tags_come_from_the_parser():
    text, spans = code.tagged(SOURCE)
    tags = [(text[start:end], tag) for start, end, tag in spans]
    for expected in [("import", "keyword"), ("os", "import"), ("sys", "import"), ("Thing", "class name"),
                     ("run", "function name"), ("key", "parameter"), ("rest", "parameter"), ("y", "assigned"),
                     ("helper", "call"), ("depth", "argument name"), ("3", "constant"), ("None", "constant"),
                     ("# go", "comment"), ("z", "assigned"), ("z", "variable"), ("done", "attribute"),
                     ("append", "call"), ("y", "variable"), ("=", "operator"), ("value", "attribute"),
                     ('"""Run it."""', "string"), ("Base", "variable")]:
        assert expected in tags, expected
    assert {tag for _, tag in tags} <= set(code.TAGS)
    assert code.tagged("x = 'é'") is None


def test_sixteen_areas_each_with_documents():
    rows = library.docstrings()
    assert len(library.AREAS) == 16 == len({area for _, area in rows})
    assert len({" ".join(text.split()) for text, _ in rows}) == len(rows) > 3_000
    assert min(len(text) for text, _ in rows) >= 40
    listed = [module for modules in library.AREAS.values() for module in modules.split()]
    assert len(listed) == len(set(listed))


def test_area_split_has_every_area_on_both_sides_and_no_text_twice():
    split = library.areas()
    assert split.train.names == split.test.names == tuple(sorted(library.AREAS))
    assert set(split.train.labels) == set(split.test.labels) == set(range(16))
    assert not {" ".join(text.split()) for text in split.train.texts} & {" ".join(t.split()) for t in split.test.texts}
    assert 0.08 < len(split.test) / (len(split.test) + len(split.train)) < 0.35


def test_documents_are_prose_and_code_and_leave_the_test_modules_out():
    documents = list(read("python-library"))
    kinds = {document.place.split()[0] for document in documents}
    assert {"documentation", "code"} <= kinds <= {"documentation", "code", "topic"}
    assert sum(len(document.text) for document in documents) > 5_000_000
    assert documents == list(library.documents())
    aside = {module.name for module in library.modules() if module.aside}
    assert 20 < len(aside) < len(library.modules()) / 3
    assert not aside & {document.place.rpartition(" ")[2] for document in documents}


def test_functions_and_their_first_lines():
    train, test = library.functions(aside=False), library.functions(aside=True)
    assert len(train) > 1_000 and len(test) > 100
    bodies = {body for body, _ in train}
    assert not bodies & {body for body, _ in test}
    assert all("def " in body and 15 <= len(line) <= 120 and "\n" not in line for body, line in train)
    assert sum(line in body for body, line in train) < len(train) / 50


def test_tagged_functions_cover_their_text():
    for text, spans in library.tagged_code(aside=True)[:50]:
        end = 0
        for start, stop, _ in spans:
            assert not text[end:start].replace("\\", "").strip()
            end = stop
        assert not text[end:].strip()


@pytest.mark.parametrize("module", ["asyncio.tasks", "json.decoder", "os"])
def test_bare_code_still_parses(module):
    assert ast.parse(next(found.code for found in library.modules() if found.name == module)).body
