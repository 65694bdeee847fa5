"""Every exception that vlm_assets raises on purpose. The tree, so that a caller learns here what to catch:

VlmError
├── ConfigError        a setting is missing, unknown or out of bounds; says the value seen and what to change
├── SourceError        the source cannot be read, is empty, or too much of it is unusable
│   ├── UnreadableFileError  one file of the source cannot be read; the others may
│   └── UnusableSourceError  the source was read, and too much of it is unusable: a rerun would find the same
├── StoreError         an artifact is missing, damaged or cannot be written
├── RegistryError      the data registry (git, DVC and its remote) refuses or cannot be reached
├── TrainingError      training cannot start, or stopped: out of memory, loss not finite, nothing to learn from
├── GateError          a candidate may not be released; lists the failed rules
├── CorpusError        candidates and references that cannot be scored: counts differ, or nothing is there
├── TrackingError      MLflow cannot be reached or refuses
└── DeployError        the serving application did not come up on the released model

Messages say what happened, the value seen, the limit, and what to do next.
"""


class VlmError(Exception):
    """Base of all errors raised on purpose by this package."""


class ConfigError(VlmError):
    """A setting is missing, unknown or out of bounds."""


class SourceError(VlmError):
    """The source of pictures cannot be read, is empty, or too much of it is unusable."""


class UnreadableFileError(SourceError):
    """One file of a source cannot be read: a row to put aside, not the end of the import."""


class UnusableSourceError(SourceError):
    """What the source holds is refused: a rerun would be, too."""


class StoreError(VlmError):
    """An artifact is missing, damaged or cannot be written."""


class RegistryError(VlmError):
    """The data registry (git, DVC and its remote) refuses or cannot be reached."""


class TrainingError(VlmError):
    """Training cannot start or had to stop."""


class GateError(VlmError):
    """The candidate may not be released."""


class CorpusError(VlmError):
    """Candidates and references that cannot be scored."""


class TrackingError(VlmError):
    """MLflow cannot be reached or refuses."""


class DeployError(VlmError):
    """The serving application did not come up on the released model."""
