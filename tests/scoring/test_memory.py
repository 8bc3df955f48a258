"""What a call takes of memory, in a process of its own: however many pairs, at most what is promised."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, re, sys
from crossrank import CrossEncoder
count, queries = map(int, sys.argv[1:])
words = "how do wings keep their lift at high speed and what does pressure do to the flow".split()
text = lambda i, n: " ".join(words[(i * 7 + k * (i % 13 + 1)) % len(words)] for k in range(n)) + f" {i}"
model = CrossEncoder(num_threads=1, precision="float32").load()
pairs = [(text(i % queries, 60), text(i // queries, 8)) for i in range(count)]
scores = model.score(pairs).scores
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read()).group(1))
print(json.dumps({"peak": peak / 1000, "scores": len(set(scores.tolist()))}))
"""


def peak(pairs: int, queries: int) -> dict[str, float]:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(pairs), str(queries)], capture_output=True, text=True, check=True
    )
    facts: dict[str, float] = json.loads(run.stdout)
    return facts


@pytest.mark.proc
def test_many_long_queries_beside_one_short_document_stay_within_the_budget() -> None:
    """Both sides of a batch count: 600 queries of 60 words took 1.2 GB once."""
    few, many = peak(100, 100), peak(1500, 1500)
    assert few["scores"] == 100
    assert many["scores"] == 1500
    assert many["peak"] < 600, many
    assert many["peak"] < few["peak"] + 150, (few, many)
