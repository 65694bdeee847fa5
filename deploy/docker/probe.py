"""`python probe.py URL`: exit code 0 if it answers 200 within four seconds, else 1 and one line why."""

import sys
import urllib.request

TIMEOUT_S = 4.0


def main(url: str) -> int:
    """Ask once."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            return 0 if answer.status == 200 else 1
    except OSError as error:  # refused, timed out, an error's status
        print(f"{url}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
