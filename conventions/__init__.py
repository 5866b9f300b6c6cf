"""What every command keeps to: its command line, whole files, processes, what must be installed."""
