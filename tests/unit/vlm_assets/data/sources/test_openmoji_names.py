import pytest

from vlm_assets.data.sources.openmoji import describe, read_people, without_false_tones
from vlm_assets.data.sources.openmoji_names import ROLES, caption_of, parse_name, says, slots_of


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        (":woman_scientist_medium_skin_tone:", "a woman scientist with medium skin tone"),
        (":police_officer_dark_skin_tone:", "a police officer with dark skin tone"),
        (":astronaut_light_skin_tone:", "an astronaut with light skin tone"),
        (":woman_with_headscarf_light_skin_tone:", "a woman with a headscarf and light skin tone"),
        (":man_in_tuxedo_medium-dark_skin_tone:", "a man in a tuxedo with medium-dark skin tone"),
        (":Mrs._Claus:", "mrs claus"),
        (":breast-feeding_light_skin_tone:", "a woman breast-feeding with light skin tone"),
        (":person_feeding_baby:", "a person feeding a baby"),
        (":man_medium_skin_tone_curly_hair:", "a man with curly hair and medium skin tone"),
        (":woman_white_hair:", "a woman with white hair"),
        (":woman_bald:", "a bald woman"),
        (
            ":man_with_white_cane_facing_right_dark_skin_tone:",
            "a man facing right with a white cane and dark skin tone",
        ),
        (":people_holding_hands:", "people holding hands"),
        (
            ":men_holding_hands_dark_skin_tone_light_skin_tone:",
            "men holding hands with dark and light skin tones",
        ),
        (":kiss_woman_man_dark_skin_tone:", "a woman and a man kissing with dark skin tone"),
        (":couple_with_heart_man_man:", "two men with a heart"),
        (":family_man_woman_girl_girl:", "a family of a man, a woman and two girls"),
        (":family_adult_adult_child:", "a family of two adults and a child"),
        (":OK_hand:", "an ok hand"),
        (":thumbs_up_light_skin_tone:", "a thumbs up with light skin tone"),
        (":horse_racing:", "horse racing"),
    ],
)
def test_captions_read_naturally(name: str, caption: str):
    assert caption_of(parse_name(name)) == caption


@pytest.mark.parametrize(
    ("name", "slots"),
    [
        (":woman_scientist_medium_skin_tone:", {"role": "scientist", "gender": "woman", "skin_tone": "medium"}),
        (":police_officer:", {"role": "police officer", "gender": "", "skin_tone": ""}),
        (":pregnant_man_dark_skin_tone:", {"role": "pregnant", "gender": "man", "skin_tone": "dark"}),
        (":man_dancing:", {"gender": "man", "skin_tone": ""}),
        (":women_wrestling_light_skin_tone_dark_skin_tone:", {"skin_tone": "light and dark"}),
    ],
)
def test_slots(name: str, slots: dict[str, str]):
    parsed = parse_name(name)
    assert slots_of(parsed, caption_of(parsed)) == slots


def test_a_tone_is_not_said_by_a_longer_one():
    assert says("an elf with dark skin tone", "dark")
    assert not says("an elf with medium-dark skin tone", "dark")
    assert not says("a policewoman", "woman")


@pytest.fixture(scope="module")
def described():
    return [(drawing, *describe(drawing)) for drawing in without_false_tones(read_people())]


def test_every_slot_stands_in_its_caption(described):
    for drawing, captions, slots in described:
        assert len(captions) == len(slots)
        for caption, said in zip(captions, slots, strict=True):
            assert caption == caption.lower().strip()
            for value in said.values():
                assert not value or says(caption, value), (drawing.code, caption, said)


def test_references_of_a_drawing_never_contradict_the_first(described):
    for _, captions, slots in described:
        for caption, said in zip(captions, slots, strict=True):
            assert said["skin_tone"] == slots[0]["skin_tone"], caption
            assert said.get("gender", "") in ("", slots[0].get("gender", "")), caption


def test_the_known_numbers_of_drawings(described):
    roles = [drawing for drawing, _, _ in described if drawing.names[0].is_role]
    assert (len(described), len(roles)) == (2418, 650)
    assert {slots[0]["role"] for drawing, _, slots in described if drawing.names[0].is_role} == set(ROLES.values())


def test_one_drawing_for_all_tones_claims_no_tone(described):
    captions = {drawing.code: captions for drawing, captions, _ in described}
    assert captions["1F9D1-1F3FB-200D-1F430-200D-1F9D1-1F3FF"] == ("people with bunny ears",)
