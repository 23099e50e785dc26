"""What is known before the first step: the plan, memory, room on disk, the machine, and whether promises hold."""
