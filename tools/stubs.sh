#!/usr/bin/env bash
# Writes the type stubs of inrush._core, or with --check compares them with those checked in.
set -euo pipefail
cd "$(dirname "$0")/.."
stubs=python/inrush/_core.pyi
made=$(mktemp)
trap 'rm -f "$made"' EXIT
.venv/bin/python -m nanobind.stubgen -q -m inrush._core -o "$made"
if [ "${1:-}" = --check ]; then
  diff -u "$stubs" "$made" || { echo "stubs: $stubs is stale; run tools/stubs.sh" >&2; exit 1; }
else
  cp "$made" "$stubs"
fi
