"""Names of people emoji -> natural captions with the slots that they fill.

`woman_scientist_medium_skin_tone` becomes "a woman scientist with medium skin tone" and
{"role": "scientist", "gender": "woman", "skin_tone": "medium"}. A slot's value stands literally in its caption;
"" says that the caption names none, and an absent key says nothing.

"People" is Unicode's group "People & Body". "Roles" are its subgroups person-role and person-fantasy: what somebody
works as, wears or is in a tale (https://unicode.org/Public/17.0.0/emoji/emoji-test.txt). Every emoji that takes a
skin tone is in that group; the few members that take none are listed here, since PyPI `emoji` knows no groups.
"""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache

ROLES = {  # name without its leading "man", "woman" or "person" -> the role's words in the caption
    "artist": "artist", "astronaut": "astronaut", "construction worker": "construction worker", "cook": "cook",
    "detective": "detective", "factory worker": "factory worker", "farmer": "farmer", "firefighter": "firefighter",
    "guard": "guard", "health worker": "health worker", "judge": "judge", "mechanic": "mechanic", "ninja": "ninja",
    "office worker": "office worker", "pilot": "pilot", "police officer": "police officer", "prince": "prince",
    "princess": "princess", "scientist": "scientist", "singer": "singer", "student": "student", "teacher": "teacher",
    "technologist": "technologist", "in tuxedo": "tuxedo", "wearing turban": "turban", "with crown": "crown",
    "with headscarf": "headscarf", "with skullcap": "skullcap", "with veil": "veil", "breast-feeding": "breast-feeding",
    "feeding baby": "feeding a baby", "pregnant man": "pregnant", "pregnant person": "pregnant",
    "pregnant woman": "pregnant",
    "baby angel": "baby angel", "elf": "elf", "fairy": "fairy", "genie": "genie", "hairy creature": "hairy creature",
    "mage": "mage", "mermaid": "mermaid", "merman": "merman", "merperson": "merperson", "mrs. claus": "mrs claus",
    "mx claus": "mx claus", "santa claus": "santa claus", "superhero": "superhero", "supervillain": "supervillain",
    "troll": "troll", "vampire": "vampire", "zombie": "zombie",
}  # fmt: skip
TONELESS_PEOPLE = re.compile(
    r"family( .*)?|((wo)?man )?(genie|zombie)|troll|hairy creature|person fencing|skier|people hugging"
    r"|speaking head|busts? in silhouette|footprints|fingerprint"
    r"|mechanical (arm|leg)|brain|anatomical heart|lungs|tooth|bone|eyes?|tongue|mouth|biting lip"
)
# Further names in the `emoji` package are short codes; only those that read as English become references.
NATURAL_ALIASES = re.compile(
    r"policeman|policewoman|cop|guardsman|guardswoman|(fe)?male detective|bride with veil"
    r"|(man|woman|person) with (turban|probing cane)|([a-z ]*ing|[a-z]+ haired|bearded) (man|woman|person)"
    r"|santa|angel|older (man|woman|adult)|(mountain )?bicyclist|surfer|swimmer|runner"
)
WITHOUT_ARTICLE = re.compile(
    r"(people|men|women|two|clapping hands|crossed fingers|eyes|flexed biceps|folded hands|footprints|heart hands"
    r"|horse racing|lungs|mrs claus|mx claus|nail polish|open hands|palms|pinched fingers|raising hands|santa|busts)\b"
)
REWORDINGS = (  # telegraphic names, as a person would say them; applied in this order
    (r"mrs\.", "mrs"), (r"^breast-feeding$", "woman breast-feeding"),
    (r"^(man|woman|person) (beard)$", r"\1 with a beard"), (r"^(man|woman|person) bald$", r"bald \1"),
    (r"^(man|woman|person) (\w+ hair)$", r"\1 with \2"),
    (r"^(man|woman|person) with white cane facing right$", r"\1 facing right with a white cane"),
    (r"\b(in|with|wearing) (manual|motorized|steamy|tuxedo|turban|veil|crown|skullcap|headscarf|suit|white cane|probing"
     r"|hearing|heart)\b", r"\1 a \2"),
    (r"\b(feeding|taking|getting|bouncing|raising|rowing|tipping) (baby|bath|haircut|massage|ball|hand|boat)$",
     r"\1 a \2"),
    (r"\bin lotus", "in the lotus"), (r"\bindex pointing", "index finger pointing"),
    (r"^kiss$", "couple kissing"), (r"^kiss (.*)$", r"\1 kissing"),
    (r"^couple with a heart ((?:man|woman|person) \w+)$", r"\1 with a heart"),
    (r"^man man\b", "two men"), (r"^woman woman\b", "two women"), (r"^person person\b", "two people"),
    (r"^woman (and )?man\b", "woman and a man"),
)  # fmt: skip
TONE = re.compile(r" ?\b(light|medium-light|medium|medium-dark|dark) skin tone")
PLURALS = {"man": "men", "woman": "women", "child": "children"}


@dataclass(frozen=True)
class Name:
    """One emoji name, taken apart: the words without skin tones, and the tones (none, one, or one per person)."""

    words: str
    tones: tuple[str, ...] = ()

    @property
    def is_role(self) -> bool:
        """Whether it belongs to Unicode's subgroups person-role and person-fantasy."""
        return role_of(self.words) != ""


def parse_name(text: str) -> Name:
    """Read a name of the `emoji` package, such as ":woman_scientist_medium_skin_tone:"."""
    words = text.strip(":").replace("_", " ").lower()
    tones = tuple(match.group(1) for match in TONE.finditer(words))
    return Name(" ".join(TONE.sub("", words).split()), tones)


def is_toneless_person(words: str) -> bool:
    """Whether the name belongs to the members of People & Body that take no skin tone."""
    return TONELESS_PEOPLE.fullmatch(words) is not None


def is_natural_alias(words: str) -> bool:
    """Whether a further name reads as English and says no other gender than the first name does."""
    return NATURAL_ALIASES.fullmatch(words) is not None


@cache
def role_of(words: str) -> str:
    """The words of the role in the caption; "" where the name is not one of a role."""
    return ROLES.get(words) or ROLES.get(re.sub(r"^(man|woman|person) ", "", words), "")


def caption_of(name: Name) -> str:
    """The name as a person would say it."""
    phrase = _with_article(_reword(name.words))
    if not name.tones:
        return phrase
    joint = "and" if " with " in phrase else "with"
    plural = "s" if len(name.tones) > 1 else ""
    return f"{phrase} {joint} {tone_words(name)} skin tone{plural}"


def tone_words(name: Name) -> str:
    """The tones as they stand in the caption: "", "dark", or "dark and light" for two people."""
    return " and ".join(name.tones)


def slots_of(name: Name, caption: str) -> dict[str, str]:
    """What the caption says. `role` only for roles; `gender` only where it speaks of one person."""
    slots = {"role": role_of(name.words)} if name.is_role else {}
    words = set(re.findall(r"[a-z]+", caption))
    if not words & {"men", "women", "people", "two", "couple", "family"} and not {"man", "woman"} <= words:
        slots["gender"] = next((word for word in ("man", "woman") if word in words), "")
    return {**slots, "skin_tone": tone_words(name)}


def said_slots(slots: dict[str, str], caption: str) -> dict[str, str]:
    """The slots whose value stands in this caption word for word: "a policeman" does not say "police officer"."""
    return {slot: value for slot, value in slots.items() if not value or says(caption, value)}


def says(caption: str, words: str) -> bool:
    """Whether the words stand in the caption, whole: "medium-dark" does not say "dark"."""
    return re.search(rf"(?<![\w-]){re.escape(words)}(?![\w-])", caption) is not None


def _reword(words: str) -> str:
    if words.startswith("family "):
        return f"family of {_members(words.split()[1:])}"
    for pattern, replacement in REWORDINGS:
        words = re.sub(pattern, replacement, words)
    return words


def _members(people: list[str]) -> str:
    counted = [
        _with_article(who) if count == 1 else f"two {PLURALS.get(who, who + 's')}"
        for who, count in Counter(people).items()
    ]
    return counted[0] if len(counted) == 1 else f"{', '.join(counted[:-1])} and {counted[-1]}"


def _with_article(phrase: str) -> str:
    if WITHOUT_ARTICLE.match(phrase):
        return phrase
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"
