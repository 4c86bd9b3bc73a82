#!/usr/bin/env bash
# Runs each fuzz target of a build for some seconds. Usage: tools/fuzz.sh BUILD SECONDS
# Seeds are in fuzz/corpus/<target>; what is found grows in BUILD/corpus, crashes in BUILD/crashes.
set -euo pipefail
build=$1 seconds=$2
mkdir -p "$build/crashes"
targets=("$build"/fuzz/fuzz_*)
ran=0
for target in "${targets[@]}"; do
  if [ ! -f "$target" ] || [ ! -x "$target" ]; then continue; fi
  name=$(basename "$target")
  mkdir -p "$build/corpus/$name"
  folders=("$build/corpus/$name")
  [ ! -d "fuzz/corpus/$name" ] || folders+=("fuzz/corpus/$name")
  log=$build/$name.log
  "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$build/crashes/$name-" "${folders[@]}" >"$log" 2>&1 || {
    tail -60 "$log"
    echo "fuzz: $name failed; the input is in $build/crashes" >&2
    exit 1
  }
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  echo "fuzz: $name: $runs inputs in $seconds s"
  ran=$((ran + 1))
done
[ "$ran" -gt 0 ] || { echo "fuzz: no target in $build/fuzz" >&2; exit 1; }
echo "fuzz: $ran targets, no crash"
