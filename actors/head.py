"""A private Ray head that takes jobs: its own ports, folder and token. No other Ray on the machine notices it.

    with Head() as head:
        head.submit(["python", "-m", "actors.job", "--input", ..., "--output", ...])
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import actors
from actors.cluster import (
    OBJECT_STORE_BYTES,
    PATIENT,
    START_ATTEMPTS,
    free_ports,
    kill_all,
    private_folder,
    processes_of,
    psutil,
)
from anymodal.errors import RuntimeFault
from anymodal.threads import usable_cores

START_TIMEOUT_S = 300.0  # a slow and busy machine takes minutes
REPLY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
ELSEWHERE = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN")  # would lead to another cluster
RAY = (sys.executable, "-m", "ray.scripts.scripts")


class Head:
    """Starts on construction; `wait_ready` returns once it takes jobs. A context manager; close it.

    token: a file with the token that the cluster asks for, as `ray get-auth-token --generate` writes it; None makes
    one. address: where jobs are submitted. env: the environment in which Ray's commands find it and may talk to it.
    """

    def __init__(self, token: Path | None = None, *, cores: int | None = None) -> None:
        self.folder = private_folder()
        if token is None:
            token = self.folder / "token"
            token.touch(mode=0o600)
            token.write_text(secrets.token_hex(32), encoding="ascii")
        self._token = token
        ports = free_ports(7)
        self.address = f"http://127.0.0.1:{ports[0]}"
        self.env = {key: value for key, value in os.environ.items() if key not in ELSEWHERE} | {
            **PATIENT, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
            "no_proxy": _no_proxy(), "NO_PROXY": _no_proxy(), "PYTHONPATH": _with_our_own(os.environ.get("PYTHONPATH"))}
        names = ("dashboard-port", "port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port",
                 "runtime-env-agent-port", "metrics-export-port", "ray-client-server-port")
        options = [f"--{name}={port}" for name, port in zip(names, ports)]
        options += [f"--temp-dir={self.folder / 'ray'}", f"--num-cpus={cores or usable_cores()}",
                    f"--object-store-memory={OBJECT_STORE_BYTES}", "--node-ip-address=127.0.0.1",
                    "--disable-usage-stats"]
        self.gcs_address = f"127.0.0.1:{ports[1]}"
        self.client_address = f"ray://127.0.0.1:{ports[-1]}"
        self.log = self.folder / "head.log"
        self._dashboard_log = self.folder / "ray" / "session_latest" / "logs" / "dashboard.log"
        self._command = [*RAY, "start", "--head", "--block", *options]
        self._start()

    def _start(self) -> None:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True, preexec_fn=_die_with_parent)  # noqa: PLW1509

    def wait_ready(self) -> None:
        """Raises RuntimeFault if it ends or does not take jobs within START_TIMEOUT_S."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        request = urllib.request.Request(f"{self.address}/api/jobs/", headers={
            "Authorization": f"Bearer {self._token.read_text(encoding='ascii').strip()}"})
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy leads to this machine itself
        attempts = 1
        while True:
            with suppress(OSError), direct.open(request, timeout=REPLY_TIMEOUT_S):
                return
            late = time.monotonic() > deadline_s
            if self._process.poll() is not None and attempts < START_ATTEMPTS and not late:
                attempts += 1
                kill_all(processes_of(self.folder))
                self._start()
            elif self._process.poll() is not None or late:
                said = [line for log in (self.log, self._dashboard_log) for line in _last_lines(log)]
                self.close()
                raise RuntimeFault(f"a Ray head could not be started: {' / '.join(said)}", fix="free cores and memory")
            time.sleep(0.2)

    def submit(self, command: list[str], *options: str) -> subprocess.Popen:
        """`ray job submit` a command; the process that follows the job, its output a pipe of text."""
        words = [*RAY, "job", "submit", f"--address={self.address}", *options, "--", *command]
        return subprocess.Popen(words, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, preexec_fn=_die_with_parent)  # noqa: PLW1509

    def close(self) -> None:
        """Stop what was started here, and nothing else. May be called twice."""
        started = processes_of(self.folder)
        with suppress(psutil.Error):
            started += psutil.Process(self._process.pid).children(recursive=True)
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT_S)
        kill_all([process for process in started if process.is_running()])
        self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Head:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _no_proxy() -> str:
    """`ray job submit` goes to this machine itself, whatever proxy is set."""
    return ",".join(filter(None, [os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), "127.0.0.1"]))


def _last_lines(log: Path, count: int = 3) -> list[str]:
    return log.read_text(errors="replace").strip().splitlines()[-count:] if log.is_file() else []


def _with_our_own(path: str | None) -> str:
    """PYTHONPATH under which `actors` is found, installed or not."""
    return os.pathsep.join([str(Path(actors.__file__).parent.parent), *([path] if path else [])])


def _die_with_parent() -> None:
    """Linux: end this process when its parent is killed, so that nothing stays behind even then."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG, prctl(2)
