"""A language model as judge: grades for single documents, or an order of many.

>>> judge = LLMJudge("gpt-4o-mini", keep=4)                                      # doctest: +SKIP
>>> judge = LLMJudge("qwen3:8b", base_url="http://localhost:11434/v1")           # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from crossrank.errors import InputError
from crossrank.ranking.judge.chat_client import ChatEndpoint, Spent
from crossrank.ranking.judge.messages import cut, load_prompt, make_request
from crossrank.ranking.judge.modes import JudgedDocuments, grade_each, rank_windows
from crossrank.ranking.judge.parsing import (
    GRADE_SCHEMA,
    RANKING_SCHEMA,
    Grade,
    Order,
    UnusableAnswerError,
    parse_grade,
    parse_ranking,
)
from crossrank.ranking.network.network_stage import NetworkStage
from crossrank.ranking.network.retry import Failure, retrying
from crossrank.ranking.stage import Context, StageScores
from crossrank.validation import check_choice, check_counts

T = TypeVar("T")

# Characters that are read of a document.
_MAX_CHARACTERS = {"grade": 8000, "listwise": 1500}


class LLMJudge(NetworkStage):
    """A stage that asks a model at an OpenAI-compatible endpoint.

    ``mode="grade"`` asks for a grade of each document, from 0 (irrelevant) to 3 (perfectly relevant), and a reason. The
    score is the grade. ``mode="listwise"`` asks for the order of overlapping windows of documents, from the last window
    to the first (RankGPT; Sun et al. 2023, https://arxiv.org/abs/2304.09542). The score is 1 / rank.

    :param model: The model's name at the endpoint.
    :param base_url: Such as ``"http://localhost:8000/v1"``; by default the environment variable ``OPENAI_BASE_URL`` at
        the time the stage is made, else OpenAI's. It receives the API key.
    :param api_key: By default the environment variable ``OPENAI_API_KEY``. Messages never show it.
    :param mode: ``"grade"`` or ``"listwise"``.
    :param window: Documents in one request of ``"listwise"``.
    :param step: By how many documents the window moves.
    :param keep: How many documents to pass on, best first; by default all.
    :param threshold: The lowest grade that a document needs to be passed on.
    :param prompt: Your own prompt: its text, or the path of its file.
    :param max_characters: How much of a document is read; by default 8000, and 1500 with ``"listwise"``.
    :param max_concurrency: Requests at the same time.
    :param timeout: Seconds for one request.
    :param max_retries: Retries for one document or window.
    :param temperature: ``None`` sends none.
    :param max_tokens: The longest answer; ``None`` leaves it to the server. After an answer that was cut off, the limit
        is doubled.
    :param extra_body: More fields of the request, as the server names them.
    :param name: The stage's name in results.
    :raises InputError: If an argument can't be used.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        mode: str = "grade",
        window: int = 20,
        step: int = 10,
        keep: int | None = None,
        threshold: float | None = None,
        prompt: str | Path | None = None,
        max_characters: int | None = None,
        max_concurrency: int = 8,
        timeout: float = 60.0,
        max_retries: int = 3,
        temperature: float | None = 0.0,
        max_tokens: int | None = None,
        extra_body: Mapping[str, Any] | None = None,
        name: str = "llm_judge",
    ) -> None:
        check_choice("mode", mode, _MAX_CHARACTERS)
        check_counts(window=window, step=step, max_characters=max_characters, max_tokens=max_tokens)
        if step > window:
            raise InputError(
                f"step={step} is more than window={window}, which would skip documents. Give at most {window}."
            )
        if threshold is not None and mode == "listwise":
            raise InputError(
                f"threshold={threshold!r} does not work with mode='listwise': a rank does not show how relevant a "
                "document is. Use keep=, or mode='grade'."
            )
        self._endpoint = ChatEndpoint(
            model,
            base_url=base_url,
            api_key=api_key,
            timeout=timeout,
            settings={"temperature": temperature, "max_tokens": max_tokens},
            extra_body=extra_body,
        )
        super().__init__(
            name,
            self._endpoint.service,
            keep=keep,
            threshold=threshold,
            max_concurrency=max_concurrency,
            max_retries=max_retries,
        )
        self.model = model
        self.mode = mode
        self.window = window
        self.step = step
        self.max_characters = max_characters or _MAX_CHARACTERS[mode]
        self.prompt = load_prompt(mode, prompt)

    def __repr__(self) -> str:
        settings = f"mode={self.mode!r}, prompt={self.prompt.name!r}"
        return f"LLMJudge({self.model!r}, base_url={self._endpoint.base_url!r}, {settings})"

    def fingerprint(self) -> str | None:
        """Describe what a grade depends on, besides the texts; ``None`` for a rank, which depends on all documents."""
        if self.mode != "grade":
            return None
        return repr((*self._endpoint.identity, self.prompt.fingerprint, self.max_characters))

    async def _score(self, query: str, documents: list[str], context: Context) -> StageScores:
        texts = [cut(text, self.max_characters) for text in documents]
        spent = Spent()
        judged = await self._judge(query, texts, context, spent)
        tokens = spent.prompt_tokens + spent.completion_tokens
        if judged.requested and len(judged.failures) == judged.requested:
            cost = f". {spent.requests} requests were sent, {tokens} tokens used."
            raise self._error(judged.failures, f"{self.model!r} judged nothing: ", cost)
        shortened = sum(len(text) < len(whole) for text, whole in zip(texts, documents, strict=True))
        notes = [*judged.scores.notes, *spent.notes]
        if shortened:
            notes.append(f"{shortened} documents were cut at {self.max_characters} characters (max_characters).")
        notes.append(
            f"{spent.requests} requests: {spent.prompt_tokens} tokens read, {spent.completion_tokens} written."
        )
        return replace(judged.scores, tokens=tokens, pairs_cut=shortened, cost=spent.cost, notes=notes)

    async def _judge(self, query: str, texts: list[str], context: Context, spent: Spent) -> JudgedDocuments:
        async def grade(row: int) -> Grade:
            def read(text: str, ids: Sequence[str]) -> Grade:
                return parse_grade(text, ids[0])

            return await self._ask(query, [texts[row]], ("grade", GRADE_SCHEMA), read, context, spent)

        async def order(rows: list[int]) -> Order:
            window = [texts[row] for row in rows]
            return await self._ask(query, window, ("ranking", RANKING_SCHEMA), parse_ranking, context, spent)

        if self.mode == "grade":
            return await grade_each(len(texts), grade, self._limit.get(), context)
        return await rank_windows(len(texts), self.window, self.step, order, self._limit.get(), context)

    async def _ask(
        self,
        query: str,
        texts: list[str],
        schema: tuple[str, dict[str, Any]],
        read: Callable[[str, Sequence[str]], T],
        context: Context,
        spent: Spent,
    ) -> T:
        """Ask until ``read`` can use the answer. Each try has a new marker and new ids."""
        complaint, length_factor = "", 1

        async def attempt(tried: int) -> T:
            nonlocal complaint, length_factor
            messages, ids = make_request(self.prompt, query, texts, complaint)
            answer = await self._endpoint.ask(messages, schema, context.deadline, spent, length_factor=length_factor)
            try:
                return read(answer.text, ids)
            except UnusableAnswerError as error:
                complaint = str(error)
                reason = f"the answer could not be used: {complaint}"
                if answer.refusal or answer.finish == "content_filter":
                    refusal = self._service.key.excerpt(answer.refusal) or answer.finish
                    complaint, reason = "", f"the judge refused: {refusal}"
                elif answer.finish == "length":
                    length_factor *= 2
                    complaint, reason = "it was too long", "the answer was cut off (max_tokens)"
                elif not answer.text.strip():
                    complaint, reason = "it was empty", "the answer was empty"
                raise Failure(reason, retryable=True, pause=False) from None

        return await retrying(attempt, self._policy, context.deadline)
