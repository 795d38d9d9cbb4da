#!/usr/bin/env bash
# Training on several GPUs of one machine, or on two machines, with torchrun.
#
#     examples/torchrun.sh DATA RUN                      # all GPUs of this machine
#     NODES=2 HEAD=host0 examples/torchrun.sh DATA RUN   # on both machines, RUN on a shared disk
#
# The batch is that of all processes together: more GPUs make a step faster and change nothing else.
# If a process dies, torchrun restarts all of them, up to MAX_RESTARTS times, and they continue from
# the last checkpoint.
set -euo pipefail
data=${1:?DATA}
run=${2:?RUN}

torchrun \
    --nnodes "${NODES:-1}" \
    --nproc-per-node "${GPUS:-gpu}" \
    --max-restarts "${MAX_RESTARTS:-3}" \
    --rdzv-backend c10d \
    --rdzv-endpoint "${HEAD:-localhost}:${PORT:-29400}" \
    -m multistage_diffusion train "${PRESET:-edm-cifar10}" \
    --data "$data" \
    --out "$run" \
    --precision bf16 \
    --keep-last 3 \
    "${@:3}"
