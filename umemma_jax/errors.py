"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """A mistake in input, configuration or environment, said in one line.

    The message names what is wrong, where (file, record, config field) and what to do. Entry points print it
    without a traceback and exit with status 1.
    """
