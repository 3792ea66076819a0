//! The fields of config.json that no family reads: those that change nothing, and those whose values would
//! change what a model computes. A model is never read as if such a field were not there.

use crate::{config::Config, error::Result};
use serde_json::Value;

/// Fields that change nothing here: how a model was trained, how another program runs it, advice for
/// generation, labels of other tasks.
#[rustfmt::skip] // one field a line would be pages
const UNUSED: &[&str] = &[
    "afn", "architectures", "attention_dropout", "attention_implementation", "attention_probs_dropout_prob",
    "attn_implementation", "attn_pdrop", "auto_map", "aux_loss_alpha", "bad_words_ids",
    "begin_suppress_tokens", "bos_token", "cache_implementation", "chunk_size_feed_forward",
    "classifier_dropout", "cls_token_id", "cross_attention_hidden_size", "custom_pipelines", "debug",
    "decoder_start_token_id", "diversity_penalty", "do_sample", "dropout", "dtype", "early_stopping",
    "embd_dropout", "embd_pdrop", "embed_dropout", "encoder_no_repeat_ngram_size", "eos_token",
    "exponential_decay_length_penalty", "finetuning_task", "forced_bos_token_id", "forced_eos_token_id",
    "fuse_cross_entropy", "gradient_checkpointing", "hidden_dropout", "hidden_dropout_prob", "id2label",
    "ignore_index", "image_seq_length", "initializer_factor", "initializer_range", "is_decoder",
    "is_llama_config", "keys_to_ignore_at_inference", "label2id", "language", "layerdrop", "length_penalty",
    "license", "mask_token_id", "max_length", "max_sequence_length", "max_window_layers", "min_length",
    "mlp_dropout", "model_max_length", "model_name", "model_type", "n_ctx", "n_special", "name",
    "neftune_noise_alpha", "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_labels",
    "num_return_sequences", "output_attentions", "output_hidden_states", "output_past",
    "output_router_logits", "output_scores", "pad_token", "pad_token_id", "predict_special_tokens",
    "prefix", "pretraining_tp", "problem_type", "projection_dim", "remove_invalid_values",
    "reorder_and_upcast_attn", "repetition_penalty", "resid_dropout", "resid_pdrop", "return_dict",
    "return_dict_in_generate", "router_aux_loss_coef", "router_jitter_noise", "sep_token_id",
    "suppress_tokens", "task_specific_params", "temperature", "tf_legacy_loss", "tie_encoder_decoder",
    "tokenizer_class", "tokenizer_model_max_length", "tokenizer_padding_side", "top_k", "top_p",
    "torch_dtype", "torchscript", "transformers.js_config", "transformers_version", "typical_p",
    "unk_token_id", "unsloth_fixed", "unsloth_version", "use_bfloat16", "use_cache", "use_flash_attn",
    "use_fused_rms_norm", "use_return_dict", "vocab_padding", "xla_device", "z_loss_coef",
];

/// Beginnings of names of such fields.
const UNUSED_PREFIXES: &[&str] = &["_", "summary_"];

/// Fields that change what is computed, in models of some families, and the values with which they do not, as
/// JSON. A list of such values changes nothing either.
const CHANGING: &[(&str, &[&str])] = &[
    // Attention.
    ("add_cross_attention", &["false"]),
    ("alibi", &["false"]),
    ("attention_chunk_size", &[]),
    ("attention_gate", &["false"]),
    ("attention_head_type", &["\"multihead\""]),
    ("attention_multiplier", &[]),
    ("attention_sink", &["false"]),
    ("attn_logit_softcapping", &[]),
    ("attn_output_gate", &["false"]),
    ("attn_temperature_tuning", &["false", "0"]),
    ("causal", &["true"]),
    ("clip_qkv", &[]),
    ("gated_attention", &["false"]),
    ("is_causal", &["true"]),
    ("is_encoder_decoder", &["false"]),
    ("kv_lora_rank", &["0"]),
    ("layer_types", &["\"full_attention\""]),
    ("local_attention", &["false"]),
    ("multi_query", &["false"]),
    ("num_kv_shared_layers", &["0"]),
    ("pruned_heads", &["{}"]),
    ("q_lora_rank", &["0"]),
    ("qk_layernorm", &["false"]),
    ("qk_norm", &["false"]),
    ("query_pre_attn_scalar", &[]),
    ("relative_attention", &["false"]),
    ("scale_attn_by_inverse_layer_idx", &["false"]),
    ("scale_attn_weights", &["true"]),
    ("sliding_window", &["0"]),
    ("sliding_window_pattern", &["1"]),
    ("use_attention_sinks", &["false"]),
    ("use_bidirectional_attention", &["false"]),
    ("use_qk_norm", &["false"]),
    ("use_mrope", &["false"]),
    ("use_sliding_window", &["false"]),
    ("v_head_dim", &[]),
    // Positions.
    ("interleaved_rope", &["false"]),
    ("llama_4_scaling_beta", &["0", "0.0"]),
    ("no_rope_layer_interval", &["0"]),
    ("no_rope_layers", &["1", "true"]),
    ("partial_rotary_factor", &["1", "1.0"]),
    ("position_embedding_type", &["\"absolute\"", "\"rope\"", "\"rotary\""]),
    ("qk_nope_head_dim", &["0"]),
    ("qk_rope_head_dim", &[]),
    ("rope_interleaved", &["false"]),
    ("rope_parameters", &["{}"]),
    ("rope_scaling", &["{}"]),
    ("rotary_dim", &[]),
    ("rotary_emb_fraction", &["1", "1.0"]),
    ("rotary_pct", &["1", "1.0"]),
    ("yarn_log_multiplier", &[]),
    // Layers.
    ("attention_bias", &["false"]),
    ("block_configs", &[]),
    ("hidden_activation", &[]),
    ("hidden_size_per_layer_input", &["0"]),
    ("mlp_bias", &["false"]),
    ("parallel_attn", &["false"]),
    ("post_norm", &["false"]),
    ("qkv_bias", &["false"]),
    ("residual_multiplier", &["1", "1.0"]),
    ("rms_norm_add_unit_offset", &["false"]),
    ("scale_depth", &[]),
    ("swiglu_limit", &[]),
    ("use_bias", &["false"]),
    ("use_parallel_residual", &["false"]),
    // Experts.
    ("first_k_dense_replace", &["0"]),
    ("interleave_moe_layer_step", &[]),
    ("mlp_only_layers", &[]),
    ("moe_intermediate_size", &["0"]),
    ("moe_num_experts", &["0", "1"]),
    ("n_routed_experts", &["0"]),
    ("n_shared_experts", &["0"]),
    ("num_experts", &["0", "1"]),
    ("num_experts_per_tok", &["0", "1"]),
    ("num_local_experts", &["0", "1"]),
    ("shared_expert_intermediate_size", &["0"]),
    // Embedding and logits.
    ("dim_model_base", &[]),
    ("embedding_multiplier", &["1", "1.0"]),
    ("final_logit_softcapping", &[]),
    ("lm_head_bias", &["false"]),
    ("logit_scale", &["1", "1.0"]),
    ("logits_scaling", &["1", "1.0"]),
    ("mup_width_scale", &["1", "1.0"]),
    ("scale_emb", &["1", "1.0"]),
    ("scale_embedding", &["false"]),
    // Other parts of a model, and weights packed in another way.
    ("audio_config", &[]),
    ("compression_config", &["{}"]),
    ("quantization_config", &["{}"]),
    ("text_config", &[]),
    ("vision_config", &[]),
];

/// Judges the fields that were not read: an error for one that would change what is computed, a warning for
/// those that are not known.
///
/// # Errors
/// Of the kind Model: names the field and its value.
pub fn judge(config: &Config, family: &str) -> Result<()> {
    let mut unknown = Vec::new();
    for (field, value) in config.unread() {
        if field == "sliding_window" && config.get("use_sliding_window") == Some(&Value::Bool(false)) {
            continue;
        }
        match CHANGING.iter().find(|(name, _)| *name == field) {
            Some((_, neutral)) if !changes_nothing(value, neutral) => {
                return Err(config.wrong(
                    field,
                    format!(
                        "a {family} model that computes with it is not supported: such a value changes it"
                    ),
                ));
            }
            Some(_) => (),
            None if UNUSED.contains(&field) || UNUSED_PREFIXES.iter().any(|p| field.starts_with(p)) => (),
            None => unknown.push(field),
        }
    }
    if !unknown.is_empty() {
        let (name, unknown) = (config.name(), unknown.join(", "));
        tracing::warn!("{name}: fields that are not known are passed over: {unknown}");
    }
    Ok(())
}

fn changes_nothing(value: &Value, neutral: &[&str]) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.iter().all(|item| changes_nothing(item, neutral)),
        one => neutral.contains(&one.to_string().as_str()),
    }
}
