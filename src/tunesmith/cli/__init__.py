"""The command line. Modules here import the standard library only; the work is imported when a command runs."""
