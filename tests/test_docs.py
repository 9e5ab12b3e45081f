"""What the documents say is so: their Python runs, their commands run or parse, their links and tables hold.

A block of commands or Python carries a comment that says how it is tested. `doc-test: in order`: it is run, after the
blocks above it, in a folder with a clip and a run's metrics. `doc-test: parse`: it takes long or needs a cluster, so
each command is checked against what it calls: make's targets, options of command lines, extras, pinned versions.
`doc-test: served`: it is run in such a folder, against a server of its own instead of the one on port 8000.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest
import typer

from anymodal import cli as command_line
from anymodal.config import BundleSpec

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- doc-test: (?P<mode>[a-z ]+) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```", re.S | re.M)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def blocks(document: Path) -> list[re.Match]:
    return [b for b in BLOCK.finditer(document.read_text(encoding="utf-8")) if b["kind"] in ("bash", "python")]


def commands(text: str) -> list[list[str]]:
    return [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines() if line.strip()]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    from anymodal.playground.files import render_clips

    return render_clips(tmp_path_factory.mktemp("docs"), split="demo", seed=1, count=1, seconds=4)[0]


@pytest.fixture
def folder(clip, tmp_path, monkeypatch) -> Path:
    """Where a document's blocks run: what they take for granted is there."""
    for found in clip.parent.iterdir():
        (tmp_path / found.name.replace(clip.stem, "clip")).write_bytes(found.read_bytes())
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    row = {"stage": "frames", "step": 20, "steps": 40, "time": 1.0, "steps_per_s": 2.0, "eta_s": 10, "loss": 3.0}
    (tmp_path / "runs" / "tiny" / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_every_block_says_how_it_is_tested(document):
    unmarked = [b["text"].splitlines()[0] for b in blocks(document) if b["mode"] not in ("in order", "parse", "served")]
    assert unmarked == []


@pytest.mark.timeout(900)  # real commands, one after the other
@pytest.mark.parametrize("document", [d for d in DOCUMENTS if any(b["mode"] == "in order" for b in blocks(d))],
                         ids=lambda d: d.name)
def test_blocks_run_in_order(document, folder, capfd):
    for block in blocks(document):
        if block["mode"] != "in order":
            continue
        if block["kind"] == "python":
            exec(compile(block["text"], document.name, "exec"), {"__name__": "__main__"})  # our own documents
            continue
        for command in commands(block["text"]):
            assert command[0] == "anymodal", f"{document.name}: only anymodal's commands are run, not {command}"
            code = command_line.run(command[1:])
            assert code == 0, (command, capfd.readouterr().err)


def test_what_the_readme_asks_is_answered(tmp_path):
    """Not with a refusal, and not with nothing."""
    from anymodal.agent import load
    from anymodal.playground.files import render_clips

    clip = render_clips(tmp_path, split="test", seed=7, count=1, seconds=8)[0]
    asked = [words[3:] for block in blocks(ROOT / "README.md") if block["kind"] == "bash" and block["mode"] == "in order"
             for words in commands(block["text"]) if words[:2] == ["anymodal", "ask"] and words[2] != "-"]
    questions = [w for words in asked for w in words if " " in w]
    assert len(questions) >= 4
    for answer in load("tiny").ask(clip, [*questions, "what happened?", "what can you see?"]):
        assert answer.text and not answer.text.startswith(("that is outside", "i cannot tell")), answer


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The default model, served."""
    from actors.gateway.hosts import LocalHost
    from actors.gateway.settings import Settings
    from actors.gateway.testing import serving

    settings = Settings(port=0, state=tmp_path_factory.mktemp("served"))
    with serving(LocalHost(folder=settings.sessions), settings) as running:
        yield running


@pytest.mark.timeout(900)
@pytest.mark.parametrize("document", [d for d in DOCUMENTS if any(b["mode"] == "served" for b in blocks(d))],
                         ids=lambda d: d.name)
def test_blocks_run_against_a_server(document, folder, served):
    for block in blocks(document):
        if block["mode"] == "served":
            text = block["text"].replace("127.0.0.1:8000", f"127.0.0.1:{served.port}")
            exec(compile(text, document.name, "exec"), {"__name__": "__main__"})  # our own documents


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if any(b["mode"] == "parse" for b in blocks(d))],
                         ids=lambda d: d.name)
def test_commands_call_what_is_there(document):
    for block in blocks(document):
        if block["mode"] == "parse":
            for command in commands(block["text"]):
                check(command)


def check(command: list[str]) -> None:
    """Fail unless the command calls targets, options, extras or versions that exist."""
    checks = {"make": check_make, "anymodal": check_anymodal, "pip": check_pip, "ray": check_ray,
              "python": check_python, "export": lambda words: None}
    assert command[0] in checks, f"no check for {command}"
    checks[command[0]](command[1:])


def check_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in words:
        name, equals, _ = word.partition("=")
        assert re.search(rf"\$\({name}\)" if equals else rf"^{name}:", makefile, re.M), f"make {word}"


def check_anymodal(words: list[str]) -> None:
    if words[0] in ("job", "serve"):
        points = {point.name: point for point in command_line.entry_points(group=command_line.GROUP)}
        check_python(["-m", points[words[0]].module, *words[1:]])
        return
    group = typer.main.get_command(command_line.app)
    with group.make_context("anymodal", [words[0]], resilient_parsing=True) as parent:
        group.get_command(parent, words[0]).make_context(words[0], words[1:], parent=parent)


def check_pip(words: list[str]) -> None:
    pins = (ROOT / "constraints.txt").read_text()
    assert words[0] == "install"
    for word in words[1:]:
        extra = re.fullmatch(r"anymodal(\[(\w+)\])?", word)
        if extra and extra[2]:
            assert extra[2] in PROJECT["optional-dependencies"], word
        elif "==" in word:
            assert f"\n{word}\n" in pins, f"{word} is not what constraints.txt pins"
        elif word.endswith(".txt"):
            assert (ROOT / word).is_file()
        else:
            assert extra or word.startswith("-") or word == "INDEX", word


def check_ray(words: list[str]) -> None:
    from ray.scripts.scripts import cli as ray

    rest: list[str] = []
    if "--" in words:
        at = words.index("--")
        words, rest = words[:at], words[at + 1:]
    words = words[: words.index(">")] if ">" in words else words
    group = ray
    while words and not words[0].startswith("-") and hasattr(group, "commands"):
        group, words = group.commands[words[0]], words[1:]
    group.make_context("ray", [*words, "--", *rest] if rest else words)
    if rest:
        check(rest)


def check_python(words: list[str]) -> None:
    assert words[0] == "-m" and importlib.util.find_spec(words[1]), words
    told = help_of(words[1])
    for option in words[2:]:
        if option.startswith("--"):
            assert re.search(rf"{option}\b", told), f"{words[1]} has no {option}"


@cache
def help_of(module: str) -> str:
    done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("wrong", [
    ["make", "demmo"], ["make", "demo", "PIP_ARG=x"], ["pip", "install", "anymodal[runn]"],
    ["pip", "install", "torch==1.0"], ["ray", "job", "sumbit"], ["ray", "start", "--heads"], ["anymodal", "doctr"],
    ["anymodal", "ask", "a", "b", "--att", "1"], ["anymodal", "serve", "--prot", "1"],
    ["python", "-m", "nowhere_at_all"], ["rm", "-rf", "x"],
], ids=" ".join)
def test_the_checks_find_what_is_wrong(wrong):
    with pytest.raises(Exception):  # noqa: B017  (each tool has an exception of its own)
        check(wrong)


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "CHANGELOG.md"], ids=lambda d: d.name)
def test_links_lead_somewhere(document):
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name) if name else document
        assert path.exists(), f"{document.name} links to {target}"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
            slugs = {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}
            assert anchor in slugs, f"{document.name} links to {target}"


def table(document: str, heading: str) -> set[str]:
    """What stands in the first column of the first table under a heading, `,`-separated names split up."""
    text = (ROOT / document).read_text(encoding="utf-8")
    part = text.split(f"{heading}\n", 1)[1]
    rows = re.search(r"^\|.*\n\|[-| ]+\n((?:\|.*\n)+)", part, re.M)[1]
    return {name.strip(" `") for row in rows.splitlines() for name in row.split("|")[1].split(",")}


def test_the_table_of_exit_codes_is_that_of_the_errors():
    from anymodal import errors

    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.AnymodalError)]
    known = {str(k.exit_code) for k in kinds} | {"0", str(command_line.INTERRUPTED)}
    assert table("docs/usage.md", "## Exit codes") == known


def test_the_table_of_a_bundles_keys_is_whole():
    assert table("docs/bundles.md", "# Bundles: a model is a YAML") == set(BundleSpec.model_fields)


def test_the_table_of_training_stages_is_that_of_tiny():
    from anymodal.config import load_spec
    from anymodal.training.recipe import plans

    spec, _ = load_spec("tiny")
    assert {plan.name.split("-")[0] for plan in plans(spec)} == table("docs/training.md", "## The recipe")


def test_the_keys_of_a_stage_are_named():
    from anymodal.training.loop import StagePlan

    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert [f.name for f in fields(StagePlan) if f"`{f.name}`" not in text] == []


def test_every_option_of_ask_is_documented():
    group = typer.main.get_command(command_line.app)
    options = {o for p in group.commands["ask"].params for o in p.opts if o.startswith("--")} - {"--help"}
    text = (ROOT / "docs" / "usage.md").read_text(encoding="utf-8")
    assert [o for o in sorted(options) if f"`{o}" not in text] == []


def test_the_example_line_has_the_keys_of_a_real_one(folder, capfd):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    example = json.loads(re.search(r"^```json\n(.*?)^```", text, re.S | re.M)[1])
    assert command_line.run(["ask", "clip.mp4", "how did the camera move?", "--json"]) == 0
    assert list(json.loads(capfd.readouterr().out)) == list(example)
