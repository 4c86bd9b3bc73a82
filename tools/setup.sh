#!/usr/bin/env bash
# Installs what a group of targets needs and this machine lacks: Debian packages with apt-get, and
# pinned Python packages into .venv. Usage: tools/setup.sh build|test|check|fuzz|bench|wheel ...
# Costs nothing when nothing is missing. PYTHON names the interpreter to make .venv with.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}

debian_packages() {
  case $1 in
    build)
      echo g++ cmake ninja-build ccache pkg-config
      echo libfmt-dev libssl-dev libsimdjson-dev liburing-dev libsodium-dev libgtest-dev
      echo libcurl4-openssl-dev
      "$python" -c 'import ensurepip, venv' 2>/dev/null || echo python3 python3-venv
      "$python" - 2>/dev/null <<'PY' || echo python3-dev
import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))
PY
      ;;
    fuzz) echo clang ;;
    # Filesystems that tests mount where they may, servers that they start.
    test)
      echo fuse3 libfuse3-dev squashfs-tools xfsprogs btrfs-progs redis-server
      echo nginx-light openssl
      ;;
    check) echo shellcheck ;;
    bench) echo fio fuse3 libfuse3-dev nginx-light ;;
    wheel) echo openssl libcurl4 ;;
    aarch64) echo g++-aarch64-linux-gnu qemu-user-static ;;
  esac
}

install_debian() {
  command -v dpkg-query >/dev/null || return 0  # elsewhere CMake names what is missing
  local wanted=() missing=() package
  read -ra wanted <<<"$(debian_packages "$1" | tr '\n' ' ')"
  for package in "${wanted[@]}"; do
    dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
      missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
      echo "setup: missing packages; as root run: apt-get install ${missing[*]}" >&2
      exit 1
    }
    as_root=(sudo)
  fi
  echo "setup: installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  "${as_root[@]}" apt-get -qq update
  "${as_root[@]}" apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
}

install_python() {
  local requirements=tools/requirements/$1.txt stamp=.venv/.inrush-$1
  [ -f "$requirements" ] || return 0
  cmp -s "$requirements" "$stamp" && return 0
  echo "setup: installing $requirements into .venv"
  .venv/bin/pip install -q --disable-pip-version-check -r "$requirements"
  cp "$requirements" "$stamp"
}

# The package itself: its metadata, its command, and a .pth that points at python/.
install_package() {
  cmp -s pyproject.toml .venv/.inrush-package && return 0
  .venv/bin/pip install -q --disable-pip-version-check --no-build-isolation --no-deps \
    -C wheel.cmake=false -C editable.mode=inplace -e .
  cp pyproject.toml .venv/.inrush-package
}

for group in "$@"; do
  install_debian "$group"
  # A .venv moved from elsewhere is of no use: its programs name the old place.
  if ! .venv/bin/python -c '' 2>/dev/null || ! head -1 .venv/bin/pip | grep -q "$PWD/"; then
    rm -rf .venv
    "$python" -m venv .venv
  fi
  install_python "$group"
  [ "$group" != build ] || install_package
done
