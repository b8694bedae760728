"""`initscope token create|list|revoke`: who may send and read."""

from __future__ import annotations

import argparse
import json
from typing import Any

from initscope.service.cli.options import add_database, opened, to_settings
from initscope.service.store import schema, tokens
from initscope.service.store.engine import Database


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the actions and their options."""
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action")
    create = actions.add_parser("create", help="make a token and show it, once")
    create.add_argument("--scope", action="append", choices=tokens.SCOPES, required=True, help="repeat for several")
    create.add_argument("--name", default="", help="what it is for")
    listing = actions.add_parser("list", help="show every token, without its secret")
    listing.add_argument("--json", action="store_true", help="for scripts")
    revoke = actions.add_parser("revoke", help="end a token")
    revoke.add_argument("token_id", help="as `list` shows it")
    for action in (create, listing, revoke):
        add_database(action)


def run(arguments: argparse.Namespace) -> int:
    """0 when done, 1 for an unknown token; a `Complaint` for a database that cannot be used."""
    with opened(to_settings(arguments), create=False) as database:
        schema.ensure(database)
        return {"create": _create, "list": _list, "revoke": _revoke}[arguments.action](database, arguments)


def _create(database: Database, arguments: argparse.Namespace) -> int:
    token = tokens.generate()
    with database.write() as connection:
        tokens.add(connection, token, arguments.scope, arguments.name)
    print(token)
    return 0


def _list(database: Database, arguments: argparse.Namespace) -> int:
    with database.read() as connection:
        found = tokens.list_all(connection)
    rows: list[dict[str, Any]] = [
        {
            "token_id": t.token_id,
            "name": t.name,
            "scopes": t.scopes,
            "created_at": t.created_at.isoformat(),
            "revoked_at": t.revoked_at.isoformat() if t.revoked_at else None,
        }
        for t in found
    ]
    if arguments.json:
        print(json.dumps(rows, indent=2))
    else:
        for row in rows:
            state = "revoked" if row["revoked_at"] else "active"
            print(f"{row['token_id']}  {state:7}  {','.join(row['scopes']):17}  {row['created_at']}  {row['name']}")
    return 0


def _revoke(database: Database, arguments: argparse.Namespace) -> int:
    with database.write() as connection:
        is_done = tokens.revoke(connection, arguments.token_id)
    print("revoked" if is_done else "no active token of that id")
    return 0 if is_done else 1
