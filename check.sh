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
# shellcheck source=scripts/clients.sh
source scripts/clients.sh

accept_only "--fix --fast" "$@"

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
