#!/usr/bin/env bash
# Builds the wheels in dist/, one for each of CPython 3.10 and 3.11 and one for 3.12 and later
# (stable ABI), with whatever interpreters are here; checks what they ask of the machine they will
# land on; uses each in a clean environment (tools/try_wheel.sh). Usage: tools/wheels.sh
set -euo pipefail
cd "$(dirname "$0")/.."

newest_glibc=2.34       # of the symbols that a wheel may ask for
largest=$((20 << 20))   # bytes
platform=manylinux_${newest_glibc/./_}_$(uname -m)
work=$PWD/build/wheels
mkdir -p "$work" dist

# python3.10, from the path or from pyenv; nothing if there is none.
interpreter() {
  local found
  for found in "python$1" "$HOME/.pyenv/versions/$1".*/bin/python3; do
    if command -v "$found" >/dev/null && "$found" -c 'import venv' 2>/dev/null; then
      command -v "$found"
      return
    fi
  done
}

# The pip of .venv, which is new enough, at work in another environment.
pip_of() {
  .venv/bin/pip --python "$1/bin/python" -q --disable-pip-version-check "${@:2}"
}

# simdjson is no static library on Debian, so its source is fetched as Debian has it.
fetch_simdjson() {
  [ ! -f "$work/simdjson/simdjson.cpp" ] || return 0
  tools/debian.sh source "$work/sources" "$(sed -n "s/^VERSION_CODENAME=//p" /etc/os-release)" \
    "simdjson=$(dpkg-query -W -f '${Version}' libsimdjson-dev)"
  mkdir -p "$work/simdjson"
  tar xf "$work/sources/source"/simdjson_*.orig.tar.gz -C "$work/simdjson" --strip-components 2 \
    --wildcards '*/singleheader/simdjson.*'
}

# Builds the wheel for one Python, adds the list of what is in it, and names it for many Linuxes.
build() {
  local version=$1 python=$2 place=$work/$1
  rm -rf "$place"
  mkdir -p "$place"
  "$python" -m venv "$place/venv"
  grep -E '^(nanobind|scikit-build-core)==' tools/requirements/build.txt |
    pip_of "$place/venv" install -r /dev/stdin
  local options=(-C cmake.define.INRUSH_PORTABLE=ON -C install.strip=true
    -C cmake.define.CMAKE_UNITY_BUILD=ON -C cmake.define.INRUSH_PCH=ON
    -C "cmake.define.INRUSH_SIMDJSON_SOURCE=$work/simdjson" -C "build-dir=$work/build-$version")
  [ "$version" != 3.12 ] || options+=(-C wheel.py-api=cp312)
  PATH=$place/venv/bin:$PATH pip_of "$place/venv" wheel --no-build-isolation --no-deps \
    -w "$place/plain" "${options[@]}" .
  .venv/bin/python -m wheel unpack -d "$place/tree" "$place/plain"/*.whl >/dev/null
  local info
  info=$(echo "$place"/tree/*/inrush-*.dist-info)
  mkdir -p "$info/sboms"
  .venv/bin/python tools/sbom.py >"$info/sboms/inrush.cdx.json"
  mkdir -p "$place/packed"
  .venv/bin/python -m wheel pack -d "$place/packed" "$place"/tree/* >/dev/null
  PATH=$PWD/.venv/bin:$PATH .venv/bin/auditwheel repair --plat "$platform" -w "$place/done" \
    "$place/packed"/*.whl
}

# What must be true of every wheel.
inspect() {
  local wheel=$1 tree=$2 size module listing
  size=$(stat -c %s "$wheel")
  [ "$size" -le "$largest" ] || { echo "wheels: $wheel has $size bytes" >&2; return 1; }
  module=$(echo "$tree"/*/inrush/_core*.so)
  if readelf -d "$module" | grep NEEDED | grep -vE 'lib(c|m|gcc_s)\.so|ld-linux'; then
    echo "wheels: $wheel asks for the libraries above" >&2
    return 1
  fi
  if nm -D --defined-only "$module" | grep -v ' PyInit__core'; then
    echo "wheels: $wheel shows the symbols above" >&2
    return 1
  fi
  listing=$(.venv/bin/python -m zipfile -l "$wheel")
  for part in THIRD_PARTY_LICENSES LICENSE inrush.cdx.json inrush/_core.pyi inrush/py.typed; do
    grep -q "$part " <<<"$listing" || {
      echo "wheels: $wheel lacks $part" >&2
      return 1
    }
  done
  echo "$(basename "$wheel"): $((size >> 10)) KiB, glibc $(objdump -T "$module" |
    grep -oE 'GLIBC_[0-9.]+' | sort -Vu | tail -1 | cut -d_ -f2)"
}

tools/setup.sh wheel
fetch_simdjson
for version in 3.10 3.11 3.12; do
  python=$(interpreter "$version")
  if [ -z "$python" ]; then
    echo "wheels: no Python $version here; its wheel is not built"
    continue
  fi
  build "$version" "$python"
  wheel=$(echo "$work/$version"/done/*.whl)
  inspect "$wheel" "$work/$version/tree"
  cp "$wheel" dist/
  tried=("$version")
  [ "$version" != 3.12 ] || tried+=(3.13 3.14)
  for each in "${tried[@]}"; do
    tools/try_wheel.sh "$each" "$wheel" "$(interpreter "$each")"
  done
done
