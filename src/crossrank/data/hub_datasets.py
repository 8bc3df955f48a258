"""Download test collections from the Hugging Face hub, in BEIR's layout or as Parquet files like NanoBEIR's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossrank.data.beir import parquet_of_split
from crossrank.errors import DownloadError, InputError, did_you_mean

# Short names -> repositories that hold plain files in BEIR's layout.
_BEIR = ("arguana", "fiqa", "nfcorpus", "scidocs", "scifact", "trec-covid", "quora", "nq", "hotpotqa", "fever")
# NanoBEIR: 50 queries of each collection, as Parquet tables.
_NANO = (
    *("NanoArguAna", "NanoClimateFEVER", "NanoDBPedia", "NanoFEVER", "NanoFiQA2018", "NanoHotpotQA", "NanoMSMARCO"),
    *("NanoNFCorpus", "NanoNQ", "NanoQuoraRetrieval", "NanoSCIDOCS", "NanoSciFact", "NanoTouche2020"),
)
KNOWN: Mapping[str, str] = {
    **{name: f"mteb/{name}" for name in _BEIR},
    **{name.lower(): f"zeta-alpha-ai/{name}" for name in _NANO},
}

_OPTIONAL = ("candidates.tsv", "source_documents.tsv")


def fetch(name: str, split: str, *, cache_folder: str | Path | None = None) -> Path:
    """Download a dataset's corpus, queries and judgements into the hub's cache, and return the folder.

    ``HF_ENDPOINT``, ``HF_HUB_OFFLINE``, ``HF_TOKEN`` and ``HF_HOME`` work as in huggingface_hub.

    :param name: One of :data:`KNOWN`, or ``"owner/name"``.
    :param split: Which of ``qrels/*.tsv``.
    :param cache_folder: Where to keep downloads, instead of the hub's cache.
    :raises InputError: If the name is unknown, or the repository has other files.
    :raises DownloadError: If the hub can't be reached or refuses.
    """
    repository = KNOWN.get(name.lower().removeprefix("beir/"), name)
    if repository.count("/") != 1 or repository.startswith((".", "/", "~")):
        raise InputError(
            f"There is no folder or file {name!r}, and it is not the name of a known dataset: {', '.join(KNOWN)}."
            f"{did_you_mean(name, KNOWN)} Give a path, one of these names, or a repository on the hub as owner/name."
        )
    # This import also stops huggingface_hub from sending usage data.
    from crossrank.checkpoint.hub import DOWNLOAD_ERRORS

    from huggingface_hub import HfApi, constants, hf_hub_download  # isort: skip

    endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    where: Any = {"repo_type": "dataset", "endpoint": endpoint, "cache_dir": cache_folder}
    try:
        info = HfApi(endpoint=endpoint).dataset_info(repository, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        needed = _needed(repository, [file.rfilename for file in info.siblings or []], split)
        paths = [Path(hf_hub_download(repository, file, revision=info.sha, **where)) for file in needed]
    except InputError:
        raise
    except DOWNLOAD_ERRORS as error:
        raise DownloadError(
            f"The dataset {repository!r} can't be downloaded from {endpoint}: {error} "
            "Check the name and the connection, or download it and give its folder."
        ) from error
    return paths[0].parents[needed[0].count("/")]


def _needed(repository: str, listed: list[str], split: str) -> list[str]:
    """Choose the files to download: the text files of BEIR's layout, else the Parquet files."""
    texts = [
        next((name for name in (f"{stem}.jsonl", f"{stem}.jsonl.gz") if name in listed), "")
        for stem in ("corpus", "queries")
    ]
    judged = f"qrels/{split}.tsv"
    if all(texts) and judged in listed:
        return [*texts, judged, *(name for name in _OPTIONAL if name in listed)]
    parquet = [name for name in listed if name.endswith(".parquet")]
    corpus, queries, qrels = (
        sorted(name for name in parquet if name.startswith(f"{table}/")) for table in ("corpus", "queries", "qrels")
    )
    if corpus and queries and qrels:
        return [*corpus, *queries, *parquet_of_split(qrels, split)]
    why = "its Parquet files are not in corpus/, queries/ and qrels/" if parquet else f"it has {listed[:8]}"
    raise InputError(
        f"The dataset {repository!r} has no corpus.jsonl, queries.jsonl and {judged}: {why}. "
        "Download it and save it in BEIR's layout, or choose another split with --split."
    )
