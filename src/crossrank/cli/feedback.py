"""``crossrank feedback stats|list|export|delete``: what a server has collected."""

from __future__ import annotations

import argparse
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossrank.cli.options import Parser, positive
from crossrank.cli.output_files import check_output
from crossrank.cli.terminal import aligned, cut, for_eyes, to_json
from crossrank.errors import InputError

if TYPE_CHECKING:
    from crossrank.feedback.store import Judged, Store

DESCRIPTION = """\
Look at the feedback that 'crossrank serve --feedback' collects, write it to
files, or delete it. Needs the extra 'feedback'."""
EPILOG = """\
values of --form:
  rankings    one ranking with its judgements per line (default)
  pairs       query, document, label
  triplets    query, positive, negative
  collection  a folder for 'crossrank evaluate': BEIR's layout, and qrels and
              run in TREC's format
The name of an output file must end in .jsonl or .parquet.

examples:
  crossrank feedback stats --store sqlite:///feedback.db
  crossrank feedback list --store sqlite:///feedback.db --limit 5
  crossrank feedback export --store sqlite:///feedback.db -o feedback.jsonl
  crossrank feedback delete --store sqlite:///feedback.db --user u-17

'delete --user' deletes a user's feedback. The ranking that was shown stays
until you delete it by its request id. Exported files, backups of the database
and models trained on the feedback stay as they are.
"""


def add_options(parser: Parser) -> None:
    """Add the command's options."""
    actions = ("stats", "list", "export", "delete")
    parser.add_argument("action", metavar="ACTION", choices=actions, help="stats, list, export or delete")
    parser.add_argument("--store", metavar="URL", required=True, help="sqlite:///feedback.db or postgresql://HOST/NAME")
    parser.add_argument(
        "--limit",
        type=positive,
        default=20,
        metavar="N",
        help="for list: how many of the newest rankings (default: 20)",
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="for export: the file, or the folder for a collection")
    parser.add_argument(
        "--form",
        metavar="FORM",
        choices=("rankings", "pairs", "triplets", "collection"),
        default="rankings",
        help="for export: rankings, pairs, triplets or collection (default: rankings)",
    )
    parser.add_argument("--request-id", metavar="ID", help="for delete: this ranking and the feedback on it")
    parser.add_argument("--user", metavar="KEY", help="for delete: all feedback of this user")
    parser.add_argument("--older-than", type=positive, metavar="DAYS", help="for delete: all rankings older than this")
    parser.add_argument("--json", action="store_true", help="print one JSON object (list: one per line)")


def execute(args: argparse.Namespace) -> int:
    """Run the command."""
    from crossrank.feedback.store import Store

    actions = {"stats": _stats, "list": _list, "export": _export, "delete": _delete}
    store = Store(args.store, make=False, read_only=args.action != "delete")
    actions[args.action](store, args)
    return 0


def _stats(store: Store, args: argparse.Namespace) -> None:
    from crossrank.feedback.summary import summary

    found = summary(store)
    if args.json:
        print(to_json(found))
        return
    judged = ", ".join(f"{count} {name}" for name, count in found["signals"].items() if count)
    print(f"{found['rankings']} rankings, {found['bytes'] / 1e6:.1f} MB of texts, from {_when(found['oldest'])}")
    if found["with_texts"] < found["rankings"]:
        print(f"{found['rankings'] - found['with_texts']} of them without texts")
    print(f"{found['judgements']} judgements by {found['users']} named users{': ' if judged else ''}{judged}")
    rows = [("model and version", "judgements", "clicked the first", "votes up")]
    for name, counts in found["versions"].items():
        clicks = f"{counts['clicked_first']} of {counts['with_known_clicks']}" if "with_known_clicks" in counts else ""
        votes = f"{counts['votes_up']} of {counts['votes']}" if counts.get("votes") else ""
        rows.append((for_eyes(name), str(counts["judgements"]), clicks, votes))
    if len(rows) > 1:
        print("\n".join(["", *aligned(rows, right=(1,))]))
    _print_propensities(found["propensities"])


def _print_propensities(found: dict[str, Any]) -> None:
    print()
    if found["eta"] is None:
        print("Where users look is not known: there is no click in a shuffled ranking (serve --shuffle-top 5).")
        return
    eta = found["eta"]
    print(f"Where users look, from {found['clicks']} clicks in {found['rankings']} shuffled rankings (95 % intervals):")
    for place, one in enumerate(found["places"], start=1):
        print(f"  place {place}: {one['value']:.2f} of the first ({one['low']:.2f} to {one['high']:.2f})")
    print(f"  one in k ** {eta['value']:.2f} looks at place k ({eta['low']:.2f} to {eta['high']:.2f})")
    use = "'crossrank learn --feedback' uses this" if found["enough"] else "'crossrank learn' uses --click-bias"
    print(f"  {use}: it takes 100 clicks and an interval of at most 0.5.")


def _list(store: Store, args: argparse.Namespace) -> None:
    found = list(store.judged(all_rankings=True, newest=args.limit))
    if args.json:
        for one in found:
            print(to_json(_as_dict(one)))
        return
    for one in found:
        query = for_eyes(one.ranking.query) if one.ranking.has_texts else "(no texts)"
        said = f"{len(one.judgements)} judgements" if len(one.judgements) != 1 else "1 judgement"
        print(f"{_when(one.ranking.time)}  {for_eyes(one.ranking.request_id)}  {said}  {cut(query, 60)}")
        for judgement in one.judgements:
            signals = {name: value for name, value in _judgement(judgement).items() if value is not None}
            print(f"    {to_json(signals)}")


def _as_dict(one: Judged) -> dict[str, Any]:
    names = ("request_id", "time", "model", "model_version", "dialect", "query", "documents", "shown", "scores")
    ranking = {name: getattr(one.ranking, name) for name in (*names, "shuffled")}
    return {**ranking, "judgements": [_judgement(each) for each in one.judgements]}


def _judgement(row: Any) -> dict[str, Any]:
    names = {"user_key": "user", "preferred": "order"}
    fields = ("time", "user_key", "clicked", "helpful", "stars", "preferred", "missing", "comment")
    return {names.get(name, name): getattr(row, name) for name in fields}


def _export(store: Store, args: argparse.Namespace) -> None:
    from crossrank.feedback.export import COLLECTION, export_collection, export_file

    if args.output is None:
        raise InputError("export needs a file to write. Give -o FILE.")
    path = Path(args.output)
    if args.form == COLLECTION:
        rows = export_collection(store.judged(), path)
    else:
        check_output(path, [store.file] if store.file is not None else [])
        rows = export_file(store.judged(), path, args.form)
    if args.json:
        print(to_json({"output": args.output, "form": args.form, "rows": rows}))
    else:
        print(f"{rows} {'queries' if args.form == COLLECTION else args.form} in {args.output}")


def _delete(store: Store, args: argparse.Namespace) -> None:
    if args.request_id is None and args.user is None and args.older_than is None:
        raise InputError("delete needs to know what. Give --request-id ID, --user KEY or --older-than DAYS.")
    before = None if args.older_than is None else time.time() - args.older_than * 86_400
    rankings, judgements = store.delete(request_id=args.request_id, user=args.user, before=before)
    if args.json:
        print(to_json({"rankings": rankings, "judgements": judgements}))
    else:
        print(f"deleted: {rankings} rankings, {judgements} judgements. Exports and backups are not changed.")


def _when(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
