from __future__ import annotations

import pytest

from bothways.text.prepare import Prepared
from tests.training.small import prepare_small


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare_small(tmp_path_factory.mktemp("small"))
