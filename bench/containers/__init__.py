"""The stack of containers, really brought up, used, killed and taken down."""
