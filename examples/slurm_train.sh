#!/usr/bin/env bash
# Train on two nodes of four GPUs each, under SLURM:  sbatch examples/slurm_train.sh workflows/train_mri_x2.yaml
# Options of the workflow follow the file:           sbatch examples/slurm_train.sh FILE --set train.batch=64
#
# torchrun starts one process per GPU and they find each other at the first node. The batch of the workflow is shared by
# all of them, so it must be a multiple of their number. Random draws are keyed by (seed, step, sample), never by process:
# as many GPUs as there are give the same validation result to 1e-5. A job that was requeued goes on where it stopped.
#SBATCH --job-name=scisr-train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --output=%x-%j.log
set -euo pipefail
workflow="${1:?name a workflow, such as workflows/train_mri_x2.yaml}"
shift
gpus="${SLURM_GPUS_ON_NODE:-4}"
host="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
export OMP_NUM_THREADS="$((SLURM_CPUS_PER_TASK / gpus))"
srun torchrun \
  --nnodes "$SLURM_NNODES" --nproc-per-node "$gpus" \
  --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$host:29500" \
  -m sciSR run "$workflow" --resume \
  --set "train.batch=$((16 * gpus * SLURM_NNODES))" --set train.precision=bf16 --set train.device=cuda "$@"
