#!/usr/bin/env bash
# Runs the service in the foreground, for development: one worker, reloaded when the code or .env changes. Ctrl-C stops it.
#
#   ./run.sh             uses GEMINI_API_KEY from .env
#   ./run.sh --demo      needs no key: images come from a built-in simulator, nothing is billed
[ -n "${BASH_VERSION-}" ] || exec bash "$0" "$@"
set -euo pipefail
script=$(readlink -f "${BASH_SOURCE[0]}")
cd -P "$(dirname "$script")"
# shellcheck source=scripts/environment.sh
source scripts/environment.sh

accept_only --demo "$@"
make_env_file "$@"
ensure_environment
exec "$venv/bin/python" main.py --reload "$@"
