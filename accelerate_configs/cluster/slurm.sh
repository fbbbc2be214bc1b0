#!/bin/bash
# One run on several machines under SLURM, stopped and requeued before its time is up.
#   sbatch --nodes 4 --gpus-per-node 8 accelerate_configs/cluster/slurm.sh recipe=cifar10 output_dir=/shared/runs/cifar10
# output_dir must be the last argument, and on storage that all machines share. What is set here is a start: sbatch's
# own options win over the lines below.
#SBATCH --job-name=hf-finetune
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@300

set -u
: "${HF_HOME:?say where data and checkpoints are kept, on storage that all machines share}"
last="${*: -1}"
run="${last#output_dir=}"
if [ "$run" = "$last" ]; then
  echo "the last argument must be output_dir=FOLDER" >&2
  exit 2
fi
per_node="${SLURM_GPUS_ON_NODE:-1}"
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000)) # two jobs may share a machine
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# Since Slurm 22.05 srun does not take sbatch's --cpus-per-task: all processes and loader workers would share a core.
export SRUN_CPUS_PER_TASK="${SRUN_CPUS_PER_TASK:-$SLURM_CPUS_PER_TASK}"

# torchrun hands TERM on to its processes; they finish their step and save. Its exit code tells nothing about it.
asked=
trap 'asked=yes; kill -TERM "$step"' TERM
srun --kill-on-bad-exit=1 torchrun --nnodes "$SLURM_NNODES" --nproc-per-node "$per_node" --max-restarts 3 \
  --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$first:$port" --shutdown-timeout 240 \
  hf_finetune/run.py "$@" &
step=$!
wait "$step"
code=$?
if [ -n "$asked" ]; then # the first wait ended when the signal came
  wait "$step"
  code=$?
  if [ ! -e "$run/metrics.json" ]; then
    scontrol requeue "$SLURM_JOB_ID"
  fi
fi
exit "$code"
