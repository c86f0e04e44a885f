#!/usr/bin/env bash
# Restarts the service with the code and the settings as they are now; starts it when it does not run.
# Arguments (--demo) are those of the last start unless others are given.
#
# Worker after worker is replaced by one that is ready, and finishes what it has: no request is lost. Only what the
# parent process keeps (HOST, PORT, WORKERS, REQUEST_TIMEOUT_SECONDS, MAX_CONNECTIONS, MAX_REQUESTS, IDLE_SECONDS, DEMO
# and --demo) needs a stop and a start.
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/environment.sh
source scripts/environment.sh
# shellcheck source=scripts/process.sh
source scripts/process.sh

help_if_wanted "$@"
if ! pid=$(running_pid); then
  exec ./start.sh "$@"
fi

ensure_environment "$(requirements_file)"
python=$PWD/.venv/bin/python
old_arguments=$(arguments_of "$pid")
old_launch=$(sed -n 3p "$PID_FILE" 2>/dev/null) || old_launch=unknown
arguments=("$@")
if ((${#arguments[@]} == 0)); then
  read -ra arguments <<<"$old_arguments"
fi

"$python" main.py --check --running ${arguments[@]+"${arguments[@]}"} ||
  die "nothing was restarted: the service goes on as it was"
launch=$("$python" main.py --launch-settings ${arguments[@]+"${arguments[@]}"})
if unit=$(unit_of "$pid"); then
  say "systemd runs the service. If HOST, PORT, WORKERS or another setting of ./restart.sh --help changed: sudo systemctl restart $unit"
elif [[ "${arguments[*]-}" != "$old_arguments" || $launch != "$old_launch" ]]; then
  say "A setting changed that needs a stop and a start."
  ./stop.sh
  exec ./start.sh ${arguments[@]+"${arguments[@]}"}
fi

mapfile -t old_workers < <(workers_of "$pid")
stop_seconds=$("$python" -m scripts.probe --stop-seconds)
kill -HUP "$pid"
printf 'Replacing %s workers, each when its requests are done ' "${#old_workers[@]}"
deadline=$((SECONDS + ${#old_workers[@]} * (stop_seconds + 30)))
for worker in "${old_workers[@]}"; do
  ticks=0
  while is_our_python "$worker"; do
    ((SECONDS < deadline)) || die "a worker was not replaced in time; see ./logs.sh"
    ticks=$((ticks + 1))
    if ((ticks % 5 == 0)); then printf .; fi
    sleep 0.2
  done
done
printf '\n'
address=$("$python" -m scripts.probe) || die "the service does not answer; see ./logs.sh"
say "Restarted: $address"
