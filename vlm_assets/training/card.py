"""The model card that travels in every bundle (Mitchell et al. 2019, "Model Cards for Model Reporting")."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlm_assets.training.licences import credit, licence_tag
from vlm_serving.generation import DEFAULT_OPTIONS, GenerationOptions
from vlm_serving.preprocessing import PreprocessingContract

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

{credits}

## Use

With preprocessing, generation settings and checks as they were measured:

```python
from PIL import Image
from vlm_serving.bundle import open_bundle
from vlm_serving.captioner import Captioner

captioner = Captioner(open_bundle("PATH"))
print(captioner.caption([Image.open("picture.jpg").convert("RGB")])[0].text)
```

In plain transformers:

```python
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, BlipForConditionalGeneration

model = BlipForConditionalGeneration.from_pretrained("PATH").eval()
processor, tokenizer = AutoImageProcessor.from_pretrained("PATH"), AutoTokenizer.from_pretrained("PATH")
pixels = processor(images=Image.open("picture.jpg").convert("RGB"), return_tensors="pt").pixel_values
start = [{bos}, *tokenizer.encode({prompt!r}, add_special_tokens=False)]
ids = torch.tensor([[*start, {eos}]])
tokens = model.generate(pixel_values=pixels, input_ids=ids, num_beams={num_beams}, max_new_tokens={max_new_tokens})
print(tokenizer.decode(tokens[0][len(start):], skip_special_tokens=True))
```

## Limits

{limits}
"""


@dataclass(frozen=True)
class Asked:
    """How the model wants to be asked: what the snippets of the card need."""

    contract: PreprocessingContract
    prompt: str
    generation: GenerationOptions


def model_card(
    title: str,
    summary: str,
    facts: Mapping[str, Any],
    sources: Mapping[str, Mapping[str, str]],
    asked: Asked,
    limits: Sequence[str],
) -> str:
    """Markdown with the front matter that model hubs read. `sources`: attributions, by what each of them gave."""
    return CARD.format(
        title=title,
        summary=summary,
        facts="\n".join(f"| {name} | {value} |" for name, value in facts.items()),
        credits="\n".join(f"- {what}: {credit(source)}" for what, source in sources.items()),
        licence_tag=licence_tag(source.get("licence", "") for source in sources.values()),
        bos=asked.contract.bos_token_id,
        eos=asked.contract.eos_token_id,
        prompt=asked.prompt,
        num_beams=asked.generation.num_beams,
        max_new_tokens=min(asked.generation.max_new_tokens, asked.contract.max_caption_tokens),
        limits="\n".join(f"- {limit}" for limit in limits),
    )


def base_card(summary: Mapping[str, Any], contract: PreprocessingContract, lineage: Mapping[str, Any]) -> str:
    """The card of a base model. `summary`: name, description, parameters, attribution."""
    return model_card(
        title=f"Base model: {summary['name']}",
        summary=summary["description"],
        facts={"parameters": f"{summary['parameters']:,}", **versions_shown(lineage)},
        sources={"learnt from": summary["attribution"]},
        asked=Asked(contract, "", DEFAULT_OPTIONS),
        limits=["A starting point for fine-tuning, not a captioner for any niche."],
    )


def versions_shown(lineage: Mapping[str, Any]) -> dict[str, str]:
    """The artifact versions of a lineage. Run ids stay out: the card is part of the bundle's content and version."""
    return {name: f"`{value}`" for name, value in lineage.items() if not name.endswith("_run")}
