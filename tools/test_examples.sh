#!/usr/bin/env bash
# Builds examples/ against a package installed from a build folder, and runs them.
# Usage: tools/test_examples.sh BUILD
set -euo pipefail
cd "$(dirname "$0")/.."
build=$(realpath "$1")
place=$build/examples
rm -rf "$place/prefix"
mkdir -p "$place"

cmake --install "$build" --component development --prefix "$place/prefix" >/dev/null
cmake -S examples/load -B "$place/load" -G Ninja --log-level=WARNING \
  -DCMAKE_PREFIX_PATH="$place/prefix" -DCMAKE_BUILD_TYPE=Release
cmake --build "$place/load"

.venv/bin/python tools/make_checkpoint.py "$place/model" --size 0.03 >/dev/null
"$place/load/load" "$place/model" >"$place/output"
grep -q '^model.layers.0.mlp.up_proj.weight  *BF16  *\[688, 256\]$' "$place/output"
tail -2 "$place/output"

# What is wrong ends in one line and the exit code that says so.
code=0
"$place/load/load" "$place/nowhere" 2>"$place/output" || code=$?
if [ "$code" -ne 3 ] || [ "$(wc -l <"$place/output")" -ne 1 ]; then
  echo "examples: a missing folder ended in $code: $(cat "$place/output")" >&2
  exit 1
fi
echo "examples: 1 passed, 0 failed"
