#!/usr/bin/env bash
# Builds the C++ library and its tests for aarch64 with Debian's cross compiler, and runs the tests
# under qemu's user emulation. The arm64 libraries are unpacked into a folder of their own, so that
# the machine's stay as they are. Usage: tools/aarch64.sh [CTEST ARGUMENTS]
set -euo pipefail
cd "$(dirname "$0")/.."

build=$PWD/build/aarch64
root=$build/packages/root
packages=(libfmt-dev libssl-dev libsimdjson-dev liburing-dev libsodium-dev libgtest-dev libgmock-dev
  libcurl4-openssl-dev)

tools/setup.sh aarch64
tools/debian.sh unpack "$build/packages" "$(sed -n "s/^VERSION_CODENAME=//p" /etc/os-release)" \
  arm64 "${packages[@]}"

# What the emulation lacks or only pretends: io_uring, Linux AIO and cachestat are unknown to it,
# madvise and mlock do nothing, statx loses the alignments of direct I/O, and /proc is the
# emulator's.
lacking='Everywhere/|DirectOnly|EveryWay|an_engine_that_dies_is_replaced|MountOf|ResidencyCost'
lacking+='|a_large_cold_file_is_cold'
lacking+='|MappedPages|RegisteredLoad\.a_file_that_shrinks|DirectLoad'
lacking+='|Trouble\.(an_input|reads_that_are_never).*mmap_mapped'

export PKG_CONFIG_LIBDIR=$root/usr/lib/aarch64-linux-gnu/pkgconfig PKG_CONFIG_SYSROOT_DIR=$root
cmake -S . -B "$build" -G Ninja --log-level=WARNING -DCMAKE_BUILD_TYPE=Release \
  -DCMAKE_UNITY_BUILD=ON -DINRUSH_PCH=ON \
  -DCMAKE_TOOLCHAIN_FILE="$PWD/cmake/aarch64.cmake" -DINRUSH_AARCH64_ROOT="$root"
cmake --build "$build" -j "$(nproc)"
ctest --test-dir "$build" --output-on-failure -j "$(nproc)" -E "$lacking" "$@"
