"""Writes metrics_tokens.json.xz and metrics_scores.json.gz with the COCO caption evaluation itself; needs Java.

    .venv/bin/python tests/golden/make_metrics_golden.py

Run it again only to add cases: the reference (pycocoevalcap 1.2, Stanford CoreNLP 3.4.1) does not change.
"""

import gzip
import json
import lzma
import random
from pathlib import Path

HERE = Path(__file__).parent
SENTENCES = 20_000


def parts(text: str) -> list[str]:
    return text.split("|")


START = parts("A|a|The|the|Two|An|three|Some||There is a|This is a|1|2 1/2")
ADJECTIVES = parts(
    "red|blue|dark-brown|black-and-white|two-tone|long-sleeved|short-sleeve|12-inch|3/4-length|100%|"
    "50-year-old|well-lit|off-white|café-style|jalapeño-green|naïve|half-eaten|sun-drenched|multi-colored|"
    '1950s|\'50s-style|mid-century|vintage,|worn, soft|light/dark|black/white|hi-vis|ultra-wide|(small)|"fancy"|'
    "'cool'|large, tiny"
)
NOUNS = parts(
    "man|woman|boy|girl|dog|cat|horse|bicycle|bus|airplane|kitchen|bathroom|table|pizza|sandwich|umbrella|"
    "surfboard|giraffe|zebra|laptop|T-shirt|t-shirt|tee-shirt|dress|v-neck sweater|sneakers|ring|mug|phone|TV|"
    "TVs|DVD player|stop sign|firefighter|police officer|hot dog|teddy bear|baby|stainless-steel sink|"
    "double-decker bus|747 jet|B-52 bomber|iPhone|MacBook|McDonald's restaurant|AT&T store|Levi's jeans|"
    "R&B singer|M&M's|Coca-Cola can|7-Eleven sign|BMW X5|No. 10 jersey|Dr. Pepper bottle|St. Bernard|U.S. flag|"
    "N.Y. Yankees cap|L.A. skyline|X-ray image|4x4 truck|3D model|10K run|jack-o'-lantern|o'clock clock"
)
VERBS = parts(
    "is holding|isn't wearing|doesn't look at|can't reach|won't eat|sits on|stands next to|is riding|"
    "they're riding|he's standing by|she'd placed|it's near|who's beside|that's on|cannot see|is gonna catch|"
    "wanna buy|are flying over|'s head is on|looks at|lies on|plays with|has got|couldn't've seen"
)
TAILS = parts(
    "|in the U.S.|at 10:30 a.m.|at 10:30 pm|for $5.99|(side view)|[front]|- close up|-- blurry|— at night|"
    "… maybe|...|& friends|w/ cheese|and/or a fork|at 5'10\" tall|6' tall|2 1/2 inches long|½ full|20°C outside|"
    "#1 fan|#sunset|@home|:)|http://example.com/a.jpg|www.shop.com|img_001.jpg|1,000 people|3.5 stars|24/7|"
    "etc.|e.g. a cup|i.e., food|vs. a dog|in the '90s|in the 1980's|on Dec. 25th|on 12/25/2010|in 2010-2011|"
    "from James' house|the dogs' bowls|“on sale”|it’s red|‘new’|😀|👩🏽‍🔬|♥|☕ cup|™|© 2015|€ 5|£5|5¢|"
    "size: XL; fit: slim|model A, B and C|sold!|really?!|what??|no!!!|yes... no|rock 'n' roll|rock'n'roll|"
    "y'all|ma'am|ol' man|'til noon|by O'Brien|l'eau|D'Angelo|Mr. T|Mrs. Smith|Jr.|Inc.|5 ft. 3 in. tall|"
    "10 lb. bag|12 oz. can|100mm lens|f/2.8|16:9 ratio|2 x 3|2x3|+5|-5 degrees|5-6 people|5 - 6 people|p. 5|"
    "fig. 3|No. 5|the letter a|plan B|type O+|C++ book|C# code|<unk>|[UNK] [UNK]|<start> a <end>|a_b|"
    "path/to/file|中文 sign|русский текст|Zürich|São Paulo|señor| double  spaces|non-stop|state-of-the-art|"
    '"quoted text."|"a," "b"|\'single quoted\'|(a (nested) one)|{curly}|1st, 2nd & 3rd|3rd.|90\'s kid|A\'s cap|'
    "100s of birds|4:3|007|1/2 cup|=)|;-)|*star*|**bold**|~5|^up|a+b|a=b|50/50|left/right/center|he/she|s/he|"
    "&amp; more|&quot;x&quot;"
)


def sentence(chance: random.Random) -> str:
    """A caption with everything that captions have: contractions, quotes, numbers, brands, foreign words, emoji."""
    pick = chance.choice
    adjective = pick(ADJECTIVES) if chance.random() < 0.6 else ""
    second = pick(ADJECTIVES) if chance.random() < 0.5 else ""
    more = f", {pick(NOUNS)}" if chance.random() < 0.2 else ""
    words = [pick(START), adjective, pick(NOUNS), pick(VERBS), pick(["a", "the", "his", "an"]), second, pick(NOUNS)]
    text = " ".join(word for word in [*words, pick(TAILS)] if word) + more + pick(["", ".", " .", "!", "."])
    return text if chance.random() < 0.9 else pick([text.upper(), text.title(), text.lower()])


SIGNS = [
    *".,;:!?'\"()[]-–—…“”‘’&%$#@*/+=~^|<>{}_`½°€£é中ßİﬁ①²", "...", "--", "😀", "👩🏽‍🔬", "'s", "n't", "'90s", "2,000",
    "10:30", "1/2", "No.", "Mr.", "a.m.", "U.S.",
]  # fmt: skip


def varied(chance: random.Random) -> str:
    """A sentence as it is, with its words in another order, or with signs and pictures between its words."""
    words = sentence(chance).split(" ")
    way = chance.choice(["as it is", "shuffled", "signs"])
    if way == "shuffled":
        chance.shuffle(words)
    for _ in range(chance.randint(1, 3) if way == "signs" else 0):
        words.insert(chance.randint(0, len(words)), chance.choice(SIGNS))
    return " ".join(words)


def corpus(chance: random.Random, pictures: int) -> tuple[list[str], list[list[str]]]:
    """Candidates that share a good part of their words with their 1 to 5 references."""
    candidates: list[str] = []
    references: list[list[str]] = []
    for _ in range(pictures):
        words = sentence(chance).split()
        texts = [" ".join(word for word in words if chance.random() < 0.8) or "a" for _ in range(chance.randint(1, 5))]
        candidates.append(" ".join(word for word in words if chance.random() < 0.85) or "a")
        references.append([*texts, sentence(chance)] if chance.random() < 0.5 else texts)
    return candidates, references


def corpora() -> dict[str, tuple[list[str], list[list[str]]]]:
    """By name: candidates and references."""
    return {
        "varied": corpus(random.Random(1), 150),
        "few": corpus(random.Random(2), 3),
        "one picture": (["a red bus on a street"], [["a red bus on the street", "a bus"]]),
        "identical": (["a red bus", "two cats sleep"], [["a red bus"], ["two cats sleep"]]),
        "degenerate": (
            ["", "...", "dog", "a a a a a a a", "nothing in common here", "a dog a dog"],
            [["a dog"], [".", "!"], ["dog", "cat"], ["a a", "a b"], ["x y z"], ["a dog and a dog", "dog a"]],
        ),
    }


def tokenized(captions: list[str]) -> list[str]:
    """The reference's tokens of each caption, read alone: a neutral caption between any two."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    lines = [text for caption in captions for text in (caption, "next")]
    found = PTBTokenizer().tokenize({number: [{"caption": text}] for number, text in enumerate(lines)})
    return [found[number][0] for number in range(0, len(lines), 2)]


def scored(candidates: list[str], references: list[list[str]]) -> dict[str, object]:
    """The reference's scores, of the corpus and per caption."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    texts = iter(tokenized(candidates + [text for row in references for text in row]))  # one start of Java
    results = {number: [next(texts)] for number in range(len(candidates))}
    truths = {number: [next(texts) for _ in row] for number, row in enumerate(references)}
    bleu, bleu_items = Bleu(4).compute_score(truths, results, verbose=0)
    rouge, rouge_items = Rouge().compute_score(truths, results)
    cider, cider_items = Cider().compute_score(truths, results)
    return {
        "candidates": candidates,
        "references": references,
        "bleu": bleu,
        "bleu_items": [list(row) for row in zip(*bleu_items, strict=True)],
        "rouge_l": float(rouge),
        "rouge_l_items": rouge_items.tolist(),
        "cider": float(cider),
        "cider_items": cider_items.tolist(),
    }


def compact(data: object) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()


def main() -> None:
    import emoji

    chance = random.Random(0)
    names = sorted({str(data["en"]).strip(":").replace("_", " ") for data in emoji.EMOJI_DATA.values()})
    sentences = [varied(chance) for _ in range(SENTENCES)] + chance.sample(names, 1000)
    sentences += (HERE / "metrics_sentences.txt").read_text().splitlines()
    tokens = dict(zip(sentences, tokenized(sentences), strict=True))
    scores = {name: scored(*texts) for name, texts in corpora().items()}
    (HERE / "metrics_tokens.json.xz").write_bytes(lzma.compress(compact(tokens), preset=9 | lzma.PRESET_EXTREME))
    (HERE / "metrics_scores.json.gz").write_bytes(gzip.compress(compact(scores), mtime=0))


if __name__ == "__main__":
    main()
