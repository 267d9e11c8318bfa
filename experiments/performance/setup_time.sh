#!/usr/bin/env bash
# Seconds from a fresh machine to the first training step, broken down.
#   bash experiments/performance/setup_time.sh [CSV]
# Clones this repository to an empty folder, with no pip cache and no prepared songs.
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
out=${1:-$here/experiments/results/performance/setup_time.csv}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "what,seconds" > "$out"
timed() { # name, command...
  local name=$1 start end
  shift
  start=$(date +%s.%N)
  "$@" > "$work/log" 2>&1 || { cat "$work/log"; exit 1; }
  end=$(date +%s.%N)
  echo "$name,$(echo "$end $start" | awk '{printf "%.1f", $1 - $2}')" | tee -a "$out"
}
timed "git clone" git clone --quiet "$here" "$work/clone"
cd "$work/clone"
export HOME=$work PIP_NO_CACHE_DIR=1
flags="--config=configs/base.py:tiny --config.data.source=songbook --config.workdir=$work/run"
timed "virtual environment" python3 -m venv .venv
timed "pip install .[songbook]" .venv/bin/pip install --quiet -e '.[songbook]'
timed "render 300 pieces" .venv/bin/python -m specdiff_jax.main $flags --mode=prepare
timed "start + compile + first steps (preflight)" \
  .venv/bin/python -m specdiff_jax.main $flags --mode=preflight
awk -F, 'NR > 1 {sum += $2} END {printf "total,%.1f\n", sum}' "$out" | tee -a "$out"
