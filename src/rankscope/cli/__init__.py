"""The command line: it parses, calls one function and prints. There is no science here.

Whatever the user got wrong becomes one line on stderr and exit status 2; results go to stdout, as a table or as one
JSON object; progress goes to stderr, and only to a terminal. Heavy imports wait until a command needs them, so that
`--help` is quick.
"""

from rankscope.cli.main import main as main
