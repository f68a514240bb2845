#!/bin/bash
# sbatch docs/guides/deploy/slurm.sh PRESET [OPTION ...]
# One process per node, which uses all of its cores or GPUs. A preempted job is requeued and resumes.
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
# JAX finds the other processes through Slurm's variables. If a process fails, the others end within a minute.
exec srun --kill-on-bad-exit=1 innerloop train "$@" --distributed
