#!/usr/bin/env bash
# Asks the running service for its health, a picture from words and a picture from that picture, and saves them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/environment.sh
source scripts/environment.sh

[[ -x .venv/bin/python ]] || die "the service was never started here; start it: ./start.sh --demo"
exec .venv/bin/python -m scripts.request_pictures "$@"
