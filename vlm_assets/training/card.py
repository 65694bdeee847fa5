"""The model card that travels in every bundle (Mitchell et al. 2019, "Model Cards for Model Reporting")."""

from collections.abc import Mapping
from typing import Any

CARD = """\
---
library_name: transformers
pipeline_tag: image-to-text
license: {licence_tag}
tags: [image-captioning, blip]
---
# {title}

{summary}

| | |
|---|---|
{facts}

## Data and licence

{attribution}

## Use

```python
from transformers import AutoTokenizer, BlipForConditionalGeneration
model = BlipForConditionalGeneration.from_pretrained("PATH")   # or, with preprocessing and checks:
from vlm_serving.bundle import open_bundle
from vlm_serving.captioner import Captioner
captions = Captioner(open_bundle("PATH")).caption([picture])
```

## Limits

{limits}
"""


def model_card(
    title: str, summary: str, facts: Mapping[str, Any], attribution: str, limits: str, licence_tag: str = "other"
) -> str:
    """Markdown with the front matter that model hubs read."""
    lines = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    return CARD.format(
        title=title, summary=summary, facts=lines, attribution=attribution, limits=limits, licence_tag=licence_tag
    )


def versions_shown(lineage: Mapping[str, Any]) -> dict[str, str]:
    """The artifact versions of a lineage. Run ids stay out: the card is part of the bundle's content and version."""
    return {name: f"`{value}`" for name, value in lineage.items() if not name.endswith("_run")}
