"""The door: settings in, server out. `python main.py` is the one launch line; the scripts, Docker and the tests use it."""

import argparse
import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import structlog
import uvicorn
from fastapi import FastAPI

import config
from banana import logs, memory
from banana.app import create_app

# Longer than load balancers keep an idle connection (60 s as a rule), so that it is never we who close first.
KEEP_ALIVE_SECONDS = 75
# A worker that takes this long to start or to answer its parent is replaced.
WORKER_HEALTH_SECONDS = 30
# What a request in flight may take beyond its deadline before a stopping worker gives it up.
GRACE_SECONDS = 5

log = structlog.get_logger(__name__)


def application() -> FastAPI:
    """Build the application; each worker calls this, and so reads the settings for itself."""
    memory.keep_pages()
    return create_app(config.read())


def main() -> None:
    """Check the settings, and serve until told to stop. Exits 1 with one line when it cannot."""
    parser = argparse.ArgumentParser(description="BananaService: a relay to Google's Gemini image models.")
    parser.add_argument("--demo", action="store_true", help="answer from the built-in stand-in: no key, no cost")
    parser.add_argument("--reload", action="store_true", help="one worker that follows changes of the code and of .env")
    parser.add_argument(
        "--check", action="store_true", help="check the settings, the code and that the port is free, then leave"
    )
    arguments = parser.parse_args()
    if arguments.demo:
        os.environ["DEMO"] = "true"
    try:
        settings = config.read()
    except config.SettingsError as error:
        sys.exit(f"banana-service: {error}")
    _require_free_port(settings.host, settings.port)
    if arguments.check:
        create_app(settings)  # what cannot be built says so here, where somebody looks
        return
    logs.configure(settings.log_file, settings.log_level)
    if settings.demo:
        log.warning("demo_mode", message="Pictures come from the built-in stand-in, not from Google.")
        _start_stand_in()
    uvicorn.run(
        "main:application",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=None if arguments.reload else settings.workers,
        reload=arguments.reload,
        reload_includes=["*.py", ".env"] if arguments.reload else None,
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        forwarded_allow_ips=settings.forwarded_allow_ips,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(settings.request_timeout_seconds) + GRACE_SECONDS,
        timeout_worker_healthcheck=WORKER_HEALTH_SECONDS,
    )


def _require_free_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            sys.exit(f"banana-service: cannot listen on HOST {host}, PORT {port}: {error.strerror}")


def _start_stand_in() -> None:
    """Start the stand-in for Google's API beside the service; it ends when this process does."""
    stand_in = subprocess.Popen(
        [sys.executable, "-m", "standin", "--until-eof"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,
    )
    assert stand_in.stdout is not None
    os.environ["GEMINI_BASE_URL"] = stand_in.stdout.readline().strip()
    os.environ["GEMINI_API_KEY"] = "demo"


if __name__ == "__main__":
    main()
