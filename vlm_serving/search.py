"""From the next word's probabilities to captions: greedy and beam search, token for token as transformers' `generate`.

Pictures that are done leave the batch. What is said of a picture depends on no other picture of its batch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.generation.logits_process import (
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)

from vlm_serving.decoder import Decoder
from vlm_serving.generation import FinishReason, GenerationOptions

NEVER = -1.0e9  # transformers' score of what must not be chosen

Forbid = Callable[[Tensor, Tensor], Tensor]  # tokens so far (R, S), scores (R, V) -> scores


@dataclass(frozen=True)
class Start:
    """What every caption begins and ends with."""

    token_ids: tuple[int, ...]  # start token and prompt
    eos_token_id: int


@dataclass(frozen=True)
class Spoken:
    """One generated caption. `token_ids`: without start and prompt, with EOS unless it was cut off.

    `logprobs` are the model's own, natural, one per token, whatever the options forbade.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    score: float  # what the search compared: the sum of logprobs, with beams over length ** length_penalty
    finish_reason: FinishReason  # stop: the caption is complete; length: it was cut off

    @property
    def confidence(self) -> float:
        """The geometric mean of the tokens' probabilities."""
        return math.exp(sum(self.logprobs) / len(self.logprobs))


@torch.inference_mode()
def search(decoder: Decoder, states: Tensor, start: Start, options: GenerationOptions) -> list[list[Spoken]]:
    """Caption pictures as the vision encoder left them, (P, T, D): for each its captions, best first.

    Greedy decoding gives one each, beam search `options.num_captions`.
    """
    return (_greedy if options.num_beams == 1 else _beams)(decoder, states, start, options)


def _greedy(decoder: Decoder, states: Tensor, start: Start, options: GenerationOptions) -> list[list[Spoken]]:
    device, count = states.device, states.shape[0]
    forbid = _forbidding(start, options)
    longest = options.max_new_tokens
    said = decoder.look(states, 1, len(start.token_ids) + longest)
    ids = torch.full((count, longest), start.eos_token_id, device=device)  # (P, L)
    logprobs = torch.zeros((count, longest), device=device)
    here = torch.arange(count, device=device)  # whose rows the decoder still has
    open_ = torch.ones(count, dtype=torch.bool, device=device)  # of these, whose caption goes on
    tokens = torch.tensor([start.token_ids] * count, device=device)  # (P, S)
    so_far = tokens
    for step in range(longest):
        logits = decoder.say(said, tokens)  # (P', V)
        chosen = (forbid(so_far, logits) if forbid else logits).argmax(-1)
        sure = logits.gather(1, chosen[:, None]).squeeze(1) - logits.logsumexp(-1)
        ids[here, step], logprobs[here, step] = chosen, sure  # of captions that are complete, too: behind their end
        open_ &= chosen != start.eos_token_id
        left = int(open_.sum())
        if left == 0:
            break
        tokens = chosen[:, None]
        so_far = torch.cat([so_far, tokens], dim=1) if forbid else so_far
        if said.worth_leaving(left, len(open_)):
            kept = open_.nonzero().squeeze(1)
            said.keep(kept)
            here, tokens, so_far, open_ = here[kept], tokens[kept], so_far[kept], open_[kept]
    return [[_spoken(*row, start.eos_token_id)] for row in zip(ids.tolist(), logprobs.tolist(), strict=True)]


def _beams(decoder: Decoder, states: Tensor, start: Start, options: GenerationOptions) -> list[list[Spoken]]:
    """transformers' beam search (GenerationMixin._beam_search, early_stopping=False), each picture by itself."""
    device, count, beams, longest = states.device, states.shape[0], options.num_beams, options.max_new_tokens
    forbid = _forbidding(start, options)
    said = decoder.look(states, beams, len(start.token_ids) + longest)
    found: list[list[Spoken]] = [[] for _ in range(count)]
    here = torch.arange(count, device=device)  # whose rows the decoder still has
    settled = torch.zeros(count, dtype=torch.bool, device=device)  # of these, whose captions are final
    running, done = (_Hypotheses.none(count, beams, longest, device) for _ in range(2))
    running.scores[:, 0] = 0.0  # all beams say the same at first: only one of them may go on
    among_best = torch.arange(2 * beams, device=device) < beams
    prompt = torch.tensor(start.token_ids, device=device)
    tokens = prompt.expand(count * beams, -1)  # (R, S)
    for step in range(longest):
        own = decoder.say(said, tokens).log_softmax(-1)  # (R, V)
        scores = own
        if forbid:
            said_so_far = running.ids[..., :step].flatten(0, 1)
            scores = forbid(torch.cat([prompt.expand(len(said_so_far), -1), said_so_far], dim=1), own)
        scores = scores.view(len(here), beams, -1) + running.scores[..., None]  # (P, beams, V)
        best, places = scores.flatten(1).topk(2 * beams)  # twice as many: half of them may end here
        parents, chosen = places // own.shape[1], places % own.shape[1]  # (P, 2 * beams)
        rows = torch.arange(len(here), device=device)[:, None] * beams + parents
        grown = running.grown(parents, step, chosen, own[rows, chosen], best)
        ends = (chosen == start.eos_token_id) | (step + 1 == longest)
        going_on = torch.where(ends, best + NEVER, best).topk(beams)[1]  # (P, beams)
        running = grown.picked(going_on)
        length = (step + 1) ** options.length_penalty
        final = torch.where(ends & among_best & ~settled[:, None], best / length, NEVER)
        done = done.joined(grown.scored(final)).best(beams)
        settled |= (running.scores[:, 0] / length <= done.scores[:, -1]) | (step + 1 == longest)
        left = len(here) - int(settled.sum())
        if left == 0 or said.worth_leaving(left, len(here)):
            for place in settled.nonzero().squeeze(1).tolist():
                found[int(here[place])] = _told(done, place, start.eos_token_id)[: options.num_captions]
            if left == 0:
                break
            kept = (~settled).nonzero().squeeze(1)
            said.reorder(rows.gather(1, going_on).flatten())
            said.keep(kept)
            here, settled = here[kept], settled[kept]
            running, done = running.of(kept), done.of(kept)
        else:
            said.reorder(rows.gather(1, going_on).flatten())
        tokens = running.ids[..., step].flatten()[:, None]
    return found


def _told(done: "_Hypotheses", place: int, eos_token_id: int) -> list[Spoken]:
    """The captions of one picture, best first."""
    rows = zip(done.ids[place].tolist(), done.logprobs[place].tolist(), done.scores[place].tolist(), strict=True)
    return [_spoken(ids, logprobs, eos_token_id, score) for ids, logprobs, score in rows]


@dataclass
class _Hypotheses:
    """K captions for each of P pictures, whole or growing."""

    ids: Tensor  # (P, K, L) int64, EOS where nothing is said yet
    logprobs: Tensor  # (P, K, L) float32
    scores: Tensor  # (P, K) float32

    @classmethod
    def none(cls, pictures: int, count: int, longest: int, device: torch.device) -> "_Hypotheses":
        """K places for each picture, with nothing in them yet."""
        size = (pictures, count, longest)
        ids, logprobs = torch.zeros(size, dtype=torch.int64, device=device), torch.zeros(size, device=device)
        return cls(ids, logprobs, torch.full(size[:2], NEVER, device=device))

    def picked(self, places: Tensor) -> "_Hypotheses":
        """Of each picture those at `places`, (P, K')."""
        wide = places[..., None].expand(-1, -1, self.ids.shape[2])
        return _Hypotheses(self.ids.gather(1, wide), self.logprobs.gather(1, wide), self.scores.gather(1, places))

    def grown(self, parents: Tensor, step: int, chosen: Tensor, logprobs: Tensor, scores: Tensor) -> "_Hypotheses":
        """Those at `parents`, each with one more token, and scores anew; all (P, K')."""
        grown = self.picked(parents)
        grown.ids[..., step], grown.logprobs[..., step] = chosen, logprobs
        return grown.scored(scores)

    def scored(self, scores: Tensor) -> "_Hypotheses":
        """The same with other scores."""
        return _Hypotheses(self.ids, self.logprobs, scores)

    def joined(self, other: "_Hypotheses") -> "_Hypotheses":
        """Both side by side."""
        pairs = ((self.ids, other.ids), (self.logprobs, other.logprobs), (self.scores, other.scores))
        return _Hypotheses(*(torch.cat(pair, dim=1) for pair in pairs))

    def best(self, count: int) -> "_Hypotheses":
        """The `count` with the highest scores, best first."""
        return self.picked(self.scores.topk(count)[1])

    def of(self, pictures: Tensor) -> "_Hypotheses":
        """Those of some pictures."""
        return _Hypotheses(self.ids[pictures], self.logprobs[pictures], self.scores[pictures])


def _spoken(ids: list[int], logprobs: list[float], eos_token_id: int, score: float | None = None) -> Spoken:
    """Cut a row off behind its first EOS."""
    length = ids.index(eos_token_id) + 1 if eos_token_id in ids else len(ids)
    kept = tuple(logprobs[:length])
    reason = "stop" if ids[length - 1] == eos_token_id else "length"
    return Spoken(tuple(ids[:length]), kept, sum(kept) if score is None else score, reason)


def _forbidding(start: Start, options: GenerationOptions) -> Forbid | None:
    """What the options rule out, as transformers' processors do in transformers' order; None if nothing."""
    rules: list[Any] = []
    if options.repetition_penalty != 1.0:
        rules.append(RepetitionPenaltyLogitsProcessor(options.repetition_penalty))
    if options.no_repeat_ngram_size:
        rules.append(NoRepeatNGramLogitsProcessor(options.no_repeat_ngram_size))
    if options.min_new_tokens:
        rules.append(_no_end_before(len(start.token_ids) + options.min_new_tokens, start.eos_token_id))

    def forbid(so_far: Tensor, scores: Tensor) -> Tensor:
        for rule in rules:
            scores = rule(so_far, scores)
        return scores

    return forbid if rules else None


def _no_end_before(length: int, eos_token_id: int) -> Forbid:
    """MinNewTokensLengthLogitsProcessor, without its search of the whole vocabulary for the end at every word."""

    def forbid(so_far: Tensor, scores: Tensor) -> Tensor:
        if so_far.shape[1] >= length:
            return scores
        scores = scores.clone()
        scores[:, eos_token_id] = -math.inf
        return scores

    return forbid
