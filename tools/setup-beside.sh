#!/bin/sh
# Brings .NAME, an environment beside .venv, to requirements/NAME.lock: tools/setup-beside.sh clients|planner.
# Done before with the same lock: returns at once. `planner` holds the project, too.

set -eu

lock=requirements/$1.lock
fingerprint() { cksum <"$lock"; }
if [ "$(cat ".$1/.setup" 2>/dev/null)" = "$(fingerprint)" ]; then exit 0; fi
echo "environment: installing $(grep -c '==' "$lock") locked packages from $lock into .$1"
.venv/bin/python -m venv --clear ".$1"
pip="env PIP_DISABLE_PIP_VERSION_CHECK=1 .$1/bin/python -m pip -qq install"
$pip --no-compile --require-hashes -r "$lock"
[ "$1" != planner ] || $pip --no-build-isolation --no-deps -e .
fingerprint >".$1/.setup"
echo "environment: ready"
