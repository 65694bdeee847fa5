"""`python probe.py URL [STATUS]`: exit code 0 if it answers 200, or STATUS, within four seconds, else 1 and why."""

import sys
import urllib.error
import urllib.request

TIMEOUT_S = 4.0


def main(url: str, *also: str) -> int:
    """Ask once."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            return 0 if answer.status == 200 else 1
    except urllib.error.HTTPError as error:
        if str(error.code) in also:
            return 0
        print(f"{url}: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # refused, timed out
        print(f"{url}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
