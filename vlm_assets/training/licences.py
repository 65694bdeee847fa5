"""Whose pictures and models a bundle comes from, and what is allowed with them: it is said wherever the bundle goes."""

import re
from collections.abc import Iterable, Mapping

import yaml

from vlm_assets.data.sources.base import Attribution

OTHER = "other"
# Identifiers that model hubs know, of the licences that captioned pictures and their models come with.
TAGS = frozenset({
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "unlicense", "openrail", "odc-by",
    "odbl", "pddl", "cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-4.0",
})  # fmt: skip
ASKS_NOTHING = frozenset({"cc0-1.0", "pddl", "unlicense"})
FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
CARD_SECTION = re.compile(r"^## Data and licence\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)


def credit(attribution: Mapping[str, str]) -> str:
    """Title, text, licence and address in one line; what the text says already is not said again."""
    text = attribution.get("text", "")
    values = {key: attribution.get(key, "") for key in ("title", "text", "licence", "url")}
    return " · ".join(value for key, value in values.items() if value and (key == "text" or value not in text))


def licence_tag(licences: Iterable[str]) -> str:
    """The hub's identifier where one licence covers all of it; `other` where several do, or one is not known.

    Works that ask for nothing (CC0) bring no licence along.
    """
    tags = {tag_of(licence) for licence in licences}
    asking = tags - ASKS_NOTHING or tags
    return asking.pop() if len(asking) == 1 else OTHER


def tag_of(licence: str) -> str:
    """`cc-by-sa-4.0` for "CC BY-SA 4.0"; `other` for what is no licence that hubs know."""
    tag = re.sub(r"[\s_]+", "-", licence.strip().lower()).removesuffix("-license").removesuffix("-licence")
    return tag if tag in TAGS else OTHER


def attribution_of_model(name: str, card: str, url: str) -> Attribution:
    """What a pretrained model's card says of its licence; a card of ours also says what the model was trained on."""
    front = FRONT_MATTER.match(card)
    fields = yaml.safe_load(front[1]) if front else None
    licence = fields.get("license") if isinstance(fields, dict) else None
    section = CARD_SECTION.search(card)
    text = " ".join(section[1].split()) if section else "See the model's own card."
    said = str(licence) if licence else "licence not said by its card"
    return Attribution(title=name, text=text, licence=said, url=url)
