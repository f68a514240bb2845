#!/bin/bash
# sbatch docs/guides/deploy/slurm.sh PRESET [OPTION ...]
# One process on each node, which takes all of its cores, or its GPUs. Queued again after a preemption, the job goes on.
#SBATCH --job-name=innerloop
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
set -euo pipefail

preset=$1
folder=runs/$preset
if [ -e "$folder/config.json" ]; then
  set -- --resume "$folder"
fi
# JAX finds the other processes by Slurm's variables. A process that fails ends the job's others within a minute.
exec srun --kill-on-bad-exit=1 innerloop train "$@" --distributed
