"""A page on this machine alone: the theory under one's fingers, and a run as it grows.

`guard.py` decides who is answered, `server.py` what, `serving.py` for how long. What the answers hold are functions
from parameters to plain values: `curves.py` and `phases.py` of the theory, `networks.py` of networks that are trained
beside it, `live.py` of a run folder.
"""
