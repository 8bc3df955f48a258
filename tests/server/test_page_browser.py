"""The page in a real browser: rank, explain, compare; what it asks for, and how it looks to everyone."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from playwright.sync_api import Error as PlaywrightError

from crossrank import CrossEncoder
from crossrank.evaluation.explain import explain
from page import DOCUMENTS, QUERY, go, rank, texts_of
from serving import Server, serve

pytestmark = pytest.mark.browser

HOSTILE = [
    "<img src=x onerror=\"document.title='broken'\">",
    "</p><script>document.title='broken'</script>",
    "<b>bold</b> & &lt;i&gt; \u202e \x00 ${1+1} {{7*7}} javascript:alert(1) '\"`",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, second: Path) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("log") / "log"
    with serve(log, "--model", f"tiny={tiny_bert}", "--model", f"second={second}") as running:
        yield running


def scores_of(folder: Path, documents: list[str], query: str = QUERY) -> list[float]:
    model = CrossEncoder(str(folder), precision="float32")
    return [float(score) for score in model.score([(query, one) for one in documents]).scores]


def order_of(scores: list[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda index: -scores[index])


def test_type_and_rank(page: Page, server: Server, tiny_bert: Path) -> None:
    go(page, server)
    rank(page, QUERY, DOCUMENTS)
    scores = scores_of(tiny_bert, DOCUMENTS)
    order = order_of(scores)
    assert texts_of(page) == [DOCUMENTS[index] for index in order]
    shown = [float(text) for text in page.locator(".score").all_text_contents()]
    assert shown == pytest.approx([scores[index] for index in order], abs=1e-4)
    # How far each moved: from its place in the input to its place in the ranking.
    moved = [index - place for place, index in enumerate(order)]
    signs = ["=" if by == 0 else f"{'▲' if by > 0 else '▼'} {abs(by)}" for by in moved]
    assert page.locator(".moved > [aria-hidden]").all_text_contents() == signs
    # Feedback is off: nothing to judge with, and it says so.
    expect(page.get_by_label("It helps")).to_have_count(0)
    expect(page.locator(".ranking")).to_contain_text("--feedback")


def test_enter_ranks_and_an_empty_question_is_told(page: Page, server: Server) -> None:
    go(page, server)
    page.get_by_role("button", name="Rank", exact=True).click()
    expect(page.locator("#wrong")).to_have_text("Write a query.")
    expect(page.get_by_label("Query")).to_be_focused()
    page.keyboard.type(QUERY)
    page.keyboard.press("Enter")
    expect(page.locator("#wrong")).to_contain_text("Paste some documents")
    page.keyboard.insert_text("\n".join(DOCUMENTS))
    page.keyboard.press("Control+Enter")
    expect(page.locator("li.document")).to_have_count(len(DOCUMENTS))


def test_the_example_ranks_at_a_click(page: Page, server: Server) -> None:
    go(page, server)
    page.get_by_role("button", name="Try an example").click()
    expect(page.locator("li.document").first).to_be_visible()
    assert len(texts_of(page)) == 7


@pytest.mark.parametrize(
    ("name", "content", "documents"),
    [
        ("a.jsonl", '{"_id": "d1", "title": "One", "text": "first"}\n\n"second"\n', ["One first", "second"]),
        ("a.json", '[{"id": 7, "content": "first"}, "second"]', ["first", "second"]),
        ("a.csv", 'id,text\r\n1,"a ""b"", c\nd"\r\n2,plain\r\n', ['a "b", c\nd', "plain"]),
        ("a.tsv", "text\tid\nfirst one\t1\nsecond\t2\n", ["first one", "second"]),
        ("a.txt", "\ufefffirst\nsame\n\nsecond\n", ["first\nsame", "second"]),
        ("a.txt", "first\n  second  \nthird", ["first", "second", "third"]),
        ("a.txt", "[not json\n{nor this", ["[not json", "{nor this"]),
    ],
)
def test_a_file_is_read(page: Page, server: Server, name: str, content: str, documents: list[str]) -> None:
    go(page, server)
    page.locator("#file").set_input_files({"name": name, "mimeType": "text/plain", "buffer": content.encode()})
    expect(page.locator("#chosen-name")).to_have_text(f"{name}, {len(documents)} documents")
    page.get_by_label("Query").fill(QUERY)
    with page.expect_request("**/v1/rerank") as sent:
        page.get_by_role("button", name="Rank", exact=True).click()
    body = json.loads(sent.value.post_data or "")
    assert [one if isinstance(one, str) else one["text"] for one in body["documents"]] == documents
    expect(page.locator("li.document")).to_have_count(len(documents))


@pytest.mark.parametrize(
    ("pasted", "documents", "words"),
    [
        ('text,id\n"a, b",1\nc,2', ["a, b", "c"], "2 documents, from CSV"),
        ("text\tid\na, b\t1\nc\t2", ["a, b", "c"], "2 documents, from TSV"),
        # Like a table at first sight only.
        ("Hand, body\nOne more", ["Hand, body", "One more"], "2 documents, one a line"),
        ('text,id\n"open', ["text,id", '"open'], "2 documents, one a line"),
    ],
)
def test_a_pasted_table_is_read(page: Page, server: Server, pasted: str, documents: list[str], words: str) -> None:
    go(page, server)
    page.get_by_label("Query").fill(QUERY)
    page.get_by_label("Documents", exact=True).fill(pasted)
    expect(page.locator("#count")).to_have_text(words)
    page.get_by_role("button", name="Rank", exact=True).click()
    expect(page.locator("li.document")).to_have_count(len(documents))
    assert sorted(texts_of(page)) == sorted(documents)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", '{"text": "a"}\n{"text": ', "Line 2 is not JSON"),
        ("a.jsonl", '{"name": "a"}\n', "Line 1 has no text"),
        ("a.csv", "a,b\n1,2\n", 'Call the column with the texts "text"'),
        ("a.csv", 'text\n"open\n', "quotation mark"),
        ("a.txt", " \n", "There is no text in it"),
    ],
)
def test_a_file_that_cant_be_used_is_told(page: Page, server: Server, name: str, content: str, words: str) -> None:
    go(page, server)
    page.locator("#file").set_input_files({"name": name, "mimeType": "text/plain", "buffer": content.encode()})
    expect(page.locator("#wrong")).to_contain_text(words)
    expect(page.get_by_label("Documents", exact=True)).to_be_visible()


def test_a_file_is_dropped_and_taken_away(page: Page, server: Server) -> None:
    go(page, server)
    data = page.evaluate_handle(
        "() => { const data = new DataTransfer();"
        " data.items.add(new File(['{\"text\": \"a\"}'], 'a.jsonl')); return data; }"
    )
    page.locator("#drop").dispatch_event("drop", {"dataTransfer": data})
    expect(page.locator("#chosen-name")).to_have_text("a.jsonl, 1 document")
    page.get_by_role("button", name="Remove").click()
    expect(page.get_by_label("Documents", exact=True)).to_be_visible()


def test_texts_are_never_markup(page: Page, server: Server) -> None:
    go(page, server)
    rows = [json.dumps({"id": text, "text": text}) for text in HOSTILE]
    for query in HOSTILE:
        rank(page, query.replace("\x00", ""), rows)
        for row in page.locator("li.document").all():
            row.get_by_role("button", name="Which words mattered?").click()
            expect(row.locator(".why")).to_contain_text("Raw score")
        for tab in ("Python", "Settings screens", "curl"):
            page.get_by_role("tab", name=tab).click()
        assert sorted(texts_of(page)) == sorted(text.replace("\x00", "\x00") for text in HOSTILE)
        assert sorted(page.locator(".id").all_text_contents()) == sorted(HOSTILE)
        assert page.locator("main img, main script, main b, main i").count() == 0
        assert page.title() == "crossrank"


def test_the_policy_stops_what_would_be_markup(opened: Browser, server: Server) -> None:
    """Even if the script made a mistake: inline code does not run, and a string can't become markup."""
    page = opened.new_page()
    go(page, server)
    for mistake, needed in {
        "document.body.innerHTML = '<p>markup</p>'": "TrustedHTML",
        "document.body.setAttribute('onclick', 'document.title = 1')": "TrustedScript",
    }.items():
        with pytest.raises(PlaywrightError, match=needed):
            page.evaluate(mistake)
    # A script with code of its own, put in by code: it stays where it is and does nothing.
    page.evaluate(
        "() => { const made = document.createElement('script');"
        " made.append(\"document.title = 'broken'\"); document.body.append(made); }"
    )
    assert page.title() == "crossrank"
    page.close()


def test_words_that_mattered(page: Page, server: Server, tiny_bert: Path) -> None:
    go(page, server)
    rank(page, QUERY, DOCUMENTS)
    first = page.locator("li.document").first
    first.get_by_role("button", name="Which words mattered?").click()
    text = DOCUMENTS[order_of(scores_of(tiny_bert, DOCUMENTS))[0]]
    found = explain(CrossEncoder(str(tiny_bert), precision="float32"), QUERY, text, budget=128)
    heaviest = max(found.words, key=lambda span: abs(span.weight))
    expect(first.locator(".text mark[class$='-3']").first).to_be_visible()
    assert heaviest.text in first.locator(".text mark[class$='-3']").all_text_contents()
    assert first.locator(".text").text_content() == text
    first.get_by_role("button", name="Which words mattered?").click()
    expect(first.locator(".text mark")).to_have_count(0)


def test_what_was_cut_is_shown(page: Page, server: Server) -> None:
    go(page, server)
    long = "The wing \N{GRINNING FACE} stalls and falls. " * 200
    rank(page, QUERY, [DOCUMENTS[0], long.strip()])
    row = page.locator("li.document", has_text="stalls and falls")
    expect(row.locator(".cut")).to_contain_text("tokens cut")
    row.get_by_role("button", name="Show all").click()
    body = {"query": QUERY, "documents": [long.strip()]}
    read = server.post(body, "/v1/cut").json()["read"][0]
    assert row.locator(".unread").text_content() == long.strip()[read:]
    assert row.locator(".text").text_content() == long.strip()


def test_two_models_side_by_side(page: Page, server: Server, tiny_bert: Path, second: Path) -> None:
    go(page, server)
    page.get_by_label("Compare with").select_option("second")
    rank(page, QUERY, DOCUMENTS)
    expect(page.locator(".ranking")).to_have_count(2)
    for number, folder in enumerate((tiny_bert, second)):
        assert texts_of(page, number) == [DOCUMENTS[i] for i in order_of(scores_of(folder, DOCUMENTS))]
    place = texts_of(page, 1).index(texts_of(page, 0)[0]) + 1
    expect(page.locator(".ranking").first.locator(".facts").first).to_contain_text(f"second: {place}")


def test_the_samples_do_the_same(page: Page, server: Server, tmp_path: Path) -> None:
    go(page, server)
    rank(page, 'what\'s "quoted" $HOME `x`', ["it's 'one' \\ \\n", *DOCUMENTS])
    words = shlex.split(page.locator("#sample pre").text_content() or "")
    assert words[0] == "curl"
    headers = dict(words[i + 1].split(": ") for i, word in enumerate(words) if word == "-H")
    answer = httpx.post(words[1], headers=headers, content=words[words.index("-d") + 1].encode(), timeout=30).json()
    order = [result["index"] for result in answer["results"]]
    given = ["it's 'one' \\ \\n", *DOCUMENTS]
    assert [given[index] for index in order] == texts_of(page)
    page.get_by_role("tab", name="Python").click()
    script = tmp_path / "sample.py"
    script.write_text(page.locator("#sample pre").text_content() or "")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=60)
    assert [int(line.split()[0]) for line in done.stdout.splitlines()] == order
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Settings screens")).to_be_focused()
    expect(page.locator("#sample")).to_contain_text(f"{server.url}/v1/rerank")


def test_errors_of_the_server_are_told(page: Page, server: Server) -> None:
    go(page, server)
    page.get_by_label("Query").fill("x" * 40_000)
    page.get_by_label("Documents", exact=True).fill("a")
    page.get_by_role("button", name="Rank", exact=True).click()
    expect(page.locator("#wrong")).to_contain_text("max_query_characters")
    page.route("**/v1/rerank", lambda route: route.abort())
    page.get_by_role("button", name="Rank", exact=True).click()
    expect(page.locator("#wrong")).to_contain_text("The server does not respond")


# ---- everyone ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_axe_finds_nothing_serious(opened: Browser, learning: Server, scheme: Any, width: int) -> None:
    context = opened.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    page.add_init_script("sessionStorage.setItem('key', 'secret')")
    go(page, learning)
    found = [Axe().run(page)]
    rank(page, QUERY, [*DOCUMENTS, "The wing stalls and falls. " * 200])
    page.locator("li.document").first.get_by_role("button", name="Which words mattered?").click()
    expect(page.locator(".why").first).to_contain_text("Raw score")
    for tab in ("Python", "Settings screens", "curl"):
        page.get_by_role("tab", name=tab).click()
        found.append(Axe().run(page))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("link", name="What it learns").click()
    expect(page.locator(".decision")).to_be_visible()
    found.append(Axe().run(page))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("button", name=re.compile("Roll back to")).click()
    found.append(Axe().run(page))
    context.close()
    told = [
        (one["id"], one["impact"], [node["target"] for node in one["nodes"]][:3])
        for results in found
        for one in results.response["violations"]
    ]
    assert all(results.response["passes"] for results in found)
    assert told == []
