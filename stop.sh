#!/usr/bin/env bash
# Stops the service. Running requests are finished first. If the service is not running, nothing is changed.
[ -n "${BASH_VERSION-}" ] || exec bash "$0" "$@"
set -euo pipefail
script=$(readlink -f "${BASH_SOURCE[0]}")
cd -P "$(dirname "$script")"
# shellcheck source=scripts/environment.sh
source scripts/environment.sh

accept_only "" "$@"
require_own_state
if [[ ! -e .state/banana.pid && ! -x $venv/bin/python ]]; then
  say "The service is not running."
  exit 0
fi
# The packages may have changed since the start, and be out of reach: those of the start will do.
"$venv/bin/python" -c "import psutil, config" 2>/dev/null || install requirements.txt
exec "$venv/bin/python" -m scripts.service stop
