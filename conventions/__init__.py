"""What all commands share: command lines, whole files, processes, what must be installed."""
