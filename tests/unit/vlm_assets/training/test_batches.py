"""Pairs, mixtures and batches."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vlm_assets.training.augmentation import Augmentation
from vlm_assets.training.batches import IGNORED, Collator, Example, Normaliser, PairDataset, mix
from vlm_serving.preprocessing import PreprocessingContract

CONTRACT = PreprocessingContract(image_size_px=8, bos_token_id=5, eos_token_id=3, pad_token_id=0)


def example(name: int, ids: tuple[int, ...] = (5, 7, 3)) -> Example:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(name).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return Example(buffer.getvalue(), ids)


def test_pads_are_masked_in_the_loss_and_tokens_are_not() -> None:
    rows = [PairDataset([example(1, (5, 7, 8, 3)), example(2, (5, 3))])[index] for index in range(2)]
    batch = Collator(CONTRACT)(rows)
    assert batch["input_ids"].tolist() == [[5, 7, 8, 3], [5, 3, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 7, 8, 3], [IGNORED, 3, IGNORED, IGNORED]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


def test_a_prompt_is_masked_in_the_loss() -> None:
    rows = [PairDataset([example(1, (5, 11, 12, 8, 3)), example(2, (5, 11, 12, 3))])[index] for index in range(2)]
    batch = Collator(CONTRACT, prompt_tokens=2)(rows)
    assert batch["input_ids"].tolist() == [[5, 11, 12, 8, 3], [5, 11, 12, 3, 0]]
    assert batch["labels"].tolist() == [[IGNORED, IGNORED, IGNORED, 8, 3], [IGNORED, IGNORED, IGNORED, 3, IGNORED]]


def test_a_pad_inside_a_caption_is_learnt_like_any_token() -> None:
    batch = Collator(CONTRACT)([PairDataset([example(1, (5, 0, 3))])[0]])
    assert batch["labels"].tolist() == [[IGNORED, 0, 3]]


def test_pixels_are_normalised_as_the_contract_says() -> None:
    dataset = PairDataset([example(1)])
    batch = Normaliser(CONTRACT)(Collator(CONTRACT)([dataset[0]]))
    expected = (torch.from_numpy(dataset[0]["pixels"]).float() / 255 - torch.tensor(CONTRACT.mean).view(3, 1, 1)) / (
        torch.tensor(CONTRACT.std).view(3, 1, 1)
    )
    torch.testing.assert_close(batch["pixel_values"][0], expected)


def test_a_shifted_picture_keeps_its_size_and_its_middle() -> None:
    plain, shifted = PairDataset([example(1)]), PairDataset([example(1)], Augmentation(shift_px=1))
    seen: set[bytes] = set()
    for epoch in range(60):
        shifted.set_epoch(epoch)
        seen.add(shifted[0]["pixels"].tobytes())
    assert len(seen) == 9  # all places within one pixel
    assert plain[0]["pixels"].tobytes() in seen
    assert shifted[0]["pixels"].shape == (3, 8, 8)


def test_what_happens_to_a_picture_hangs_on_seed_epoch_and_place_only() -> None:
    pairs = [example(number) for number in range(5)]
    change = Augmentation(shift_px=2, flip=True, jitter_share=0.3)

    def looks(seed: int, epoch: int, order: list[int]) -> dict[int, bytes]:
        dataset = PairDataset(pairs, change, seed)
        dataset.set_epoch(epoch)
        return {index: dataset[index]["pixels"].tobytes() for index in order}

    here = looks(0, 1, [0, 1, 2, 3, 4])
    assert looks(0, 1, [4, 2]) == {index: here[index] for index in (4, 2)}
    assert looks(0, 2, [0, 1, 2, 3, 4]) != here
    assert looks(1, 1, [0, 1, 2, 3, 4]) != here


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.05, 0.9))
def test_a_mixture_holds_every_pair_and_comes_near_the_share(niche: int, replay: int, share: float) -> None:
    ours, theirs = [Example(b"n", (i,)) for i in range(niche)], [Example(b"r", (i,)) for i in range(replay)]
    mixed = mix(ours, theirs, share)
    assert set(ours) | set(theirs) == set(mixed)
    got = sum(pair.png == b"r" for pair in mixed) / len(mixed)
    # whole repetitions only: the worst case is half a repetition off, either way
    assert got / (1 - got) == pytest.approx(share / (1 - share), rel=0.51)


def test_without_replay_the_niche_stands_alone() -> None:
    ours = [example(1)]
    assert mix(ours, [], 0.3) == ours
    assert mix(ours, [example(2)], 0.0) == ours
