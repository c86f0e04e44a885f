#!/usr/bin/env bash
# Starts the service in the background and waits until it answers. If it is already running, nothing is changed: it says
# where, in which mode, with how many workers, and what was spent today.
#
#   ./start.sh           uses GEMINI_API_KEY from .env
#   ./start.sh --demo    needs no key: images come from a built-in simulator, nothing is billed
[ -n "${BASH_VERSION-}" ] || exec bash "$0" "$@"
set -euo pipefail
script=$(readlink -f "${BASH_SOURCE[0]}")
cd -P "$(dirname "$script")"
# shellcheck source=scripts/environment.sh
source scripts/environment.sh
# shellcheck source=scripts/process.sh
source scripts/process.sh

readonly READY_SECONDS=60

fail() {
  printf '\n' >&2 || true
  tail -n 15 .state/start.log >&2 2>/dev/null || true
  "$python" -m scripts.read_log --last 15 >&2 2>/dev/null || true
  die "$1"
}

help_if_wanted "$@"
accept_only --demo "$@"
require_writable
require_own_state
(umask 077 && mkdir -p logs .state)
# Of two starts at the same moment the second waits, and then finds the service running.
if command -v flock >/dev/null; then
  exec 9>.state/start.lock
  if ! flock -n 9; then
    say "Another ./start.sh is already starting the service; waiting for it."
    flock 9
  fi
fi
if pid=$(running_pid); then
  mapfile -t workers < <(workers_of "$pid")
  read -ra arguments <<<"$(arguments_of "$pid")"
  say "The service is already running (pid $pid). To stop it: ./stop.sh   To restart it: ./restart.sh"
  if [[ " $* " == *" --demo "* ]]; then arguments+=(--wants-demo); fi
  exec "$venv/bin/python" -m scripts.status --running "${#workers[@]}" ${arguments[@]+"${arguments[@]}"}
fi
if [[ -n $(left_over) ]]; then
  die "the main process was killed and its workers are still running. Run ./stop.sh, then start again"
fi
make_env_file
require_key "$@"
ensure_environment "$(requirements_file)"
python=$PWD/$venv/bin/python

"$python" main.py --check "$@" || exit 1

# A session of its own: the service outlives this terminal, and its group can be told from every other. Nothing that was
# open here stays open in it.
"$python" -c '
import os, sys
os.setsid()
os.closerange(3, os.sysconf("SC_OPEN_MAX"))
os.execv(sys.executable, [sys.executable, "main.py", *sys.argv[1:]])
' "$@" >.state/start.log 2>&1 </dev/null &
pid=$!
{
  printf '%s\n' "$pid"
  started_at "$pid"
  "$python" main.py --launch-settings "$@"
} >"$PID_FILE"

progress 'Starting '
if ! "$python" -m scripts.status --started "$pid" "$READY_SECONDS" "$@"; then
  kill -0 "$pid" 2>/dev/null || fail "the service stopped while it was starting. The lines above are the end of its log"
  ./stop.sh >/dev/null || true
  fail "the service was not ready within $READY_SECONDS s and was stopped. The lines above are the end of its log"
fi
