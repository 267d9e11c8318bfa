#!/bin/bash
# train.slurm without Slurm: N processes on this machine, one job.
#   cluster/local.sh N --config=configs/base.py:tiny [ARGUMENTS]
# On a CPU each process gets one virtual device; on GPUs give each its own by CUDA_VISIBLE_DEVICES.
set -euo pipefail
count=$1
shift
port=$(python -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
pids=()
for process in $(seq 0 $((count - 1))); do
  python -m specdiff_jax.main "$@" \
    --coordinator="localhost:$port" --processes="$count" --process="$process" &
  pids+=($!)
done
# The first process that fails ends all, as srun --kill-on-bad-exit does.
for _ in "${pids[@]}"; do
  wait -n || { status=$?; kill "${pids[@]}" 2>/dev/null || true; wait; exit $status; }
done
# Clips and the report need one process only.
python -m specdiff_jax.main "$@"
