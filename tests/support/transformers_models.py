"""Small models of the transformers library, from configurations alone, with the schemes that they start with."""

from __future__ import annotations

from collections.abc import Mapping

from tests.support.known_models import Known

_TOKENS = {"vocab_size": 600, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_SMALL = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 384}


def models() -> Mapping[str, Known]:
    """By title; transformers is imported here and nowhere else."""
    import transformers as t

    gpt2 = t.GPT2Config(n_embd=128, n_layer=6, n_head=4, n_positions=64, **_TOKENS)
    vit = t.ViTConfig(image_size=32, patch_size=8, **_SMALL)
    t5 = t.T5Config(d_model=128, d_kv=32, d_ff=320, num_layers=3, num_heads=4, vocab_size=600)
    resnet = t.ResNetConfig(embedding_size=16, hidden_sizes=[32, 64, 96, 128], depths=[1, 1, 2, 1], num_labels=20)
    convnext = t.ConvNextConfig(hidden_sizes=[32, 48, 64, 96], depths=[1, 1, 2, 1])
    fixed = {"": "fixed_normal"}
    return {
        "transformers GPT-2": Known(
            lambda: t.GPT2LMHeadModel(gpt2), {"": "gpt2", "c_proj.weight": "gpt2_residual"}, "gpt2"
        ),
        "transformers Llama": Known(
            lambda: t.LlamaForCausalLM(t.LlamaConfig(num_key_value_heads=2, **_SMALL, **_TOKENS)), fixed, "fixed_normal"
        ),
        "transformers BERT": Known(lambda: t.BertModel(t.BertConfig(**_SMALL, **_TOKENS)), fixed, "fixed_normal"),
        "transformers GPT-NeoX": Known(
            lambda: t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**_SMALL, **_TOKENS)), fixed, "fixed_normal"
        ),
        # One of 128 elements, a token, has no verdict.
        "transformers ViT": Known(lambda: t.ViTModel(vit), {"": "fixed_normal", "cls_token": ""}, "fixed_normal"),
        "transformers T5": Known(
            lambda: t.T5Model(t5),
            {"": "lecun_normal", ".q.weight": "t5_query", "shared.weight": "", "relative_attention_bias.weight": ""},
            "lecun_normal",
        ),
        "transformers ResNet": Known(
            lambda: t.ResNetForImageClassification(resnet),
            {"": "he_fan_out_normal", "classifier.1.weight": "pytorch_default"},
            "he_fan_out_normal",
        ),
        "transformers ConvNeXt": Known(lambda: t.ConvNextModel(convnext), fixed, "fixed_normal"),
    }
