#!/usr/bin/env bash
# Shows the log in readable form: one line per request.
#
#   ./logs.sh              the last 50 lines
#   ./logs.sh --follow     and new lines as they come, until Ctrl-C
#   ./logs.sh --last 500   the last 500 lines
#   ./logs.sh --request ID every line of one request, by its X-Request-ID or the first characters of it
#   docker logs banana-service 2>&1 | ./logs.sh -
[ -n "${BASH_VERSION-}" ] || exec bash "$0" "$@"
set -euo pipefail
script=$(readlink -f "${BASH_SOURCE[0]}")
cd -P "$(dirname "$script")"
# shellcheck source=scripts/environment.sh
source scripts/environment.sh

accept_only ... "$@"
require_installed
exec "$venv/bin/python" -m scripts.read_log "$@"
