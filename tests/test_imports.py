"""The three packages import in one direction, and the light install stays light."""

import ast
import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from anymodal.errors import ConfigError
from anymodal.shadow import check_not_shadowed

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "ray", "av", "decord", "transformers", "tokenizers", "safetensors", "pyarrow", "matplotlib", "PIL",
         "encoders", "actors")
FORBIDDEN = {
    "encoders": {"anymodal", "actors", "ray"},
    "anymodal": {"actors", "ray"},
    "actors": set(),
}


def parsed(path: Path) -> ast.Module:
    """Without collecting garbage meanwhile: a finalizer within `ast.parse` makes CPython 3.11 raise SystemError."""
    gc.disable()
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    finally:
        gc.enable()


def imported(path: Path) -> set[str]:
    """Top-level names of the modules that a file imports anywhere in it, by statement or by importlib."""
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module or "")
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__", "need") and isinstance(node.args[0].value, str):
                found.add(node.args[0].value)
    return {name.split(".")[0] for name in found}


def files_of(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def test_the_reader_of_imports_sees_every_kind(tmp_path):
    source = ("import ray.data\nfrom actors import job\ndef f():\n    import torch as t\n    need('av', extra='run')\n"
              "    importlib.import_module('decord.x')\n")
    (tmp_path / "m.py").write_text(source)
    assert imported(tmp_path / "m.py") == {"ray", "actors", "torch", "av", "decord"}


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_no_package_imports_upward(package):
    files = files_of(package)
    assert files, f"no files in {package}"
    wrong = {str(f.relative_to(ROOT)): sorted(imported(f) & FORBIDDEN[package]) for f in files}
    assert {f: names for f, names in wrong.items() if names} == {}


def test_nothing_is_star_imported():
    stars = [f"{file.relative_to(ROOT)}:{node.lineno}" for package in FORBIDDEN for file in files_of(package)
             for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
             if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)]
    assert stars == []


def run_python(code: str, cwd: Path, *args: str) -> subprocess.CompletedProcess:
    """Python with `cwd` first on its path, as a user's script there has it."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(cwd), str(ROOT)])}
    return subprocess.run([sys.executable, "-c", code, *args], cwd=cwd, env=env, capture_output=True, text=True,
                          timeout=300)


LIGHT = ("anymodal", "anymodal.client", "anymodal.protocol", "anymodal.types", "anymodal.errors", "anymodal.config",
         "anymodal.cli", "anymodal.doctor", "anymodal.shadow", "anymodal.media", "anymodal.media.spec",
         "anymodal.media.sidecar")


def test_the_light_modules_import_nothing_heavy(tmp_path):
    code = (f"import importlib, sys\nfor m in {LIGHT!r}: importlib.import_module(m)\n"
            f"print(sorted(m for m in {HEAVY!r} if m in sys.modules))")
    done = run_python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.fixture
def with_own_modules(tmp_path):
    """A user's folder with modules called `encoders` and `actors`."""
    (tmp_path / "encoders.py").write_text("mine = 1\n")
    (tmp_path / "actors").mkdir()
    (tmp_path / "actors" / "__init__.py").write_text("mine = 2\n")
    return tmp_path


def test_a_users_own_modules_of_our_names_do_not_disturb_the_light_install(with_own_modules):
    code = "import anymodal.cli, anymodal.config, actors, encoders; print(encoders.mine, actors.mine)"
    done = run_python(code, with_own_modules)
    assert (done.stdout.strip(), done.stderr) == ("1 2", "")


def test_the_runtime_says_at_once_that_our_packages_are_shadowed(with_own_modules):
    code = ("from anymodal.config import build_part, load_spec\n"
            "from anymodal.errors import ConfigError\n"
            "spec, _ = load_spec('tiny')\n"
            "try: build_part(spec.modalities['video'].encoder)\n"
            "except ConfigError as error: print(error)")
    done = run_python(code, with_own_modules)
    assert "module 'encoders' is" in done.stdout and "encoders.py, not the one that came with" in done.stdout, done
    assert "rename it" in done.stdout


def test_the_command_line_says_that_a_users_actors_stands_before_ours(with_own_modules):
    code = "import sys; from anymodal.cli import run; sys.exit(run(['job', '--help']))"
    done = run_python(code, with_own_modules)
    assert done.returncode == ConfigError.exit_code
    assert done.stderr.startswith("error: module 'encoders' is") and len(done.stderr.splitlines()) == 1


def test_our_own_packages_are_not_taken_for_shadows():
    check_not_shadowed()


def test_a_package_that_was_imported_from_elsewhere_is_found_out(with_own_modules):
    code = ("import actors, sys; sys.path.remove(sys.path[0])\nfrom anymodal.shadow import check_not_shadowed\n"
            "from anymodal.errors import ConfigError\n"
            "try: check_not_shadowed('actors')\nexcept ConfigError as error: print(error)")
    assert "module 'actors' is" in run_python(code, with_own_modules).stdout


def test_exported_names_are_there():
    import anymodal

    for name in anymodal.__all__:
        if name not in ("Agent", "load"):  # these need torch; the CLI's tests use them
            assert getattr(anymodal, name)
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        anymodal.nope  # noqa: B018
