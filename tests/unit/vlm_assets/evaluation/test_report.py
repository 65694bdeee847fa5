"""The page, the plot, the contact sheet: right numbers in right places, nothing loaded from elsewhere."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from tests.unit.vlm_assets.evaluation.shards import plain_png
from vlm_assets.evaluation.display import BLEU_4, CIDER, EXACT, axis_end, counted
from vlm_assets.evaluation.gallery import SHEET_MAX_BYTES, Card, CardWord, choose, contact_sheet
from vlm_assets.evaluation.plots import write_score_plot
from vlm_assets.evaluation.report import findings, headline, mark, render_report
from vlm_assets.evaluation.report_differences import tone
from vlm_assets.release.gate import RuleResult, Verdict

COLLAPSE = {
    "distinct_share": 0.9,
    "most_frequent_share": 0.02,
    "most_frequent_caption": "a <cook> & friend",
    "empty_share": 0.0,
    "looping_share": 0.0,
    "novel_share": 0.7,
    "mean_words": 6.5,
    "max_words": 11,
    "mean_reference_words": 7.25,
}


def estimate(value, half=0.1, n=200):
    return {"value": value, "low": value - half, "high": value + half, "n": n, "clusters": n}


def measured(cider, exact, n=200, **collapse):
    metrics = {"cider": estimate(cider, 0.4, n), "exact_match": estimate(exact, 0.05, n), "bleu_4": estimate(0.5, n=n)}
    return {"n": n, "left_out": 0, "metrics": metrics, "notes": [], "collapse": {**COLLAPSE, **collapse}}


def system(label, splits, about="about it"):
    return {
        "label": label,
        "in_a_sentence": label.lower(),
        "about": about,
        "version": "0123456789abcdef",
        "splits": splits,
    }


def difference(against, split, metric, low, high):
    value = (low + high) / 2
    ends = {"value": value, "low": low, "high": high, "n": 200, "clusters": 150}
    return {"against": against, "split": split, "metric": metric, **ends}


def scores(**collapse):
    candidate = {
        "test": measured(7.31, 0.412, **collapse),
        "test_unseen_role": measured(0.9, 0.0, 61),
        "general/test": measured(4.7, 0.3),
    }
    return {
        "systems": {
            "candidate": system("Fine-tuned", candidate, "blip-mini <3.3 M>, fine-tuned"),
            "base": system("Base", {"test": measured(0.5, 0.0), "general/test": measured(5.1, 0.33)}),
            "copy": system("Copy", {"test": measured(6.0, 0.0), "test_unseen_role": measured(0.7, 0.0, 61)}),
            "champion": system("Champion", {}, "not compared: it takes 384 px pictures"),
        },
        "differences": [
            difference("base", "test", "cider", 6.4, 7.2),
            difference("base", "test", "exact_match", 0.36, 0.46),
            difference("copy", "test", "cider", -0.1, 0.5),
            difference("copy", "test_unseen_role", "cider", -0.9, -0.2),
            difference("base", "general/test", "cider", -0.6, -0.2),
        ],
        "slices": [
            {"kind": "skin tone", "name": "dark", "n": 40, "clusters": 31}
            | {"metrics": measured(7.0, 0.4, 40)["metrics"]},
        ],
        "splits": {
            name: {"n": n, "clusters": min(n, 150), "sha256": f"{n:012x}" + 52 * "0"}
            for name, n in {"test": 200, "test_unseen_role": 61, "general/test": 200}.items()
        },
        "protocol": {
            "num_beams": 1, "max_new_tokens": 30, "resamples": 1000, "min_slice": 10,
            "text": ["Captions are generated greedily."],
        },
        "note": "This is icon art.",
        "lineage": {"finetuned_model": "0123456789abcdef"},
        "attribution": ["Pictures: OpenMoji 17 · CC BY-SA 4.0"],
    }  # fmt: skip


def words(text, *probabilities):
    """Words that looked at one patch of 2 x 2 each; without probabilities all are sure."""
    each = text.split()
    chances = probabilities or [0.9] * len(each)
    return tuple(
        CardWord(word, chance, np.eye(4, dtype=np.uint8)[at % 4].reshape(2, 2) * 255)
        for at, (word, chance) in enumerate(zip(each, chances, strict=True))
    )


def card(number, exact=False):
    picture = plain_png((number * 20 % 255, 90, 120), 96)
    said = words(f"said {number} perhaps", 0.95, 0.6, 0.314)
    return Card(f"id{number}", picture, said, (f"reference {number} <b>", "other"), 0.5, 3.25, exact)


LEAKS = {
    "naive_split": {"leaked_test_rows": 13.2, "test_rows": 94.8},
    "train_share": 0.75, "draws": 20, "rows": 78, "leaked_rows": 11.6,
    "clean": 4.75, "leaky": 4.93, "clean_on_leaked": 3.95, "leaky_on_leaked": 5.2,
    "inflation": {"value": 0.18, "low": 0.05, "high": 0.34, "n": 78, "p": 0.001},
}  # fmt: skip


PASSED = Verdict((RuleResult("no_collapse", True, "empty share 0.0 % (limit 0 %)"),))
REFUSED = Verdict((*PASSED.rules, RuleResult("beats_baselines", False, "CIDEr not surely above copy +0.20")))


class Page(HTMLParser):
    """Tags, the addresses they load, and the visible text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.open, self.text = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "title", "script"):
            self.text.append(data)

    @property
    def words(self):
        return re.sub(r"\s+", " ", " ".join(self.text))


@pytest.fixture
def page():
    gallery = {"random": [card(1), card(2, exact=True)], "worst": [card(3)], "best": []}
    text = render_report(scores(), gallery, PASSED)
    parsed = Page(text)
    assert parsed.open == []  # every tag is closed
    return text, parsed


def test_the_page_loads_nothing(page):
    text, parsed = page
    assert {"link", "iframe", "object"}.isdisjoint(parsed.tags)
    assert parsed.tags.count("script") == 1
    assert not re.search(r"<script[^>]|fetch\(|import\(|XMLHttpRequest|innerHTML|eval\(", text)
    assert len(parsed.addresses) == 3
    assert all(address.startswith("data:image/png;base64,") for address in parsed.addresses)
    assert "url(" not in text
    assert "http://" not in text and "https://" not in text
    assert "prefers-color-scheme: dark" in text


@pytest.mark.parametrize(
    "words",
    [
        "CIDEr 7.31, 41 % word for word on 200 unseen pictures",
        "7.31 6.91 to 7.71",  # value and interval
        "41.2 % 36.2 to 46.2 %",
        "This is icon art.",
        "test_unseen_role 61 pictures held out on purpose",
        "skin tone dark 40 from 31 groups",
        "Base 200 pictures from 150 groups",
        "CIDEr +6.80 better +6.40 to +7.20",  # the differences' row
        "0 % under 2.0 %",  # empty captions: none seen
        "Says most often",
        "a <cook> & friend",  # escaped in the source, so it reads as written
        "blip-mini <3.3 M>, fine-tuned",
        "said 2 perhaps reference 2 <b> other exact CIDEr 3.25 confidence 0.50",
        "test · n = 200 pictures from 150 groups · split 0000000000c8 · greedy",
        "at most 30 tokens · 95 %: 1,000 resamples",
        "References have 7.2 words on average.",
        "Captions are generated greedily.",
        "finetuned_model 0123456789abcdef",
        "CC BY-SA 4.0",
    ],
)
def test_the_page_says(page, words):
    assert words in page[1].words


def test_every_word_carries_its_probability_in_more_ways_than_colour(page):
    marked = re.findall(r'<span class="(word[^"]*)" title="(\d+ %)" data-word="(\w+)"', page[0])
    assert marked[:3] == [
        ("word", "95 %", "said"),
        ("word unsure", "60 %", "1"),
        ("word doubtful", "31 %", "perhaps"),
    ]
    assert "underline dotted" in page[0] and "underline solid" in page[0]
    assert [mark(share) for share in (1, 0.8, 0.79, 0.5, 0.49, 0)] == [
        "",
        "",
        "unsure",
        "unsure",
        "doubtful",
        "doubtful",
    ]


def test_every_word_carries_its_map(page):
    grids = re.findall(r'data-map="([^"]+)"', page[0])
    assert len(grids) == 9  # three words on three cards
    assert list(base64.b64decode(grids[1])) == [0, 255, 0, 0]


def test_small_slices_are_marked_and_large_ones_are_not():
    given = scores()
    given["slices"].append(
        {"kind": "skin tone", "name": "light", "n": 29, "clusters": 29, "metrics": given["slices"][0]["metrics"]}
    )
    words = Page(render_report(given, {"random": [], "worst": [], "best": []}, PASSED)).words
    assert "dark 40 from 31 groups" in words and "light few 29" in words


def test_the_verdict_comes_first_with_what_broke():
    def start(verdict):
        return Page(render_report(scores(), {"random": [], "worst": [], "best": []}, verdict)).words.split("word for")[
            0
        ]

    assert "The gate lets it pass" in start(PASSED)
    assert "not surely above" not in start(PASSED)
    assert "The gate refuses it CIDEr not surely above copy +0.20" in start(REFUSED)


def test_differences_show_every_rival_and_metric_of_the_test_split():
    given = scores()
    given["systems"]["copy"]["splits"]["test"]["left_out"] = 7
    given["differences"] += [difference("copy", "test", f"bleu_{order}", 0, 0) for order in (1, 2, 3, 4)]
    words = Page(render_report(given, {"random": [], "worst": [], "best": []}, PASSED)).words
    table = words.split("Differences, picture by picture")[1].split("Harder and other")[0]
    assert "Copy 200 pictures from 150 groups; 7 that trained it are left out" in table
    assert "CIDEr +6.80 better +6.40 to +7.20 +0.20 undecided -0.10 to +0.50" in table
    for order in (1, 2, 3, 4):
        assert f"BLEU-{order} – +0.0 points same in every resample" in table


def test_other_splits_do_not_repeat_the_test_split(page):
    table = page[1].words.split("Harder and other pictures")[1].split("Where it is good")[0]
    assert "test_unseen_role 61 pictures" in table and "general/test" in table
    assert " test 200 pictures" not in table


def test_leaks_are_told_in_rows_and_in_cider(page):
    assert "Is the test clean?" not in page[1].words  # nothing is known of the splits
    words = Page(render_report(scores() | {"leaks": LEAKS}, {"random": [], "worst": [], "best": []}, PASSED)).words
    assert "tested on about 95 rows and shown the model a twin of about 13 of them (14 %) in training" in words
    assert "all rows of the test pictures 78 4.75 4.93 +0.18 +0.05 to +0.34" in words
    assert "only those with a twin in training 12 3.95 5.20 +1.25" in words
    without = LEAKS | {"inflation": None, "naive_split": {"leaked_test_rows": 0, "test_rows": 0}}
    words = Page(render_report(scores() | {"leaks": without}, {"random": [], "worst": [], "best": []}, PASSED)).words
    assert "Of the 78 rows behind the test pictures none would have leaked: nothing to gain." in words


def test_a_part_without_pictures_and_a_champion_without_captions_are_left_out(page):
    assert "Best" not in page[1].words
    assert "Champion" not in page[1].words


def test_a_page_without_slices_and_other_splits():
    bare = scores()
    bare["slices"], bare["differences"] = [], []
    for each in bare["systems"].values():
        each["splits"] = {name: split for name, split in each["splits"].items() if name == "test"}
    words = Page(render_report(bare, {"random": [card(1)], "worst": [], "best": []}, PASSED)).words
    assert "Where it is good" not in words
    assert "Harder and other pictures" not in words
    assert "Differences, picture by picture" not in words


def test_a_number_that_cannot_mean_anything_is_not_shown():
    note = "CIDEr is 0 for a corpus of one picture."
    given = scores()
    for one in given["systems"].values():
        if "test" in one["splits"]:
            one["splits"]["test"]["metrics"]["cider"] = estimate(0.0, 0.0, 1) | {"note": note}
            one["splits"]["test"]["notes"] = [note]
    page = render_report(given, {"random": [], "worst": [], "best": []}, PASSED)
    assert headline(given).startswith("CIDEr n/a")
    assert note in page
    assert "<b>0.00</b>" not in page


def test_one_picture_has_no_interval():
    assert CIDER.interval(estimate(3.0, 0.0, 1)) == "of one picture"


def test_none_and_all_have_an_interval_by_the_rule_of_three():
    assert f"{EXACT.value(estimate(0, 0, 70))} ({EXACT.interval(estimate(0, 0, 70))})" == "0 % (under 4.3 %)"
    assert f"{EXACT.value(estimate(1, 0, 70))} ({EXACT.interval(estimate(1, 0, 70))})" == "100 % (above 95.7 %)"
    assert EXACT.interval(estimate(0, 0, 70) | {"clusters": 30}) == "under 10.0 %"  # pictures of a group are one
    assert EXACT.interval(estimate(0, 0, 3)) == "0.0 to 0.0 %"  # three say nothing
    assert BLEU_4.interval(estimate(0, 0, 70)) == "0.0 to 0.0 %"  # no share of pictures


def test_pictures_are_counted_with_their_groups():
    assert counted({"n": 1234, "clusters": 1000}) == "1,234 pictures from 1,000 groups"
    assert counted({"n": 2, "clusters": 1}) == "2 pictures from 1 group"
    assert counted({"n": 1, "clusters": 1}) == "1 picture"


def test_findings_name_each_rival_with_its_interval_and_what_was_forgotten():
    assert [(finding.tone, finding.text) for finding in findings(scores())] == [
        ("good", "Against base: CIDEr +6.80 (+6.40 to +7.20); Exact match +41.0 points (+36.0 to +46.0 points)."),
        ("open", "Against copy: CIDEr +0.20 (-0.10 to +0.50)."),
        ("bad", "On pictures like those of the pretraining: CIDEr 5.10 before fine-tuning, 4.70 after, "
                "a change of -0.60 to -0.20."),
    ]  # fmt: skip


def test_a_rival_that_is_equal_is_no_open_question():
    given = scores()
    given["differences"] = [difference("copy", "test", metric, 0, 0) for metric in ("cider", "exact_match")]
    [found] = findings(given)
    assert (found.tag, found.text) == ("same", "Against copy: CIDEr the same; Exact match the same.")


@pytest.mark.parametrize(
    ("symptom", "words"),
    [
        ({"empty_share": 0.005}, "0.5 % of captions are empty."),
        ({"looping_share": 0.02}, "2.0 % of captions repeat themselves."),
        ({"most_frequent_share": 0.3}, "30 % of pictures get the same caption: 'a <cook> & friend'."),
    ],
)
def test_signs_of_collapse_are_part_of_the_verdict(symptom, words):
    assert findings(scores(**symptom))[-1].text == words
    assert findings(scores(**symptom))[-1].tone == "bad"


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0.1, 1, "good"), (-1, -0.1, "bad"), (-1, 1, "open"), (0, 1, "open"), (0, 0, "same")]
)
def test_tone(low, high, expected):
    assert tone({"value": (low + high) / 2, "low": low, "high": high}) == expected


def test_numbers_are_spelled_with_their_unit():
    assert headline(scores()) == "CIDEr 7.31, 41 % word for word on 200 unseen pictures"
    assert EXACT.text(0.4125) == "41.2 %"
    assert EXACT.text(-0.05, signed=True) == "-5.0 points"
    assert CIDER.interval({"low": 1, "high": 2.345}) == "1.00 to 2.35"
    assert CIDER.text(float("nan")) == "n/a"
    assert axis_end(CIDER, [estimate(7.7)]) == 8
    assert axis_end(EXACT, [estimate(0.1)]) == 1


def test_gallery_parts_share_no_picture_and_are_repeatable():
    values = np.random.default_rng(1).random(40)
    parts = choose(values, 8, seed=3)
    rows = [row for part in parts.values() for row in part]
    assert len(rows) == len(set(rows)) == 24
    assert parts == choose(values, 8, seed=3)
    assert parts["random"] != choose(values, 8, seed=4)["random"]
    assert max(values[parts["worst"]]) < min(values[parts["best"]])
    assert values[parts["best"]].tolist() == sorted(values[parts["best"]], reverse=True)


def test_few_pictures_fill_the_random_part_first():
    assert {name: len(part) for name, part in choose(np.arange(5.0), 4, seed=0).items()} == {
        "random": 4,
        "worst": 1,
        "best": 0,
    }


def test_the_contact_sheet_is_small_even_for_noise():
    generator = np.random.default_rng(0)
    cards = []
    for number in range(12):
        buffer = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (384, 384, 3), dtype=np.uint8)).save(buffer, "PNG")
        cards.append(
            Card(str(number), buffer.getvalue(), words("a very long caption " * 8), ("reference",), 0.5, 1.0, False)
        )
    data = contact_sheet(cards)
    assert len(data) < SHEET_MAX_BYTES
    sheet = Image.open(io.BytesIO(data))
    assert sheet.format == "PNG"
    assert sheet.width > sheet.height / 2


def test_large_pictures_are_embedded_small_as_jpeg():
    noise = np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    uri = Card("x", buffer.getvalue(), words("a"), ("b",), 0.5, 1.0, False).data_uri
    assert uri.startswith("data:image/jpeg;base64,")
    assert len(uri) < 100_000


def test_the_score_plot_is_a_small_png(tmp_path):
    write_score_plot(scores(), tmp_path / "scores.png")
    picture = Image.open(tmp_path / "scores.png")
    assert picture.format == "PNG"
    assert picture.width > 500
    assert (tmp_path / "scores.png").stat().st_size < 120_000
