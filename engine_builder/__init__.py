"""From a checkpoint to what a model server loads."""
