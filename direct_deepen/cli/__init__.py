"""Command line: thin wrappers that parse, call and print."""
