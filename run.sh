#!/usr/bin/env bash
# Runs the service in the foreground, for development: one worker, which follows changes of the code and of .env.
#
#   ./run.sh [--demo]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/environment.sh
source scripts/environment.sh

ensure_environment requirements.txt
if [[ ! -e .env ]]; then
  cp .env.example .env
  say "Made .env from .env.example"
fi
exec .venv/bin/python main.py --reload "$@"
