"""Judging on the page, in a real browser: what it writes, what is learnt from it, and how to roll back."""

from __future__ import annotations

import json
import random
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

import texts
from crossrank import ModelRegistry
from page import DOCUMENTS, QUERY, go, rank, saved, shown_in, texts_of
from serving import Server, serve

pytestmark = pytest.mark.browser


# ---- judging -------------------------------------------------------------------------------------------------------


@pytest.fixture
def judging(tmp_path: Path, tiny_bert: Path) -> Iterator[Server]:
    flags = ["--model", f"tiny={tiny_bert}", "--feedback", f"sqlite:///{tmp_path / 'feedback.db'}"]
    with serve(tmp_path / "log", *flags) as running:
        yield running


def rank_until_served_by(page: Page, name: str) -> None:
    """Rank again and again until this version answers."""
    for _ in range(100):
        page.get_by_role("button", name="Rank", exact=True).click()
        expect(page.get_by_role("button", name="Rank", exact=True)).to_be_enabled()
        if name in (page.locator(".about").text_content() or ""):
            break
        page.wait_for_timeout(100)
    expect(page.locator(".about")).to_contain_text(name)


def test_thumbs_stars_and_words_are_in_the_database(page: Page, judging: Server, tmp_path: Path) -> None:
    database = tmp_path / "feedback.db"
    go(page, judging)
    rank(page, QUERY, DOCUMENTS)
    first, second = (page.locator("li.document").nth(place) for place in (0, 1))
    first_index, second_index = (str(DOCUMENTS.index(text)) for text in texts_of(page)[:2])
    first.get_by_label("It helps").click()
    expect(first.get_by_label("It helps")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#status")).to_have_text("Saved")
    second.get_by_label("It does not help").click()
    second.get_by_label("4 stars").click()
    row = saved(page, database, lambda row: row["stars"] == {second_index: 4})
    assert row["helpful"] == {first_index: True, second_index: False}
    # Taken back by the same click again, and with the keyboard.
    second.get_by_label("4 stars").click()
    first.get_by_label("It helps").press("Space")
    row = saved(page, database, lambda row: row["stars"] == {})
    assert row["helpful"] == {second_index: False}
    page.get_by_label("What is missing or wrong?").fill("<b>more</b> of it")
    page.get_by_role("button", name="Send").click()
    saved(page, database, lambda row: row["comment"] == "<b>more</b> of it")
    # It is what the second view shows.
    page.get_by_role("link", name="What it learns").click()
    expect(page.locator("#feedback dl")).to_contain_text("Judgements1")
    expect(page.locator("#feedback table")).to_contain_text("0 of 1")


def test_drag_to_the_right_place(page: Page, judging: Server, tmp_path: Path) -> None:
    database = tmp_path / "feedback.db"
    go(page, judging)
    rank(page, QUERY, DOCUMENTS)
    before = texts_of(page)
    handle = page.locator("li.document").last.get_by_label(re.compile("^Drag"))
    grip, target = handle.bounding_box(), page.locator("li.document").first.bounding_box()
    assert grip is not None
    assert target is not None
    page.mouse.move(grip["x"] + 10, grip["y"] + 10)
    page.mouse.down()
    page.mouse.move(grip["x"] + 10, target["y"] + 60, steps=8)
    page.mouse.move(grip["x"] + 10, target["y"] + 4, steps=4)
    page.mouse.up()
    after = [before[-1], *before[:-1]]
    assert texts_of(page) == after
    row = saved(page, database, lambda row: row["preferred"] is not None)
    assert [DOCUMENTS[index] for index in row["preferred"]] == after
    assert [DOCUMENTS[index] for index in shown_in(database)] == before
    # Broken off with Escape, it goes back.
    grip = page.locator("li.document").first.get_by_label(re.compile("^Drag")).bounding_box()
    assert grip is not None
    page.mouse.move(grip["x"] + 10, grip["y"] + 10)
    page.mouse.down()
    page.mouse.move(grip["x"] + 10, grip["y"] + 250, steps=8)
    page.keyboard.press("Escape")
    page.mouse.up()
    assert texts_of(page) == after


def test_move_with_the_keyboard(page: Page, judging: Server, tmp_path: Path) -> None:
    go(page, judging)
    rank(page, QUERY, DOCUMENTS)
    before = texts_of(page)
    page.locator("li.document").nth(1).get_by_label(re.compile("^Drag")).focus()
    page.keyboard.press("ArrowUp")
    after = [before[1], before[0], *before[2:]]
    assert texts_of(page) == after
    expect(page.locator("#status")).to_contain_text("Moved to place 1")
    # The focus moves along, so that the next key moves the same document.
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    assert texts_of(page) == before
    page.locator("li.document").nth(0).get_by_label("Move down").press("Enter")
    assert texts_of(page) == after
    wanted = [DOCUMENTS.index(text) for text in after]
    saved(page, tmp_path / "feedback.db", lambda row: row["preferred"] == wanted)


def test_a_ranking_that_is_not_to_be_kept_is_not(page: Page, judging: Server, tmp_path: Path) -> None:
    go(page, judging)
    page.get_by_label("Store this ranking").uncheck()
    rank(page, QUERY, DOCUMENTS)
    expect(page.get_by_label("It helps")).to_have_count(0)
    with closing(sqlite3.connect(tmp_path / "feedback.db")) as connection:
        assert connection.execute("SELECT count(*) FROM rankings").fetchone() == (0,)


def test_judgements_that_cant_be_saved_are_told(page: Page, judging: Server) -> None:
    go(page, judging)
    rank(page, QUERY, DOCUMENTS)
    answer = {"status": 503, "headers": {"retry-after": "5"}, "json": {"message": "The disk is full."}}
    page.route("**/v1/feedback", lambda route: route.fulfill(**answer))
    page.locator("li.document").first.get_by_label("It helps").click()
    expect(page.locator("#status")).to_have_text("Not saved. The disk is full. Try again in 5 s.")


# ---- what it learns ------------------------------------------------------------------------------------------------

LEARN = [
    *("--epochs", "6", "--batch-size", "16", "--max-length", "48", "--lr", "2e-3", "--average-with-base", "0"),
    *("--evaluations", "2", "--alpha", "0.5", "--guard", "none", "--min-judgements", "20", "--eval-share", "0.3"),
]


def test_from_typing_to_a_new_version_that_serves(page: Page, tmp_path: Path, tiny_bert: Path) -> None:
    """Type, rank, drag, judge; it is in the database; learn; the same page shows the new version without a reload."""
    registry, store = ModelRegistry(tmp_path / "live"), f"sqlite:///{tmp_path / 'feedback.db'}"
    registry.switch(registry.publish(tiny_bert))
    first = registry.current()
    assert first is not None
    flags = ["--model", f"live=registry:{registry.folder}", "--feedback", store, "--watch-seconds", "0.1"]
    with serve(tmp_path / "log", *flags) as server:
        go(page, server)
        rank(page, QUERY, DOCUMENTS)
        expect(page.locator(".about")).to_contain_text(first.name)
        before = texts_of(page)
        page.locator("li.document").last.get_by_label(re.compile("^Drag")).drag_to(page.locator("li.document").first)
        assert texts_of(page) == [before[-1], *before[:-1]]
        page.locator("li.document").first.get_by_label("5 stars").click()
        row = saved(page, tmp_path / "feedback.db", lambda row: bool(row["stars"]))
        assert row["stars"] == {str(DOCUMENTS.index(before[-1])): 5}
        assert [DOCUMENTS[index] for index in row["preferred"]] == [before[-1], *before[:-1]]
        # Others judge too, over HTTP, what a tiny model can learn: what is good begins with a word of praise.
        chosen = random.Random(0)
        short = [text for text in texts.passages() if len(text) < 200]
        for number in range(60):
            kinds = chosen.sample([True, True, False, False], 4)
            documents = [f"{'excellent' if good else 'deprecated'} {chosen.choice(short)}" for good in kinds]
            answer = server.post({"query": f"number {number}", "documents": documents, "store": True}).json()
            said = {"request_id": answer["id"], "stars": {index: 5 if good else 1 for index, good in enumerate(kinds)}}
            assert server.post(said, "/v1/feedback").status_code == 201
        command = [sys.executable, "-m", "crossrank", "learn", "--feedback", store, "--registry", str(registry.folder)]
        ran = subprocess.run([*command, *LEARN, "--json"], capture_output=True, text=True, timeout=300)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        outcome = json.loads(ran.stdout)
        assert outcome["rows"] == 61
        second = registry.current()
        assert second is not None
        assert second.name == outcome["version"] != first.name
        rank_until_served_by(page, second.name)
        # Why it serves: the decision, with the figures that learn printed.
        page.get_by_role("link", name="What it learns").click()
        article = page.locator(".decision")
        expect(article).to_have_count(1)
        expect(article.get_by_role("heading")).to_have_text(f"Promoted: {second.name} serves instead of {first.name}")
        old, new = outcome["decision"]["data"]["means"]
        expect(article).to_contain_text(f"nDCG@10 {old:.4f} → {new:.4f}")
        expect(page.locator("#feedback dl")).to_contain_text("Judgements61")


def test_what_was_decided_and_rolling_back(page: Page, learning: Server, registry: ModelRegistry) -> None:
    first, second = registry.versions()
    page.goto(f"{learning.url}/#learning")
    page.get_by_label("This server needs an API key").fill("wrong")
    page.get_by_role("button", name="Use it").click()
    expect(page.locator("#failure")).to_contain_text("not known")
    page.get_by_label("This server needs an API key").fill("secret")
    page.get_by_role("button", name="Use it").click()
    decision = page.locator(".decision")
    expect(decision.get_by_role("heading")).to_have_text(f"Promoted: {second.name} serves instead of {first.name}")
    expect(decision).to_contain_text("+0.0284 (95 %: +0.0121 to +0.0452), p < 0.001")
    expect(decision).to_contain_text("−0.0008 (95 %: −0.0062 to +0.0049), p = 0.710")
    expect(decision).to_contain_text("Better: <b>nDCG@10</b> rose.")
    expect(page.locator("#feedback")).to_contain_text("Feedback is off.")
    # A click only asks; it takes a key to do it.
    page.get_by_role("button", name=f"Roll back to {first.name}").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(first.name)
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert registry.current() == second
    page.get_by_role("button", name=f"Roll back to {first.name}").click()
    dialog.get_by_label("API key").fill("wrong")
    dialog.get_by_role("button", name="Roll back").click()
    expect(dialog).to_contain_text("not known")
    assert registry.current() == second
    dialog.get_by_label("API key").fill("secret")
    dialog.get_by_role("button", name="Roll back").click()
    expect(dialog).to_be_hidden()
    expect(page.locator("tr", has_text=first.name)).to_contain_text("serves")
    assert registry.current() == first
    # A version that is put to use elsewhere serves too, without the page being loaded anew.
    registry.switch(second)
    page.get_by_role("link", name="Try it").click()
    page.get_by_label("Query").fill(QUERY)
    page.get_by_label("Documents", exact=True).fill("\n".join(DOCUMENTS))
    rank_until_served_by(page, second.name)
