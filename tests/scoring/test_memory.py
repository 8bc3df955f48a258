"""What a call takes of memory, in a process of its own: however many pairs, at most what is promised."""

from __future__ import annotations

import json
import os
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


SHAPES = """
import json, random, re
from crossrank import CrossEncoder
chosen = random.Random(0)
words = "how do wings keep their lift at high speed and what does pressure do to the flow".split()
text = lambda most: " ".join(chosen.choices(words, k=chosen.randint(1, most)))
model = CrossEncoder(num_threads=1, document_cache=0).load()
held = []
for i in range(120):
    query = text(20)
    model.score([(query, text(12 * (i % 7 + 1))) for _ in range(chosen.randint(1, 9))])
    held.append(int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read()).group(1)) / 1000)
print(json.dumps({"second": max(held[40:80]), "last": max(held[80:])}))
"""


@pytest.mark.proc
def test_new_shapes_of_batches_do_not_add_to_memory() -> None:
    """OpenVINO keeps what it prepares for a shape: without a bound, 60 MB more in the last third."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith("ONEDNN_")}
    run = subprocess.run([sys.executable, "-c", SHAPES], capture_output=True, text=True, check=True, env=settings)
    facts = json.loads(run.stdout)
    assert facts["last"] < 1.03 * facts["second"], facts
