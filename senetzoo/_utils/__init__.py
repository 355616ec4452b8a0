"""What every room may use: checks of values, and files of JSON."""
