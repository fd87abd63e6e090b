"""The programs behind the command line, one module each."""
