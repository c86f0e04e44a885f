# shellcheck shell=bash
# Sourced by start.sh, stop.sh and restart.sh: which process is the service, and is it really ours.
#
# The service leads a process group of its own; .state/banana.pid holds its id, when it was started by the system's own
# record, its arguments, and the settings that only a new start puts in force. An id that was given to another process since has another start time.

PID_FILE=.state/banana.pid

# status_of PID: the fields of /proc/PID/stat from the third on (state, parent, group, …, start time as the 20th).
status_of() {
  local stat
  { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
  printf '%s\n' "${stat##*) }"
}

# started_at PID: when that process was started; fails when there is none.
started_at() {
  if [[ -d /proc/self ]]; then
    local -a fields
    read -ra fields < <(status_of "$1") && [[ ${fields[0]} != Z ]] && printf '%s\n' "${fields[19]}"
  else
    ps -o lstart= -p "$1"
  fi
}

# is_our_python PID: whether it runs the Python of this folder.
is_our_python() {
  local command
  if [[ -d /proc/self ]]; then
    { command=$(tr '\0' ' ' <"/proc/$1/cmdline"); } 2>/dev/null || return 1
  else
    command=$(ps -o command= -p "$1") || return 1
  fi
  [[ $command == "$PWD/.venv/bin/python"* || $command == ".venv/bin/python"* ]]
}

# members_of GROUP: the processes of that group that are ours.
members_of() {
  local pid group
  if [[ -d /proc/self ]]; then
    for pid in /proc/[0-9]*; do
      pid=${pid#/proc/}
      local -a fields=()
      read -ra fields < <(status_of "$pid") || continue
      [[ ${fields[2]} == "$1" && ${fields[0]} != Z ]] && is_our_python "$pid" && printf '%s\n' "$pid"
    done
  else
    while read -r pid group; do
      [[ $group == "$1" ]] && is_our_python "$pid" && printf '%s\n' "$pid"
    done < <(ps -axo pid=,pgid=)
  fi
  return 0
}

# workers_of GROUP: the processes of that group that serve.
workers_of() {
  local pid command
  for pid in $(members_of "$1"); do
    if [[ -d /proc/self ]]; then
      { command=$(tr '\0' ' ' <"/proc/$pid/cmdline"); } 2>/dev/null || continue
    else
      command=$(ps -o command= -p "$pid") || continue
    fi
    if [[ $command == *spawn_main* ]]; then printf '%s\n' "$pid"; fi
  done
}

# running_pid: the id of the running service; fails when it does not run.
running_pid() {
  local pid started
  { read -r pid && read -r started; } 2>/dev/null <"$PID_FILE" || return 1
  [[ -n $started && $(started_at "$pid") == "$started" ]] && is_our_python "$pid" && printf '%s\n' "$pid"
}

# left_over: the workers of a service whose parent is gone.
left_over() {
  local pid
  { read -r pid; } 2>/dev/null <"$PID_FILE" || return 0
  # An id that lives again cannot lead our old group: the system gives no id away while a group has it.
  started_at "$pid" >/dev/null || members_of "$pid"
}
