#!/usr/bin/env bash
# Training on 8 machines of 8 GPUs under Slurm: sbatch examples/slurm.sh DATA RUN [further settings]
#
# Slurm sends SIGTERM minutes before the time is up; training then writes a checkpoint and ends,
# and the job puts itself back into the queue. The same happens when a machine fails: the next job
# continues from the last checkpoint, on any number of machines.
#SBATCH --job-name=multistage
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail
data=${1:?DATA}
run=${2:?RUN}

latest() { ls "$run/checkpoints" 2>/dev/null | tail -n 1; }

before=$(latest || true)
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
code=0
srun torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" \
    --nproc-per-node "${GPUS:-8}" \
    --max-restarts 3 \
    --rdzv-id "$SLURM_JOB_ID" \
    --rdzv-backend c10d \
    --rdzv-endpoint "$head:29400" \
    -m multistage_diffusion train "${PRESET:-edm-cifar10}" \
    --data "$data" \
    --out "$run" \
    --precision bf16 \
    --keep-last 3 \
    "${@:3}" || code=$?

# unfinished, but with progress
if [[ ! -e $run/model.safetensors && $(latest || true) != "$before" ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
