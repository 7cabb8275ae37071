"""Command line. It parses, calls one function, and prints.

Bad input becomes one line on stderr and exit status 2. Results go to stdout, as a table or as JSON; progress and
estimates go to stderr. Heavy imports are inside the commands, so that `--help` takes 0.15 s.
"""

from rankscope.cli.main import main as main
