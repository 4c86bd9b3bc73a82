"""Measurements of Inrush beside its peers and the limit of the machine: ``python -m bench``."""
