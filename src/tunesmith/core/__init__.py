"""What every layer shares: types, errors, lazy tables, environment, log, run directories. Standard library only."""
