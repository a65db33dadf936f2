"""The embedded corpus `python-library`: prose, code and labels read from the running interpreter's own library.

It needs no download, has a known licence, and comes with labels that nobody had to write: the area of the library a
docstring documents, the class of every token of code, the first line of a function's documentation.

Modules are split once, by a digest of their names: about one in seven is set aside for the tasks' test sets, and
the corpus to train on leaves those out, so that a test never asks for a text the network has read.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import re
import sysconfig
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bothways.text.code import Function, anatomy, tagged
from bothways.text.corpora import Document
from bothways.text.labels import Labelled, Tagged

AREAS: dict[str, str] = {
    "text": "_markupbase codecs difflib gettext locale pprint re readline reprlib rlcompleter sre_compile "
            "sre_constants sre_parse string stringprep textwrap _strptime",
    "data types": "_collections_abc _py_abc _weakrefset abc array bisect calendar collections copy copyreg "
                  "dataclasses datetime enum graphlib heapq types typing weakref zoneinfo",
    "numbers": "_pydecimal colorsys decimal fractions numbers random secrets statistics",
    "files": "_pyio filecmp fileinput fnmatch genericpath glob io linecache ntpath nturl2path os pathlib "
             "posixpath shutil stat tempfile",
    "persistence": "_compat_pickle dbm pickle pickletools shelve sqlite3",
    "compression": "_compression bz2 gzip lzma tarfile zipapp zipfile zipimport",
    "file formats": "configparser csv netrc plistlib tomllib xdrlib",
    "operating system": "_osx_support argparse cmd crypt ctypes curses errno getopt getpass hashlib hmac "
                        "logging optparse platform pipes pty shlex signal site tty uuid",
    "concurrency": "_threading_local concurrent contextvars multiprocessing queue sched subprocess threading",
    "networking": "asynchat asyncio asyncore selectors socket socketserver ssl",
    "internet data": "base64 email html json mailbox mailcap mimetypes quopri uu xml",
    "internet protocols": "cgi cgitb ftplib http imaplib ipaddress nntplib poplib smtpd smtplib telnetlib "
                          "urllib webbrowser wsgiref xmlrpc",
    "graphics and sound": "aifc chunk imghdr sndhdr sunau tkinter turtle wave",
    "testing and debugging": "_bootsubprocess bdb cProfile doctest faulthandler pdb profile pstats pydoc timeit "
                             "trace tracemalloc unittest",
    "runtime": "__future__ atexit code codeop contextlib functools importlib inspect modulefinder operator "
               "pkgutil runpy sysconfig traceback warnings",
    "language and packaging": "ast compileall dis distutils ensurepip idlelib keyword lib2to3 opcode py_compile "
                              "pyclbr symtable tabnanny token tokenize venv",
}
"""The 16 areas, after the chapters of the library's reference, and the modules of each."""

_AREA_OF = {module: area for area, modules in AREAS.items() for module in modules.split()}
_SKIPPED = {"test", "tests", "idle_test", "__pycache__", "site-packages", "dist-packages", "turtledemo", "pydoc_data",
            "encodings"}
_SET_ASIDE = 0.15


class Module(NamedTuple):
    """One module of the library: its dotted name, its area, whether it is set aside for tests, and what is in it."""

    name: str
    area: str
    aside: bool
    docstrings: tuple[str, ...]
    code: str
    functions: tuple[Function, ...]


@dataclass(frozen=True)
class Split:
    """Rows to learn from and rows to be tested on, from different modules."""

    train: Labelled
    test: Labelled


@functools.cache
def modules() -> tuple[Module, ...]:
    """Every module written in Python that has an area, in order of name."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        top = parts[0]
        if top not in _AREA_OF or _SKIPPED & set(parts) or parts[:2] == ("lib2to3", "pgen2"):
            continue
        try:
            source = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError):
            continue
        name = ".".join(part for part in parts if part != "__init__")
        inside = anatomy(source)
        if inside is not None:
            found.append(Module(name, _AREA_OF[top], _share(name) < _SET_ASIDE, *inside))
    return tuple(found)


@functools.cache
def _documents() -> tuple[Document, ...]:
    """Prose and code, shuffled by digest. A docstring is in the prose only, so that no text is in two documents."""
    made = [Document(text, "python-library", f"topic {name}") for name, text in _topics()]
    for module in modules():
        if module.aside:
            continue
        prose = "\n\n".join(module.docstrings)
        made += [Document(prose, "python-library", f"documentation of {module.name}")] if prose.strip() else []
        code = Document(module.code, "python-library", f"code of {module.name}", "python")
        made += [code] if module.code.strip() else []
    return tuple(sorted(made, key=lambda document: _share(document.place)))


def documents() -> Iterator[Document]:
    """The corpus to train on: documentation topics, docstrings, and code without docstrings, one module a document.

    Always the same for one interpreter. Modules set aside for tests are left out.
    """
    return iter(_documents())


@functools.cache
def _docstrings() -> tuple[tuple[str, Module], ...]:
    """Every distinct docstring of at least 40 characters, and the first module that has it."""
    found: dict[str, tuple[str, Module]] = {}
    for module in modules():
        for text in module.docstrings:
            if len(text.strip()) >= 40:
                found.setdefault(" ".join(text.split()), (text.strip(), module))
    return tuple(found.values())


def docstrings() -> list[tuple[str, str]]:
    """(text, area) of every docstring of at least 40 characters, without duplicates."""
    return [(text, module.area) for text, module in _docstrings()]


def areas(test: float = 0.2) -> Split:
    """Which area does a docstring document? Train and test come from different modules.

    Every area has a share of about `test` in the test set, as whole modules: those set aside first, then others.
    """
    # 1. docstrings by area and module
    by_area: dict[str, dict[Module, list[str]]] = {area: {} for area in AREAS}
    for text, module in _docstrings():
        by_area[module.area].setdefault(module, []).append(text)
    # 2. whole modules to either side
    train: list[tuple[str, str]] = []
    held: list[tuple[str, str]] = []
    for area, by_module in by_area.items():
        total, taken = sum(map(len, by_module.values())), 0
        for module in sorted(by_module, key=lambda module: (not module.aside, _share(module.name))):
            texts = by_module[module]
            to_test = module.aside or (taken < test * total / 2 and len(texts) <= test * total)
            taken += len(texts) if to_test else 0
            (held if to_test else train).extend((text, area) for text in texts)
    names = tuple(sorted(AREAS))
    return Split(*(Labelled.of([text for text, _ in rows], [area for _, area in rows], names)
                   for rows in (train, held)))


def tagged_code(aside: bool | None = None) -> list[Tagged]:
    """Functions whose tokens carry the class the interpreter's own parser gives them (see `code.TAGS`).

    `aside` picks modules that are set aside for tests (True), the others (False), or all (none).
    """
    return [made for function in _functions() if aside is None or function[1] == aside
            for made in [tagged(function[0].source)] if made is not None]


def functions(aside: bool | None = None) -> list[tuple[str, str]]:
    """(function without its docstring, first line of that docstring), without duplicates; `aside` as above."""
    rows: dict[str, str] = {}
    for function, is_aside in _functions():
        line = function.summary
        if (aside is None or is_aside == aside) and line and 15 <= len(line) <= 120:
            rows.setdefault(function.bare, line)
    return list(rows.items())


@functools.cache
def _functions() -> tuple[tuple[Function, bool], ...]:
    """Every distinct function of 3 to 40 lines, and whether its module is set aside."""
    found: dict[str, tuple[Function, bool]] = {}
    for module in modules():
        for function in module.functions:
            if 3 <= function.bare.count("\n") + 1 <= 40:
                found.setdefault(function.bare, (function, module.aside))
    return tuple(found.values())


def _topics() -> list[tuple[str, str]]:
    """The documentation topics that `help()` shows; none where an installation leaves them out."""
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        return []
    plain = {name: textwrap.dedent(str(text)).strip() for name, text in topics.items()}
    return [(name, re.sub(r"\n{3,}", "\n\n", inspect.cleandoc(text))) for name, text in sorted(plain.items()) if text]


def _share(name: str) -> float:
    """A number between 0 and 1 that depends on the name alone."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") / 2.0**64

