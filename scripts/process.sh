# shellcheck shell=bash
# Sourced by start.sh, stop.sh and restart.sh: which process is the service, and is it really ours.
#
# The service leads a session and a process group of its own. .state/banana.pid holds its id, when it was started by the
# system's own record, and the settings that only a new start puts in force. An id that was given to another process since
# has another start time; where the file is gone, the service is found by what it is.

PID_FILE=.state/banana.pid

# status_of PID: the fields of /proc/PID/stat from the third on (state, parent, group, session, …, start time as the 20th).
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

# command_of PID: its command line; fails when there is none.
command_of() {
  local command
  if [[ -d /proc/self ]]; then
    { command=$(tr '\0' ' ' <"/proc/$1/cmdline"); } 2>/dev/null || return 1
  else
    command=$(ps -o command= -p "$1") || return 1
  fi
  printf '%s\n' "$command"
}

# is_our_python PID: whether it runs the Python of this folder, by whatever name the folder was called.
is_our_python() {
  local command
  command=$(command_of "$1") || return 1
  if [[ -d /proc/self ]]; then
    [[ $command == *venv/bin/python* && /proc/$1/cwd -ef . ]]
  else
    [[ $command == "$PWD/"*venv/bin/python* || $command == venv/bin/python* || $command == .venv/bin/python* ]]
  fi
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
    command=$(command_of "$pid") || continue
    if [[ $command == *spawn_main* ]]; then printf '%s\n' "$pid"; fi
  done
}

# recorded_pid: the id in the file, when that very process lives; fails otherwise.
recorded_pid() {
  local pid started
  { read -r pid && read -r started; } 2>/dev/null <"$PID_FILE" || return 1
  [[ -n $started && $(started_at "$pid") == "$started" ]] && printf '%s\n' "$pid"
}

# leader_without_file: the service whose file is gone: our Python with main.py, at the head of a session.
leader_without_file() {
  local pid
  if [[ -d /proc/self ]]; then
    for pid in /proc/[0-9]*; do
      pid=${pid#/proc/}
      local -a fields=()
      read -ra fields < <(status_of "$pid") || continue
      if [[ ${fields[3]} == "$pid" && ${fields[0]} != Z && $(command_of "$pid") == *" main.py "* ]] &&
        is_our_python "$pid"; then
        printf '%s\n' "$pid"
        return
      fi
    done
  fi
  return 1
}

# running_pid: the id of the running service; fails when it does not run.
running_pid() {
  local pid
  pid=$(recorded_pid) && is_our_python "$pid" && printf '%s\n' "$pid" && return
  leader_without_file
}

# arguments_of PID: what main.py was started with.
arguments_of() {
  local command
  command=$(command_of "$1") || return 1
  local -a words
  command=${command##*main.py}
  read -ra words <<<"$command"
  printf '%s\n' "${words[*]-}"
}

# unit_of PID: the systemd unit that it runs as (ops/banana-service.service says so in its environment); fails when none.
unit_of() {
  local variable
  while IFS= read -r -d '' variable; do
    if [[ $variable == BANANA_UNIT=* ]]; then
      printf '%s\n' "${variable#*=}"
      return
    fi
  done 2>/dev/null <"/proc/$1/environ"
  return 1
}

# left_over: the workers of a service whose parent is gone.
left_over() {
  local pid
  { read -r pid; } 2>/dev/null <"$PID_FILE" || return 0
  # An id that lives again cannot lead our old group: the system gives no id away while a group has it.
  started_at "$pid" >/dev/null || members_of "$pid"
}
