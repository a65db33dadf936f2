from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
from tests.training.small import prepare_small

from bothways.text.prepare import Prepared


@pytest.fixture(scope="session")
def server() -> Any:
    """Processes that start in a moment, since the libraries are loaded once."""
    root = Path(__file__).parents[2]
    paths = [str(root / "src"), str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.processes", "bothways.families.folder"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        child = context.Process(target=os.getpid)
        child.start()
        child.join()
    return context


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare_small(tmp_path_factory.mktemp("small"))
