"""Reading what a user writes to name an objective: a string, a mapping, or a class in a file of their own."""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from bothways.batch import Vocabulary
from bothways.errors import BothwaysError, nearest
from bothways.objectives.base import Objective

TRUST = "BOTHWAYS_TRUST"
"""The variable of the environment that names files which a model's folder may have run."""
_folder: ContextVar[str | None] = ContextVar("folder", default=None)
_run: set[Path] = set()
"""Files that whoever runs this process named."""

_CALL = re.compile(r"^\s*(?P<name>[^()]+?)\s*(?:\((?P<options>.*)\))?\s*$", re.DOTALL)
_SHARE = re.compile(r"^\s*(?P<share>\d+(?:\.\d+)?|\.\d+)\s*\*?\s+(?P<rest>\S.*)$", re.DOTALL)


def read(spec: object) -> dict[str, object]:
    """A spec as a mapping with a name: a copy that may be changed."""
    if isinstance(spec, Mapping):
        if not isinstance(spec.get("name"), str):
            raise BothwaysError("an objective is described by a mapping with a name, such as "
                                f"{{name: masked, rate: 0.15}}, but this one has none: {dict(spec)!r}")
        inner = read(spec["name"])
        return {**inner, **{str(option): value for option, value in spec.items() if option != "name"}}
    if not isinstance(spec, str) or not spec.strip():
        raise BothwaysError(f"an objective is a name such as 'masked(rate=0.3)' or a mapping, not {spec!r}")
    if spec.strip().endswith((".yaml", ".yml")):
        return _recipe(Path(spec.strip()).expanduser())
    for word, by in (("then", "phase"), ("+", "proportion")):
        members = _split(spec, word)
        if len(members) > 1:
            return {"name": "mixture", "members": [_share(member) for member in members], "by": by}
    return _call(spec)


def _recipe(path: Path) -> dict[str, object]:
    """The mapping in a YAML file."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BothwaysError(f"objective '{path}': {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        raise BothwaysError(f"objective '{path}'{'' if line is None else f' line {line + 1}'} is not YAML") from None
    if not isinstance(content, Mapping):
        raise BothwaysError(f"objective '{path}' must hold a mapping with a name, such as name: masked")
    return read(content)


def _share(text: str) -> dict[str, object]:
    """`0.25 masked(rate=0.3)` as a mapping; without a number the share is 1."""
    found = _SHARE.match(text)
    if not found:
        return {**_call(text), "share": 1.0}
    return {**_call(found["rest"]), "share": float(found["share"])}


def _call(text: str) -> dict[str, object]:
    """`name(option=value, ...)` as a mapping."""
    found = _CALL.match(text)
    if not found:
        raise BothwaysError(f"cannot read the objective '{text.strip()}': write it as name or name(option=value)")
    options = found["options"]
    return {"name": found["name"], **(_options(text.strip(), options) if options and options.strip() else {})}


def _options(text: str, options: str) -> dict[str, object]:
    """The keyword arguments of a call, each a Python literal; anything else is taken as text."""
    source = f"_({options})"
    try:
        call = ast.parse(source, mode="eval").body
    except SyntaxError as error:
        raise BothwaysError(f"cannot read the options of the objective '{text}': write them as name(option=value)"
                            ) from error
    if not isinstance(call, ast.Call) or call.args or any(word.arg is None for word in call.keywords):
        raise BothwaysError(f"the options of the objective '{text}' need names, as in masked(rate=0.3)")
    names = [word.arg for word in call.keywords]
    if len(set(names)) < len(names):
        raise BothwaysError(f"the options of the objective '{text}' name {max(names, key=names.count)} twice: leave "
                            "one out")
    found: dict[str, object] = {}
    for word in call.keywords:
        try:
            found[str(word.arg)] = ast.literal_eval(word.value)
        except ValueError:
            value = ast.get_source_segment(source, word.value) or ""
            found[str(word.arg)] = {"true": True, "false": False}.get(value, value)
    return found


def _split(text: str, word: str) -> list[str]:
    """Split at ` word ` outside parentheses."""
    parts, depth, start = [], 0, 0
    for found in re.finditer(rf"[(\[]|[)\]]|\s{re.escape(word)}\s", text):
        if found[0] in "([":
            depth += 1
        elif found[0] in ")]":
            depth -= 1
        elif depth == 0:
            parts.append(text[start:found.start()])
            start = found.end()
    return [*parts, text[start:]]


def frozen(value: object) -> object:
    """Lists as tuples, so that an objective read from JSON or YAML equals the one that was written."""
    return tuple(frozen(item) for item in value) if isinstance(value, (list, tuple)) else value


def check_options(kind: type[Objective], name: str, options: Mapping[str, object]) -> None:
    """Refuse options that the objective does not have, all at once."""
    unknown = [option for option in options if option not in kind.option_names()]
    if not unknown:
        return
    if not kind.option_names():
        raise BothwaysError(f"objective '{name}' has no options, but was given {', '.join(map(repr, unknown))}")
    raise BothwaysError("; ".join(f"objective '{name}' has no option '{option}' {nearest(option, kind.option_names())}"
                                  for option in unknown))


def build(kind: type[Objective], vocabulary: Vocabulary, options: Mapping[str, object]) -> Objective:
    """An instance; a class of a user's own that leaves something out is told what."""
    missing = sorted(getattr(kind, "__abstractmethods__", ()))
    if missing:
        raise BothwaysError(f"objective '{kind.loaded_from or kind.name}' does not define {', '.join(missing)}")
    return kind(vocabulary, **options)  # type: ignore[call-arg]


def is_file(name: str) -> bool:
    """Does the name mean a class in a file (`mine.py:Mine`)?"""
    return ".py:" in name or name.endswith(".py")


def load(name: str) -> type[Objective]:
    """The class that `path/to/mine.py:Mine` names."""
    place, _, wanted = name.rpartition(":") if ".py:" in name else (name, "", "")
    path = Path(place).expanduser()
    if not path.is_file():
        raise BothwaysError(f"objective '{name}': there is no file {path}")
    if not wanted:
        raise BothwaysError(f"objective '{name}': say which class of the file, as in {place}:Mine")
    if (where := _folder.get()) is None:
        _run.add(path.resolve())
    elif path.resolve() not in _run | _trusted():
        raise BothwaysError(f"{where} names an objective in a file of its own, and to load it is to run {path}: if you "
                            f"trust that file, set {TRUST}={path.resolve()}")
    return _load(path.resolve(), path.stat().st_mtime_ns, wanted, name)


@contextmanager
def told_by(folder: str) -> Iterator[None]:
    """Objectives made inside are a folder's own word, which runs no file that the user has not named."""
    before = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(before)


def _trusted() -> set[Path]:
    return {Path(one).expanduser().resolve() for one in os.environ.get(TRUST, "").split(os.pathsep) if one}


@functools.lru_cache(maxsize=32)
def _load(path: Path, changed: int, wanted: str, name: str) -> type[Objective]:
    """Import the file once for each state it is in, so that the same class comes back."""
    spec = importlib.util.spec_from_file_location(f"bothways_own_{path.stem}_{changed}", path)
    if spec is None or spec.loader is None:
        raise BothwaysError(f"objective '{name}': {path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        line = getattr(error, "lineno", None)
        raise BothwaysError(f"objective '{name}': {path}{f' line {line}' if line else ''} fails when imported: "
                            f"{type(error).__name__}: {error}") from error
    classes = [key for key, value in vars(module).items()
               if inspect.isclass(value) and issubclass(value, Objective) and value.__module__ == spec.name]
    found = getattr(module, wanted, None)
    if found is None:
        raise BothwaysError(f"objective '{name}': {path} has no class '{wanted}' {nearest(wanted, classes)}")
    if not (inspect.isclass(found) and issubclass(found, Objective)):
        raise BothwaysError(f"objective '{name}': {wanted} in {path} is not a subclass of "
                            "bothways.objectives.Objective")
    found.loaded_from = f"{path}:{wanted}"  # the whole path, so that a model folder finds it from anywhere
    return found
