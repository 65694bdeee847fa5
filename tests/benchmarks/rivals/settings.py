"""What each rival is told, in its environment; all the same for all."""

import os
from dataclasses import asdict, dataclass

PREFIX = "RIVAL_"


@dataclass(frozen=True)
class RivalSettings:
    """Model, threads, batching. The batches' bounds are those of the captioner's own settings."""

    bundle: str
    port: int
    threads: int = 1
    dtype: str = "fp32"
    tokens: int = 20
    max_batch_size: int = 8
    batch_wait_s: float = 0.005

    def to_environment(self) -> dict[str, str]:
        """As variables; `from_environment` reads them."""
        return {PREFIX + name.upper(): str(value) for name, value in asdict(self).items()}

    @classmethod
    def from_environment(cls) -> "RivalSettings":
        """The settings that the benchmark gave."""
        fields = cls.__dataclass_fields__
        return cls(**{name: fields[name].type(os.environ[PREFIX + name.upper()]) for name in fields})
