#!/usr/bin/env bash
# Restarts the service with the current code and settings. If it is not running, it is started.
#
#   ./restart.sh           with the arguments of the last start
#   ./restart.sh --demo    in demo mode
#
# Workers are replaced one after another, and each finishes its requests first: no request is lost. A change of HOST,
# PORT, WORKERS, REQUEST_TIMEOUT_SECONDS, MAX_CONNECTIONS, MAX_REQUESTS, IDLE_SECONDS, DEMO or --demo stops the service
# and starts it again.
[ -n "${BASH_VERSION-}" ] || exec bash "$0" "$@"
set -euo pipefail
script=$(readlink -f "${BASH_SOURCE[0]}")
cd -P "$(dirname "$script")"
# shellcheck source=scripts/environment.sh
source scripts/environment.sh
# shellcheck source=scripts/process.sh
source scripts/process.sh

help_if_wanted "$@"
accept_only --demo "$@"
require_own_state
if ! pid=$(running_pid); then
  exec ./start.sh "$@"
fi

ensure_environment "$(requirements_file)"
python=$PWD/$venv/bin/python
old_arguments=$(arguments_of "$pid")
old_launch=$(sed -n 3p "$PID_FILE" 2>/dev/null) || old_launch=unknown
arguments=("$@")
if ((${#arguments[@]} == 0)); then
  read -ra arguments <<<"$old_arguments"
fi

"$python" main.py --check --running ${arguments[@]+"${arguments[@]}"} ||
  die "not restarted: the service keeps running with its old code and settings"
launch=$("$python" main.py --launch-settings ${arguments[@]+"${arguments[@]}"})
if unit=$(unit_of "$pid"); then
  say "systemd runs the service. If HOST, PORT, WORKERS or another setting of ./restart.sh --help changed: sudo systemctl restart $unit"
elif [[ "${arguments[*]-}" != "$old_arguments" || $launch != "$old_launch" ]]; then
  say "A changed setting needs a stop and a start."
  ./stop.sh
  exec ./start.sh ${arguments[@]+"${arguments[@]}"}
fi

mapfile -t old_workers < <(workers_of "$pid")
stop_seconds=$("$python" -m scripts.probe --stop-seconds)
failed=.state/restart.failed # where the parent says why it gave up replacing its workers (banana/launcher.py)
rm -f "$failed"
kill -HUP "$pid"
progress "Replacing ${#old_workers[@]} workers, each after its requests are finished "
deadline=$((SECONDS + ${#old_workers[@]} * (stop_seconds + 30)))
for worker in "${old_workers[@]}"; do
  ticks=0
  while is_our_python "$worker"; do
    ((SECONDS < deadline)) || die "a worker was not replaced in time. See why: ./logs.sh"
    [[ ! -s $failed ]] || die "not restarted, because $(<"$failed")"
    kill -0 "$pid" 2>/dev/null || die "the service was stopped meanwhile. Start it again: ./start.sh"
    ticks=$((ticks + 1))
    if ((ticks % 5 == 0)); then progress .; fi
    sleep 0.2
  done
done
say
address=$("$python" -m scripts.probe) || die "the service does not answer. See why: ./logs.sh"
say "Restarted: $address"
"$python" -m scripts.status --restarted ${arguments[@]+"${arguments[@]}"}
