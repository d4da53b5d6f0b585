"""The subcommands of `resjax`, one file each: `add_arguments(parser)` and `run(options)`."""
