"""``crossrank doctor URL``: which products would work with a rerank server, and why the others would not."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import NoReturn

from crossrank.cli.options import Parser, positive
from crossrank.cli.terminal import BOLD, GREEN, RED, aligned, for_eyes, styled, to_json
from crossrank.errors import CrossRankError, InputError, did_you_mean
from crossrank.progress import progress_of
from crossrank.server.client_bodies import CLIENTS, MODEL, Client, Step, UnusableError

DESCRIPTION = """\
Check which search and RAG products work with a rerank server: send the requests
that they send, and read the answers as they do. It can be any server, not only
'crossrank serve'."""
EPILOG = f"""\
output:
  For each product, the URL to enter in its settings, or the reason why it would
  not work. With --json, one object. All {len(CLIENTS)} known products are checked, one
  request at a time, with three short texts each.

examples:
  crossrank doctor http://127.0.0.1:7997
  crossrank doctor https://rerank.example.org --key "$KEY" --json
  crossrank doctor http://127.0.0.1:8080 --product "Open WebUI"

exit codes:
  0 every product that was checked would work; 3 at least one would not;
  1 the server can't be reached
"""
KEY_VARIABLE = "CROSSRANK_API_KEY"
NOT_ALL_WORK = 3
_MOST_BYTES = 10_000_000
_TIMEOUT = 30


@dataclass(frozen=True)
class Finding:
    """What became of one product.

    :param url: What to enter in its settings.
    :param reason: Why it would not work; empty if it would.
    """

    product: str
    url: str
    reason: str

    @property
    def works(self) -> bool:
        """Whether it would."""
        return not self.reason


def add_options(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument("url", metavar="URL", help="the server's address, such as http://127.0.0.1:7997")
    parser.add_argument("--key", metavar="KEY", help=f"the server's API key (default: the variable {KEY_VARIABLE})")
    parser.add_argument("--model", metavar="NAME", default=MODEL, help="the model's name on the server")
    parser.add_argument("--product", metavar="NAME", action="append", help="check only this product; can be repeated")
    parser.add_argument(
        "--timeout",
        type=positive,
        metavar="SECONDS",
        default=_TIMEOUT,
        help=f"time for each answer (default: {_TIMEOUT})",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def execute(args: argparse.Namespace) -> int:
    """Run the command."""
    clients = _chosen(args.product)
    server = Server(_base(args.url), args.key or os.environ.get(KEY_VARIABLE), args.model, args.timeout)
    findings = []
    with progress_of(len(clients), None, unit="product") as advance:
        for client in clients:
            findings.append(Finding(client.product, server.url + client.setting, server.try_client(client)))
            advance(1)
    if args.json:
        works = [{**asdict(finding), "works": finding.works} for finding in findings]
        print(to_json({"url": server.url, "products": works}))
    else:
        _write(server.url, findings)
    return 0 if all(finding.works for finding in findings) else NOT_ALL_WORK


def _chosen(names: list[str] | None) -> list[Client]:
    known = {client.product.casefold(): client for client in CLIENTS}
    for name in names or ():
        if name.casefold() not in known:
            products = [client.product for client in CLIENTS]
            raise InputError(
                f"There is no product {name!r}.{did_you_mean(name, products)} Products are: {'; '.join(products)}."
            )
    return [known[name.casefold()] for name in dict.fromkeys(names)] if names else list(CLIENTS)


def _base(url: str) -> str:
    """Take a path to rerank off, as settings have it: products add their own.

    :raises InputError: If it is no URL.
    """
    given = url if "://" in url else f"http://{url}"
    parts = urllib.parse.urlsplit(given)
    try:
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid or given.split() != [given]:
        raise InputError(f"{url!r} is not the URL of a server. Give one such as http://127.0.0.1:7997.")
    path = re.sub(r"(/(api|v1|v2))?(/rerank)?/*$", "", parts.path)
    return f"{parts.scheme}://{parts.netloc}{path}"


# ---- asking ------------------------------------------------------------------------------------------------------


@dataclass
class Server:
    """A server and what it answered so far: products that send the same are asked for once.

    :param url: Without a slash at the end.
    :param model: The model's name in bodies.
    :param timeout: Seconds for each answer.
    """

    url: str
    key: str | None
    model: str
    timeout: float
    _answers: dict[str, bytes | UnusableError] = field(default_factory=dict)

    def try_client(self, client: Client) -> str:
        """Make a product's requests.

        :returns: Why it would not work, or nothing.
        :raises CrossRankError: If the server can't be reached.
        """
        authorization = (
            {} if self.key is None else {"Authorization": f"{'' if client.bare_key else 'Bearer '}{self.key}"}
        )
        for step in client.steps:
            path = step.path.replace(MODEL, self.model)
            try:
                answer = self._ask(path, self._body(step), authorization)
                step.check(json.loads(answer, parse_constant=_no_number))
            except UnusableError as error:
                return f"{'GET' if step.body is None else 'POST'} {path}: {error}"
            except (ValueError, RecursionError) as error:
                return f"{'GET' if step.body is None else 'POST'} {path}: the answer is not JSON: {error}"
        return ""

    def _body(self, step: Step) -> bytes | None:
        if step.body is None:
            return None
        named = {"model": self.model} if step.body.get("model") == MODEL else {}
        return json.dumps({**step.body, **named}).encode()

    def _ask(self, path: str, body: bytes | None, headers: Mapping[str, str]) -> bytes:
        asked = f"{path} {headers} {body!r}"
        if asked not in self._answers:
            try:
                self._answers[asked] = self._send(path, body, headers)
            except UnusableError as error:
                self._answers[asked] = error
        answer = self._answers[asked]
        if isinstance(answer, UnusableError):
            raise answer
        return answer

    def _send(self, path: str, body: bytes | None, headers: Mapping[str, str]) -> bytes:
        """Send one request.

        :raises UnusableError: If its answer is an error, or none.
        :raises CrossRankError: If there is no server.
        """
        request = urllib.request.Request(
            self.url + urllib.parse.quote(path, safe="/:"), body, {"Content-Type": "application/json", **headers}
        )
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:
                answer: bytes = response.read(_MOST_BYTES + 1)
        except urllib.error.HTTPError as error:
            with error:
                raise UnusableError(_refusal(error, self.key)) from error
        except TimeoutError as error:
            raise UnusableError(f"no answer within {self.timeout} s (--timeout)") from error
        except urllib.error.URLError as error:
            raise CrossRankError(
                f"{self.url} can't be reached: {error.reason}. Is the server running, and the address right?"
            ) from error
        except (http.client.HTTPException, OSError) as error:
            raise UnusableError(f"the server broke off: {type(error).__name__}: {error}") from error
        if len(answer) > _MOST_BYTES:
            raise UnusableError(f"the answer is longer than {_MOST_BYTES} bytes")
        return answer


def _refusal(error: urllib.error.HTTPError, key: str | None) -> str:
    """Say a status, and what the server says about it."""
    try:
        said = error.read(_MOST_BYTES).decode("utf-8", "replace")
    except (http.client.HTTPException, OSError):
        said = ""
    try:
        answer = json.loads(said)
        found = next((answer[name] for name in ("message", "detail", "error") if answer.get(name)), said)
        said = found.get("message", said) if isinstance(found, dict) else found
    except (ValueError, AttributeError, RecursionError):
        pass
    words = " ".join(str(said).split())[:200]
    hint = f" Give the key with --key or in {KEY_VARIABLE}." if error.code in (401, 403) and key is None else ""
    return f"{error.code} {error.reason}{': ' if words else ''}{words}{hint}"


def _no_number(name: str) -> NoReturn:
    raise UnusableError(f"the answer has {name}, which is not JSON")


# ---- writing -----------------------------------------------------------------------------------------------------


def _write(url: str, findings: list[Finding]) -> None:
    work = [finding for finding in findings if finding.works]
    rest = [finding for finding in findings if not finding.works]
    print(styled(f"{len(work)} of {len(findings)} products would work with {for_eyes(url)}", BOLD, sys.stdout))
    if work:
        print(f"\n{styled('work, with this URL in their settings:', GREEN, sys.stdout)}")
        print("\n".join(aligned([(f"  {finding.product}", finding.url) for finding in work])))
    if rest:
        print(f"\n{styled('would not work:', RED, sys.stdout)}")
        print("\n".join(aligned([(f"  {finding.product}", for_eyes(finding.reason)) for finding in rest])))
