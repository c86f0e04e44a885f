#!/usr/bin/env bash
# Tests the running service: checks /health, makes an image from text, then edits that image. Saves both in
# test_pictures/ and prints a link to the first. With a real key both images are billed. If ACCESS_TOKENS is set, the
# first token is used.
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/environment.sh
source scripts/environment.sh

help_if_wanted "$@"
accept_only "" "$@"
require_installed
exec .venv/bin/python -m scripts.request_pictures "$@"
