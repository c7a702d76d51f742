"""One module per sub-command. Only typer is imported at the top of each."""
