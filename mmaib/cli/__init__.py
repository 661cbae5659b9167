"""The `mmaib` command."""
