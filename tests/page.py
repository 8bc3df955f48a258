"""What the tests of the page do in a browser."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from serving import Server

QUERY = "how does a wing stall"
DOCUMENTS = [
    "Bakers make bread from flour and water.",
    "A wing stalls when the air no longer follows its upper side.",
    "The speed of sound falls with the temperature of the air.",
    "Lift grows with the angle of attack until the wing stalls.",
]


def go(page: Page, server: Server, view: str = "") -> None:
    page.goto(f"{server.url}/{view}")
    expect(page.locator("#serving")).to_contain_text("serves")


def rank(page: Page, query: str, documents: list[str]) -> None:
    page.get_by_label("Query").fill(query)
    page.get_by_label("Documents", exact=True).fill("\n".join(documents))
    page.get_by_role("button", name="Rank", exact=True).click()
    expect(page.locator(".ranking").first.locator("li.document")).to_have_count(len(documents))


def texts_of(page: Page, ranking: int = 0) -> list[str]:
    return page.locator(".ranking").nth(ranking).locator("li .text").all_text_contents()


def saved(page: Page, database: Path, ready: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The last judgement in the database, read without crossrank, once it is as expected."""
    row: dict[str, Any] = {}
    for _ in range(100):
        with closing(sqlite3.connect(database)) as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute("SELECT * FROM judgements ORDER BY id DESC LIMIT 1").fetchone()
        row = dict(found) if found else {}
        parsed = {name: json.loads(row[name] or "null") for name in ("helpful", "stars", "preferred") if name in row}
        row |= parsed
        if row and ready(row):
            return row
        page.wait_for_timeout(100)
    raise AssertionError(row)


def shown_in(database: Path) -> list[int]:
    with closing(sqlite3.connect(database)) as connection:
        (shown,) = connection.execute("SELECT shown FROM rankings ORDER BY id DESC LIMIT 1").fetchone()
    return list(json.loads(shown))
