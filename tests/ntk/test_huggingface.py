"""Models of `transformers`, unmodified: tiny random configurations against the naive loop, in float64 at 1e-10."""

import pytest
import torch

import twophase_fast as tp
from tests.ntk.helpers import error
from twophase_fast.ntk import naive_entk

transformers = pytest.importorskip(
    "transformers", reason="needs transformers: pip install 'twophase_fast[huggingface]'", exc_type=ImportError
)

TEXT = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
IMAGE = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
CASES = {}


def case(build):
    """Register a builder of (class, configuration, inputs, output_fn)."""
    CASES[build.__name__] = build
    return build


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _tokens(samples=4, length=6, seed=0):
    return {"input_ids": torch.randint(3, 50, (samples, length), generator=_generator(seed))}


def _padded_tokens(samples=4, length=6):
    """Tokens whose last 0, 1 or 2 positions are padding."""
    mask = torch.ones(samples, length, dtype=torch.long)
    for n in range(samples):
        mask[n, length - n % 3 :] = 0
    return _tokens(samples, length) | {"attention_mask": mask}


def _images(size):
    return {"pixel_values": torch.randn(4, 3, size, size, generator=_generator(), dtype=torch.float64)}


def _next_token(out):
    """Three of the logits at the last position, [N, 3]."""
    return out.logits[:, -1, :3]


@case
def gpt2():
    config = transformers.GPT2Config(
        vocab_size=50, n_positions=16, n_embd=16, n_layer=2, n_head=2, use_cache=False, bos_token_id=1, eos_token_id=2
    )
    return transformers.GPT2LMHeadModel, config, _tokens(), _next_token


@case
def llama():
    config = transformers.LlamaConfig(**TEXT, num_key_value_heads=2, use_cache=False)
    return transformers.LlamaForCausalLM, config, _tokens(), _next_token


@case
def qwen2():
    config = transformers.Qwen2Config(**TEXT, num_key_value_heads=2, use_cache=False, tie_word_embeddings=True)
    return transformers.Qwen2ForCausalLM, config, _tokens(), _next_token


@case
def opt():
    config = transformers.OPTConfig(
        vocab_size=50,
        hidden_size=16,
        ffn_dim=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=16,
        word_embed_proj_dim=8,
        use_cache=False,
    )
    return transformers.OPTForCausalLM, config, _padded_tokens(), _next_token


@case
def mamba():
    config = transformers.MambaConfig(
        vocab_size=50, hidden_size=16, state_size=4, num_hidden_layers=2, time_step_rank=3, use_cache=False
    )
    return transformers.MambaForCausalLM, config, _tokens(), _next_token


@case
def mixtral():
    config = transformers.MixtralConfig(
        **TEXT, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, use_cache=False
    )
    return transformers.MixtralForCausalLM, config, _tokens(), _next_token


@case
def bert():
    config = transformers.BertConfig(**TEXT, max_position_embeddings=16, num_labels=3)
    return transformers.BertForSequenceClassification, config, _padded_tokens(), None


@case
def albert():
    config = transformers.AlbertConfig(**TEXT, embedding_size=8, max_position_embeddings=16, num_labels=3)
    return transformers.AlbertForSequenceClassification, config, _padded_tokens(), None


@case
def t5():
    config = transformers.T5Config(
        vocab_size=50,
        d_model=16,
        d_kv=4,
        d_ff=24,
        num_layers=2,
        num_heads=4,
        use_cache=False,
        decoder_start_token_id=0,
    )
    inputs = _padded_tokens() | {"decoder_input_ids": _tokens(4, 4, seed=1)["input_ids"]}
    return transformers.T5ForConditionalGeneration, config, inputs, _next_token


@case
def vit():
    config = transformers.ViTConfig(**IMAGE, image_size=8, patch_size=4, num_labels=3)
    return transformers.ViTForImageClassification, config, _images(8), None


@case
def swin():
    config = transformers.SwinConfig(
        image_size=16, patch_size=2, embed_dim=8, depths=[2, 2], num_heads=[2, 4], window_size=4, num_labels=3
    )
    return transformers.SwinForImageClassification, config, _images(16), None


@case
def convnext():
    config = transformers.ConvNextConfig(
        hidden_sizes=[8, 12], depths=[1, 2], num_stages=2, patch_size=2, num_labels=3, layer_scale_init_value=0.5
    )
    return transformers.ConvNextForImageClassification, config, _images(8), None


@case
def resnet():
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12], depths=[1, 2], layer_type="basic", num_labels=3
    )
    return transformers.ResNetForImageClassification, config, _images(16), None


def build(name):
    """Return (model in float64 and evaluation mode, inputs, output_fn), parameters moved off their initial values."""
    model_class, config, inputs, output_fn = CASES[name]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    _set_experts(model, "eager")  # grouped products exist in float32 only
    return model.double().eval(), inputs, output_fn


def _set_experts(model, implementation):
    if hasattr(model, "set_experts_implementation"):  # transformers 5; before, experts were always eager
        model.set_experts_implementation(implementation)


def _others(inputs):
    """Return the first three samples in reverse order, images moved a little."""
    return {key: value[:3].flip(0) + (0.25 if value.is_floating_point() else 0) for key, value in inputs.items()}


@pytest.mark.parametrize("name", CASES)
def test_equals_the_naive_loop(name):
    model, inputs, output_fn = build(name)
    truth = naive_entk(model, inputs, output_fn=output_fn)
    kernel = tp.entk(model, inputs, output_fn=output_fn)
    assert kernel.dtype == torch.float64
    assert error(kernel, truth) < 1e-10
    trace = tp.entk(model, inputs, output="trace", output_fn=output_fn)
    assert error(trace, truth.diagonal(dim1=2, dim2=3).sum(-1)) < 1e-10
    others = _others(inputs)
    cross = tp.entk(model, inputs, others, output_fn=output_fn)
    assert error(cross, naive_entk(model, inputs, others, output_fn=output_fn)) < 1e-10


@pytest.mark.parametrize("name", ["mixtral", "swin", "bert"])
def test_more_samples_than_one_label_digit(name):
    model, inputs, output_fn = build(name)
    many = {key: value.repeat(5, *[1] * (value.dim() - 1)) for key, value in inputs.items()}
    if "input_ids" in many:
        many["input_ids"] = _tokens(20)["input_ids"]
    kernel = tp.entk(model, many, output="trace", output_fn=output_fn)
    assert error(kernel, naive_entk(model, many, output="trace", output_fn=output_fn)) < 1e-10


def test_grouped_experts_in_float32_err_at_most_twice_as_much_as_torch():
    model, inputs, output_fn = build("mixtral")
    truth = naive_entk(model, inputs, output_fn=output_fn)
    _set_experts(model.float(), "grouped_mm")
    torch_error = error(naive_entk(model, inputs, output_fn=output_fn), truth)
    assert error(tp.entk(model, inputs, output_fn=output_fn), truth) <= 2 * torch_error
