from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

import texts


@pytest.fixture(scope="session")
def make_pairs() -> Callable[..., Path]:
    """Write pairs: the first words of a passage, and the passage (relevant) or another one (not)."""

    def make(path: Path, queries: int = 24, negatives: int = 3, *, teacher: bool = False) -> Path:
        chosen = random.Random(0)
        short = [text for text in texts.passages() if len(text) < 400]
        rows = []
        for text in short[:queries]:
            query = " ".join(text.split()[:6])
            for label, document in ((1, text), *((0, chosen.choice(short)) for _ in range(negatives))):
                row = {"query": query, "document": document, "label": int(document == text) if label else 0}
                rows.append({**row, "teacher_score": 8.0 * label - 4} if teacher else row)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return make
