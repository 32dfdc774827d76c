"""What makes this report of the core: parameters, runs, figures, the replication, the command."""
