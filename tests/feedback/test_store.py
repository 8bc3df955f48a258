"""The store, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from crossrank.errors import InputError
from crossrank.feedback.database import StoreError
from crossrank.feedback.judgement import Judgement, labels_of_order, read_judgement
from crossrank.feedback.store import KeyReusedError, Ranking, Store, UnknownRankingError
from crossrank.feedback.tables import Base
from crossrank.validation import FieldError

NASTY = (
    "'; DROP TABLE rankings; --",
    '<script>alert("x")</script>',
    "{{7*7}} ${7*7} %s %(a)s :name ?",
    "\u202eright to left\u2066 \U0001f600 \x1b[31m",
    "line\r\nline\ttab",
)


def ranking(request_id: str = "r1", **more: Any) -> Ranking:
    documents = [{"text": "git log", "id": "a"}, {"text": "git reset"}, {"text": "git push"}, {"text": "git tag"}]
    given = {"query": "undo", "documents": documents, "shown": [1, 0, 3], "scores": [0.5, 0.9, 0.1, 0.2], **more}
    return Ranking(request_id, **given)


def everything(store: Store) -> list[tuple[Any, ...]]:
    return [
        (one.ranking.request_id, [(each.user_key, each.clicked, each.stars) for each in one.judgements])
        for one in store.judged(all_rankings=True)
    ]


def test_what_is_written_is_read(url: str) -> None:
    store = Store(url)
    assert store.add_rankings([ranking(model="m", model_version="3", dialect="tei", shuffled=2, time=12.5)]) == 1
    store.add_judgement(
        Judgement("r1", (0,), {1: False}, {0: 4.5}, (0, 1, 3), missing="revert", comment="no", user="ada")
    )
    # By another connection, of another process in all but name.
    (one,) = Store(url).judged()
    row = one.ranking
    assert (row.request_id, row.query, row.shown, row.scores) == ("r1", "undo", [1, 0, 3], [0.5, 0.9, 0.1, 0.2])
    assert row.documents[:2] == [{"id": "a", "text": "git log"}, {"text": "git reset"}]
    assert (row.model, row.model_version, row.dialect, row.shuffled, row.time) == ("m", "3", "tei", 2, 12.5)
    (said,) = one.judgements
    assert (said.clicked, said.helpful, said.stars, said.preferred) == ([0], {"1": False}, {"0": 4.5}, [0, 1, 3])
    assert (said.missing, said.comment, said.user_key) == ("revert", "no", "ada")


def test_a_later_judgement_of_a_user_replaces_the_earlier(url: str) -> None:
    store = Store(url)
    store.add_rankings([ranking()])
    store.add_judgement(Judgement("r1", clicked=(1,), user="ada"))
    store.add_judgement(Judgement("r1", clicked=(), user="bob"))
    store.add_judgement(Judgement("r1", clicked=(3,)))
    store.add_judgement(Judgement("r1", clicked=(3,)))
    store.add_judgement(Judgement("r1", stars={0: 5}, user="ada"))
    assert everything(store) == [
        ("r1", [("bob", [], None), (None, [3], None), (None, [3], None), ("ada", None, {"0": 5})])
    ]


def test_a_judgement_under_an_idempotency_key_is_written_once(url: str) -> None:
    store = Store(url)
    store.add_rankings([ranking()])
    first = store.add_judgement(Judgement("r1", clicked=(1,), user="ada"), key="k1")
    store.add_judgement(Judgement("r1", clicked=(0,), user="ada"), key="k2")
    # A late retry of the first does not take the place of the second.
    assert store.add_judgement(Judgement("r1", clicked=(1,), user="ada"), key="k1") == first
    assert everything(store) == [("r1", [("ada", [0], None)])]
    with pytest.raises(KeyReusedError, match="k1"):
        store.add_judgement(Judgement("r1", clicked=(), user="ada"), key="k1")


def test_a_request_id_is_taken_once(url: str) -> None:
    store = Store(url)
    assert store.add_rankings([ranking(), ranking("r2")]) == 2
    assert store.add_rankings([ranking(query="another"), ranking("r3")]) == 1
    assert [(one.ranking.request_id, one.ranking.query) for one in store.judged(all_rankings=True)] == [
        ("r1", "undo"),
        ("r2", "undo"),
        ("r3", "undo"),
    ]


def test_what_was_not_shown_is_not_judged(url: str) -> None:
    store = Store(url)
    store.add_rankings([ranking()])
    with pytest.raises(UnknownRankingError, match="'r2'"):
        store.add_judgement(Judgement("r2", clicked=(1,)))
    for judgement in (Judgement("r1", (4,)), Judgement("r1", helpful={9: True}), Judgement("r1", stars={4: 1})):
        with pytest.raises(FieldError, match="0 to 3"):
            store.add_judgement(judgement)
    with pytest.raises(FieldError, match="not among those shown"):
        store.add_judgement(Judgement("r1", clicked=(2,)))
    for order in ((0, 1), (0, 1, 3, 2), (0, 1, 1)):
        with pytest.raises(FieldError):
            store.add_judgement(Judgement("r1", order=order))
    assert everything(store) == [("r1", [])]


@pytest.mark.parametrize("text", NASTY)
def test_sql_and_markup_are_texts(url: str, text: str) -> None:
    store = Store(url)
    store.add_rankings([ranking("r", query=text, documents=[{"text": text, "id": text}], shown=[0], scores=[1.0])])
    store.add_judgement(Judgement("r", clicked=(0,), missing=text, comment=text, user=text), key=text)
    (one,) = store.judged()
    assert (one.ranking.query, one.ranking.documents) == (text, [{"id": text, "text": text}])
    (said,) = one.judgements
    assert (said.missing, said.comment, said.user_key, said.idempotency_key) == (text, text, text, text)
    assert store.delete(user=text) == (0, 1)


def test_what_no_database_takes_is_replaced(url: str) -> None:
    store = Store(url)
    store.add_rankings(
        [
            ranking(
                "r", query="a\x00b\ud800c", documents=[{"text": "\udfff\x00", "id": "\ud800"}], shown=[0], scores=[0.0]
            )
        ]
    )
    store.add_judgement(Judgement("r", comment="\x00\ud83d"))
    (one,) = store.judged()
    assert (one.ranking.query, one.ranking.documents) == ("a\ufffdb\ufffdc", [{"text": "\ufffd\ufffd", "id": "\ufffd"}])
    assert one.judgements[0].comment == "\ufffd\ufffd"


def test_digests_instead_of_texts(url: str, tmp_path: Path) -> None:
    import hashlib

    store = Store(url)
    store.add_rankings([ranking()], texts=False)
    (one,) = store.judged(all_rankings=True)
    assert not one.ranking.has_texts
    assert one.ranking.query == hashlib.sha256(b"undo").hexdigest()
    assert one.ranking.documents[0] == {"id": "a", "digest": hashlib.sha256(b"git log").hexdigest()}
    assert one.ranking.documents[1] == {"digest": hashlib.sha256(b"git reset").hexdigest()}


def test_deletion(url: str) -> None:
    store = Store(url)
    store.add_rankings([ranking("r1", time=100.0), ranking("r2", time=200.0), ranking("r3", time=300.0)])
    for name in ("r1", "r2", "r3"):
        store.add_judgement(Judgement(name, clicked=(1,), user="ada"))
        store.add_judgement(Judgement(name, clicked=(0,), user="bob"))
    assert store.delete(user="ada") == (0, 3)
    assert store.delete(request_id="r2") == (1, 1)
    assert store.delete(request_id="none") == (0, 0)
    assert store.delete(before=200.0) == (1, 1)
    assert everything(store) == [("r3", [("bob", [0], None)])]


def test_deleted_texts_are_not_in_the_files(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/feedback.db")
    store.add_rankings([ranking(query="rosebud " * 50), ranking("r2")])
    store.add_judgement(Judgement("r1", comment="rosebud too"))

    def there() -> bool:
        return any(b"rosebud" in file.read_bytes() for file in tmp_path.iterdir())

    assert there()
    store.delete(request_id="r1")
    assert not there()


def test_retention(url: str) -> None:
    store = Store(url)
    now = time.time()
    store.add_rankings([ranking(f"r{day}", time=now - 86_400 * day - 60) for day in (4, 3, 2, 1, 0)])
    store.add_judgement(Judgement("r4", clicked=()))
    assert store.keep_within(days=4) == 1
    size = store.counts()["bytes"] // 4
    # query and texts, and one id
    assert size == len("undo") + len("git log") + len("git reset") + len("git push") + len("git tag") + len("a")
    assert store.keep_within(size=2 * size) == 2
    assert [name for name, _ in everything(store)] == ["r1", "r0"]
    assert store.keep_within(size=2 * size) == 0
    assert store.keep_within(size=2 * size - 1) == 1
    assert [name for name, _ in everything(store)] == ["r0"]


def test_the_newest_first_and_pages(url: str) -> None:
    store = Store(url)
    store.add_rankings([ranking(f"r{i}") for i in range(1203)])
    assert [one.ranking.request_id for one in store.judged(all_rankings=True)] == [f"r{i}" for i in range(1203)]
    newest = [one.ranking.request_id for one in store.judged(all_rankings=True, newest=700)]
    assert newest == [f"r{i}" for i in range(1202, 502, -1)]
    assert list(store.judged()) == []


def test_the_migrations_make_the_tables(url: str) -> None:
    Store(url)
    store = Store(url)
    with store.engine.connect() as connection:
        differences = compare_metadata(
            MigrationContext.configure(connection, opts={"compare_type": True}), Base.metadata
        )
    assert differences == []


def test_a_store_of_a_later_version_is_refused(url: str) -> None:
    store = Store(url)
    with store.engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match="'9999'"):
        Store(url)


def _open(url: str) -> None:
    Store(url)


def _write(url: str, worker: int, count: int) -> None:
    store = Store(url)
    for number in range(count):
        store.add_rankings([ranking(f"w{worker}-{number}")])
        store.add_judgement(Judgement(f"w{worker}-{number}", clicked=(1,), user=f"u{worker}"), key=f"{worker} {number}")
        store.add_judgement(Judgement("shared", clicked=(0,), user="same"), key=f"shared {number}")


def test_sixteen_writers_at_once(url: str) -> None:
    # The tables, too, are made by all of them at once.
    context = multiprocessing.get_context("fork")
    makers = [context.Process(target=_open, args=(url,)) for _ in range(16)]
    for process in makers:
        process.start()
    for process in makers:
        process.join(60)
    assert [process.exitcode for process in makers] == [0] * 16
    Store(url).add_rankings([ranking("shared")])
    writers = [context.Process(target=_write, args=(url, worker, 10)) for worker in range(16)]
    for process in writers:
        process.start()
    for process in writers:
        process.join(120)
    assert [process.exitcode for process in writers] == [0] * 16
    found = dict(everything(Store(url)))
    assert found.pop("shared") == [("same", [0], None)]
    assert found == {f"w{w}-{n}": [(f"u{w}", [1], None)] for w in range(16) for n in range(10)}
    with Store(url).engine.connect() as connection:
        # Keys that all sixteen used at once: each is there once.
        assert connection.execute(sa.text("SELECT count(*) FROM judgements")).scalar() == 160 + 10


def test_sqlite_is_in_wal_mode_and_synchronous(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/feedback.db")
    with store.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    other = sqlite3.connect(tmp_path / "feedback.db")
    assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    # A reader in the middle of reading does not stop the writer.
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM rankings").fetchone()
    store.add_rankings([ranking()])
    other.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("feedback.db", "not a database URL"),
        ("mysql://host/name", "neither SQLite nor PostgreSQL"),
        ("sqlite://", "names no file"),
        ("sqlite:///no/such/folder/f.db", "no/such/folder"),
    ],
)
def test_urls_that_can_not_be_used(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Store(url)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "f.db").write_text("something else, and long enough to be taken for a page " * 100)
    with pytest.raises(StoreError, match="not a database"):
        Store(f"sqlite:///{tmp_path}/f.db")


def test_a_database_that_is_not_there() -> None:
    with pytest.raises(StoreError, match=r"\*\*\*"):  # and the password is not in the message
        Store("postgresql://me:secret@127.0.0.1:9/none")


# ---- what a body may say


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "request_id"),
        ({"request_id": 5, "clicked": []}, "request_id"),
        ({"request_id": "r" * 129, "clicked": []}, "request_id"),
        ({"request_id": "a\x00b", "clicked": []}, "request_id"),
        ({"request_id": "r"}, None),
        ({"request_id": "r", "user": "u"}, None),
        ({"request_id": "r", "click": [1]}, "click"),
        ({"request_id": "r", "clicked": 1}, "clicked"),
        ({"request_id": "r", "clicked": [-1]}, "clicked"),
        ({"request_id": "r", "clicked": [True]}, "clicked"),
        ({"request_id": "r", "clicked": [1.5]}, "clicked"),
        ({"request_id": "r", "clicked": [1, 1]}, "clicked"),
        ({"request_id": "r", "clicked": [10**400]}, "clicked"),
        ({"request_id": "r", "clicked": ["1' OR 1=1"]}, "clicked"),
        ({"request_id": "r", "clicked": [[0]]}, "clicked"),
        ({"request_id": "r", "helpful": {"0": "yes"}}, "helpful"),
        ({"request_id": "r", "helpful": {"0": 1}}, "helpful"),
        ({"request_id": "r", "helpful": {"x": True}}, "helpful"),
        ({"request_id": "r", "helpful": [True]}, "helpful"),
        ({"request_id": "r", "stars": {"0": 6}}, "stars"),
        ({"request_id": "r", "stars": {"0": 0}}, "stars"),
        ({"request_id": "r", "stars": {"0": True}}, "stars"),
        ({"request_id": "r", "stars": {"0": "<b>5</b>"}}, "stars"),
        ({"request_id": "r", "stars": {"0": 1, "00": 2}}, "stars"),
        ({"request_id": "r", "order": "0,1"}, "order"),
        ({"request_id": "r", "missing": ["a"]}, "missing"),
        ({"request_id": "r", "comment": "a" * 1_000_000}, "comment"),
        ({"request_id": "r", "clicked": [], "user": "u" * 129}, "user"),
        ({"request_id": "r", "clicked": [], "user": {"name": "u"}}, "user"),
    ],
)
def test_bodies_that_can_not_be_used(body: dict[str, Any], field: str | None) -> None:
    with pytest.raises(FieldError) as raised:
        read_judgement(json.loads(json.dumps(body)))
    assert raised.value.field == field
    assert len(str(raised.value)) < 300


def test_a_body() -> None:
    body = {"request_id": "r", "clicked": [2, 0], "helpful": {"1": True, "2": None}, "stars": {"0": 4}, "user": "u"}
    assert read_judgement(body) == Judgement("r", (2, 0), {1: True}, {0: 4}, user="u")


@pytest.mark.parametrize(
    ("order", "labels"),
    [
        ([7, 5, 3, 1], {}),
        ([5, 7, 3, 1], {5: 1.0, 7: 0.0}),
        ([1, 7, 5, 3], {1: 1.0, 7: 0.0, 5: 0.0, 3: 0.0}),
        ([7, 1, 5, 3], {1: 1.0, 5: 0.0, 3: 0.0}),
        ([5, 3, 1, 7], {7: 0.0}),
        ([7, 3, 1, 5], {5: 0.0}),
        ([1, 3, 7, 5], {1: 1.0, 3: 1.0, 7: 0.0, 5: 0.0}),
    ],
)
def test_an_order_says_something_of_what_was_moved(order: list[int], labels: dict[int, float]) -> None:
    assert labels_of_order([7, 5, 3, 1], order) == labels
