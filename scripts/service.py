"""`python -m scripts.service start|stop|restart [--demo]`: what start.sh, stop.sh and restart.sh do.

The service leads a session and a process group of its own. `.state/banana.pid` holds its id, when it was started, and the
settings that only a new start puts in force. An id that was given to another process since has another start time; where the
file is gone, the service is found by what it is.

`python -m scripts.service requirements` prints the file with the packages that the settings need.
"""

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import psutil

import config
from scripts import status
from scripts.probe import address_of, answers, log_path, read_settings, stop_seconds
from scripts.status import say

STATE = Path(".state")
PID_FILE = STATE / "banana.pid"
START_LOG = STATE / "start.log"
# Where the parent says why it gave up replacing its workers (banana/launcher.py).
RESTART_FAILED = STATE / "restart.failed"
READY_SECONDS = 60
# What a new worker may take to be ready, beside the requests that its predecessor finishes.
REPLACEMENT_SECONDS = 30
LOOK_SECONDS = 0.3
LOG_LINES = 15


def fail(why: str) -> NoReturn:
    """End with one line."""
    sys.exit(f"error: {why}")


# --- Which process is the service, and is it really ours.


@dataclass(frozen=True)
class Record:
    """What start wrote down: the id of the service, when it was started, and the settings of its start as JSON."""

    pid: int
    started: int
    launch: str

    @classmethod
    def read(cls) -> "Record | None":
        """Return what is written down; None if that is nothing."""
        try:
            pid, started, *launch = PID_FILE.read_text(encoding="utf-8").splitlines()
            return cls(int(pid), int(started), launch[0] if launch else "") if int(pid) > 0 else None
        except (OSError, ValueError):
            return None

    def process(self) -> psutil.Process | None:
        """Return the very process that was started; None when it has ended, whoever has its id now."""
        with suppress(psutil.Error):
            process = psutil.Process(self.pid)
            if abs(started_at(process) - self.started) <= 1 and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None


def started_at(process: psutil.Process) -> int:
    """Return when a process was started, in ticks of the kernel since it booted: a clock that is set does not change it."""
    return round((process.create_time() - psutil.boot_time()) * os.sysconf("SC_CLK_TCK"))


def is_ours(process: psutil.Process) -> bool:
    """Return whether a process runs the Python of this folder, by whatever name the folder was called."""
    with suppress(psutil.Error, OSError):
        command = process.cmdline()
        is_python = bool(command) and "venv/bin/python" in command[0]
        return is_python and process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).samefile(".")
    return False


def members_of(group: int) -> list[psutil.Process]:
    """Return the processes of a group that are ours."""
    found = []
    for process in psutil.process_iter():
        with suppress(OSError):
            if os.getpgid(process.pid) == group and is_ours(process):
                found.append(process)
    return found


def is_worker(process: psutil.Process) -> bool:
    """Return whether a process was begun by multiprocessing, as uvicorn's workers are."""
    with suppress(psutil.Error):
        return any("spawn_main" in word for word in process.cmdline())
    return False


def workers_of(service: psutil.Process) -> list[psutil.Process]:
    """Return the processes that serve."""
    return [process for process in members_of(service.pid) if is_worker(process)]


def running() -> psutil.Process | None:
    """Return the service; None when it does not run."""
    record = Record.read()
    recorded = record.process() if record else None
    if recorded is not None and is_ours(recorded):
        return recorded
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == process.pid and "main.py" in process.cmdline() and is_ours(process):
                return process
    return None


def left_over() -> list[psutil.Process]:
    """Return the workers of a service whose parent is gone."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if is_ours(process) and is_worker(process):
                parent = process.parent()
                if parent is None or not is_ours(parent):
                    found.append(process)
    return found


def arguments_of(service: psutil.Process) -> list[str]:
    """Return what main.py was started with."""
    command = service.cmdline()
    return command[command.index("main.py") + 1 :] if "main.py" in command else []


def unit_of(service: psutil.Process) -> str | None:
    """Return the systemd unit that it runs as; ops/banana-service.service says so in its environment."""
    with suppress(psutil.Error):
        return service.environ().get("BANANA_UNIT")
    return None


# --- The commands.


def start(arguments: Sequence[str]) -> None:
    """Start the service, and return when it answers; when it runs already, say where and how."""
    os.umask(0o077)
    STATE.mkdir(exist_ok=True)
    with _only_start():
        service = running()
        if service is not None:
            _say_it_runs(service, wants_demo="--demo" in arguments)
            return
        if left_over():
            fail("the main process was killed and its workers are still running. Run ./stop.sh, then start again")
        settings = _settings_with(arguments)
        if subprocess.run([sys.executable, "main.py", "--check", *arguments], check=False).returncode:
            sys.exit(1)
        with START_LOG.open("wb") as out:
            # A session of its own: the service outlives this terminal, and its group can be told from every other.
            command = [sys.executable, "main.py", *arguments]
            streams: dict[str, object] = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": subprocess.STDOUT}
            child = subprocess.Popen(command, start_new_session=True, **streams)  # type: ignore[call-overload]
        record = child.pid, started_at(psutil.Process(child.pid)), _launch(settings)
        PID_FILE.write_text("".join(f"{line}\n" for line in record), encoding="utf-8")
        say("Starting ", end="")
        if not _answers_in_time(settings, child):
            _say_why_not(settings)
            if child.poll() is not None:
                fail("the service stopped while it was starting. The lines above are the end of its log")
            _end(child.pid, stop_seconds(settings))
            why = f"the service was not ready within {READY_SECONDS} s and was stopped."
            fail(f"{why} The lines above are the end of its log")
        say("\n\n" + "\n".join(status.summary(settings)))
        for warning in _key_warnings(settings):
            say(warning)


@contextmanager
def _only_start() -> Iterator[None]:
    """Of two starts at the same moment the second waits, and then finds the service running."""
    with (STATE / "start.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another ./start.sh is already starting the service; waiting for it.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _say_it_runs(service: psutil.Process, *, wants_demo: bool) -> None:
    say(f"The service is already running (pid {service.pid}). To stop it: ./stop.sh   To restart it: ./restart.sh")
    settings = _settings_of(service)
    say("\n".join(status.status(settings, workers=len(workers_of(service)))))
    if wants_demo and not settings.demo:
        say("It is not the demo: requests are billed. For the demo: ./stop.sh, then ./start.sh --demo")
    if (wanted := address_of(read_settings(demo=True))) != address_of(settings):
        say(f"HOST or PORT has changed ({wanted}). To use it: ./restart.sh")


def _settings_of(service: psutil.Process) -> config.Settings:
    """Return the settings of the running service: those of its start go before what is set now."""
    record = Record.read()
    known: dict[str, object] = {"demo": "--demo" in arguments_of(service)}
    if record is not None and record.pid == service.pid:
        with suppress(ValueError, TypeError, KeyError):
            known |= {name: json.loads(record.launch)[name] for name in ("host", "port", "demo")}
    if not known["demo"]:  # which key it has does not matter to what is said of it
        known["gemini_api_key"] = ("any",)
    return read_settings(**known)


def _settings_with(arguments: Sequence[str]) -> config.Settings:
    """Return the settings of a service that is started with these arguments."""
    return read_settings(demo=True) if "--demo" in arguments else read_settings()


def _launch(settings: config.Settings) -> str:
    """Return what only a new start puts in force, as one line of JSON."""
    fixed = {name: getattr(settings, name) for name in config.FIXED_AT_START}
    return json.dumps(fixed | {"python": sys.prefix})


def _answers_in_time(settings: config.Settings, child: "subprocess.Popen[bytes]") -> bool:
    """Return whether the service answers before its process ends or its time is over; writes dots meanwhile."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and child.poll() is None:
        if answers(address_of(settings)):
            return True
        say(".", end="")
        time.sleep(LOOK_SECONDS)
    return False


def _say_why_not(settings: config.Settings) -> None:
    """Print the ends of what it wrote."""
    say("")
    with suppress(OSError):
        print(
            *START_LOG.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:],
            sep="\n",
            file=sys.stderr,
        )
    if log_path(settings) != str(START_LOG):
        command = [sys.executable, "-m", "scripts.read_log", "--last", str(LOG_LINES)]
        subprocess.run(command, stdout=sys.stderr, stderr=subprocess.DEVNULL, check=False)


def _key_warnings(settings: config.Settings) -> list[str]:
    """Return what is wrong with the API keys, or with the way to Google: a list of models is asked for, which is free."""
    # Not at the top: it takes a while, and the demo has no key.
    from banana.google.key_check import problems_with

    if settings.demo:
        return []
    keys = settings.gemini_api_key
    problems = asyncio.run(problems_with(settings.gemini_base_url, settings.upstream_proxy, keys))
    return [f"Warning: {problem}" for problem in problems]


def stop() -> None:
    """Stop the service when its requests are finished; when it does not run, change nothing."""
    try:
        seconds = stop_seconds(config.read(demo=True))
    except config.SettingsError:
        seconds = stop_seconds(None)
    service = running()
    record = Record.read()
    if service is not None:
        if unit := unit_of(service):
            fail(f"systemd runs the service, and would start it again; stop it with: sudo systemctl stop {unit}")
        group = service.pid
        service.terminate()
    elif orphans := left_over():
        say("The main process is gone; stopping the workers it left behind.")
        group = os.getpgid(orphans[0].pid)
        for orphan in orphans:
            with suppress(psutil.NoSuchProcess):
                orphan.terminate()
    elif record is not None and record.process() is not None:
        fail(
            f"process {record.pid} of {PID_FILE} is running, but is not recognized as this service; nothing was stopped"
        )
    else:
        PID_FILE.unlink(missing_ok=True)
        say("The service is not running.")
        return
    say("Stopping after running requests are finished ", end="")
    _wait_for_end(group, seconds)
    say("\nStopped.")


def _end(group: int, seconds: float) -> None:
    with suppress(ProcessLookupError):
        os.kill(group, signal.SIGTERM)
    _wait_for_end(group, seconds)


def _wait_for_end(group: int, seconds: float) -> None:
    """Return when no process of a group is left; those that are after so much time are killed."""
    deadline = time.monotonic() + seconds
    while members := members_of(group):
        if time.monotonic() >= deadline:
            say(f"\nStill running after {seconds:g} s; killing it.")
            for member in members:
                with suppress(psutil.NoSuchProcess):
                    member.kill()
        say(".", end="")
        time.sleep(LOOK_SECONDS)
    PID_FILE.unlink(missing_ok=True)


def restart(arguments: Sequence[str]) -> None:
    """Put the current code and settings in force, without losing a request."""
    service = running()
    if service is None:
        os.execv("./start.sh", ["./start.sh", *arguments])
    old_arguments, record = arguments_of(service), Record.read()
    arguments = list(arguments) or old_arguments
    if subprocess.run([sys.executable, "main.py", "--check", "--running", *arguments], check=False).returncode:
        fail("not restarted: the service keeps running with its old code and settings")
    settings = _settings_with(arguments)
    if unit := unit_of(service):
        say(
            "systemd runs the service. If HOST, PORT, WORKERS or another setting of ./restart.sh --help changed:"
            f" sudo systemctl restart {unit}"
        )
    elif arguments != old_arguments or record is None or record.launch != _launch(settings):
        say("A changed setting needs a stop and a start.")
        stop()
        os.execv("./start.sh", ["./start.sh", *arguments])
    _replace_workers(service, settings)
    if running() is None:
        fail("the service was stopped meanwhile. Start it again: ./start.sh")
    if not answers(address_of(settings)):
        fail("the service does not answer. See why: ./logs.sh")
    say(f"\nRestarted: {address_of(settings)}")
    for line in [*status.hints(settings), *_key_warnings(settings)]:
        say(line)


def _replace_workers(service: psutil.Process, settings: config.Settings) -> None:
    """Let the service replace its workers, and return when the last old one has ended."""
    old = workers_of(service)
    RESTART_FAILED.unlink(missing_ok=True)
    service.send_signal(signal.SIGHUP)
    say(f"Replacing {len(old)} workers, each after its requests are finished ", end="")
    deadline = time.monotonic() + len(old) * (stop_seconds(settings) + REPLACEMENT_SECONDS)
    while any(map(is_ours, old)):
        if time.monotonic() >= deadline:
            fail("a worker was not replaced in time. See why: ./logs.sh")
        if RESTART_FAILED.exists() and (why := RESTART_FAILED.read_text(encoding="utf-8")):
            fail(f"not restarted, because {why}")
        if not service.is_running():
            fail("the service was stopped meanwhile. Start it again: ./start.sh")
        say(".", end="")
        time.sleep(LOOK_SECONDS)


def requirements() -> str:
    """Return the file with the packages that the settings need; which settings are wrong is said when they are checked."""
    with suppress(config.SettingsError):
        settings = config.read(demo=True)
        if settings.keeps_in_s3 or settings.store_url.startswith("redis"):
            return "requirements-all.txt"
    return "requirements.txt"


def main() -> None:
    """Do what a script asks for."""
    match sys.argv[1:]:
        case ["start", *arguments]:
            start(arguments)
        case ["stop"]:
            stop()
        case ["restart", *arguments]:
            restart(arguments)
        case ["requirements"]:
            print(requirements())
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except (psutil.Error, OSError) as error:  # a process that ended in that moment, a full disk
        fail(str(error))
