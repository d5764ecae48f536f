"""Files of weights that could not be read: why, without the advice to have their reader run what else they hold."""

import re


def why_unread(error: BaseException) -> str:
    """Why torch has not read a file with ``weights_only``, in a few words.

    Of a file that holds anything else torch says how to load it all the same, which runs what it holds.
    """
    text = " ".join(str(error).split())
    if more := re.search(r"GLOBAL (\S+) (?:was not|whose)|(must be imported to load|allowlisted via)", text):
        named = f" ({more[1]})" if more[1] else ""
        return f"it holds more than weights{named}; only weights are read, as anything else could run code here"
    reason = text.rpartition("WeightsUnpickler error: ")[2].partition(" Check the documentation")[0].partition(". ")[0]
    return f"it may be truncated: {type(error).__name__}{': ' * bool(reason)}{reason[:200]}"
