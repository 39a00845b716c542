"""What `tunesmith data check` looks for: alike rows, leaks, one-sided pairs and labels. Reports; changes nothing."""
