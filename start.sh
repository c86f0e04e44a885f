#!/usr/bin/env bash
# Starts the service in the background and waits until it answers. Idempotent.
#
#   ./start.sh           needs GEMINI_API_KEY in .env
#   ./start.sh --demo    needs nothing: a stand-in answers in Google's place
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/environment.sh
source scripts/environment.sh
# shellcheck source=scripts/process.sh
source scripts/process.sh

readonly READY_SECONDS=60

fail() {
  printf '\n' >&2
  tail -n 15 logs/start.log logs/app.log >&2 2>/dev/null || true
  die "$1"
}

ensure_environment requirements.txt
python=$PWD/.venv/bin/python
if [[ ! -e .env ]]; then
  cp .env.example .env
  say "Made .env from .env.example"
fi

if pid=$(running_pid); then
  say "The service is running already (pid $pid). Stop it: ./stop.sh   Restart it: ./restart.sh"
  exit 0
fi
if [[ -n $(left_over) ]]; then
  die "workers of a service whose parent was killed are still there; ./stop.sh ends them"
fi

"$python" main.py --check "$@" || exit 1

mkdir -p logs .state
# A session of its own: the service outlives this terminal, and its group can be told from every other.
"$python" -c 'import os, sys; os.setsid(); os.execv(sys.executable, [sys.executable, "main.py", *sys.argv[1:]])' \
  "$@" >logs/start.log 2>&1 </dev/null &
pid=$!
{
  printf '%s\n' "$pid"
  started_at "$pid"
  printf '%s\n' "$*"
  "$python" main.py --launch-settings "$@"
} >"$PID_FILE"

printf 'Starting '
deadline=$((SECONDS + READY_SECONDS))
until address=$("$python" -m scripts.probe 2>/dev/null); do
  printf .
  kill -0 "$pid" 2>/dev/null || fail "the service ended while it started; above is the end of its log"
  if ((SECONDS >= deadline)); then
    ./stop.sh >/dev/null || true
    fail "the service was not ready within $READY_SECONDS s; above is the end of its log"
  fi
  sleep 0.2
done
cat <<EOF

The service is ready: $address
  try it     ./test_request.sh
  log        logs/app.log
  stop       ./stop.sh
EOF
