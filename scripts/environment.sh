# shellcheck shell=bash
# Sourced by the scripts at the top: a virtual environment with pinned packages, and progress while something takes long.

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

# help_if_wanted ARGUMENTS...: print the head of the script and exit, when it is asked for --help.
help_if_wanted() {
  local argument
  for argument in "$@"; do
    if [[ $argument == --help || $argument == -h ]]; then
      sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${script-}"
      exit 0
    fi
  done
}

# accept_only "ALLOWED…" ARGUMENTS...: fail on an argument that this script does not know.
accept_only() {
  local allowed=" $1 " argument
  shift
  for argument in "$@"; do
    [[ $allowed == *" $argument "* ]] || die "unknown argument $argument. See ./${script##*/} --help"
  done
}

# require_writable: this folder can be written to.
require_writable() {
  [[ -w . ]] || die "$(id -un) cannot write to $PWD. Run this as the folder's owner, or take it over: sudo chown -R $(id -un) $(printf %q "$PWD")"
}

# require_own_state: what a running service left here is not another user's.
require_own_state() {
  [[ ! -e .state || (-w .state && -x .state) ]] ||
    die "$PWD/.state belongs to $(stat -c %U .state 2>/dev/null || echo "another user"). Run this as the user who started the service, or take it over: sudo chown -R $(id -un) $(printf %q "$PWD/.state")"
}

# make_env_file: .env is there, for its owner's eyes only.
make_env_file() {
  if [[ ! -e .env ]]; then
    (umask 077 && cp .env.example .env)
    say "Created .env from .env.example"
  fi
}

# require_key ARGUMENTS...: a key is set or the demo is wanted; what .env says exactly is main.py's to read.
require_key() {
  [[ " $* " == *" --demo "* || -n ${GEMINI_API_KEY-} || ${DEMO-} == [Tt1]* ]] && return
  # UTF-16, as an editor of Windows may save it, has a zero in each character.
  [[ $(wc -c <.env) == $(tr -d '\0' <.env | wc -c) ]] || die ".env is not UTF-8; save it as UTF-8"
  grep -Eiq '^[[:space:]]*(export[[:space:]]+)?(GEMINI_API_KEY[[:space:]]*=[[:space:]]*[^[:space:]]|DEMO[[:space:]]*=[[:space:]]*(1|t|y|on))' .env && return
  die "GEMINI_API_KEY is not set. Get a key at https://aistudio.google.com/apikey and add it to $PWD/.env. To try the service without a key: ./${script##*/} --demo"
}

# requirements_file: the one with what the settings need; S3 has a package of its own.
requirements_file() {
  if [[ ${RESULTS_URL-} == s3:* ]] ||
    { [[ -z ${RESULTS_URL-} ]] && grep -Eq "^[[:space:]]*(export[[:space:]]+)?RESULTS_URL[[:space:]]*=[[:space:]]*[\"']?s3:" .env 2>/dev/null; }; then
    say requirements-s3.txt
  else
    say requirements.txt
  fi
}

# has_packages REQUIREMENTS: the environment has these packages in these versions, whoever installed them.
has_packages() {
  "$venv/bin/python" -m scripts.installed "$1" 2>/dev/null
}

# require_installed: the packages are there, and this user can run them.
require_installed() {
  [[ ! -e $venv || -x $venv/bin/python ]] || die "$(id -un) cannot run $PWD/$venv/bin/python. Run this as the user who installed it"
  [[ -e $venv/installed-requirements.txt || -e $venv/installed-requirements-s3.txt || -e $venv/installed-requirements-dev.txt ]] ||
    has_packages requirements.txt ||
    die "the packages are not installed yet, or their installation failed. Run ./start.sh or ./start.sh --demo first"
}

# with_progress LOG COMMAND...: run it with its output in LOG, a dot every second; its exit status.
with_progress() {
  local log=$1
  shift
  "$@" >"$log" 2>&1 &
  local pid=$! ticks=0
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.1
    ticks=$((ticks + 1))
    if ((ticks % 10 == 0)); then progress .; fi
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

# ensure_environment REQUIREMENTS: the environment has these packages in these versions; nothing happens when it has them already.
ensure_environment() {
  local requirements=$1 stamp=$venv/installed-$1 log
  require_writable
  if cmp -s "$requirements" "$stamp" && "$venv/bin/python" -c "" 2>/dev/null; then
    return
  fi
  if has_packages "$requirements"; then
    cp "$requirements" "$stamp"
    return
  fi
  if "$venv/bin/python" -c "" 2>/dev/null && ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    "$venv/bin/python" -m ensurepip >/dev/null 2>&1 || true # uv makes environments without it
  fi
  if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    local python
    python=$(find_python) || die "Python 3.11 or newer was not found. Install it (Debian, Ubuntu: sudo apt-get install python3 python3-venv; others: https://www.python.org/downloads/) and try again"
    say "Creating the virtual environment $venv"
    rm -rf "$venv"
    if ! log=$("$python" -m venv "$venv" 2>&1); then
      rm -rf "$venv"
      printf '%s\n' "$log" >&2
      die "'$python -m venv' failed. On Debian and Ubuntu: sudo apt-get install python3-venv, then try again"
    fi
  fi
  if ! cmp -s "$requirements" "$stamp"; then
    progress "Installing packages from $requirements (about a minute) "
    if ! with_progress "$venv/install.log" "$venv/bin/python" -m pip install --disable-pip-version-check -r "$requirements"; then
      tail -n 15 "$venv/install.log" >&2
      die "the packages could not be installed. The whole output is in $venv/install.log"
    fi
    cp "$requirements" "$stamp"
  fi
}

# ensure_clients FOLDER: its requirements.txt is installed into the environment's clients; nothing happens when it is
# already. Needs the environment.
ensure_clients() {
  local folder=$1 target=$PWD/$venv/clients
  if ! cmp -s "$folder/requirements.txt" "$target/installed-requirements.txt"; then
    progress "Installing packages from $folder/requirements.txt "
    rm -rf "$target"
    "$venv/bin/python" -m venv "$target"
    if ! with_progress "$venv/clients.log" "$target/bin/python" -m pip install --disable-pip-version-check -r "$folder/requirements.txt"; then
      tail -n 15 "$venv/clients.log" >&2
      die "the packages could not be installed. The whole output is in $venv/clients.log"
    fi
    cp "$folder/requirements.txt" "$target/installed-requirements.txt"
  fi
}

# ensure_javascript FOLDER: its package-lock.json is installed into the environment's javascript; nothing happens when it
# is already.
# Needs the environment of requirements-dev.txt, which has node and npm.
ensure_javascript() {
  local folder=$1 target=$PWD/$venv/javascript
  if ! cmp -s "$folder/package-lock.json" "$target/installed-package-lock.json"; then
    progress "Installing JavaScript packages from $folder "
    mkdir -p "$target"
    cp "$folder/package.json" "$folder/package-lock.json" "$target/"
    # Not npm ci: the lock has the formatter's program for the system it was made on alone.
    if ! PATH=$PWD/$venv/bin:$PATH with_progress "$venv/javascript.log" npm install --prefix "$target" --no-audit --no-fund; then
      tail -n 15 "$venv/javascript.log" >&2
      die "the packages could not be installed. The whole output is in $venv/javascript.log"
    fi
    cp "$folder/package-lock.json" "$target/installed-package-lock.json"
  fi
}
