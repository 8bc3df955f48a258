"""Documents for a judge at a scripted service, and what a good one says of them."""

from __future__ import annotations

from crossrank.ranking.judge.llm_judge import LLMJudge
from service import Asked, Reply, document_of, graded

KEY = "sk-very-secret-8f2c41"
DOCUMENTS = ["Berlin is a city.", "Paris is the capital of France.", "Bananas are yellow."]
GRADES = {"Berlin": 1, "Paris": 3, "Bananas": 0}


def judge(service, **options) -> LLMJudge:
    return LLMJudge("m", **{"base_url": f"{service.url}/v1", "api_key": KEY, **options})


def right(asked: Asked) -> Reply:
    """What a good judge says of DOCUMENTS."""
    return graded(asked, GRADES[document_of(asked, asked.ids[0]).split()[0]], reason="It says so.")
