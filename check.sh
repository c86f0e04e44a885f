#!/usr/bin/env bash
# Runs every check: format, lint, types, shell, JavaScript, workflows, tests. Installs what it needs into venv.
#
#   ./check.sh           everything
#   ./check.sh --fix     fixes format and lint first
#   ./check.sh --fast    without the tests that start containers, browsers or whole services
[ -n "${BASH_VERSION-}" ] || exec bash "$0" "$@"
set -euo pipefail
script=$(readlink -f "${BASH_SOURCE[0]}")
cd -P "$(dirname "$script")"
# shellcheck source=scripts/environment.sh
source scripts/environment.sh

accept_only "--fix --fast" "$@"

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

install requirements-dev.txt
ensure_javascript tests/npm
export PATH=$PWD/$venv/bin:$PWD/$venv/javascript/node_modules/.bin:$PATH

step() {
  printf '\n== %s\n' "$*"
  "$@"
}

fix=no slow=yes
for argument in "$@"; do
  case $argument in
    --fix) fix=yes ;;
    --fast) slow=no ;;
  esac
done

if [[ $fix == yes ]]; then
  step ruff format .
  step ruff check --fix .
  step biome check --write .
fi
step ruff format --check .
step ruff check .
step mypy
step biome ci .
step shellcheck ./*.sh scripts/*.sh .ci/run
# What GitHub reads, and what a workflow must not do.
step check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
step check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
step check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/{bug,feature}.yml
step check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
step zizmor --offline --quiet .github
cores=$(getconf _NPROCESSORS_ONLN)
# Files in memory, where there is enough of it: the fast part makes thousands.
fast=(pytest -m "not slow" --numprocesses "$((cores + 1))" --dist worksteal)
if [[ -w /dev/shm ]] && (($(df --output=avail /dev/shm | tail -n 1) > 1000000)); then fast=(env PYTEST_DEBUG_TEMPROOT=/dev/shm "${fast[@]}"); fi
if [[ $slow == no ]]; then
  step "${fast[@]}"
  exit
fi
step "${fast[@]}" --cov --cov-report term:skip-covered
ensure_clients tests/clients
step pytest -m slow --numprocesses "$((cores + 1))" --dist worksteal
