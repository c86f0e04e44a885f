#!/usr/bin/env bash
# Starts the service in the background and waits until it answers. If it is already running, it goes on as it is, and this
# says where, in which mode, with how many workers, and what was spent today.
#
#   ./start.sh           uses GEMINI_API_KEY from .env
#   ./start.sh --demo    needs no key: images come from a built-in simulator, nothing is billed
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
# glibc keeps the pages of images for the next ones, and gives them back when they are many (docs/operate.md).
export MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=67108864
exec "$venv/bin/python" -m scripts.service start "$@"
