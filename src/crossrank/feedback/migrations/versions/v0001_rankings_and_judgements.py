"""Rankings and judgements."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make both tables."""
    op.create_table(
        "rankings",
        sa.Column("id", _KEY, primary_key=True),
        sa.Column("request_id", sa.String(128), nullable=False, unique=True),
        sa.Column("time", sa.Float(53), nullable=False, index=True),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("dialect", sa.Text(), nullable=False),
        sa.Column("has_texts", sa.Boolean(), nullable=False),
        sa.Column("query", sa.Text(), nullable=False),
        sa.Column("documents", sa.JSON(), nullable=False),
        sa.Column("shown", sa.JSON(), nullable=False),
        sa.Column("scores", sa.JSON(), nullable=False),
        sa.Column("shuffled", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "judgements",
        sa.Column("id", _KEY, primary_key=True),
        sa.Column("ranking_id", _KEY, sa.ForeignKey("rankings.id", ondelete="CASCADE"), nullable=False, index=True),
        sa.Column("time", sa.Float(53), nullable=False),
        sa.Column("user_key", sa.String(128), index=True),
        sa.Column("idempotency_key", sa.String(128), unique=True),
        sa.Column("body_digest", sa.String(64), nullable=False),
        sa.Column("clicked", sa.JSON()),
        sa.Column("helpful", sa.JSON()),
        sa.Column("stars", sa.JSON()),
        sa.Column("preferred", sa.JSON()),
        sa.Column("missing", sa.Text()),
        sa.Column("comment", sa.Text()),
        sqlite_autoincrement=True,
    )
