#!/usr/bin/env bash
# Shows the log for people: a line a request, in colour on a terminal.
#
#   ./logs.sh              the last 50 lines
#   ./logs.sh --follow     …and what comes, until Ctrl-C
#   ./logs.sh --last 500   the last 500 lines
#   docker logs banana-service 2>&1 | ./logs.sh -
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/environment.sh
source scripts/environment.sh

help_if_wanted "$@"
require_installed
exec .venv/bin/python -m scripts.read_log "$@"
