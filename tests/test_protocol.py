"""The wire: each event as its golden file has it, and docs/protocol.md telling of all of them, and of each error's code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from anymodal import protocol as p

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "tests/golden/realtime").glob("*.json"))}
PAGE = (ROOT / "docs" / "protocol.md").read_text()


def kinds(union) -> set[str]:
    return {kind.model_fields["type"].annotation.__args__[0] for kind in union.__origin__.__args__}


CLIENT, SERVER = kinds(p.ClientEvent), kinds(p.ServerEvent)


def test_each_event_has_a_golden_file():
    assert set(GOLDEN) == CLIENT | SERVER and not CLIENT & SERVER


@pytest.mark.parametrize("kind", sorted(GOLDEN))
def test_an_event_on_the_wire_stays_as_it_is(kind):
    """A client of today has to understand a server of tomorrow, and the other way round."""
    events = p.client_events if kind in CLIENT else p.server_events
    found = events.validate_json(json.dumps(GOLDEN[kind]))
    assert json.loads(found.model_dump_json(exclude_unset=True)) == GOLDEN[kind]
    assert events.validate_json(json.dumps({**GOLDEN[kind], "of tomorrow": 1})) == found


def test_the_page_shows_every_event_once_on_its_side():
    _, client, server = re.split(r"^## What (?:a client|the server) sends\n", PAGE, flags=re.M)
    assert sorted(re.findall(r"^### `(.*)`$", client, re.M)) == sorted(CLIENT)
    assert sorted(re.findall(r"^### `(.*)`$", server, re.M)) == sorted(SERVER)


def test_the_pages_examples_are_the_golden_files():
    shown = {json.loads(text)["type"]: json.loads(text) for text in re.findall(r"^```json\n(.*?)^```", PAGE, re.S | re.M)}
    assert shown == GOLDEN


def test_the_page_names_the_codes_of_errors():
    live = ("answers", "auth", "conversation", "dispatch", "hearing", "inbox", "inputs", "limits", "lives", "pictures",
            "realtime", "streams")
    text = "".join((ROOT / "actors" / "gateway" / f"{name}.py").read_text() for name in live)
    codes = set(re.findall(r'Fault\(\d+, "([a-z_]*[a-z])"', text)) - {"host_not_allowed", "origin_not_allowed"}
    assert len(codes) > 30 and [code for code in sorted(codes) if f"`{code}`" not in PAGE] == []


def test_it_needs_no_torch_and_no_server():
    code = "import sys, anymodal.protocol; print(sorted({'torch', 'ray', 'av', 'fastapi', 'encoders'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.stdout.strip() == "[]"
