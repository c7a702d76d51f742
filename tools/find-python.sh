#!/bin/sh
# Prints the Python that the project's environments are made with: 3.11 or newer, with `venv` and `pip`.
# One that has a shared libpython comes first, since only it can run the real Triton server.
# PYTHON=... chooses another. When there is none, says what to install and fails.

set -u
check='
import sys, sysconfig, pathlib
if not (3, 11) <= sys.version_info[:2] < (3, 14): sys.exit(3)
import ensurepip, venv
library = pathlib.Path(sysconfig.get_config_var("LIBDIR") or "/", sysconfig.get_config_var("INSTSONAME") or "none")
print("shared" if ".so" in library.name and library.exists() else "static", sys.executable)
'
fallback=""
seen=""
for name in ${PYTHON:-python3.12 python3.11 python3 python3.13 /usr/bin/python3}; do
    path=$(command -v "$name" 2>/dev/null) || continue
    found=$("$path" -c "$check" 2>/dev/null) || { seen="$seen $path"; continue; }
    executable=${found#* }
    if [ "${found%% *}" = shared ]; then echo "$executable"; exit 0; fi
    [ -n "$fallback" ] || fallback=$executable
done
if [ -n "$fallback" ]; then echo "$fallback"; exit 0; fi

echo "error: no Python 3.11, 3.12 or 3.13 with venv and pip found${seen:+ (not usable:$seen)}" >&2
echo "  Debian/Ubuntu: apt install python3 python3-venv libpython3-dev" >&2
echo "  without root:  uv python install 3.12, then: make PYTHON=\$(uv python find 3.12) demo" >&2
exit 1
