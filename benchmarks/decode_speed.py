"""Tokens per second of writing, beside the `generate` of `transformers` on the same random weights.

    python benchmarks/decode_speed.py --case causal --rounds 9
    python benchmarks/decode_speed.py --case bart --rounds 9
    python benchmarks/decode_speed.py --case causal --batches 16 --contenders float32 int8

causal: GPT-2 small, a prompt of 32 tokens and 128 new ones, greedily, for one text and for 16. bart and t5: a source of
128 tokens is rewritten in 32 tokens with 4 beams. Everybody runs in float32 and in bfloat16, and we with int8 weights,
in turn; no text may end early. "native" is our own kernel (`bothways.model.native`), "plain" the framework's products.
Where `ctranslate2` is installed it takes part in the causal case. What the first round writes in float32 is compared:
the same weights, so the same tokens, unless two are almost equally likely.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib.util
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import peers
from bothways.batch import Example
from bothways.decoding.beam import BeamSearch
from bothways.decoding.left_to_right import Writer
from bothways.decoding.sampling import GenerateConfig
from bothways.families.folder import load
from bothways.model import LanguageModel, native
from bothways.model.allocator import keep_memory
from bothways.model.compact import compact
from bothways.visibility import bidirectional, causal

PROMPT, NEW = 32, 128
SOURCE, TARGET, BEAMS = 128, 32, 4
OURS = ("float32, plain", "float32, native", "bfloat16, plain", "bfloat16, native", "int8, plain", "int8, native")
THEIRS = ("float32", "bfloat16")
Write = Callable[[], list[list[int]]]


def peer_network(case: str, layers: int | None) -> nn.Module:
    """The peer with random weights, its texts without an end."""
    import transformers as hf

    if case == "causal":
        config = hf.GPT2Config(n_layer=layers or 12, eos_token_id=None, bos_token_id=None)
        network = hf.GPT2LMHeadModel(config)
    elif case == "bart":
        config = hf.BartConfig(d_model=768, encoder_layers=layers or 6, decoder_layers=layers or 6,
                               encoder_attention_heads=12, decoder_attention_heads=12, encoder_ffn_dim=3072,
                               decoder_ffn_dim=3072, forced_eos_token_id=None)
        network = hf.BartForConditionalGeneration(config)
    else:
        config = hf.T5Config(vocab_size=32128, d_model=768, d_kv=64, d_ff=2048, num_layers=layers or 12, num_heads=12,
                             feed_forward_proj="gated-gelu", tie_word_embeddings=False)
        network = hf.T5ForConditionalGeneration(config)
    return network.eval()


def as_ours(network: nn.Module) -> LanguageModel:
    """The same weights in our network, through a folder."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        network.save_pretrained(folder)
        return load(Path(folder)).network.eval()


def peer_writer(network: nn.Module, inputs: torch.Tensor, new: int, beams: int, start: int | None) -> Write:
    network.generation_config.eos_token_id = None
    network.generation_config.pad_token_id = 0
    options: dict[str, object] = {} if start is None else {"decoder_start_token_id": start}

    def write() -> list[list[int]]:
        with torch.inference_mode():
            out = network.generate(inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=new,
                                   min_new_tokens=new, do_sample=False, num_beams=beams, **options)
        return [row[-new:] for row in out.tolist()]
    return write


def translator(network: nn.Module, inputs: torch.Tensor, new: int, numbers: str, threads: int) -> Write:
    """CTranslate2 with the same weights."""
    import ctranslate2
    from ctranslate2.converters import TransformersConverter

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        network.save_pretrained(f"{folder}/theirs")
        # the converter wants a tokenizer, which nothing here reads
        from tokenizers import Tokenizer, models
        from transformers import PreTrainedTokenizerFast

        words = {f"t{i}": i for i in range(network.config.vocab_size)}
        core = Tokenizer(models.WordLevel(words, unk_token="t0"))
        PreTrainedTokenizerFast(tokenizer_object=core, unk_token="t0", bos_token="t1", eos_token="t2"
                                ).save_pretrained(f"{folder}/theirs")
        TransformersConverter(f"{folder}/theirs").convert(f"{folder}/made", quantization=numbers, force=True)
        generator = ctranslate2.Generator(f"{folder}/made", device="cpu", inter_threads=1, intra_threads=threads,
                                          compute_type=numbers)
    prompts = [[f"t{token}" for token in row] for row in inputs.tolist()]

    def write() -> list[list[int]]:
        found = generator.generate_batch(prompts, max_length=new, min_length=new, sampling_topk=1, beam_size=1,
                                         include_prompt_in_result=False)
        return [one.sequences_ids[0] for one in found]
    return write


def our_writer(network: LanguageModel, inputs: torch.Tensor, new: int, beams: int, start: int | None,
               own: bool = False) -> Write:
    """`own`: with the native kernel, which must have been built."""
    blocked = torch.zeros(network.config.shape.vocabulary, dtype=torch.bool)
    examples = [Example(row, causal) if start is None else
                Example(torch.tensor([start]), causal, source=Example(row, bidirectional), cross=bidirectional)
                for row in inputs]
    config = GenerateConfig(max_new_tokens=new, beams=beams)

    def write() -> list[list[int]]:
        os.environ["BOTHWAYS_NATIVE"] = "1" if own else "0"
        if beams > 1:
            search = BeamSearch(network, examples, config, blocked, (), [new] * len(examples))
            return [texts[0].ids for texts in search.run()]
        writer, written = Writer(network, examples, config, blocked, new), [list[int]() for _ in examples]
        for _ in range(new):
            for row, token, _ in writer.step():
                written[row].append(token)
        return written
    return write


def compare(case: str, batch: int, rounds: int, layers: int | None, new: int, only: list[str] | None
            ) -> dict[str, object]:
    """All contenders on one batch, in turn; `only` those whose number format is named."""
    beams, start = (1, None) if case == "causal" else (BEAMS, 2 if case == "bart" else 0)
    torch.manual_seed(0)
    theirs = peer_network(case, layers)
    mine = as_ours(theirs)
    size = mine.config.shape.vocabulary
    inputs = torch.randint(10, size, (batch, PROMPT if case == "causal" else SOURCE))
    right = peer_writer(theirs, inputs, new, beams, start)()
    same = {way: our_writer(mine, inputs, new, beams, start, way == "native")() == right for way in ("plain", "native")}
    # 1. who takes part
    steps: dict[str, Write] = {}
    networks: dict[str, LanguageModel] = {}
    for name in OURS:
        numbers, _, way = name.partition(", ")
        if only and numbers not in only:
            continue
        if numbers not in networks:
            networks[numbers] = (compact(copy.deepcopy(mine), "int8") if numbers == "int8" else
                                 copied(mine, getattr(torch, numbers)))
        steps[f"bothways ({name})"] = our_writer(networks[numbers], inputs, new, beams, start, way == "native")
    for numbers in THEIRS:
        if not only or numbers in only or numbers == "float32":
            steps[f"transformers ({numbers})"] = peer_writer(copied(theirs, getattr(torch, numbers)), inputs, new,
                                                             beams, start)
    if case == "causal" and importlib.util.find_spec("ctranslate2"):
        for numbers in ("float32", "int8"):
            if not only or numbers in only:
                steps[f"CTranslate2 ({numbers})"] = translator(theirs, inputs, new, numbers, torch.get_num_threads())
    # 2. in turn
    seconds = peers.interleave(steps, rounds, warm=1, per_round=1)
    rates = {name: peers.median_rate(batch * new, taken) for name, taken in seconds.items()}
    # 3. against the same numbers of the others, and int8 against float32 too
    ratios = {}
    for name in (one for one in steps if one.startswith("bothways")):
        numbers = name.partition("(")[2].partition(",")[0]
        for other in ("transformers (float32)", f"transformers ({numbers})", f"CTranslate2 ({numbers})"):
            if other in steps:
                ratios[f"{name} to {other}"] = peers.ratio(seconds[other], seconds[name])
    print(f"{case}, batch {batch}, {new} new tokens, {beams} beam(s); the same tokens in float32: {same}")
    print(*peers.table([(name, f"{rate:,.1f}") for name, rate in rates.items()], ("contender", "tokens/s")), sep="\n")
    print(*peers.table(list(ratios.items()), ("who to whom", "times as fast")), sep="\n", flush=True)
    return {"case": case, "batch": batch, "new": new, "beams": beams, "same_tokens": same, "tokens_per_second": rates,
            "ratios": ratios, "seconds": seconds}


def copied(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The network in another number format, its own weights untouched."""
    return network if dtype == torch.float32 else copy.deepcopy(network).to(dtype)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=("causal", "bart", "t5"), default="causal")
    parser.add_argument("--batches", type=int, nargs="+", default=None, help="1 and 16, or 1 with beams")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=None, help="fewer, to try it out")
    parser.add_argument("--new", type=int, default=None, help="fewer new tokens, to try it out")
    parser.add_argument("--contenders", nargs="+", choices=("float32", "bfloat16", "int8"), default=None,
                        help="number formats that take part, all when none; transformers' float32 always does")
    parser.add_argument("--no-save", action="store_true", help="print only")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_memory()
    print(*(f"{name}: {value}" for name, value in peers.hardware().items()), sep="; ")
    new = arguments.new or (NEW if arguments.case == "causal" else TARGET)
    batches = arguments.batches or ([1, 16] if arguments.case == "causal" else [1])
    print("native kernel:", native.build().file.name)
    for batch in batches:
        result = compare(arguments.case, batch, arguments.rounds, arguments.layers, new, arguments.contenders)
        if not arguments.no_save:
            print("written to", peers.save(f"decode_speed_{arguments.case}_{batch}", {"results": [result]}))


if __name__ == "__main__":
    main()
