#!/usr/bin/env bash
# Writes every requirements*.txt anew, each by the command in its first line. Versions that are pinned already stay as they are.
#
#   scripts/pin.sh                            after a change in pyproject.toml or tests/clients/requirements.in
#   scripts/pin.sh --upgrade-package fastapi  one package to its newest version within the range
#   scripts/pin.sh --upgrade                  every package
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=scripts/environment.sh
source scripts/environment.sh

if [[ ${1-} == --help ]]; then
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' scripts/pin.sh
  exit 0
fi
command -v uv >/dev/null || die "uv is needed: $venv/bin/python -m pip install uv, then: PATH=$venv/bin:\$PATH scripts/pin.sh"
for file in requirements*.txt tests/clients/requirements.txt; do
  IFS= read -r first <"$file"
  read -ra compile <<<"${first#*: }"
  new=$(mktemp)
  cp "$file" "$new" # uv keeps the versions that it finds in the file it writes to
  "${compile[@]}" --quiet --no-header --no-annotate --output-file "$new" "$@" >/dev/null
  { printf '%s\n' "$first" && cat "$new"; } >"$file"
  rm "$new"
done
