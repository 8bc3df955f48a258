from __future__ import annotations

from pathlib import Path

import pytest

from split_checkpoints import tiny_split


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A split model of random weights, hidden size 32."""
    return tiny_split(tmp_path_factory.mktemp("prepared_tiny"))


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same shape with other weights."""
    return tiny_split(tmp_path_factory.mktemp("prepared_other"), seed=1)
