# shellcheck shell=bash
# Sourced by the scripts at the top: the virtual environment with pinned packages, and progress while something takes long.

# Output that nobody reads (./start.sh | head) stops nothing, nor does one that is closed.
trap '' PIPE
[[ -e /dev/fd/1 ]] || exec >/dev/null
[[ -e /dev/fd/2 ]] || exec 2>/dev/null
say() { printf '%s\n' "$*" 2>/dev/null || true; }
progress() { printf '%s' "$*" 2>/dev/null || true; }

# The virtual environment: made by ensure_environment or by hand. Earlier releases made .venv, which is used where it is.
venv=venv
if [[ ! -d venv && -d .venv ]]; then venv=.venv; fi

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# accept_only "ALLOWED…" ARGUMENTS...: print the head of the script when it is asked for --help, and fail on an argument that
# it does not know.
accept_only() {
  local allowed=" $1 " argument
  shift
  for argument in "$@"; do
    if [[ $argument == --help || $argument == -h ]]; then
      sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${script-}"
      exit 0
    fi
    [[ $allowed == *" $argument "* || $allowed == " ... " ]] || die "unknown argument $argument. See ./${script##*/} --help"
  done
}

# require_own_state: what a running service left here is not another user's.
require_own_state() {
  [[ ! -e .state || (-w .state && -x .state) ]] ||
    die "$PWD/.state belongs to $(stat -c %U .state 2>/dev/null || echo "another user"). Run this as the user who started the service, or take it over: sudo chown -R $(id -un) $(printf %q "$PWD/.state")"
}

# make_env_file ARGUMENTS...: .env is there, for its owner's eyes only; of a new one, what is missing in it is said at once.
make_env_file() {
  [[ -w . ]] || die "$(id -un) cannot write to $PWD. Run this as the folder's owner, or take it over: sudo chown -R $(id -un) $(printf %q "$PWD")"
  if [[ ! -e .env ]]; then
    (umask 077 && cp .env.example .env)
    say "Created .env from .env.example"
    [[ " $* " == *" --demo "* || -n ${GEMINI_API_KEY-}${DEMO-} ]] ||
      die "GEMINI_API_KEY is not set. Get a key at https://aistudio.google.com/apikey and add it to $PWD/.env. To try the service without a key: ./${script##*/} --demo"
  fi
}

# require_installed: the packages are there, and this user can run them.
require_installed() {
  [[ ! -e $venv || -x $venv/bin/python ]] || die "$(id -un) cannot run $PWD/$venv/bin/python. Run this as the user who installed it"
  [[ -e $venv/installed-requirements.txt || -e $venv/installed-requirements-all.txt || -e $venv/installed-requirements-dev.txt ]] ||
    is_installed requirements.txt ||
    die "the packages are not installed yet, or their installation failed. Run ./start.sh or ./start.sh --demo first"
}

# is_installed REQUIREMENTS: the environment has these packages in these versions, whoever installed them.
is_installed() {
  cmp -s "$1" "$venv/installed-$1" && "$venv/bin/python" -c "" 2>/dev/null && return
  "$venv/bin/python" -m scripts.installed "$1" 2>/dev/null && { cp "$1" "$venv/installed-$1" 2>/dev/null || true; }
}

# with_progress LOG COMMAND...: run it with its output in LOG, a dot every second; its exit status.
with_progress() {
  local log=$1
  shift
  "$@" >"$log" 2>&1 &
  local pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    sleep 1
    progress .
  done
  say
  wait "$pid"
}

# find_python: the first Python that is new enough.
find_python() {
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11 python; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      say "$name"
      return
    fi
  done
  return 1
}

# ensure_environment: the environment has the packages that the settings need.
ensure_environment() {
  (umask 077 && mkdir -p .state)
  # Of two at the same moment the second waits.
  if command -v flock >/dev/null; then
    exec 9>.state/install.lock
    flock -n 9 || { say "Another script is installing the packages; waiting for it." && flock 9; }
  fi
  install requirements.txt
  local requirements
  requirements=$("$venv/bin/python" -m scripts.service requirements)
  [[ $requirements == requirements.txt ]] || install "$requirements"
  exec 9>&-
}

# install REQUIREMENTS: the environment has these packages in these versions; nothing happens when it has them already.
install() {
  local requirements=$1 log python
  if is_installed "$requirements"; then return; fi
  if "$venv/bin/python" -c "" 2>/dev/null && ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    "$venv/bin/python" -m ensurepip >/dev/null 2>&1 || true # uv makes environments without it
  fi
  if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python) || die "Python 3.11 or newer was not found. Install it (Debian, Ubuntu: sudo apt-get install python3 python3-venv; others: https://www.python.org/downloads/) and try again"
    say "Creating the virtual environment $venv"
    rm -rf "$venv"
    if ! log=$("$python" -m venv "$venv" 2>&1); then
      rm -rf "$venv"
      printf '%s\n' "$log" >&2
      die "'$python -m venv' failed. On Debian and Ubuntu: sudo apt-get install python3-venv, then try again"
    fi
  fi
  progress "Installing packages from $requirements (about a minute) "
  if ! with_progress "$venv/install.log" "$venv/bin/python" -m pip install --disable-pip-version-check -r "$requirements"; then
    tail -n 15 "$venv/install.log" >&2
    die "the packages could not be installed. The whole output is in $venv/install.log"
  fi
  cp "$requirements" "$venv/installed-$requirements"
}
