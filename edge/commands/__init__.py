"""The subcommands of ``edge``: one file each, light to import; heavy libraries are imported when a command runs."""
