#!/usr/bin/env bash
# On a machine with a GPU, Python, torch and numpy, and no network: installs wheelhouse/ (see
# tools/wheelhouse.sh), then runs what `make test-gpu` and `make bench-gpu` run. Usage:
# tools/on_gpu.sh [FOLDER [OPTION ...]]; results and the log go to FOLDER (build/gpu), options to
# bench-gpu. PYTHON names the interpreter that has torch; TMPFS_GB what may lie in memory (44).
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
out=${1:-build/gpu}
shift || true
mkdir -p "$out" build
out=$(realpath "$out")
exec > >(tee -a "$out/log.txt") 2>&1

# Beside what is installed there, and before it: nothing of the machine's own is changed.
site=$PWD/build/gpu-site
"$python" -m pip install -q --disable-pip-version-check --no-index --no-deps --no-compile \
  --upgrade --target "$site" wheelhouse/*.whl
export PYTHONPATH=$site PYTHONUNBUFFERED=1

# A virtual machine whose memory grows as it is used has begun with a small /dev/shm.
memory=/dev/shm
wanted=$((${TMPFS_GB:-44} * 1000000000))
free=$(($(stat -f -c '%a * %S' /dev/shm 2>/dev/null || echo 0)))
if [ "$free" -lt "$wanted" ] && [ "$(id -u)" = 0 ]; then
  mkdir -p build/tmpfs
  if mount -t tmpfs -o "size=$wanted" tmpfs build/tmpfs; then
    trap 'umount build/tmpfs' EXIT
    memory=build/tmpfs
  fi
fi

code=0
"$python" tools/gpu_check.py || code=$?
"$python" -m bench.gpu --results "$out/gpu.json" --tmpfs "$memory" "$@" || code=$?
exit "$code"
