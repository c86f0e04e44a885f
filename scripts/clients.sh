# shellcheck shell=bash
# Sourced by check.sh and the tests, behind environment.sh: the clients under test, each kind in an environment of its own.

# ensure_clients FOLDER: its requirements.txt is installed into the environment's clients; nothing happens when it is
# already. Needs the environment.
# shellcheck disable=SC2154 # venv: of environment.sh
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
