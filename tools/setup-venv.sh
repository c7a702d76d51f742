#!/bin/sh
# Brings .venv to one lock: tools/setup-venv.sh bare|run|dev. Done before with the same lock: returns at once.
# `bare` only makes the environment, so that other installations can begin beside this one.

set -eu

if [ ! -x .venv/bin/python ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    python=$(tools/find-python.sh)
    echo "environment: making .venv with $python"
    "$python" -m venv --clear .venv
fi
[ "$1" != bare ] || exit 0

fingerprint() { cat "requirements/$1.lock" pyproject.toml | cksum; }
done_before() { [ "$(cat ".venv/.setup-$1" 2>/dev/null)" = "$(fingerprint "$1")" ]; }
if done_before "$1" || done_before dev; then exit 0; fi # the dev lock holds all of the run lock

lock=requirements/$1.lock
echo "environment: installing $(grep -c '==' "$lock") locked packages from $lock"
pip="env PIP_DISABLE_PIP_VERSION_CHECK=1 .venv/bin/python -m pip -qq install"
$pip --no-compile --require-hashes -r "$lock"
$pip --no-build-isolation --no-deps -e .
fingerprint "$1" >".venv/.setup-$1"
echo "environment: ready"
