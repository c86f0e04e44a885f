#!/usr/bin/env bash
# Runs the service in the foreground, for development: one worker, which follows changes of the code and of .env.
#
#   ./run.sh             needs GEMINI_API_KEY in .env
#   ./run.sh --demo      needs nothing: a stand-in answers in Google's place
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/environment.sh
source scripts/environment.sh

help_if_wanted "$@"
require_writable
make_env_file
require_key "$@"
ensure_environment "$(requirements_file)"
exec .venv/bin/python main.py --reload "$@"
