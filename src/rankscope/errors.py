"""The one exception that means "what you passed in cannot work".

Everything a caller can get wrong (a gain below zero, a task name with a typo, a file that is not ours)
raises `InputError` before any work is done. It is a `ValueError`, so ordinary code catches it as one; the
command line turns it, and nothing else, into one line on stderr and exit status 2.
"""


class InputError(ValueError):
    """An argument or a file is unusable; the message names it, shows what was given, says what would be right."""
