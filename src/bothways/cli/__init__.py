"""The command line: `bothways <command> ...`, one module per command, found by name and imported only when called.

A command is a module `bothways/cli/<name>.py` with a docstring (its help, whose example works as printed), a frozen
dataclass `Options` that tyro reads (or `options_for(arguments)`, which gives one), and `run(options) -> int`. This
frame lists the commands, parses, and turns a mistake into one sentence and an exit code: 0 done, 1 failed although the
call was right, 2 a wrong call, 130 stopped by the user.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType

from bothways.errors import BothwaysError, nearest

COMMANDS: dict[str, str] = {
    "see": "draw who may look at whom, or one corrupted example",
    "train": "train one model on your text, for a budget of time, tokens, FLOPs or steps",
    "tune": "tune a model to a task on your labelled data",
    "classify": "put texts into classes, with a tuned model",
    "rewrite": "write texts anew (translate, summarise, mend), with a tuned model",
    "answer": "find the answer to a question in a text, with a tuned model",
    "similarity": "score how alike two texts are, with a tuned model",
    "tag": "find names and the like in texts, with a tuned model",
    "chat": "talk with a model, in the terminal",
    "generate": "write on from a prompt, with any trained model",
    "fill": "fill the blanks in a text",
    "embed": "turn texts into vectors",
    "retrieve": "search texts by meaning",
    "evaluate": "measure what a trained model is worth",
    "compare": "train every paradigm at one budget, and report which one to use",
    "report": "draw the report of a study again from its folder",
    "cost": "count parameters, FLOPs and memory before training",
    "convert": "write a model in another library's layout, or read one",
    "describe": "print a model folder: its choices, sizes and costs",
}
"""Every command and its summary, in the order they are listed; kept here so that `--help` imports nothing heavy."""

USAGE = "usage: bothways <command> [options]"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. `argv` is the call without the program's name."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--traceback" in arguments
    arguments = [argument for argument in arguments if argument != "--traceback"]
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except BothwaysError as error:
        return _failed(str(error), error.exit_code, debug)
    except KeyboardInterrupt:
        return _failed("stopped", 130, debug)
    except BrokenPipeError:
        # Whoever read our output has left (`| head`): point stdout elsewhere so that the exit flush stays quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in ("", "bothways"):
            raise
        return _failed(f"this needs the package '{package}', which is not installed: pip install {package}", 1, debug)
    except OSError as error:
        return _failed(_sentence(error), 1, debug)


def _dispatch(arguments: list[str]) -> int:
    """Find the command, parse its options, run it."""
    # 1. calls without a command
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        if arguments[:1] == ["help"] and len(arguments) > 1:
            return _dispatch([arguments[1], "--help"])
        print(overview())
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version", "version"):
        print(f"bothways {version()}")
        return 0
    # 2. the command's module
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        what = "option" if name.startswith("-") else "command"
        raise BothwaysError(f"there is no {what} '{name}' {nearest(name, COMMANDS)}")
    module = importlib.import_module(f"bothways.cli.{name}")
    # 3. its options, then the work
    try:
        options = parse(module, name, rest)
    except SystemExit as stopped:  # tyro has printed the help (0) or what is wrong with the call (2)
        return stopped.code if isinstance(stopped.code, int) else 2
    return int(module.run(options) or 0)


def parse(module: ModuleType, name: str, arguments: Sequence[str]) -> object:
    """The command's `Options`, from its arguments; raises SystemExit as `parsing.parse` does."""
    from bothways.cli import parsing

    # a command whose options hang on what is called for says which they are
    options = module.options_for(arguments) if hasattr(module, "options_for") else module.Options
    return parsing.parse(options, f"bothways {name}", module.__doc__, arguments)


def overview() -> str:
    """What `bothways --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [USAGE, "", "Read both ways, write one way: train, compare and use every language-model paradigm.", "",
             "commands:", *(f"  {name.ljust(width)}  {summary}" for name, summary in COMMANDS.items()), "",
             "`bothways <command> --help` shows its options and an example. Begin with: bothways see causal",
             "options: --version, --traceback (show where an error was raised)"]
    return "\n".join(lines)


def version() -> str:
    """The installed version, or "unknown" when run from a bare source tree."""
    from importlib import metadata

    try:
        return metadata.version("bothways")
    except metadata.PackageNotFoundError:
        return "unknown"


def _sentence(error: OSError) -> str:
    """An error of the operating system as one sentence that names the file."""
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def _failed(sentence: str, code: int, debug: bool) -> int:
    """Print one line, red on a terminal, to stderr; with `--traceback` also where it came from."""
    if debug:
        traceback.print_exc()
    sys.stdout.flush()
    colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    print(f"\x1b[31m{sentence}\x1b[0m" if colour else sentence, file=sys.stderr)
    return code
