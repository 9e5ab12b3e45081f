"""The wheel, installed outside the checkout: whole with the extras, and light and clear without them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

from anymodal import __version__

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from the checkout, by hatchling as it is installed here: no network."""
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
                           "--wheel-dir", folder, ROOT], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


def site_packages(python: Path) -> Path:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip())


def install(wheel: Path, folder: Path) -> Path:
    """An empty environment with the wheel alone in it; returns its Python. Dependencies are lent by the callers."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    done = subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps",
                           "--no-index", wheel], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return python


def run(python: Path, *argv: object, cwd: Path, **env: str) -> subprocess.CompletedProcess:
    """The console script of that environment, from a folder with nothing of ours in it."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run([python.parent / "anymodal", *map(str, argv)], cwd=cwd, env={**clean, **env},
                          capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def whole(wheel, tmp_path_factory) -> Path:
    """The wheel with every dependency of this environment, but without this environment's own anymodal."""
    python = install(wheel, tmp_path_factory.mktemp("whole") / "env")
    ours = Path(distribution("torch").locate_file(""))
    (site_packages(python) / "lent.pth").write_text(f"{ours}\n")
    where = subprocess.run([python, "-P", "-c", "import anymodal; print(anymodal.__file__)"], cwd="/",
                           capture_output=True, text=True).stdout
    assert str(python.parent.parent) in where, f"the checkout's anymodal stands before the wheel's: {where}"
    return python


@pytest.fixture(scope="module")
def light(wheel, tmp_path_factory) -> Path:
    """The wheel with its core dependencies and nothing else: links to those that are installed here."""
    python = install(wheel, tmp_path_factory.mktemp("light") / "env")
    target = site_packages(python)
    for name in core_closure():
        for file in distribution(name).files or ():
            top = file.parts[0]
            source = Path(distribution(name).locate_file(top))
            if top not in ("..", "__pycache__") and source.exists() and not (target / top).exists():
                (target / top).symlink_to(source)
    return python


def core_closure() -> set[str]:
    """The core dependencies and what these need, by name."""
    found: set[str] = set()
    left = [re.match(r"[\w-]+", line)[0] for line in PROJECT["dependencies"]]
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        left += [re.match(r"[\w-]+", line)[0] for line in distribution(name).requires or ()
                 if "extra ==" not in line and not re.search(r"python_version\s*<|platform_system|sys_platform", line)]
    return found


def test_the_core_dependencies_are_light():
    closure = {name.lower() for name in core_closure()}
    assert closure & {"torch", "ray", "transformers", "av", "decord", "pyarrow", "pillow", "matplotlib"} == set()
    assert len(closure) < 40


def test_the_wheel_holds_packages_configs_and_weights(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in ("anymodal/agent.py", "anymodal/playground/files.py", "encoders/clip.py", "actors/pipeline.py",
                 "actors/job.py", "anymodal/configs/tiny.yaml", "anymodal/configs/tiny/tokenizer.json",
                 "anymodal/configs/tiny/perception.safetensors", "anymodal/configs/tiny/language.safetensors",
                 "anymodal/web/index.html"):
        assert name in names, name
    assert any(name.endswith("licenses/LICENSE") for name in names)
    stray = {n.split("/")[0] for n in names} - {"anymodal", "encoders", "actors", f"anymodal-{__version__}.dist-info"}
    assert stray == set()


def test_the_weights_are_small_enough_to_ship(wheel):
    infos = zipfile.ZipFile(wheel).infolist()
    weights = sum(i.file_size for i in infos if i.filename.endswith(".safetensors"))
    assert 0 < weights <= 25e6


def test_the_installed_wheel_answers_with_the_shipped_model(whole, tmp_path):
    assert run(whole, "--version", cwd=tmp_path).stdout == f"anymodal {__version__}\n"
    made = run(whole, "playground", "--seed", 7, "--count", 1, "--seconds", 4, "--out", "clips", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    done = run(whole, "ask", "clips/clip-00000.mp4", "what shapes are there?", "what did you hear?", "--json",
               cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 2 and all(row["answer"] and row["windows_seen"] == 4 for row in rows)


def test_the_light_install_imports_and_prints_its_version(light, tmp_path):
    code = "import anymodal, anymodal.config, anymodal.errors, sys; print('torch' in sys.modules)"
    done = subprocess.run([light, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")
    assert run(light, "--version", cwd=tmp_path).stdout == f"anymodal {__version__}\n"
    assert " ask " in run(light, "--help", cwd=tmp_path).stdout


@pytest.mark.parametrize(("argv", "extra"), [
    (["ask", "clip.mp4", "what?"], "run"),
    (["ask", "-", "what?"], "run"),
    (["ask", "-", "what?", "--address", "127.0.0.1:1"], "run"),
    (["playground", "--count", "1"], "run"),
    (["train", "tiny"], "train"),
    (["eval", "tiny", "--count", "1"], "run"),
    (["job", "--input", "rows.jsonl", "--output", "out"], "run"),
    (["serve"], "serve"),
])
def test_a_command_of_the_light_install_names_the_extra_it_needs(light, tmp_path, argv, extra):
    (tmp_path / "rows.jsonl").write_text('{"media": null, "question": "what?"}\n')
    done = run(light, *argv, cwd=tmp_path)
    assert done.returncode == 6, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert f"pip install 'anymodal[{extra}]'" in done.stderr


def test_the_doctor_of_the_light_install_says_what_is_missing(light, tmp_path):
    done = run(light, "doctor", "--json", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    missing = {c["name"]: c["fix"] for c in json.loads(done.stdout) if not c["ok"]}
    for name in ("torch", "FFmpeg (PyAV)", "decord", "Ray", "extra run"):
        assert "pip install 'anymodal[run]'" in missing[name]


def test_pins_cover_every_dependency_that_is_named():
    pins = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    lines = PROJECT["dependencies"] + [x for extra in PROJECT["optional-dependencies"].values() for x in extra]
    named = {re.match(r"[\w-]+", line)[0].lower() for line in lines} - {"anymodal", "torchaudio"}  # CUDA only
    assert named - pins == set()
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().splitlines()
