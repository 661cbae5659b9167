#!/usr/bin/env bash
# tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]
set -euo pipefail
MMAIB_TOOL=test exec "$(dirname "$0")/dist_train.sh" "$1" "$3" "$2" "${@:4}"
