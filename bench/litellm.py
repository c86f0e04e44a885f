"""LiteLLM's proxy, installed into a folder of its own: the relay that many people run where this service could stand."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import servers
from bench.servers import Server

FOLDER = servers.ROOT / ".state/bench-litellm"
IMAGES_PATH = "/v1/images/generations"
MODEL = "gemini-3-pro-image"
# What is sent to each of its routes.
IMAGES_BODY = json.dumps({"model": MODEL, "prompt": "a banana"}).encode()
NATIVE_BODY = json.dumps({"contents": [{"parts": [{"text": "a banana"}]}]}).encode()
_ENVIRONMENT = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # it would fetch the prices from GitHub
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # no keys, as with the others
}


@dataclass(frozen=True)
class Installation:
    """A LiteLLM that is there: the folder of its virtual environment, and its version."""

    folder: Path
    version: str

    @property
    def command(self) -> str:
        """Its command."""
        return str(self.folder / "bin/litellm")


def installed(folder: Path = FOLDER) -> Installation:
    """Return LiteLLM's newest version as it was when this was first called, installed then."""
    complete = folder / "version"
    if not complete.exists():
        print("installing litellm[proxy]", flush=True)
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # .state is its owner's alone
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        python = str(folder / "bin/python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "litellm[proxy]"], check=True)
        asked = "import importlib.metadata; print(importlib.metadata.version('litellm'), end='')"
        complete.write_text(subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True).stdout)
    return Installation(folder, complete.read_text())


def configuration(upstream: Server) -> str:
    """Return what its proxy is configured with: one model, at the upstream. YAML, of which JSON is a part."""
    address = f"http://127.0.0.1:{upstream.port}/v1beta"
    model = {"model": f"gemini/{MODEL}", "api_base": address, "api_key": "bench"}
    return json.dumps({"model_list": [{"model_name": MODEL, "litellm_params": model}]})


def is_alive(port: int) -> bool:
    """Tell whether it can answer; its /health would call the model."""
    return servers.status_of(port, "/health/liveliness") == 200


@contextmanager
def relay(installation: Installation, folder: Path, upstream: Server) -> Iterator[Server]:
    """Run its proxy as it comes, one worker, without a database; yields its route for images."""
    own, port = folder / "litellm", servers.free_port()
    own.mkdir(exist_ok=True)
    (own / "config.yaml").write_text(configuration(upstream))
    options = {"--config": "config.yaml", "--host": "127.0.0.1", "--port": str(port), "--num_workers": "1"}
    command = [installation.command, *(word for option in options.items() for word in option), "--telemetry", "False"]
    with servers.running(
        "litellm", command, port, IMAGES_PATH, servers.SERVER_CORE, own, _ENVIRONMENT, is_alive
    ) as server:
        yield server
