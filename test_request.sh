#!/usr/bin/env bash
# Tests the running service: checks /health, makes an image from text, then edits that image. Saves both in
# test_pictures/ and prints a link to the first. With a real key both images are billed. If ACCESS_TOKENS is set, the
# first token is used.
[ -n "${BASH_VERSION-}" ] || exec bash "$0" "$@"
set -euo pipefail
script=$(readlink -f "${BASH_SOURCE[0]}")
cd -P "$(dirname "$script")"
# shellcheck source=scripts/environment.sh
source scripts/environment.sh

accept_only "" "$@"
require_installed
exec "$venv/bin/python" -m scripts.request_pictures "$@"
