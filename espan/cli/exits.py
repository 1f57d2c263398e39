"""Exit codes, the same for every command."""

OK, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130
