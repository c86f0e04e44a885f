#!/usr/bin/env bash
# Stops the service. Running requests are finished first. If the service is not running, nothing is changed.
[ -n "${BASH_VERSION-}" ] || exec bash "$0" "$@"
set -euo pipefail
script=$(readlink -f "${BASH_SOURCE[0]}")
cd -P "$(dirname "$script")"
# shellcheck source=scripts/environment.sh
source scripts/environment.sh
# shellcheck source=scripts/process.sh
source scripts/process.sh

help_if_wanted "$@"
accept_only "" "$@"
require_own_state
# Beyond the deadline of any request and the grace that the workers have after it (banana/launcher.py).
stop_seconds=$("$venv/bin/python" -m scripts.probe --stop-seconds 2>/dev/null) || stop_seconds=610

if pid=$(running_pid); then
  if unit=$(unit_of "$pid"); then
    die "systemd runs the service, and would start it again; stop it with: sudo systemctl stop $unit"
  fi
  group=$pid
  kill -TERM "$pid"
elif [[ -n $(left_over) ]]; then
  read -r group <"$PID_FILE"
  say "The main process is gone; stopping the workers it left behind."
  mapfile -t orphans < <(left_over)
  kill -TERM "${orphans[@]}" 2>/dev/null || true
elif pid=$(recorded_pid); then
  die "process $pid of $PID_FILE is running, but is not recognized as this service; nothing was stopped"
else
  rm -f "$PID_FILE"
  say "The service is not running."
  exit 0
fi

progress 'Stopping after running requests are finished '
deadline=$((SECONDS + stop_seconds))
while [[ -n $(members_of "$group") ]]; do
  if ((SECONDS >= deadline)); then
    say
    say "Still running after $stop_seconds s; killing it."
    mapfile -t members < <(members_of "$group")
    kill -KILL "${members[@]}" 2>/dev/null || true
  fi
  progress .
  sleep 0.3
done
rm -f "$PID_FILE"
say
say Stopped.
