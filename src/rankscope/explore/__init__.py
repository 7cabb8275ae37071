"""Interactive explorer: a local web server with the theory of linear networks under sliders, and a run as it grows.

`server` routes requests, `guard` filters them, `serving` runs the server. The values come from `curves` and `phases`
(theory), `networks` (trainings in a separate process) and `live` (a run folder).
"""
