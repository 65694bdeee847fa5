"""Hugging Face's Trainer, mended where it is wrong for captions."""

from collections.abc import Callable
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Sampler, SequentialSampler, Subset
from transformers import PrinterCallback, Trainer
from transformers.trainer_utils import EvalLoopOutput

from vlm_assets.training.adaptation import plain
from vlm_assets.training.batches import IGNORED, Normaliser
from vlm_assets.training.checkpoints import is_final
from vlm_assets.training.finite import FiniteWatch
from vlm_assets.training.length_sampler import LengthGroupedSampler

Validator = Callable[[Any], dict[str, float]]


class CaptionTrainer(Trainer):
    """Trainer with some of its ways mended.

    - The loss is the mean over all tokens of an optimizer step, however they are divided into batches and workers:
      BLIP ignores `num_items_in_batch`, and Trainer would add up the losses of accumulated batches.
    - So is the validation loss, over all pairs: Trainer would leave out what does not fill a batch.
    - Evaluation also captions and scores, so that checkpoints are chosen by CIDEr.
    - A loss or gradient that is not finite is noticed in its step.
    - A training that had ended makes no further step when it is run again.
    - It does not print dictionaries; `Reporter` says it better.
    """

    watch: FiniteWatch
    normalise: Normaliser
    validator: Validator | None = None
    group_by_length = False
    streamed = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = True  # what compute_loss below makes true

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean loss per token of this batch, weighed by its share of the step's tokens."""
        outputs = model(**inputs)
        loss = outputs.loss
        if num_items_in_batch is not None:
            loss = loss * _tokens(inputs) * self.accelerator.num_processes / num_items_in_batch
        return (loss, outputs) if return_outputs else loss

    def _prepare_inputs(self, inputs: Any) -> dict[str, Any]:
        """Batches come as bytes and are finished on the device."""
        return self.normalise(inputs, self.args.device)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward; the loss is watched."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.watch.note("loss", loss, self.state.global_step + 1)
        return loss

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Of pairs that are streamed each worker has its own already, in the order in which it reads them."""
        dataset: Any = self.train_dataset
        if not self.streamed:
            return super().get_train_dataloader()
        order = BatchSampler(SequentialSampler(dataset), self.args.train_batch_size, drop_last=True)
        return DataLoader(dataset, batch_sampler=order, collate_fn=self.data_collator)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """This worker's share of the validation pairs; the last batch may be short."""
        dataset: Any = self.eval_dataset
        mine = Subset(dataset, range(self.args.process_index, len(dataset), self.args.world_size))
        return DataLoader(mine, self.args.eval_batch_size, collate_fn=self.data_collator)

    def evaluation_loop(self, dataloader: Any, *_: Any, **__: Any) -> EvalLoopOutput:
        """The mean loss per token, and the scores of real captions."""
        model: Any = self.model
        model.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)  # of losses, of tokens
        for batch in dataloader:
            tokens = _tokens(batch).to(self.args.device)
            loss: Any = self.prediction_step(model, batch, prediction_loss_only=True)[0]
            sums += torch.stack([loss.double() * tokens, tokens.double()])
        total: Any = self.accelerator.reduce(sums)
        metrics = {"eval_loss": float(total[0] / total[1])}
        if self.validator is not None:
            # one worker judges for all: should their scores differ in the last digit, they would part ways
            with torch.compiler.set_stance("force_eager"):  # captioning has other shapes: compiled anew, for seconds
                scores = [self.validator(plain(model)) if self.args.process_index == 0 else {}]
            metrics |= {f"eval_{name}": value for name, value in broadcast_object_list(scores)[0].items()}
        return EvalLoopOutput(None, None, metrics, len(dataloader.dataset))  # pyright: ignore[reportArgumentType]

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Called before each step of the optimizer. In fp16 the scaler skips steps whose gradients overflow."""
        norm: Any = super()._get_grad_norm(model, grad_norm)
        if not self.args.fp16:
            self.watch.note("gradient norm", norm, self.state.global_step + 1)
        self.watch.check()
        return norm

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Trainer looks whether it should stop only after a step; and its loaders tell either sampler or data set."""
        if is_final(self.state):
            self.control.should_training_stop = True
            return
        dataset: Any = self.train_dataset
        dataset.set_epoch(kwargs["epoch"])
        super()._run_epoch(*args, **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        dataset: Any = train_dataset or self.train_dataset
        if not self.group_by_length:
            return super()._get_train_sampler(train_dataset)
        return LengthGroupedSampler(dataset.lengths, self.args.train_batch_size, self.args.seed)


def _tokens(batch: dict[str, Any]) -> Tensor:
    return (batch["labels"] != IGNORED).sum()
