"""Salesforce/blip-image-captioning-base and -large as they lie on disk: the hub's own configuration and files, the real
widths, heads, patches and vocabulary; one layer of each encoder instead of 12 or 24, and random weights.
"""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration

VISION = {
    "base": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
    "large": {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16},
}
WORDS = "a picture of red blue green square circle dress woman man on with white and the in two".split()  # noqa: SIM905
# Settings of generation: transformers 4.26 wrote them into every part of a configuration, later versions do not.
OF_OLD = {"do_sample": False, "early_stopping": False, "length_penalty": 1.0, "max_length": 20, "min_length": 0,
          "no_repeat_ngram_size": 0, "num_beams": 1, "repetition_penalty": 1.0, "temperature": 1.0, "top_k": 50,
          "top_p": 1.0, "typical_p": 1.0, "return_dict": True, "torchscript": False, "tie_word_embeddings": True,
          "transformers_version": "4.26.0.dev0", "torch_dtype": None, "_name_or_path": ""}  # fmt: skip


def blip_from_the_hub(path: Path, size: str = "base", *, pickled: bool = True, seed: int = 0) -> Path:
    """Write the model into `path`, its weights as the pinned revision has them (a pickle) or as safetensors."""
    path.mkdir(parents=True)
    config = hub_config(size)
    (path / "config.json").write_text(json.dumps(config, indent=2))
    (path / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2))
    (path / "README.md").write_text("---\nlicense: bsd-3-clause\ntags: [image-captioning]\n---\n# BLIP\n")
    _write_tokenizer(path)
    torch.manual_seed(seed)
    model = BlipForConditionalGeneration(BlipConfig.from_dict(config))
    if pickled:
        weights = dict(model.state_dict())
        # a buffer that older versions saved
        weights["text_decoder.bert.embeddings.position_ids"] = torch.arange(512)[None]
        torch.save(weights, path / "pytorch_model.bin")
    else:
        from safetensors.torch import save_model

        save_model(model, str(path / "model.safetensors"), metadata={"format": "pt"})
    return path


def hub_config(size: str) -> dict[str, Any]:
    """config.json of the hub's model, less layers."""
    text = {
        **OF_OLD, "attention_probs_dropout_prob": 0.0, "bos_token_id": 30522, "eos_token_id": 2, "pad_token_id": 0,
        "sep_token_id": 102, "hidden_act": "gelu", "hidden_dropout_prob": 0.0, "hidden_size": 768,
        "initializer_factor": 1.0, "initializer_range": 0.02, "intermediate_size": 3072, "is_decoder": True,
        "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "model_type": "blip_text_model",
        "num_attention_heads": 12, "num_hidden_layers": 1, "projection_dim": 768, "use_cache": True,
        "vocab_size": 30524,
    }  # fmt: skip
    vision = {
        **OF_OLD, **VISION[size], "attention_dropout": 0.0, "dropout": 0.0, "hidden_act": "gelu", "image_size": 384,
        "initializer_factor": 1.0, "initializer_range": 0.02, "layer_norm_eps": 1e-05,
        "model_type": "blip_vision_model", "num_channels": 3, "num_hidden_layers": 1, "patch_size": 16,
        "projection_dim": 512,
    }  # fmt: skip
    return {
        "_commit_hash": None, "architectures": ["BlipForConditionalGeneration"], "image_text_hidden_size": 256,
        "initializer_factor": 1.0, "logit_scale_init_value": 2.6592, "model_type": "blip", "projection_dim": 512,
        "text_config": text, "torch_dtype": "float32", "transformers_version": None, "vision_config": vision,
    }  # fmt: skip


PREPROCESSOR = {
    "do_normalize": True, "do_rescale": True, "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_processor_type": "BlipImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711], "processor_class": "BlipProcessor", "resample": 3,
    "rescale_factor": 0.00392156862745098, "size": {"height": 384, "width": 384},
}  # fmt: skip


def _write_tokenizer(path: Path) -> None:
    """bert-base-uncased's layout: 30,522 pieces, [CLS] 101, [SEP] 102, and no [DEC], from which BLIP starts."""
    pieces = [f"[unused{number}]" for number in range(30_522)]
    for number, name in {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}.items():
        pieces[number] = name
    letters = [chr(code) for code in range(0x21, 0x7F) if not chr(code).isupper()]
    known = [*letters, *(f"##{letter}" for letter in letters), *(word for word in WORDS if len(word) > 1)]
    pieces[999 : 999 + len(known)] = known
    (path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    BertTokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, do_lower_case=True).save_pretrained(
        path
    )
    settings = {
        "cls_token": "[CLS]", "do_basic_tokenize": True, "do_lower_case": True, "mask_token": "[MASK]",
        "model_input_names": ["input_ids", "attention_mask"], "model_max_length": 512,
        "name_or_path": "bert-base-uncased", "never_split": None, "pad_token": "[PAD]",
        "processor_class": "BlipProcessor", "sep_token": "[SEP]", "special_tokens_map_file": None,
        "strip_accents": None, "tokenize_chinese_chars": True, "tokenizer_class": "BertTokenizer",
        "unk_token": "[UNK]",
    }  # fmt: skip
    (path / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
    special = {name: settings[name] for name in ("cls_token", "mask_token", "pad_token", "sep_token", "unk_token")}
    (path / "special_tokens_map.json").write_text(json.dumps(special, indent=2))
