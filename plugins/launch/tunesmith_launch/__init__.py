"""Write the job file of a run for Slurm, Kubernetes, SkyPilot or dstack."""

from __future__ import annotations

from tunesmith import Plugin

HELP = "Write the job file of a run for Slurm, Kubernetes, SkyPilot or dstack."
plugin = Plugin(commands={"launch": ("tunesmith_launch.command:launch", HELP)})
