"""The doctor: what it finds, what it says of what is missing, and its exit code."""

import json
import socket
import tomllib
from pathlib import Path

from anymodal.doctor import Check, examine, extras_checks


def test_doctor_finds_what_the_core_path_needs(cli, random_model):
    ran = cli("doctor", "--json", "--model", random_model)
    checks = {c["name"]: c for c in json.loads(ran.out)}
    assert ran.code == 0
    for name in ("Python", "torch", "FFmpeg (PyAV)", "decode h264", "decode aac", f"model {str(random_model)!r}"):
        assert checks[name]["ok"] and checks[name]["core"], name
    assert {"cameras", "microphones", "GPU", "Ray", "Ray cluster", "decord"} <= set(checks)
    assert all(c["ok"] or c["fix"] for c in checks.values()), "everything missing names what mends it"


def test_doctor_tells_of_every_extra():
    declared = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    checks = {check.name: check for check in extras_checks()}
    assert set(checks) == {f"extra {name}" for name in declared["optional-dependencies"]}
    assert checks["extra run"].ok
    for check in checks.values():
        assert check.ok or check.found.startswith("missing: ")
        assert check.fix == f"pip install 'anymodal[{check.name.removeprefix('extra ')}]'"


def test_doctor_fails_where_the_model_is_missing_and_says_how_to_mend_it(cli, own_bundle):
    path, _, weights = own_bundle
    (weights / "perception.safetensors").unlink()
    ran = cli("doctor", "--model", path, "--json")
    missing = [c for c in json.loads(ran.out) if c["core"] and not c["ok"]]
    assert ran.code == 1 and len(missing) == 1
    assert "has no weights" in missing[0]["found"] and "anymodal train" in missing[0]["fix"]


def test_doctor_prints_the_extras_brackets(cli, random_model, monkeypatch):
    monkeypatch.setattr("anymodal.doctor.examine", lambda model: [
        Check("torch", False, "cannot be imported", "pip install 'anymodal[run]'", core=True)])
    ran = cli("doctor", "--model", random_model)
    assert ran.code == 1 and "missing" in ran.out and "pip install 'anymodal[run]'" in ran.out


def test_doctor_sees_a_cluster_only_where_something_listens(monkeypatch, tmp_path, random_model):
    def found() -> Check:
        return next(c for c in examine(str(random_model)) if c.name == "Ray cluster")

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
        assert found().ok and str(port) in found().found
    assert not found().ok
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert not found().ok
