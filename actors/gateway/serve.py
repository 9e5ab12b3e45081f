"""`anymodal serve`: the gateway as a process."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import FrameType
from typing import Any

from anymodal.config import load_spec
from anymodal.errors import AnymodalError, ConfigError, MissingExtraError, need
from anymodal.speech import Speech, load_speech

for _module in ("fastapi", "uvicorn", "prometheus_client", "httpcore", "python_multipart"):
    need(_module, extra="serve")
import uvicorn  # noqa: E402

from actors.gateway.app import drain, make_app  # noqa: E402
from actors.gateway.connection import Connection  # noqa: E402
from actors.gateway.context import Gateway  # noqa: E402
from actors.gateway.hosts import ActorHost, Host, LocalHost  # noqa: E402
from actors.gateway.keys import Key, read_keys  # noqa: E402
from actors.gateway.settings import Settings, default_state  # noqa: E402
from actors.gateway.sockets import WebSockets  # noqa: E402

KEY_VARIABLE = "ANYMODAL_API_KEY"
MOST_HEADERS = 64 * 1024
LIMITS = [f.name for f in fields(Settings) if f.type in ("int", "float") and f.name != "port"]


class Server(uvicorn.Server):
    """At SIGTERM or SIGINT it is no longer ready, takes nobody new, lets live sessions say goodbye, and then ends."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway, on_started: Callable[[], None] = lambda: None) -> None:
        super().__init__(config)
        self._gateway, self._on_started = gateway, on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._gateway.draining.set()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for each in self.servers:
            each.close()
        await drain(self._gateway)
        await super().shutdown(sockets)
        self._captured_signals.clear()  # uvicorn would raise them again: what is behind the server has to end too


def config_of(app: Any, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app, host=settings.host.strip("[]"), port=settings.port, log_level="warning", access_log=False, lifespan="on",
        http=Connection,
        ws=WebSockets, ws_max_size=settings.message_bytes, ws_ping_interval=settings.ping_s,
        ws_ping_timeout=settings.ping_s, ws_per_message_deflate=False, timeout_keep_alive=30, server_header=False,
        timeout_graceful_shutdown=int(settings.drain_s) + 1, h11_max_incomplete_event_size=MOST_HEADERS)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve video, sound and sensors to OpenAI's clients, to ours and to the web page, until SIGTERM or Ctrl-C."""
    began_s = time.monotonic()
    parser = _parser()
    options = parser.parse_args(argv)
    if options.threads is not None and (options.threads < 1 or not options.in_process):
        parser.error("--threads is at least 1, and of --in-process")
    try:
        settings = _settings(options)
        listener = _listener(settings)
        try:
            host = _host(options, settings)
            try:
                _run(host, settings, listener, began_s, _speech(options.model))
            finally:
                host.close()
        finally:
            listener.close()
        return 0
    except AnymodalError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="anymodal serve", description=main.__doc__,
        epilog=f"An API key is read from {KEY_VARIABLE} or --api-keys; off loopback there has to be one.")
    own = Settings()
    parser.add_argument("--host", default=own.host, help="address to listen on (default: %(default)s, this machine only)")
    parser.add_argument("--port", type=int, default=own.port, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--model", default="tiny", help="a shipped bundle's name, or the path of a YAML")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--in-process", action="store_true", help="all in this process, without Ray")
    where.add_argument("--address", help="of a running Ray, such as auto or HOST:PORT; without it one is started here")
    parser.add_argument("--threads", type=int, metavar="N", help="with --in-process: of torch for each session at work "
                        "(default: 1, so that as many compute at once as there are cores; published models take up to 4)")
    parser.add_argument("--state", type=Path, default=default_state(), metavar="FOLDER",
                        help="where uploads and sessions are kept (default: %(default)s)")
    parser.add_argument("--web", type=Path, metavar="FOLDER", help="pages to serve at / instead of those that came along")
    parser.add_argument("--api-keys", type=Path, metavar="FILE", help="a key a line: secret, name, last day")
    parser.add_argument("--allow-origin", action="append", default=[], metavar="ORIGIN",
                        help="pages of this site may call, such as https://example.org; repeatable")
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME",
                        help="a name by which this server is called; repeatable")
    parser.add_argument("--allow-private-urls", action="store_true", help="fetch loopback and private addresses too")
    parser.add_argument("--no-fetch", action="store_true", help="fetch no addresses at all")
    parser.add_argument("--trace", action="store_true", help="OpenTelemetry spans, set up by its environment variables")
    parser.add_argument("--limit", action="append", default=[], metavar="NAME=VALUE",
                        help=f"change a limit; repeatable: {', '.join(f'{n}={getattr(own, n):g}' for n in LIMITS)}")
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    keys = read_keys(options.api_keys) if options.api_keys else ()
    if secret := os.environ.get(KEY_VARIABLE, ""):
        keys = (*keys, Key.of(secret, name=KEY_VARIABLE))
    if options.web is not None and not options.web.is_dir():
        raise ConfigError(f"--web {options.web} is no folder", fix="leave it out for the page that came along")
    return Settings(
        host=options.host, port=options.port, state=options.state, web=options.web, api_keys=keys,
        allowed_origins=tuple(origin.rstrip("/") for origin in options.allow_origin),
        allowed_hosts=tuple(options.allow_host), allow_private_urls=options.allow_private_urls,
        fetch=not options.no_fetch, trace=options.trace, **dict(map(_limit, options.limit)))


def _limit(text: str) -> tuple[str, float]:
    """"most_sessions=8" -> ("most_sessions", 8)."""
    from anymodal.errors import nearest

    name, _, value = text.partition("=")
    kinds = {f.name: f.type for f in fields(Settings)}
    if name not in LIMITS:
        raise ConfigError(f"--limit: no limit {name!r}", fix=nearest(name, LIMITS))
    try:
        return name, int(value) if kinds[name] == "int" else float(value)
    except ValueError as error:
        raise ConfigError(f"--limit {name}: {value!r} is no {kinds[name]}", fix=f"--limit {name}=NUMBER") from error


def _listener(settings: Settings) -> socket.socket:
    """The socket, before minutes are spent on starting what is behind it."""
    name = settings.host.strip("[]")
    try:
        family, kind, *_, address = socket.getaddrinfo(name, settings.port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        return listener
    except OSError as error:
        raise ConfigError(f"cannot listen on {settings.host} port {settings.port}: {error.strerror or error}",
                          fix="give another --port, or 0 for a free one") from error


def _host(options: argparse.Namespace, settings: Settings) -> Host:
    if options.in_process:
        return LocalHost(options.model, folder=settings.sessions, threads=options.threads)
    return ActorHost(options.model, options.address, folder=settings.sessions)


def _speech(model: str) -> Speech | None:
    """What hears spoken questions; the server does without where its extra is not installed."""
    spec, path = load_spec(model)
    try:
        return load_speech(spec, path.parent / (spec.weights or spec.name))
    except MissingExtraError as error:
        print(f"spoken questions are not understood: {error}", file=sys.stderr)
        return None


def _run(host: Host, settings: Settings, listener: socket.socket, began_s: float, speech: Speech | None) -> None:
    host.ready()
    settings = replace(settings, port=listener.getsockname()[1])
    app = make_app(host, settings)
    app.state.gateway.speech = speech
    server = Server(config_of(app, settings), app.state.gateway,
                    lambda: _greet(host, settings, time.monotonic() - began_s))
    server.run([listener])


def _greet(host: Host, settings: Settings, seconds: float) -> None:
    shown = f"[{settings.host.strip('[]')}]" if ":" in settings.host else settings.host
    url = f"http://{shown}:{settings.port}"
    print(f"anymodal serves {host.name!r} at {url}, ready after {seconds:.1f} s\n"
          f"  web page   {url}/\n  OpenAI     base_url={url}/v1{' (with an API key)' if settings.api_keys else ''}\n"
          f"  live       ws{url[4:]}/v1/realtime?model={host.name}\n  metrics    {url}/metrics", flush=True)


if __name__ == "__main__":
    sys.exit(main())
