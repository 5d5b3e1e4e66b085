"""The subcommands of `ingot`, one a file, imported when called."""
