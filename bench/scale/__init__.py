"""The campaign of scaling: replicas follow the load and survive their leaders, live."""
