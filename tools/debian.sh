#!/usr/bin/env bash
# Packages of Debian as on an empty machine: with lists and a state of their own in FOLDER, so that
# this machine's stay as they are.
# Usage: tools/debian.sh unpack FOLDER SUITE ARCHITECTURE PACKAGE...  with what they need, into
#            FOLDER/root; costs nothing when it is there
#        tools/debian.sh source FOLDER SUITE PACKAGE=VERSION  the archives, into FOLDER/source
set -euo pipefail

command=$1
mkdir -p "$2/lists/partial" "$2/cache/partial"
folder=$(realpath "$2")
suite=$3
shift 3

# Usage: apt deb|deb-src ARGUMENTS
apt() {
  : >"$folder/status"
  cat >"$folder/list.sources" <<SOURCES
Types: $1
URIs: http://deb.debian.org/debian
Suites: $suite
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCES
  local options=(-qq
    -o "Dir::Etc::sourcelist=$folder/list.sources" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::lists=$folder/lists" -o "Dir::State::status=$folder/status"
    -o "Dir::Cache::archives=$folder/cache" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
    -o APT::Sandbox::User=root -o APT::Install-Recommends=false)
  [ -z "${architecture:-}" ] ||
    options+=(-o "APT::Architecture=$architecture" -o "APT::Architectures::=$architecture")
  apt-get "${options[@]}" update
  apt-get "${options[@]}" "${@:2}" >/dev/null
}

unpack() {
  local archive part root=$folder/root
  architecture=$1
  [ "$(cat "$root/.packages" 2>/dev/null)" != "$*" ] || return 0
  apt deb install -y --download-only "${@:2}"
  rm -rf "$root"
  for part in bin sbin lib lib64; do
    mkdir -p "$root/usr/$part"
    ln -s "usr/$part" "$root/$part"
  done
  for archive in "$folder"/cache/*.deb; do dpkg -x "$archive" "$root"; done
  echo "$*" >"$root/.packages"
}

case $command in
  unpack) unpack "$@" ;;
  source)
    mkdir -p "$folder/source"
    cd "$folder/source"
    apt deb-src source --download-only "$1"
    ;;
esac
