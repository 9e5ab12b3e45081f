"""Joining a Ray, or starting a private one that leaves nothing behind and that no other Ray notices."""

from __future__ import annotations

import atexit
import logging
import os
import random
import shutil
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import ray
from ray.exceptions import AuthenticationError

# isort: split
import psutil  # Ray brings it along, and makes it importable

from anymodal.errors import RuntimeFault
from anymodal.threads import usable_cores

CONNECT_TIMEOUT_S = 5.0
START_ATTEMPTS = 3  # Ray gives its node 30 s to come up, whatever the machine
# Nothing here phones home, and a busy machine may take its time: Ray's own patience is a minute or less.
PATIENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_gcs_server_port_wait_time_s": "300",
           "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300", "RAY_worker_register_timeout_seconds": "300",
           "RAY_health_check_timeout_ms": "60000"}
PREFIX, OWNER = "am-", "owner"  # of private folders, and of the file in each that says whose it is
OBJECT_STORE_BYTES = 128 * 2**20  # windows in flight are a few MB
PORTS = range(20_000, 32_000)  # of servers started here: Ray's workers have those from 10,002 on, to 19,999
LONGEST_SOCKET_DIR = 40  # a Unix socket's path is at most 107 bytes, and Ray adds about 60


class Cluster:
    """A connection to Ray; `close` undoes what was done to get it.

    With an address ("auto", "host:port", "ray://host:port") it joins that cluster. Without one it uses the Ray that
    this process is connected to already, or starts a private one. Raises RuntimeFault where none can be reached.
    """

    def __init__(self, address: str | None = None) -> None:
        if address is not None:
            _check_reachable(address)
        self._folder: Path | None = None
        self._connected_here = not ray.is_initialized()
        if not self._connected_here:
            return
        atexit.register(self.close)  # before Ray's own, which leaves the folder
        if address is None:
            self._start()
        else:
            self._join(address)

    def close(self) -> None:
        """Disconnect, and stop the Ray that was started here. May be called twice."""
        atexit.unregister(self.close)
        if self._connected_here:
            self._connected_here = False
            ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _start(self) -> None:
        logging.getLogger("ray").setLevel(logging.ERROR)
        for key, value in PATIENT.items():
            os.environ.setdefault(key, value)
        for attempt in range(START_ATTEMPTS):
            self._folder = private_folder()
            try:
                ray.init(address="local", num_cpus=usable_cores(), include_dashboard=False, log_to_driver=False,
                         object_store_memory=OBJECT_STORE_BYTES, logging_level=logging.ERROR,
                         _temp_dir=str(self._folder))
                return
            except Exception as error:
                kill_all(processes_of(self._folder))
                shutil.rmtree(self._folder, ignore_errors=True)
                if attempt + 1 == START_ATTEMPTS:
                    raise RuntimeFault(
                        f"Ray could not be started here: {_line(error)}",
                        fix="free cores, memory and space for temporary files, or give a cluster's address") from error

    def _join(self, address: str) -> None:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except AuthenticationError as error:
            raise RuntimeFault(f"the Ray at {address} refused the token", fix="set RAY_AUTH_MODE=token, and "
                               "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's token") from error
        except Exception as error:
            raise RuntimeFault(f"no Ray can be joined at {address}: {_line(error)}",
                               fix="check the address and the token, or leave the address out to start one here"
                               ) from error


def private_folder() -> Path:
    """A new folder of this process's own, with a path short enough for Ray's sockets.

    Folders whose process was killed before it could remove them are removed now.
    """
    home = Path(tempfile.gettempdir())
    home = home if len(str(home)) <= LONGEST_SOCKET_DIR else Path("/tmp")
    for left in home.glob(f"{PREFIX}*"):
        if _is_abandoned(left):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=home))
    (folder / OWNER).write_text(f"{os.getpid()} {psutil.Process().create_time()}")
    return folder


def _is_abandoned(folder: Path) -> bool:
    """Is it ours, is the process that made it dead, and does nothing run from it?"""
    try:
        pid, began_s = (folder / OWNER).read_text().split()
        if folder.stat().st_uid != os.getuid():
            return False
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(int(pid)).create_time() == float(began_s):
                return False
    except (OSError, ValueError, psutil.Error):
        return False
    return not processes_of(folder)


def processes_of(folder: Path) -> list[psutil.Process]:
    """Processes of the Ray that lives in a private folder, with all their descendants."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(str(folder) in word for word in process.cmdline()) and process.pid != os.getpid():
                found |= {each.pid: each for each in (process, *process.children(recursive=True))}
    return list(found.values())


def kill_all(processes: list[psutil.Process]) -> None:
    """Kill just these, and wait until they are gone."""
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=10)


def free_ports(count: int) -> list[int]:
    """Different TCP ports that nobody listens on now, below those that Linux gives to outgoing connections: these
    could be taken by any program before somebody listens."""
    found: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as each, suppress(OSError):
            each.bind(("", port))
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeFault(f"no {count} of the TCP ports {PORTS.start} to {PORTS.stop - 1} are free",
                       fix="end programs that listen there")


def _check_reachable(address: str) -> None:
    """Ray itself would try for minutes."""
    parts = urlsplit(address if "://" in address else f"tcp://{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise RuntimeFault(f"{address!r} is no address of a Ray: {error}", fix="auto, HOST:PORT or ray://HOST:PORT"
                           ) from error
    if parts.scheme in ("http", "https"):
        raise RuntimeFault(f"{address} takes jobs, not actors", fix=f"ray job submit --address={address} -- python -m "
                           "actors.job ..., or give HOST:PORT or ray://HOST:PORT")
    if port is None:
        return  # "auto": Ray looks on this machine
    try:
        socket.create_connection((host, port), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise RuntimeFault(f"nothing answers at {address}: {error.strerror or error}",
                           fix="check the address, or leave it out to start a Ray here") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
