"""The command line: `python -m minivdm`."""
