"""The network: packed equals alone, nothing unseen leaks, and the block is the one published models have."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bothways.batch import Ask, Example, pack
from bothways.errors import BothwaysError
from bothways.model import FeedForward, LanguageModel, ModelConfig, Norm, Position, Shape
from bothways.model.config import Convolution, Head, Temperature
from bothways.visibility import bidirectional, causal, make_fields, prefix, window

SMALL = Shape(64, 32, 3, heads=4, key_heads=2)
PAIR = Shape(64, 32, 2, source_layers=2, heads=4)
CONFIGS = {
    "llama": ModelConfig(SMALL),
    "windows": ModelConfig(SMALL, reach="LG", local=2),
    "query-key norm": ModelConfig(SMALL, norm=Norm(query_key=True), soft_cap=20.0),
    "gpt2": ModelConfig(Shape(64, 32, 2, heads=4), Position("learned", length=64), Norm("layer"),
                        FeedForward("plain", "gelu_tanh"), bias=True),
    "bert": ModelConfig(Shape(64, 32, 2, heads=4), Position("learned", length=64), Norm("layer", "after"),
                        FeedForward("plain", "gelu"), bias=True),
    "sinusoidal": ModelConfig(Shape(64, 32, 2, heads=4), Position("sinusoidal"), embedding_scale=5.0),
    "no places": ModelConfig(Shape(64, 32, 2, heads=4), Position("none"), tied=False),
    "relative": ModelConfig(Shape(64, 32, 2, heads=4, head_size=6), Position("relative", buckets=8, distance=20),
                            feed_forward=FeedForward("gated", "gelu_tanh"), scale=1.0, tied=False),
    "disentangled": ModelConfig(SMALL, Position("disentangled", buckets=4, distance=9, normed=True),
                                convolution=Convolution(3, 2), bias=True, qkv_bias="qv"),
    "decoded": ModelConfig(Shape(64, 32, 2, heads=4), Position("disentangled", buckets=0, distance=5, shared=True),
                           Norm("layer", "after"), head=Head(decoder=2), bias=True),
    "transformer-xl": ModelConfig(SMALL, Position("transformer-xl", distance=0), bias=True, qkv_bias="q"),
    "unturned layers": ModelConfig(SMALL, Position(where="RN", temperature=Temperature(0.5, 2)), reach="CG", chunk=3,
                                   norm=Norm(query_key="turned", query_key_weight=False)),
}
ONE_TOWER = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def build(config, dtype=torch.float32):
    torch.manual_seed(0)
    network = LanguageModel(config).to(dtype).eval()
    with torch.no_grad():
        for name, weight in network.named_parameters():  # past the quiet beginning, so that differences show
            if "norm" not in name:
                weight.mul_(6)
    return network


def text(length, visibility=causal, seed=0, **kwargs):
    tokens = torch.randint(44, 64, (length,), generator=torch.Generator().manual_seed(seed))
    fields = make_fields(length, prefix=(torch.arange(length) < length // 2).long())
    return Example(tokens, visibility, fields, **kwargs)


def pair(length, source_length, seed=0, cross=bidirectional):
    return text(length, causal, seed, source=text(source_length, bidirectional, seed + 100), cross=cross)


@ONE_TOWER
@pytest.mark.parametrize("visibility", [bidirectional, causal, prefix, causal & window(2, 0)], ids=repr)
def test_packed_is_alone(config, visibility):
    network = build(config)
    texts = [text(n, visibility, n) for n in (5, 9, 2, 9, 1)]
    row, = pack(texts)
    alone = torch.cat([network(one).states for one in texts])
    torch.testing.assert_close(network(row).states, alone, atol=2e-5, rtol=1e-4)


@ONE_TOWER
def test_batched_is_single(config):
    network = build(config)
    texts = [text(7, bidirectional, seed) for seed in range(4)]
    batched = network(pack(texts)[0], hidden=True)
    assert len(batched.hidden) == config.shape.layers + 1
    for i, one in enumerate(texts):
        torch.testing.assert_close(batched.states[7 * i:7 * i + 7], network(one).states, atol=2e-5, rtol=1e-4)


def test_packed_is_alone_with_two_towers():
    for config in (ModelConfig(PAIR), replace(CONFIGS["relative"], shape=PAIR), replace(CONFIGS["bert"], shape=PAIR)):
        network = build(config)
        texts = [pair(n, m, n + m) for n, m in ((4, 6), (3, 1), (5, 0), (3, 6))]
        row, = pack(texts)
        alone = torch.cat([network(one).states for one in texts])
        torch.testing.assert_close(network(row).states, alone, atol=2e-5, rtol=1e-4)


def test_gradients_of_a_packed_row_are_those_of_its_texts():
    network = build(CONFIGS["windows"], torch.float64)
    texts = [text(n, causal, n) for n in (5, 9, 2)]

    def gradients(examples):
        network.zero_grad()
        for example in examples:
            network(example).states.square().sum().backward()
        return [weight.grad.clone() for weight in network.parameters()]
    for packed, alone in zip(gradients(pack(texts)), gradients(texts)):
        torch.testing.assert_close(packed, alone)


@ONE_TOWER
def test_a_prefix_of_nothing_is_causal(config):
    network = build(config)
    none = torch.zeros(8, dtype=torch.long)
    one = Example(text(8).inputs, prefix, make_fields(8, prefix=none))
    assert torch.equal(network(one).states, network(replace(one, visibility=causal)).states)


@ONE_TOWER
@pytest.mark.parametrize("visibility", [bidirectional, causal, prefix, window(1, 1), causal & window(2, 2)], ids=repr)
def test_what_is_not_seen_changes_nothing_and_what_is_seen_does(config, visibility):
    """To the bit. Layers carry news on, so what counts is whom a token reaches through all of them."""
    network = build(config)
    example = text(9, visibility)
    reaches = torch.eye(9, dtype=torch.long)
    for layer in range(config.shape.layers):
        value = visibility & config.reach_of(layer)
        # the residual stream lets every token keep what it has
        step = value.allows(example.fields, example.fields).long() + torch.eye(9, dtype=torch.long)
        reaches = (step @ reaches).clamp(max=1)
    before = network(example).states
    for changed in range(9):
        inputs = example.inputs.clone()
        inputs[changed] = 44 + (inputs[changed] - 44 + 7) % 20
        same = (network(replace(example, inputs=inputs)).states == before).all(dim=-1)
        assert torch.equal(same, reaches[:, changed] == 0)


@pytest.mark.parametrize("config", [*CONFIGS.values(), ModelConfig(PAIR)], ids=[*CONFIGS, "two towers"])
@pytest.mark.parametrize("visibility", [bidirectional, causal], ids=repr)
def test_answering_only_what_is_asked_changes_neither_answers_nor_gradients(config, visibility):
    network = build(config, torch.float64)
    two = bool(config.shape.source_layers)
    texts = [replace(pair(n, n + 1, n) if two else text(n, visibility, n),
                     asks=(Ask(torch.tensor([1, 0]), torch.tensor([50, 51]), count=2.0),)) for n in (9, 4, 12)]
    row, = pack(texts)
    results = []
    for only_asked in (False, True):
        network.zero_grad()
        states = network(row, only_asked=only_asked).states
        asked = states[row.asks[0].where]
        asked.square().sum().backward()
        results.append([asked, *(weight.grad for weight in network.parameters())])
    assert states[5].abs().max() == 0
    for whole, only in zip(*results):
        torch.testing.assert_close(whole, only, atol=1e-9, rtol=1e-6)


def test_documents_of_a_row_do_not_leak_into_each_other():
    network = build(CONFIGS["llama"])
    row, = pack([text(4, bidirectional, 1), text(6, bidirectional, 2), text(4, bidirectional, 3)])
    inputs = row.inputs.clone()
    inputs[5] = 44 + (inputs[5] - 44 + 7) % 20
    same = (network(row).states == network(replace(row, inputs=inputs)).states).all(dim=-1)
    assert same.tolist() == [True] * 4 + [False] * 6 + [True] * 4


def test_two_towers_do_not_leak():
    network = build(ModelConfig(PAIR))
    example = pair(5, 6)
    before = network(example)
    # 1. the target is causal, and the source does not see it
    inputs = example.inputs.clone()
    inputs[3] = 44 + (inputs[3] - 44 + 7) % 20
    after = network(replace(example, inputs=inputs))
    assert (after.states == before.states).all(-1).tolist() == [True] * 3 + [False] * 2
    assert torch.equal(after.source, before.source)
    # 2. the source is seen by everyone, unless the look across says otherwise
    source = replace(example.source, inputs=example.source.inputs.flip(0))
    assert not (network(replace(example, source=source)).states == before.states).all(-1).any()
    apart = replace(example, cross=causal)
    changed = example.source.inputs.clone()
    changed[4] = 44 + (changed[4] - 44 + 7) % 20
    other = replace(apart, source=replace(example.source, inputs=changed, visibility=causal))
    apart = replace(apart, source=replace(example.source, visibility=causal))
    assert (network(apart).states == network(other).states).all(-1).tolist() == [True] * 4 + [False]


@pytest.mark.parametrize("name", ["llama", "windows", "query-key norm", "sinusoidal", "no places"])
def test_an_empty_source_leaves_the_decoder_alone(name):
    """Looking across at nothing adds nothing where a block has no bias and norms what goes in, not what comes out.

    Relative positions are left out: a tower of its own has buckets for both sides, a decoder for the left alone.
    """
    two, one = (build(replace(CONFIGS[name], shape=replace(PAIR, source_layers=layers))) for layers in (2, 0))
    one.load_state_dict({name: weight for name, weight in two.state_dict().items()
                         if "cross" not in name and "source_tower" not in name})
    torch.testing.assert_close(two(pair(6, 0)).states, one(text(6)).states)


def test_llama_of_transformers_turns_and_computes_alike():
    """Rotary layout, norm, gate and head of the default trunk are Llama's: equal logits on copied weights."""
    hf = pytest.importorskip("transformers")
    ours = build(CONFIGS["llama"])
    shape = ours.config.shape
    theirs = hf.LlamaForCausalLM(hf.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=ours.config.inner, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, rms_norm_eps=1e-6, rope_theta=10000.0)).eval()
    state = {"model.embed_tokens.weight": ours.embedding.weight, "model.norm.weight": ours.tower.norm.weight,
             "lm_head.weight": ours.embedding.weight}
    for i, block in enumerate(ours.tower.blocks):
        q, k, v = block.attention.qkv.weight.split(block.attention.sizes)
        up, gate = block.feed_forward.up_gate.weight.chunk(2)
        parts = {"input_layernorm": block.attention_norm.weight, "self_attn.q_proj": q, "self_attn.k_proj": k,
                 "self_attn.v_proj": v, "self_attn.o_proj": block.attention.out.weight,
                 "post_attention_layernorm": block.feed_forward_norm.weight, "mlp.up_proj": up, "mlp.gate_proj": gate,
                 "mlp.down_proj": block.feed_forward.down.weight}
        for name, weight in parts.items():
            state[f"model.layers.{i}.{name}.weight"] = weight
    theirs.load_state_dict({name: weight.detach() for name, weight in state.items()})
    example = text(20)
    assert shape.key_heads == 2
    torch.testing.assert_close(ours.logits(ours(example).states), theirs(example.inputs[None]).logits[0],
                               atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("config", [
    CONFIGS["llama"], CONFIGS["gpt2"], CONFIGS["query-key norm"], CONFIGS["disentangled"], CONFIGS["decoded"],
    CONFIGS["transformer-xl"], ModelConfig(PAIR, bias=True)],
    ids=["llama", "gpt2", "normed", "disentangled", "shared", "transformer-xl", "two towers"])
def test_split_projections_are_the_same_function(config):
    network = build(config)
    example = pair(6, 5) if config.shape.source_layers else text(6)
    before = network(example).states
    count = sum(weight.numel() for weight in network.parameters())
    network.split_projections()
    torch.testing.assert_close(network(example).states, before, atol=1e-5, rtol=1e-5)
    assert count == sum(weight.numel() for weight in network.parameters())
    assert not any("qkv" in name or "up_gate" in name or ".kv." in name for name, _ in network.named_parameters())


@pytest.mark.parametrize("config", [*CONFIGS.values(), ModelConfig(PAIR)], ids=[*CONFIGS, "two towers"])
def test_bfloat16_weights_work_and_stay_near(config):
    network = build(config)
    example = pair(12, 9) if config.shape.source_layers else text(12)
    exact = network(example).states
    network = network.to(torch.bfloat16)
    states = network(example).states
    assert states.dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(states.float(), exact, dim=-1).min() > 0.99
    network(example).states.float().square().sum().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in network.parameters() if weight.grad is not None)


def test_dropout_only_while_training():
    network = build(replace(CONFIGS["llama"], dropout=0.3))
    example = text(9)
    assert torch.equal(network(example).states, network(example).states)
    network.train()
    assert not torch.equal(network(example).states, network(example).states)
    network(example).states.sum().backward()


def test_the_head_is_tied_or_its_own():
    tied, own = build(CONFIGS["llama"]), build(CONFIGS["relative"])
    states = torch.randn(3, 32)
    assert torch.equal(tied.logits(states), states @ tied.embedding.weight.T)
    assert torch.equal(own.logits(states), own.head(states)) and own.head.weight is not own.embedding.weight
    with pytest.raises(BothwaysError, match="no head 'mood'"):
        tied.logits(states, "mood")


def test_encode_is_what_the_source_tower_makes():
    two, one = build(ModelConfig(PAIR)), build(CONFIGS["llama"])
    example = pair(4, 7)
    assert torch.equal(two(example).source, two.encode(example.source).states)
    assert torch.equal(one.encode(text(5)).states, one(text(5)).states)
    assert len(two.encode(example.source, hidden=True).hidden) == 3


def test_an_example_that_does_not_fit_the_stack_is_refused():
    with pytest.raises(BothwaysError, match="one tower, but the example brings a source"):
        build(CONFIGS["llama"])(pair(3, 3))
    with pytest.raises(BothwaysError, match="two towers, but the example brings no source"):
        build(ModelConfig(PAIR))(replace(text(3), cross=bidirectional))
    with pytest.raises(BothwaysError, match="who may look across"):
        build(ModelConfig(PAIR))(replace(pair(3, 3), cross=None))
    with pytest.raises(BothwaysError, match="65 tokens is longer than the 64 places"):
        build(CONFIGS["gpt2"])(text(65))


def test_a_network_starts_quietly_and_deep_ones_no_louder():
    torch.manual_seed(0)
    network = LanguageModel(ModelConfig(Shape(512, 128, 8, heads=4)))
    assert float(network.embedding.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert float(network.tower.blocks[0].attention.out.weight.detach().std()) == pytest.approx(0.02 / 4, rel=0.05)
    assert float(network.tower.blocks[0].feed_forward.up_gate.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert torch.equal(network.tower.norm.weight, torch.ones(128))


def test_parameter_names_are_those_that_folders_hold():
    one = {name for name, _ in LanguageModel(CONFIGS["llama"]).named_parameters()}
    block = "tower.blocks.0."
    assert {"embedding.weight", "tower.norm.weight", f"{block}attention_norm.weight", f"{block}attention.qkv.weight",
            f"{block}attention.out.weight", f"{block}feed_forward_norm.weight", f"{block}feed_forward.up_gate.weight",
            f"{block}feed_forward.down.weight"} <= one
    two = {name for name, _ in LanguageModel(replace(CONFIGS["relative"], shape=PAIR)).named_parameters()}
    assert {"source_tower.blocks.1.attention.qkv.weight", f"{block}cross_norm.weight", f"{block}cross.q.weight",
            f"{block}cross.kv.weight", f"{block}cross.out.weight", "head.weight", "tower.relative.weight",
            "source_tower.relative.weight"} <= two
