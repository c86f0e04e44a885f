#!/usr/bin/env bash
# Asks the running service for its health, a picture from words and a picture from that picture, and saves them in
# test_pictures/; the first comes as a link, which is shown. Where ACCESS_TOKENS are set, it uses the first.
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/environment.sh
source scripts/environment.sh

help_if_wanted "$@"
require_installed
exec .venv/bin/python -m scripts.request_pictures "$@"
