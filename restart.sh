#!/usr/bin/env bash
# Restarts the service with the current code and settings. If it is not running, it is started.
#
#   ./restart.sh           with the arguments of the last start
#   ./restart.sh --demo    in demo mode
#
# Workers are replaced one after another, and each finishes its requests first: no request is lost. A change of HOST,
# PORT, WORKERS, REQUEST_TIMEOUT_SECONDS, MAX_CONNECTIONS, MAX_REQUESTS, IDLE_SECONDS, DEMO or --demo stops the service
# and starts it again.
[ -n "${BASH_VERSION-}" ] || exec bash "$0" "$@"
set -euo pipefail
script=$(readlink -f "${BASH_SOURCE[0]}")
cd -P "$(dirname "$script")"
# shellcheck source=scripts/environment.sh
source scripts/environment.sh

accept_only --demo "$@"
require_own_state
make_env_file "$@"
ensure_environment
exec "$venv/bin/python" -m scripts.service restart "$@"
