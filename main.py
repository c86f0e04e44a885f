"""BananaService: `app` for `uvicorn main:app`, and `python main.py`, which the scripts and Docker use.

`python main.py` checks the settings, looks after its workers and replaces them without losing a request; docs/deploy.md says
what it does that `uvicorn main:app` does not.
"""

import sys

try:
    from banana import launcher
except ModuleNotFoundError as error:
    sys.exit(
        f"error: the package {error.name} is not installed for {sys.executable}. Use ./start.sh or ./run.sh, which install"
        " what is needed, or venv/bin/python main.py"
    )

# The launcher, and what multiprocessing makes of this file in a worker, need none: the worker imports `main:app` itself.
app = None if __name__ in ("__main__", "__mp_main__") else launcher.application()

if __name__ == "__main__":
    launcher.main()
