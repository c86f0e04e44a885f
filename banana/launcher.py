"""`python main.py`: settings in, a server and its workers out. What is wrong is said before anything is served, in one line."""

import argparse
import asyncio
import errno
import multiprocessing
import os
import pwd
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
import uvicorn
from uvicorn.supervisors import ChangeReload

import config
from banana import logs
from banana.redaction import printable
from banana.server import descriptors
from banana.server.protocol import Connections
from banana.server.workers import Workers

if TYPE_CHECKING:  # the launcher needs nothing of it, and it takes 0.15 s
    from fastapi import FastAPI

# Where workers leave what they count; prometheus-client reads the variable as it is imported.
METRICS_FOLDER = Path(".state/metrics")
METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
# The files that prometheus-client maps into memory, for each kind of value there is in banana/metrics.py, in bytes. It
# would make them with holes, and a write into a hole of a full disk kills the process (SIGBUS): here they are written
# beforehand. Every route takes some 4 KB of the histograms.
METRICS_FILES = {
    "counter": 256 << 10,
    "histogram": 256 << 10,
    "gauge_livesum": 64 << 10,
    "gauge_livemax": 64 << 10,
    "gauge_livemostrecent": 64 << 10,
}
# Why the workers were not replaced, for restart.sh.
RESTART_FAILED = Path(".state/restart.failed")
# Longer than load balancers keep an idle connection (60 s as a rule), so that it is never we who close first.
IDLE_CONNECTION_SECONDS = 75
# Connections that wait until a worker takes them.
BACKLOG = 2048
# New connections that a worker takes in a turn of its event loop; docs/decisions/listening.md says why.
ACCEPTED_AT_ONCE = 8
# A worker that takes this long to start or to answer its parent is replaced.
WORKER_HEALTH_SECONDS = 30
# What a request in flight may take beyond its deadline before a stopping worker gives it up.
GRACE_SECONDS = 5

log = structlog.get_logger(__name__)


def application() -> "FastAPI":
    """Build the application; each worker calls this, and so reads the settings for itself. Exits 1 with one line if it cannot."""
    folder = _metrics_folder()
    # Not at the top: prometheus-client is imported after its files are there, and the launcher needs nothing of it.
    from banana.admission.storage import StoreError
    from banana.app import create_app
    from banana.ledger.ledger import LedgerError
    from banana.results.storage import ResultsError

    try:
        settings = config.read()
    except config.SettingsError as error:
        sys.exit(f"error: {printable(str(error))}")
    if settings.demo and settings.gemini_base_url == config.Settings.model_fields["gemini_base_url"].default:
        sys.exit("error: DEMO needs `python main.py --demo` or ./start.sh --demo, which start the simulator")
    try:
        return create_app(settings, metrics_folder=folder, degraded=[] if folder else ["metrics"])
    except (StoreError, LedgerError, ResultsError, logs.LogFileError) as error:
        sys.exit(f"error: {error}")


def _metrics_folder() -> Path | None:
    """Return the folder with this worker's metrics, ready; None where the disk has no room: they are counted in memory."""
    files = {METRICS_FOLDER / f"{kind}_{os.getpid()}.db": size_bytes for kind, size_bytes in METRICS_FILES.items()}
    try:
        METRICS_FOLDER.mkdir(parents=True, exist_ok=True)
        for file, size_bytes in files.items():
            file.write_bytes(bytes(size_bytes))
    except OSError:
        os.environ.pop(METRICS_VARIABLE, None)
        for file in files:
            with suppress(OSError):
                file.unlink()
        return None
    os.environ[METRICS_VARIABLE] = str(METRICS_FOLDER.absolute())
    return METRICS_FOLDER.absolute()


def main() -> None:
    """Check the settings, and serve until stopped. Exits 1 with one line when it cannot."""
    arguments = _arguments()
    os.umask(0o077)  # the log, the store and what is kept are nobody else's to read
    if arguments.demo:
        os.environ["DEMO"] = "true"
    try:
        settings = config.read()
    except config.SettingsError as error:
        sys.exit(f"error: {printable(str(error))}")
    _require_writable(settings)
    if arguments.check:
        _check(settings, port_too=not arguments.running)
        return
    listeners = copies_of(_listen(settings.host, settings.port))
    _prepare(settings)
    descriptors.raise_limit(settings.max_requests, settings.max_connections)
    _supervise(settings, listeners, reload=arguments.reload)


def _supervise(settings: config.Settings, listeners: list[socket.socket], *, reload: bool) -> None:
    """Let workers serve until this process is told to stop."""
    if reload:
        with suppress(BrokenPipeError):
            print(f"Serving at {_address(settings)}; Ctrl-C stops it.", flush=True)
        reload_options: dict[str, Any] = {"reload": True, "reload_includes": ["*.py", ".env"]}
        config_of_server = uvicorn.Config("main:app", **reload_options, **_server_options(settings))
        ChangeReload(config_of_server, target=uvicorn.Server(config_of_server).run, sockets=listeners).run()
    else:
        # One worker has a supervisor too, so that it can be replaced without a gap.
        stopping = multiprocessing.get_context("spawn").RawValue("b", 0)
        options = _server_options(settings)
        options["http"].stopping = stopping
        config_of_server = uvicorn.Config("main:app", workers=settings.workers, **options)
        Workers(config_of_server, listeners, stopping, _say_why_not_restarted).run()


def _address(settings: config.Settings) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}"


def _say_why_not_restarted(why: str) -> None:
    """Leave word for restart.sh; where that cannot be written, the log has it."""
    with suppress(OSError):
        RESTART_FAILED.write_text(why, encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="BananaService: a relay to Google's Gemini image models.")
    parser.add_argument(
        "--demo", action="store_true", help="images from the built-in simulator: no key, nothing billed"
    )
    parser.add_argument("--reload", action="store_true", help="one worker, reloaded when the code or .env changes")
    parser.add_argument(
        "--check", action="store_true", help="check the settings, the code and that the port is free, then exit"
    )
    parser.add_argument("--running", action="store_true", help="with --check: the service itself uses the port")
    return parser.parse_args()


def _server_options(settings: config.Settings) -> dict[str, Any]:
    """Return what uvicorn is started with; the settings in it are `config.FIXED_AT_START`."""
    return {
        "host": settings.host,
        "port": settings.port,
        "loop": "uvloop",
        "http": Connections(settings.max_requests, settings.max_connections, settings.idle_seconds),
        "ws": "none",
        "access_log": False,
        "log_config": None,
        "server_header": False,
        "proxy_headers": False,  # the application does that, and believes addresses only
        "timeout_keep_alive": IDLE_CONNECTION_SECONDS,
        "timeout_graceful_shutdown": int(settings.request_timeout_seconds) + GRACE_SECONDS,
        "timeout_worker_healthcheck": WORKER_HEALTH_SECONDS,
    }


def check_store(settings: config.Settings) -> list[str]:
    """Open store and ledger once, before the workers do; what is wrong with them ends this in one line.

    Returns what is to be known of them.
    """
    from banana.admission.sqlite import SQLiteStorage
    from banana.admission.storage import StoreError, open_storage
    from banana.ledger.engines import is_shared, open_ledger
    from banana.ledger.ledger import LedgerError

    try:
        storage = open_storage(settings.store_url)
        if isinstance(storage, SQLiteStorage):
            storage.close()
        ledger = open_ledger(
            settings.store_url, settings.ledger_file, is_file=settings.ledger_is_a_file, is_demo=settings.demo
        )
        ledger.check()
    except (StoreError, LedgerError) as error:
        sys.exit(f"error: {error}")
    warnings = ledger.warnings()
    ledger.close()
    if is_shared(settings.store_url) and settings.results_url == config.RESULTS_FOLDER:
        warnings.append(
            "STORE_URL can be shared by several machines, but RESULTS_URL is a folder of this machine: other machines cannot"
            " serve the images kept here. With several machines, set RESULTS_URL to s3://bucket/prefix or a shared folder."
        )
    return warnings


def _user_name(uid: int) -> str:
    """Return a user's name; the number where it has none, as in a container."""
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return f"user {uid}"


def _require_writable(settings: config.Settings) -> None:
    """Exit when the folders that records are written to are another user's; say which, whose, and what to do."""
    folders = [settings.ledger_file.parent]
    if settings.store_url.startswith("sqlite:///"):
        folders.append(Path(settings.store_url.removeprefix("sqlite:///")).parent)
    if not settings.keeps_in_s3:
        folders.append(Path(settings.results_url))
    paths = [folder for folder in folders if folder.is_dir()]
    paths += [file for folder in paths for file in folder.glob("*.db")]
    for path in paths:
        if os.access(path, os.W_OK | (os.X_OK if path.is_dir() else 0)):
            continue
        if path.stat().st_uid == os.getuid():
            sys.exit(f"error: {path.absolute()} cannot be written to: it, or what is mounted there, is read-only")
        folder = path if path.is_dir() else path.parent
        sys.exit(
            f"error: {path.absolute()} belongs to {_user_name(path.stat().st_uid)}, and {_user_name(os.getuid())}, who runs"
            f" this service, cannot write to it. Type: sudo chown -R {os.getuid()} {shlex.quote(str(folder.absolute()))}"
            " (of a folder that is mounted into a container: its path outside)"
        )


def _check(settings: config.Settings, *, port_too: bool) -> None:
    """Fail here, where somebody looks, instead of in a worker later."""
    from banana.admission.storage import StoreError
    from banana.app import create_app
    from banana.ledger.ledger import LedgerError
    from banana.results.storage import ResultsError

    if port_too:
        _listen(settings.host, settings.port).close()
    try:
        create_app(settings)  # with its log, in which it says what it moved out of the way
    except (StoreError, LedgerError, ResultsError, logs.LogFileError) as error:
        sys.exit(f"error: {error}")
    warnings = [*check_store(settings), *_results_warnings(settings), *_budget_warnings(settings).values()]
    for warning in [*warnings, *_proxy_warnings(settings)]:
        print(f"warning: {printable(warning)}", file=sys.stderr)


def _results_warnings(settings: config.Settings) -> list[str]:
    """Return why nothing can be kept in S3, if so: it may work later, and requests that keep nothing do now."""
    from banana.app import open_results

    if not settings.keeps_in_s3:
        return []
    try:
        asyncio.run(open_results(settings).check())
    except OSError as error:
        return [f"RESULTS_URL {settings.results_url} cannot be written to, so nothing is kept: {error.strerror}"]
    return []


def _budget_warnings(settings: config.Settings) -> dict[str, str]:
    """Return what is wrong with each budget that is nobody's: whom it was meant for spends without one."""
    if not settings.budgets:
        return {}
    # Not at the top: they bring most of what a worker needs, 0.1 s.
    from banana.admission.budgets import EVERYBODY_ELSE
    from banana.admission.tokens import is_possible_caller

    whom = (
        "not a name in ACCESS_TOKENS"
        if settings.access_tokens
        else "not an IP address (without ACCESS_TOKENS, callers are IP addresses)"
    )
    nobodies = [
        name
        for name in settings.budgets
        if name != EVERYBODY_ELSE and not is_possible_caller(name, settings.access_tokens)
    ]
    return {name: f"BUDGETS names {name}, which is {whom}: this budget applies to nobody." for name in nobodies}


def _proxy_warnings(settings: config.Settings) -> list[str]:
    """Return that there is a proxy which is not used, if so."""
    name = config.unread_proxy(settings)
    advice = "is set in the environment, and this service does not read it. If Google is reached through that proxy: set UPSTREAM_PROXY in .env."
    return [f"{name} {advice}"] if name else []


def _check_keys(settings: config.Settings) -> None:
    """Log what is wrong with the API keys, or with the way to Google."""
    # Not at the top: the launcher needs nothing of it.
    from banana.google.key_check import problems_with

    keys = settings.gemini_api_key
    for problem in asyncio.run(problems_with(settings.gemini_base_url, settings.upstream_proxy, keys)):
        log.warning("key_check_failed", message=problem)


def _prepare(settings: config.Settings) -> None:
    try:
        logs.configure(settings.log_file, settings.log_level)  # its few lines rotate nothing: the workers do
    except logs.LogFileError as error:
        sys.exit(f"error: {error}")
    store_warnings = check_store(settings)
    shutil.rmtree(METRICS_FOLDER, ignore_errors=True)
    for name, meant in config.unknown_names(os.environ).items():
        log.warning(
            "unknown_setting", name=name, message=f"{name} in the environment is not a setting. Did you mean {meant}?"
        )
    if settings.demo:
        log.warning("demo_mode", message="Images come from the built-in simulator, not from Google.")
        _start_stand_in()
    for warning in store_warnings:
        log.warning("store_warning", message=warning)
    for name, warning in _budget_warnings(settings).items():
        log.warning("budget_of_nobody", name=name, message=warning)
    for warning in _proxy_warnings(settings):
        log.warning("proxy_not_read", message=warning)
    if not settings.demo:  # beside the start: nobody waits for Google to serve
        threading.Thread(target=_check_keys, args=(settings,), name="key-check", daemon=True).start()
    if not settings.on_loopback and not settings.access_tokens:
        log.warning(
            "open_to_everyone",
            host=settings.host,
            message="ACCESS_TOKENS is not set: anyone who can reach it can spend your money.",
        )


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; exits 1 when it cannot.

    It listens from here on: of two services that only bound the port, both could begin to listen later.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        sys.exit(f"error: {_why_not(host, port, error)}")
    listener.set_inheritable(True)
    return listener


def _why_not(host: str, port: int, error: OSError) -> str:
    """Return why the service cannot listen there, and what to do."""
    match error.errno:
        case errno.EADDRINUSE:
            return f"PORT {port} is already in use{_by_whom(port)}."
        case errno.EACCES:
            return f"PORT {port} is reserved for root. Set a PORT from 1024 up in .env."
        case errno.EADDRNOTAVAIL | socket.EAI_NONAME | socket.EAI_AGAIN:
            return (
                f"HOST {host} is not an address of this machine. Set HOST to 127.0.0.1 (this machine only) or 0.0.0.0"
                " (all interfaces)."
            )
    return f"cannot listen on HOST {host}, PORT {port}: {error.strerror}"


def _by_whom(port: int) -> str:
    """Return who listens on a port, as far as this user may know, and what to do."""
    import psutil  # not at the top: it is needed here alone

    listening: list[psutil.Process] = []
    with suppress(psutil.Error):
        found = psutil.net_connections("tcp")
        listening = [
            psutil.Process(one.pid) for one in found if one.pid and one.status == "LISTEN" and one.laddr[1:2] == (port,)
        ]
    for process in listening:
        with suppress(psutil.Error, OSError):
            # A worker has its socket from the service that began it.
            for service in (process, *process.parents()):
                if "main.py" in service.cmdline() and Path(service.cwd(), "banana/app.py").exists():
                    folder = Path(service.cwd())
                    where = "of this folder" if folder.samefile(".") else f"in {folder}"
                    stop = "./stop.sh there" if service.pid == os.getsid(service.pid) else "Ctrl-C in its terminal"
                    return (
                        f" by the BananaService {where} (pid {service.pid}). Stop it ({stop}), or take another port:"
                        f" PORT={port + 1} ./start.sh"
                    )
            return f" by {process.name()} (pid {process.pid}). Stop that, or set another PORT in .env"
    return ". Set another PORT in .env, or stop the program that uses it"


def copies_of(listener: socket.socket) -> list[socket.socket]:
    """Return the listening socket `ACCEPTED_AT_ONCE` times, so that a worker takes so many connections in a turn."""
    copies = [listener.dup() for _ in range(ACCEPTED_AT_ONCE - 1)]
    for copy in copies:
        copy.set_inheritable(True)
    return [listener, *copies]


def _start_stand_in() -> None:
    """Start the stand-in for Google's API beside the service; it ends when this process does."""
    stand_in = subprocess.Popen(
        [sys.executable, "-m", "standin", "--varies", "--until-eof"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert stand_in.stdout is not None
    os.environ["GEMINI_BASE_URL"] = stand_in.stdout.readline().strip()
    os.environ["GEMINI_API_KEY"] = "demo"
