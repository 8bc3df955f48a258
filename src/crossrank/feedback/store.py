"""Rankings and the feedback on them: written, read and deleted, in SQLite or PostgreSQL."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

# Import this first, because it names the missing extra.
from crossrank.feedback.database import Database  # isort: split

import sqlalchemy as sa
from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.orm import Session

from crossrank.errors import InputError
from crossrank.feedback.judgement import Judgement
from crossrank.feedback.tables import JudgementRow, RankingRow

_PAGE = 500


class UnknownRankingError(InputError):
    """No ranking is stored under this request id."""


class KeyReusedError(InputError):
    """The idempotency key was used before, with other feedback."""


@dataclass(frozen=True)
class Ranking:
    """A ranking as the server returned it.

    :param documents: In the order of the request: ``{"text": ..., "id": ...}``, the id only if one was sent.
    :param shown: Indices of the documents that were returned, from the top.
    :param scores: A score for each document, by index.
    :param shuffled: How many of the top places were in random order.
    """

    request_id: str
    query: str
    documents: Sequence[dict[str, Any]]
    shown: Sequence[int]
    scores: Sequence[float]
    model: str = ""
    model_version: str = ""
    dialect: str = ""
    shuffled: int = 0
    time: float = field(default_factory=time.time)

    @property
    def characters(self) -> int:
        """The total length of its texts."""
        return len(self.query) + sum(len(one["text"]) for one in self.documents)

    def row(self, *, texts: bool = True) -> dict[str, Any]:
        """The row to write.

        :param texts: Whether with texts, or with their digests.
        """
        documents = [_document(one, texts) for one in self.documents]
        query = _storable(self.query) if texts else digest_of(self.query)
        size = len(query.encode()) + sum(len(str(value).encode()) for one in documents for value in one.values())
        own = {**vars(self), "shown": list(self.shown), "scores": list(self.scores)}
        return {**own, "has_texts": texts, "query": query, "documents": documents, "size": size}


@dataclass(frozen=True)
class Judged:
    """A stored ranking with its feedback: the last judgement of each user, and all judgements without a user."""

    ranking: RankingRow
    judgements: Sequence[JudgementRow]


class Store(Database):
    """Rankings and judgements in a database. Its methods may be called from any thread."""

    # ---- writing -----------------------------------------------------------------------------------------------

    def add_rankings(self, rankings: Sequence[Ranking], *, texts: bool = True) -> int:
        """Write rankings in one transaction, except those whose request id is already stored.

        :param texts: Whether with texts, or with their digests.
        :returns: How many were written.
        :raises StoreError: If the database can't be written now; then none was.
        :raises Exception: Others mean that one of the rankings can't be written at all; then none was, either.
        """
        if not rankings:
            return 0
        insert = postgresql.insert if self.file is None else sqlite.insert
        written = 0
        with self.errors(DataError), self.writing() as connection:
            for ranking in rankings:
                statement = insert(RankingRow).values(ranking.row(texts=texts)).on_conflict_do_nothing()
                written += len(connection.execute(statement.returning(RankingRow.id)).all())
        return written

    def add_judgement(self, judgement: Judgement, *, key: str | None = None) -> int:
        """Write a judgement. It is on disk when this returns.

        :param key: An idempotency key: the same judgement under the same key is written once.
        :returns: The number of the judgement.
        :raises UnknownRankingError: If no such ranking is stored.
        :raises KeyReusedError: If the key was used with another judgement.
        :raises FieldError: If it names documents that were not shown.
        :raises StoreError: If it can't be written; then it was not.
        """
        try:
            with self.errors(IntegrityError), self.writing() as connection:
                return self._add(connection, judgement, key)
        except IntegrityError:
            # Another process has written with this key in the meantime, or deleted the ranking.
            with self.errors(), self.writing() as connection:
                return self._add(connection, judgement, key)

    def _add(self, connection: sa.Connection, judgement: Judgement, key: str | None) -> int:
        digest = digest_of(repr(judgement))
        if key is not None:
            known = connection.execute(
                select(JudgementRow.id, JudgementRow.body_digest).where(JudgementRow.idempotency_key == key)
            ).one_or_none()
            if known is not None:
                if known.body_digest != digest:
                    raise KeyReusedError(f"The idempotency key {key!r} was used with other feedback. Send a new key.")
                return int(known.id)
        ranking = connection.execute(
            select(RankingRow.id, RankingRow.shown, sa.func.json_array_length(RankingRow.documents).label("documents"))
            .where(RankingRow.request_id == judgement.request_id)
        ).one_or_none()  # fmt: skip
        if ranking is None:
            raise UnknownRankingError(
                f"No ranking is stored under the request id {judgement.request_id!r}. To have one stored, send "
                '"store": true or the header X-Crossrank-Store: true with its request, or start with --feedback-rate 1.'
            )
        judgement.check(ranking.documents, ranking.shown)
        inserted = connection.execute(
            sa.insert(JudgementRow)
            .values(
                ranking_id=ranking.id,
                time=time.time(),
                user_key=judgement.user,
                idempotency_key=key,
                body_digest=digest,
                clicked=None if judgement.clicked is None else list(judgement.clicked),
                helpful=None if judgement.helpful is None else {str(i): v for i, v in judgement.helpful.items()},
                stars=None if judgement.stars is None else {str(i): v for i, v in judgement.stars.items()},
                preferred=None if judgement.order is None else list(judgement.order),
                missing=None if judgement.missing is None else _storable(judgement.missing),
                comment=None if judgement.comment is None else _storable(judgement.comment),
            )
            .returning(JudgementRow.id)
        )
        return int(inserted.scalar_one())

    # ---- deleting ----------------------------------------------------------------------------------------------

    def delete(
        self, *, request_id: str | None = None, user: str | None = None, before: float | None = None
    ) -> tuple[int, int]:
        """Delete a ranking with its judgements, a user's judgements, or rankings older than a time.

        :param user: Deletes only the user's judgements, because a ranking has no user.
        :param before: Delete rankings before this time, in seconds since 1970.
        :returns: How many rankings and judgements were deleted.
        :raises StoreError: If nothing can be deleted.
        """
        with self.errors(), self.writing() as connection:
            rankings: sa.ColumnElement[bool] = sa.false()
            if request_id is not None:
                rankings = rankings | (RankingRow.request_id == request_id)
            if before is not None:
                rankings = rankings | (RankingRow.time < before)
            counted = self._delete(connection, rankings)
            if user is not None:
                counted[1] += connection.execute(sa.delete(JudgementRow).where(JudgementRow.user_key == user)).rowcount
        self.empty_log()
        return counted[0], counted[1]

    def keep_within(self, *, days: float | None = None, size: int | None = None) -> int:
        """Delete the oldest rankings, with their judgements, until the rest is within both limits.

        :param days: The maximum age.
        :param size: The maximum of bytes of queries and documents.
        :returns: How many rankings were deleted.
        :raises StoreError: If nothing can be deleted.
        """
        gone = 0
        with self.errors():
            if days is not None:
                gone += self.delete(before=time.time() - days * 86_400)[0]
            if size is not None:
                with self.writing() as connection:
                    newer = sa.func.sum(RankingRow.size).over(order_by=(RankingRow.time.desc(), RankingRow.id.desc()))
                    summed = select(RankingRow.id, newer.label("total")).subquery()
                    too_much = select(summed.c.id).where(summed.c.total > size)
                    gone += self._delete(connection, RankingRow.id.in_(too_much))[0]
        if gone:
            self.empty_log()
        return gone

    def _delete(self, connection: sa.Connection, which: sa.ColumnElement[bool]) -> list[int]:
        ids = select(RankingRow.id).where(which)
        judgements = connection.execute(sa.delete(JudgementRow).where(JudgementRow.ranking_id.in_(ids))).rowcount
        return [connection.execute(sa.delete(RankingRow).where(which)).rowcount, judgements]

    # ---- reading -----------------------------------------------------------------------------------------------

    def judged(self, *, all_rankings: bool = False, newest: int | None = None) -> Iterator[Judged]:
        """Read rankings with their judgements, oldest first.

        :param all_rankings: Also rankings without feedback.
        :param newest: Only this many of the newest, newest first.
        :raises StoreError: If the database can't be read.
        """
        found = select(RankingRow).order_by(RankingRow.id if newest is None else RankingRow.id.desc())
        if not all_rankings:
            found = found.where(select(JudgementRow.id).where(JudgementRow.ranking_id == RankingRow.id).exists())
        page = found
        while newest is None or newest > 0:
            most = _PAGE if newest is None else min(_PAGE, newest)
            with self.errors(), Session(self.engine, expire_on_commit=False) as session:
                rankings = session.scalars(page.limit(most)).all()
                by_ranking = self._judgements(session, [one.id for one in rankings])
                session.expunge_all()
            for ranking in rankings:
                yield Judged(ranking, by_ranking.get(ranking.id, []))
            if len(rankings) < most:
                return
            last = rankings[-1].id
            if newest is None:
                page = found.where(RankingRow.id > last)
            else:
                page, newest = found.where(RankingRow.id < last), newest - most

    def _judgements(self, session: Session, rankings: Sequence[int]) -> dict[int, list[JudgementRow]]:
        found: dict[int, dict[str | int, JudgementRow]] = {}
        rows = select(JudgementRow).where(JudgementRow.ranking_id.in_(rankings)).order_by(JudgementRow.id)
        for row in session.scalars(rows):
            # A user's later judgement takes the place of the earlier one.
            of_ranking = found.setdefault(row.ranking_id, {})
            of_ranking.pop(row.user_key or row.id, None)
            of_ranking[row.user_key or row.id] = row
        return {ranking: list(judgements.values()) for ranking, judgements in found.items()}

    def counts(self) -> dict[str, Any]:
        """Number of rows, and the first and last time.

        :raises StoreError: If the database can't be read.
        """
        with self.errors(), self.engine.connect() as connection:
            rankings, size, oldest, newest, shuffled, texts = connection.execute(
                select(
                    sa.func.count(),
                    sa.func.coalesce(sa.func.sum(RankingRow.size), 0),
                    sa.func.min(RankingRow.time),
                    sa.func.max(RankingRow.time),
                    sa.func.count().filter(RankingRow.shuffled > 0),
                    sa.func.count().filter(RankingRow.has_texts),
                )
            ).one()
            users = connection.execute(select(sa.func.count(sa.distinct(JudgementRow.user_key)))).scalar_one()
        return {
            "rankings": rankings,
            "shuffled": shuffled,
            "with_texts": texts,
            "bytes": int(size),
            "oldest": oldest,
            "newest": newest,
            "users": users,
        }


def digest_of(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(_storable(text).encode()).hexdigest()


def _storable(text: str) -> str:
    """A text without characters that databases reject: NUL, and halves of a surrogate pair."""
    return text.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _document(document: dict[str, Any], texts: bool) -> dict[str, Any]:
    kept = {"id": _storable(document["id"])} if "id" in document else {}
    text = str(document["text"])
    return {**kept, "text": _storable(text)} if texts else {**kept, "digest": digest_of(text)}
