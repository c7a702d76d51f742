"""What the gateway costs: the benchmarks behind `make bench`, and the tools they stand on.

Stands alone: a stub model server and a load generator in C (`src/`), relays to compare with, and a runner
that measures all of them in one run on one machine. Ratios within a run mean something; absolute figures
don't travel.
"""
