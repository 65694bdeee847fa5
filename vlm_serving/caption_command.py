"""`python -m vlm_serving caption`: files, folders and patterns -> captions.jsonl, with progress; a rerun goes on."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vlm_serving.caption_files import Source, open_source
from vlm_serving.caption_lines import CaptionLines, Line, encoded, open_lines
from vlm_serving.picture_paths import picture_paths
from vlm_serving.progress import Progress

JOBS = 4
INTERRUPTED = 130
KEY_VARIABLE = "VLM_API_KEY"


def add_caption(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("pictures", nargs="+", help="files, folders (with all below), patterns such as 'shop/**/*.jpg'")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--bundle", type=Path, help="caption here, with this model bundle")
    source.add_argument("--url", help=f"ask a running captioner; its API key, if it wants one, in {KEY_VARIABLE}")
    parser.add_argument(
        "--out", type=Path, help="write JSON lines to this file; run again, it goes on (default: standard output)"
    )
    parser.add_argument("--jobs", type=_positive, default=JOBS, help="pictures in work at once (default %(default)s)")
    parser.add_argument("--num-beams", type=_positive, help="beams of the search (default: the model's own)")
    parser.add_argument("--max-new-tokens", type=_positive, help="longest caption (default: the model's own)")
    parser.set_defaults(run=caption_command)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
    return value


def caption_command(options: argparse.Namespace) -> int:
    """0 if every picture has a caption, 1 if some failed: their lines have `error`. Raises ServingError, OSError."""
    files = picture_paths(options.pictures)
    asked = {name: value for name in ("num_beams", "max_new_tokens") if (value := getattr(options, name))}
    key = os.environ.get(KEY_VARIABLE, "")
    with open_source(options.bundle, options.url or "", key, options.jobs, asked) as source:
        if options.out is None:
            return _captioned(source, files, Standard())
        with open_lines(options.out, source.model_version) as lines, _stoppable(options.out):
            return _captioned(source, files, lines)


@dataclass
class Standard:
    """Standard output in the place of a file: nothing is there from before."""

    done: frozenset[str] = frozenset()

    def append(self, line: Line) -> None:
        """Write a line."""
        sys.stdout.buffer.write(encoded(line))
        sys.stdout.buffer.flush()


def _captioned(source: Source, files: Sequence[Path], lines: CaptionLines | Standard) -> int:
    todo = [file for file in files if str(file) not in lines.done]
    progress = Progress("captioning", len(files), _say)
    progress.resume(len(files) - len(todo))
    failures = 0
    for line in source.lines(todo):
        lines.append(line)
        failures += "error" in line
        progress.advance(note=f"{failures:,} failed" if failures else "")
    progress.done(f"{failures:,} failed: see their lines" if failures else "")
    return 1 if failures else 0


@contextmanager
def _stoppable(out: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        _say(f"stopped; what is done is in {out}, and the same command goes on from there")
        raise SystemExit(INTERRUPTED) from None


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
