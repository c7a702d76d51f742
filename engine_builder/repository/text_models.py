"""Which tensor goes where between the steps of the ensemble; model names are free."""

from __future__ import annotations

from engine_builder.repository import schemas
from engine_builder.repository.configs import EnsembleStep
from engine_builder.repository.schemas import Dialect

_PREPROCESSING_INPUTS = {
    "QUERY": "text_input",
    "DECODER_QUERY": "decoder_text_input",
    "REQUEST_OUTPUT_LEN": "max_tokens",
    "BAD_WORDS_DICT": "bad_words",
    "STOP_WORDS_DICT": "stop_words",
    "EMBEDDING_BIAS_WORDS": "embedding_bias_words",
    "EMBEDDING_BIAS_WEIGHTS": "embedding_bias_weights",
    "END_ID": "end_id",
    "PAD_ID": "pad_id",
    "PROMPT_TABLE_EXTRA_ID": "prompt_table_extra_id",
}

# Engine tensor by preprocessing output; the ensemble's inner name is the preprocessing name with `_`.
ENGINE_INPUT_BY_PREPROCESSED = {
    "INPUT_ID": "input_ids",
    "REQUEST_INPUT_LEN": "input_lengths",
    "DECODER_INPUT_ID": "decoder_input_ids",
    "REQUEST_DECODER_INPUT_LEN": "decoder_input_lengths",
    "BAD_WORDS_IDS": "bad_words_list",
    "STOP_WORDS_IDS": "stop_words_list",
    "EMBEDDING_BIAS": "embedding_bias",
    "REQUEST_OUTPUT_LEN": "request_output_len",
    "OUT_END_ID": "end_id",
    "OUT_PAD_ID": "pad_id",
    "OUT_PROMPT_TABLE_EXTRA_IDS": "prompt_table_extra_ids",
}

_ENGINE_NAME_BY_TEXT_NAME = {
    "top_k": "runtime_top_k",
    "top_p": "runtime_top_p",
    "length_penalty": "len_penalty",
    "stream": "streaming",
}


def engine_inputs_by_text_name(dialect: Dialect) -> dict[str, str]:
    """Engine input by the text model's input, for all that pass the engine's way unchanged."""
    engine = {spec.name for spec in schemas.tensorrt_llm(dialect).inputs}
    taken = set(_PREPROCESSING_INPUTS.values())
    names = [spec.name for spec in schemas.ensemble(dialect).inputs if spec.name not in taken]
    passed = {name: _ENGINE_NAME_BY_TEXT_NAME.get(name, name) for name in names}
    return {name: target for name, target in passed.items() if target in engine}


def ensemble_steps(
    *, preprocessing: str, tensorrt_llm: str, postprocessing: str, dialect: Dialect = "1.x"
) -> tuple[EnsembleStep, ...]:
    """The three steps, calling the models of the given names."""
    inner = {name: f"_{name}" for name in ENGINE_INPUT_BY_PREPROCESSED}
    engine_inputs = {target: inner[name] for name, target in ENGINE_INPUT_BY_PREPROCESSED.items()}
    engine_inputs |= {target: name for name, target in engine_inputs_by_text_name(dialect).items()}
    results = {
        spec.name: spec.name for spec in schemas.ensemble(dialect).outputs if spec.name != "text_output"
    }
    tokens = {"output_ids": "_TOKENS_BATCH", "sequence_length": "_SEQUENCE_LENGTH"}
    decoded = {"TOKENS_BATCH": "_TOKENS_BATCH", "SEQUENCE_LENGTH": "_SEQUENCE_LENGTH"}
    return (
        EnsembleStep(preprocessing, _PREPROCESSING_INPUTS, inner),
        EnsembleStep(tensorrt_llm, engine_inputs, {**tokens, **results}),
        EnsembleStep(postprocessing, decoded, {"OUTPUT": "text_output"}),
    )
