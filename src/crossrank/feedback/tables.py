"""The tables of a feedback store. A change here needs a new migration; a test compares the two."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Float, ForeignKey, Integer, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from crossrank.feedback.judgement import LONGEST_KEY

# SQLite numbers rows by itself only if the key is called INTEGER.
_Key = BigInteger().with_variant(Integer(), "sqlite")


class Base(DeclarativeBase):
    """All tables."""


class RankingRow(Base):
    """One ranking that the server returned.

    ``documents`` are objects in the order of the request, with ``text`` or ``digest``, and ``id`` if one was sent.
    ``shown`` has their indices from the top. ``shuffled`` is the number of top places that were in random order.
    ``query`` is a digest if texts are left out. ``size`` is the number of bytes of query and documents.
    """

    __tablename__ = "rankings"
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012

    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    request_id: Mapped[str] = mapped_column(String(LONGEST_KEY), unique=True)
    time: Mapped[float] = mapped_column(Float(53), index=True)
    model: Mapped[str] = mapped_column(Text)
    model_version: Mapped[str] = mapped_column(Text)
    dialect: Mapped[str] = mapped_column(Text)
    has_texts: Mapped[bool]
    query: Mapped[str] = mapped_column(Text)
    documents: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    shown: Mapped[list[int]] = mapped_column(JSON)
    scores: Mapped[list[float]] = mapped_column(JSON)
    shuffled: Mapped[int]
    size: Mapped[int] = mapped_column(BigInteger)


class JudgementRow(Base):
    """One user's feedback on one ranking, at one time. Rows are only added; a user's last one counts.

    ``body_digest`` shows whether a request with a known idempotency key is a repetition or a different one.
    """

    __tablename__ = "judgements"
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012

    id: Mapped[int] = mapped_column(_Key, primary_key=True)
    ranking_id: Mapped[int] = mapped_column(ForeignKey("rankings.id", ondelete="CASCADE"), index=True)
    time: Mapped[float] = mapped_column(Float(53))
    user_key: Mapped[str | None] = mapped_column(String(LONGEST_KEY), index=True)
    idempotency_key: Mapped[str | None] = mapped_column(String(LONGEST_KEY), unique=True)
    body_digest: Mapped[str] = mapped_column(String(64))
    clicked: Mapped[list[int] | None] = mapped_column(JSON(none_as_null=True))
    helpful: Mapped[dict[str, bool] | None] = mapped_column(JSON(none_as_null=True))
    stars: Mapped[dict[str, float] | None] = mapped_column(JSON(none_as_null=True))
    preferred: Mapped[list[int] | None] = mapped_column(JSON(none_as_null=True))
    missing: Mapped[str | None] = mapped_column(Text)
    comment: Mapped[str | None] = mapped_column(Text)
