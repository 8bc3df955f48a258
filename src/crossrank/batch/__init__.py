"""Score files of any size in bounded memory, in parts that can be resumed."""

from crossrank.optional import require

require("pyarrow", extra="batch", purpose="Batch scoring")

from crossrank.batch.job import BatchJob, BatchSummary  # noqa: E402
from crossrank.batch.score_table import RankBatch  # noqa: E402

__all__ = ["BatchJob", "BatchSummary", "RankBatch"]
