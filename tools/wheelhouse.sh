#!/usr/bin/env bash
# Fills wheelhouse/ with what a GPU machine without a network lacks: the wheel of dist/ (`make
# wheel`) and the loaders that `make bench-gpu` compares, for CPython 3.12 or PYTHON_VERSION, and
# neither torch nor numpy, which are there. Usage: tools/wheelhouse.sh
set -euo pipefail
cd "$(dirname "$0")/.."

version=${PYTHON_VERSION:-3.12}
largest=$((52 << 20))   # bytes; with the tracked tree less than the 64 MiB that travel
machine=$(uname -m)
place=wheelhouse

# The wheel for that Python: 3.12's is for later ones, too.
tag=cp312
case $version in 3.10 | 3.11) tag=cp${version/./} ;; esac
wheel=$(find dist -name "inrush-*-$tag-*_$machine.whl" 2>/dev/null | sort | tail -1)
if [ -z "$wheel" ]; then
  echo "wheelhouse: dist/ has no wheel of inrush for $tag; make wheel builds it" >&2
  exit 1
fi

rm -rf "$place"
mkdir "$place"
cp "$wheel" "$place"
# pip takes a platform for what it says, and no older one with it.
platforms=()
for minor in $(seq 39 -1 17); do
  platforms+=(--platform "manylinux_2_${minor}_$machine")
done
.venv/bin/pip download -q --disable-pip-version-check --no-deps --only-binary=:all: \
  --python-version "$version" --implementation cp "${platforms[@]}" \
  --platform "manylinux2014_$machine" -d "$place" -r tools/requirements/gpu.txt

size=$(du -sb "$place" | cut -f1)
(cd "$place" && ls -s --block-size=KiB -- *.whl)
if [ "$size" -gt "$largest" ]; then
  echo "wheelhouse: $size bytes, $largest may travel" >&2
  exit 1
fi
echo "wheelhouse: $((size >> 10)) KiB; on the other machine: tools/on_gpu.sh"
