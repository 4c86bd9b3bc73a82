#!/usr/bin/env bash
# Installs a wheel into a clean environment and uses it, without and with safetensors beside it.
# Without PYTHON that is one of Debian's next release, in a root of its own: its Python and its C
# library are newer than those here. Usage: tools/try_wheel.sh VERSION WHEEL [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/.."

version=$1
wheel=$(realpath "$2")
python=${3:-}
suite=forky
place=$PWD/build/wheels/smoke-$version
root=$PWD/build/wheels/$suite/root
pip=("$PWD/.venv/bin/pip" -q --disable-pip-version-check)

# The classes of errors are safetensors', in whichever order the arguments are imported.
join='
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
inrush, safetensors = sys.modules["inrush"], sys.modules["safetensors"]
assert issubclass(inrush.SafetensorError, safetensors.SafetensorError)
try:
    inrush.open("/no/such")
except safetensors.SafetensorError as error:
    assert type(error) is inrush.SourceError
else:
    raise AssertionError("nothing was raised")
'

write_certificate() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
    -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 \
    -keyout "$1/key.pem" -out "$1/cert.pem" 2>/dev/null
}

in_environment() {
  rm -rf "$place"
  "$python" -m venv "$place"
  write_certificate "$place"
  cp tools/smoke.py "$place"
  cd "$place"
  "${pip[@]}" --python bin/python install "${wheel}[numpy]"
  bin/python smoke.py cert.pem key.pem
  bin/inrush doctor --json >/dev/null
  "${pip[@]}" --python bin/python install safetensors
  bin/python -c "$join" safetensors inrush
  bin/python -c "$join" inrush safetensors
}

# A command in the root, which sees the machine's processes and devices.
in_root() {
  # shellcheck disable=SC2016
  env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp PYTHONPATH=/opt/site-packages \
    unshare --mount --propagation private bash -c '
      mount --rbind /proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$0" "$@"
    ' "$root" "$@"
}

in_debian() {
  tools/debian.sh unpack "build/wheels/$suite" "$suite" "$(dpkg --print-architecture)" \
    "python$version" libcurl4t64 libstdc++6
  mkdir -p "$root/proc" "$root/dev" "$root/tmp"
  local packages=$root/opt/site-packages
  local install=("${pip[@]}" install --target "$packages" --python-version "$version"
    --only-binary :all:)
  rm -rf "$packages"
  mkdir -p "$packages"
  write_certificate "$root/opt"
  cp tools/smoke.py "$root/opt"
  "${install[@]}" "${wheel}[numpy]"
  in_root "python$version" /opt/smoke.py /opt/cert.pem /opt/key.pem
  in_root "python$version" -m inrush doctor --json >/dev/null
  "${install[@]}" safetensors
  in_root "python$version" -c "$join" safetensors inrush
  in_root "python$version" -c "$join" inrush safetensors
}

if [ -n "$python" ]; then
  in_environment
elif unshare --mount true 2>/dev/null && command -v dpkg >/dev/null; then
  in_debian
else
  echo "try_wheel: no Python $version here, and no root of Debian can be made, to try" \
    "$(basename "$wheel") with"
fi
