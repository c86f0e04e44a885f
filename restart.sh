#!/usr/bin/env bash
# Restarts the service with the code and the settings as they are now; starts it when it does not run.
# Arguments (--demo) are those of the last start unless others are given.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/environment.sh
source scripts/environment.sh
# shellcheck source=scripts/process.sh
source scripts/process.sh

arguments=("$@")
if ((${#arguments[@]} == 0)) && running_pid >/dev/null; then
  read -ra arguments < <(sed -n 3p "$PID_FILE") || true
fi
./stop.sh
exec ./start.sh ${arguments[@]+"${arguments[@]}"}
