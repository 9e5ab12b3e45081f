"""What several test files share. Nothing here reaches the network, and nothing waits for a model hub."""

import os

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own 15 lets its workers starve beside another test
os.environ.setdefault("OMP_NUM_THREADS", "1")  # with more, some CPUs round a row by its place in a batch

import shutil  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
import yaml  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

settings.register_profile("repo", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repo")


@dataclass(frozen=True)
class Ran:
    """What a command line run came to."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of an expected error."""
        lines = self.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: "), self
        return lines[0]


@pytest.fixture
def cli(capfd):
    """Run the command line in this process: cli("ask", "clip.mp4", "what?") -> Ran."""
    from anymodal.cli import run

    def call(*argv: object) -> Ran:
        capfd.readouterr()
        code = run([str(a) for a in argv])
        return Ran(code, *capfd.readouterr())

    return call


@pytest.fixture(scope="module")
def folder(tmp_path_factory, request):
    """A folder for all tests of a file."""
    return tmp_path_factory.mktemp(request.module.__name__.rpartition(".")[2].removeprefix("test_"))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """The YAML of a bundle of random weights, with one sense more, whose actors a busy machine may be slow to start."""
    from anymodal.testing_bundle import random_bundle

    return random_bundle(tmp_path_factory.mktemp("patient"), senses=("thermal",), runtime={
        "start_timeout_s": 900, "stall_timeout_s": 300, "perception": {"threads": 1}, "mind": {"threads": 1}})


@pytest.fixture(scope="session")
def agent(bundle):
    """The same in this process."""
    from anymodal.agent import load

    return load(bundle, threads=1)


@pytest.fixture(scope="session")
def random_model(tmp_path_factory):
    """The YAML of a bundle with real, very small parts and random weights."""
    from anymodal.testing_bundle import random_bundle

    return random_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def own_bundle(random_model, tmp_path):
    """A copy of the random bundle to spoil: (path of its YAML, its mapping, its weights' folder)."""
    weights = tmp_path / "random"
    shutil.copytree(random_model.parent / "random", weights)
    path = shutil.copy(random_model, tmp_path / "random.yaml")
    return Path(path), yaml.safe_load(random_model.read_text()), weights
