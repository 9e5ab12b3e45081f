"""The commands of the command line, one file each. Heavy imports happen when a command runs."""
