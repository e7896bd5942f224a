"""What each subcommand of ``scisr`` does; loaded when it is called."""
