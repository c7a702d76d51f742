"""What containers of the stack need beside the commands: secrets, registration, health."""
