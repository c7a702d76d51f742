"""Which runtime settings of a deployment do best under load: a search over measurements."""

from engine_builder.tuning.search import Done, next_trial
from engine_builder.tuning.space import Budget, Knob, Measured, Setting, Space, Trial

__all__ = ["Budget", "Done", "Knob", "Measured", "Setting", "Space", "Trial", "next_trial"]
