"""`anymodal start`, `ps` and `stop`: detached sessions from the command line."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import ray
from ray.exceptions import RayError

from actors.cluster import Cluster
from actors.faults import as_fault
from actors.sessions import STOP_TIMEOUT_S, Sessions, stop_supervisor, supervisors
from anymodal.errors import AnymodalError, SessionError
from anymodal.session.log import Retention

DEFAULT_ADDRESS = "auto"


def start(argv: Sequence[str] | None = None) -> int:
    """Begin a session that goes on by itself, or ask one that is there."""
    parser = _parser("start", start.__doc__)
    parser.add_argument("name", help="the session's name")
    parser.add_argument("media", nargs="?", help="a file, folder or address; without it the session is only asked")
    parser.add_argument("--ask", action="append", default=[], metavar="QUESTION", help="ask it now; repeatable")
    parser.add_argument("--at", type=float, metavar="SECONDS", help="as of this media time")
    parser.add_argument("--wait", action="store_true", help="until all of the media has been seen")
    parser.add_argument("--gate", action="store_true", help="a new session encodes only what changes")
    parser.add_argument("--keep", type=float, metavar="SECONDS", help="a new session's log drops what is older")
    parser.add_argument("--keep-bytes", type=int, metavar="N", help="and what is oldest, where it is larger")
    parser.add_argument("--model", default="tiny", help="a shipped bundle's name, or the path of a YAML")
    parser.add_argument("--folder", type=Path, help="where a new supervisor keeps the logs")
    return _run(_start, parser.parse_args(argv))


def ps(argv: Sequence[str] | None = None) -> int:
    """List the sessions on a cluster."""
    parser = _parser("ps", ps.__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    return _run(_ps, parser.parse_args(argv))


def stop(argv: Sequence[str] | None = None) -> int:
    """End sessions; their logs stay, unless they are forgotten. With the last one end the actors."""
    parser = _parser("stop", stop.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which sessions")
    parser.add_argument("--all", action="store_true", help="all of them")
    parser.add_argument("--forget", action="store_true", help="delete their logs, too")
    options = parser.parse_args(argv)
    if bool(options.names) == options.all:
        parser.error("give names, or --all")
    return _run(_stop, options)


def _parser(name: str, text: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"anymodal {name}", description=text)
    parser.add_argument("--address", default=os.environ.get("RAY_ADDRESS", DEFAULT_ADDRESS),
                        help="a running Ray: auto, HOST:PORT or ray://HOST:PORT (RAY_ADDRESS, else auto)")
    return parser


def _run(command, options: argparse.Namespace) -> int:
    try:
        command(options)
        return 0
    except AnymodalError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _start(options: argparse.Namespace) -> None:
    with Sessions(options.model, options.address, folder=options.folder) as sessions:
        retention = Retention(options.keep, options.keep_bytes)
        session = (sessions.open(options.name, options.media, gate=options.gate, retention=retention) if options.media
                   else sessions.session(options.name))
        if options.wait:
            session.wait()
        for question in options.ask:
            print(json.dumps({"session": options.name, **session.ask(question, at_s=options.at).to_json()},
                             ensure_ascii=False), flush=True)


def _rows() -> list[dict]:
    """The sessions of all supervisors of the cluster."""
    try:
        return [{**row, "actor": name} for name, actor in supervisors().items()
                for row in ray.get(actor.list.remote(), timeout=STOP_TIMEOUT_S)]
    except RayError as error:
        raise as_fault(error, "supervisor") from error


def _ps(options: argparse.Namespace) -> None:
    cluster = Cluster(options.address)
    try:
        rows = _rows()
    finally:
        cluster.close()
    if options.json:
        for row in rows:
            print(json.dumps(row))
        return
    if not rows:
        print("no sessions")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("session", "bundle", "seen", "state")
    for row in rows:
        table.add_row(row["session"], row["bundle"], f"{row['seen_s']:g} s",
                      row["error"] or ("watching" if row["feeding"] else "idle"))
    Console(highlight=False).print(table)


def _stop(options: argparse.Namespace) -> None:
    cluster = Cluster(options.address)
    try:
        rows = _rows()
        wanted = [row for row in rows if options.all or row["session"] in options.names]
        end = "forget" if options.forget else "close"
        missing = set(options.names) - {row["session"] for row in rows}
        for name, actor in supervisors().items():
            mine = [row["session"] for row in wanted if row["actor"] == name]
            for session in mine:
                ray.get(getattr(actor, end).remote(session), timeout=STOP_TIMEOUT_S)
            if len(mine) == sum(row["actor"] == name for row in rows):  # also one without sessions
                stop_supervisor(actor)
        if missing:
            fix = "anymodal ps; the log of a stopped one: anymodal forget LOG" if options.forget else "anymodal ps"
            raise SessionError(f"no session {sorted(missing)[0]!r}", fix=fix)
    except RayError as error:
        raise as_fault(error, "supervisor") from error
    finally:
        cluster.close()
