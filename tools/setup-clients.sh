#!/bin/sh
# Brings .clients, the SDKs' own environment, to its lock. Done before with the same lock: returns at once.

set -eu

lock=requirements/clients.lock
fingerprint() { cksum <"$lock"; }
if [ "$(cat .clients/.setup 2>/dev/null)" = "$(fingerprint)" ]; then exit 0; fi
echo "environment: installing $(grep -c '==' "$lock") locked packages from $lock into .clients"
.venv/bin/python -m venv --clear .clients
PIP_DISABLE_PIP_VERSION_CHECK=1 .clients/bin/python -m pip -qq install --no-compile --require-hashes -r "$lock"
fingerprint >.clients/.setup
echo "environment: ready"
