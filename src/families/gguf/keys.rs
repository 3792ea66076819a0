//! The metadata keys that no family reads, as `families/fields.rs` has the fields of config.json: those that
//! change nothing, and those whose values would change what a model computes. The names are llama.cpp's.

use crate::{
    error::Result,
    weights::{Gguf, Value},
};
use std::collections::BTreeSet;

/// Beginnings of keys that describe the file, or the tokenizer, which reads its own.
const ELSEWHERE: &[&str] = &["general.", "tokenizer.", "quantize.", "split.", "imatrix."];

/// Keys after the architecture's name that change nothing here: those of scalings that the model does not
/// use, and of norms of the other kind.
const UNUSED: &[&str] = &[
    "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon",
    "rope.scaling.attn_factor",
    "rope.scaling.factor",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.yarn_ext_factor",
    "tensor_data_layout",
];

/// Keys after the architecture's name that change what is computed, in models of some families, and the
/// values with which they do not.
const CHANGING: &[(&str, &[&str])] = &[
    ("attention.causal", &["true"]),
    ("attention.chunk_size", &["0"]),
    ("attention.clamp_kqv", &["0"]),
    ("attention.group_norm_groups", &["0"]),
    ("attention.kv_lora_rank", &["0"]),
    ("attention.max_alibi_bias", &["0"]),
    ("attention.q_lora_rank", &["0"]),
    ("attention.relative_buckets_count", &["0"]),
    ("attention.scale", &["0"]),
    ("attention.shared_kv_layers", &["0"]),
    ("attention.sliding_window", &["0"]),
    ("attention.sliding_window_pattern", &["0", "1", "false"]),
    ("attention.temperature_length", &["0"]),
    ("attention.temperature_scale", &["0"]),
    ("attn_logit_softcapping", &["0"]),
    ("classifier.output_labels", &[]),
    ("embedding_length_per_layer_input", &["0"]),
    ("embedding_scale", &["0", "1"]),
    ("expert_count", &["0"]),
    ("expert_feed_forward_length", &["0"]),
    ("expert_shared_count", &["0"]),
    ("expert_used_count", &["0"]),
    ("expert_weights_scale", &["0", "1"]),
    ("final_logit_softcapping", &["0"]),
    ("interleave_moe_layer_step", &["0"]),
    ("leading_dense_block_count", &["0"]),
    ("logit_scale", &["0", "1"]),
    ("nextn_predict_layers", &["0"]),
    ("no_rope_layer_interval", &["0"]),
    ("pooling_type", &["0"]),
    ("residual_scale", &["0", "1"]),
    ("rope.dimension_sections", &[]),
    ("rope.scaling.yarn_log_multiplier", &["0"]),
    ("swin_norm", &["false"]),
    ("use_parallel_residual", &["false"]),
];

/// Judges the keys that were not read: an error for one that would change what is computed, a warning for
/// those that are not known.
///
/// # Errors
/// Of the kind Model: names the key and its value.
pub fn judge(gguf: &Gguf, family: &str, read: &BTreeSet<String>) -> Result<()> {
    let kind = "general.type";
    if gguf.string(kind)?.is_some_and(|kind| kind != "model") {
        return Err(gguf.wrong(kind, "only whole models run: a file of the type model belongs there"));
    }
    let mut unknown = Vec::new();
    let unread = gguf.entries().map(|(key, _)| key).filter(|key| !read.contains(*key));
    for key in unread.filter(|key| !ELSEWHERE.iter().any(|begin| key.starts_with(begin))) {
        let field = key.strip_prefix(family).and_then(|key| key.strip_prefix('.'));
        match field.and_then(|field| CHANGING.iter().find(|(name, _)| *name == field)) {
            Some((_, neutral)) if !changes_nothing(gguf, key, neutral)? => {
                return Err(gguf.wrong(
                    key,
                    format!(
                        "a {family} model that computes with it is not supported: such a value changes it"
                    ),
                ));
            }
            Some(_) => (),
            None if field.is_some_and(|field| UNUSED.contains(&field)) => (),
            None => unknown.push(key),
        }
    }
    if !unknown.is_empty() {
        tracing::warn!("{}: keys that are not known are passed over: {}", gguf.name, unknown.join(", "));
    }
    Ok(())
}

fn changes_nothing(gguf: &Gguf, key: &str, neutral: &[&str]) -> Result<bool> {
    match gguf.get(key) {
        Some(Value::Array(_)) => Ok(gguf
            .numbers(key)?
            .is_some_and(|all| all.iter().all(|n| neutral.contains(&n.to_string().as_str())))),
        value => Ok(value.is_none_or(|value| neutral.contains(&value.to_string().as_str()))),
    }
}
