import re
import subprocess
import sys
from pathlib import Path

import pytest

import bothways

ROOT = Path(__file__).resolve().parent.parent


def test_importing_loads_nothing_heavy():
    code = ("import sys, bothways; bothways.__version__; "
            "print(sorted({'torch', 'numpy', 'transformers'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env={"PYTHONPATH": str(ROOT / "src"), "PATH": ""})
    assert done.stdout.strip() == "[]"


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        bothways.nothing  # noqa: B018


def test_the_public_surface_is_there():
    import bothways.api
    for name in bothways.__all__:
        if name != "__version__":
            assert getattr(bothways, name) is getattr(bothways.api, name)


def test_the_version_is_said_in_one_way():
    assert f'version = "{bothways.__version__}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_every_dependency_is_in_the_tested_set():
    import tomllib
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = {line.partition("==")[0].lower().replace("_", "-")
              for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()}
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["hf"], *extras["dev"], *extras["tensorboard"]]
    names = {re.split(r"[<>=\[ ]", line)[0].lower() for line in wanted}
    assert names <= pinned, names - pinned


def test_links_in_the_documents_lead_somewhere():
    done = subprocess.run([sys.executable, str(ROOT / "docs" / "check_links.py")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
