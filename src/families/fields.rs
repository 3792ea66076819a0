//! The fields of config.json that no family reads: those that change nothing, and those whose values would
//! change what a model computes. A model is never read as if such a field were not there.

use crate::{config::Config, error::Result};
use serde_json::Value;

/// Fields that change nothing here: how a model was trained, how another program runs it, advice for
/// generation, labels of other tasks, how experts are chosen (whether there are any is said elsewhere).
#[rustfmt::skip] // one field a line would be pages
const UNUSED: &[&str] = &[
    "activation_dropout", "afn", "architectures", "attention_dropout", "attention_implementation",
    "attention_probs_dropout_prob", "attn_implementation", "attn_pdrop", "auto_map", "aux_loss_alpha",
    "aux_loss_coef", "bad_words_ids", "begin_suppress_tokens", "bos_token", "cache_implementation",
    "chunk_size_feed_forward", "classifier_dropout", "cls_token_id", "cross_attention_hidden_size",
    "custom_pipelines", "debug", "decoder_sparse_step", "decoder_start_token_id", "diversity_penalty",
    "do_sample", "dropout", "dtype", "early_stopping", "embd_dropout", "embd_pdrop", "embed_dropout",
    "encoder_no_repeat_ngram_size", "eod_token_id", "eos_token", "exponential_decay_length_penalty",
    "finetuning_task", "forced_bos_token_id", "forced_eos_token_id", "fuse_cross_entropy",
    "gradient_checkpointing", "hidden_dropout", "hidden_dropout_prob", "id2label", "ignore_index",
    "image_seq_length", "init_std", "initializer_factor", "initializer_range", "is_decoder",
    "is_llama_config", "keys_to_ignore_at_inference", "label2id", "language", "layerdrop",
    "length_penalty", "license", "mask_token_id", "max_length", "max_sequence_length",
    "max_window_layers", "min_length", "mlp_dropout", "model_max_length", "model_name", "model_type",
    "n_ctx", "n_group", "n_special", "name", "neftune_noise_alpha", "no_repeat_ngram_size",
    "norm_topk_prob", "num_beam_groups", "num_beams", "num_labels", "num_logits_to_keep",
    "num_mtp_layers", "num_nextn_predict_layers", "num_return_sequences", "output_attentions",
    "output_hidden_states", "output_past", "output_router_logits", "output_scores", "pad_token",
    "pad_token_id", "predict_special_tokens", "prefix", "pretraining_tp", "problem_type",
    "projection_dim", "remove_invalid_values", "reorder_and_upcast_attn", "repetition_penalty",
    "resid_dropout", "resid_pdrop", "return_dict", "return_dict_in_generate", "routed_scaling_factor",
    "router_aux_loss_coef", "router_jitter_noise", "scoring_func", "sep_token_id", "suppress_tokens",
    "task_specific_params", "temperature", "tf_legacy_loss", "tie_encoder_decoder", "tokenizer_class",
    "tokenizer_model_max_length", "tokenizer_padding_side", "top_k", "top_p", "topk_group",
    "topk_method", "torch_dtype", "torchscript", "transformers.js_config", "transformers_version",
    "typical_p", "unk_token_id", "unsloth_fixed", "unsloth_version", "use_bfloat16", "use_cache",
    "use_flash_attn", "use_fused_rms_norm", "use_return_dict", "vocab_padding", "xla_device",
    "z_loss_coef",
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
    ("attention_hidden_size", &[]),
    ("attention_k_eq_v", &["false"]),
    ("attention_multiplier", &[]),
    ("attention_out_bias", &["false"]),
    ("attention_sink", &["false"]),
    ("attention_value_scale", &["1", "1.0"]),
    ("attention_window_size", &[]),
    ("attn_config", &[]),
    ("attn_logit_softcapping", &[]),
    ("attn_output_gate", &["false"]),
    ("attn_scale", &[]),
    ("attn_temperature_tuning", &["false", "0"]),
    ("block_types", &[]),
    ("causal", &["true"]),
    ("clamp_kqv", &[]),
    ("clip_qkv", &[]),
    ("floor_scale", &[]),
    ("full_attention_interval", &["1"]),
    ("full_attn_idxs", &[]),
    ("gated_attention", &["false"]),
    ("gating", &["false"]),
    ("index_head_dim", &[]),
    ("index_n_heads", &[]),
    ("index_topk", &[]),
    ("is_causal", &["true"]),
    ("is_encoder_decoder", &["false"]),
    ("key_multiplier", &["1", "1.0"]),
    ("kv_lora_rank", &["0"]),
    ("lambda_std_dev", &[]),
    ("layer_types", &["\"full_attention\""]),
    ("layers_block_type", &["\"attention\""]),
    ("local_attention", &["false"]),
    ("multi_query", &["false"]),
    ("num_attention_heads_per_layer", &[]),
    ("num_kv_shared_layers", &["0"]),
    ("per_layer_config", &[]),
    ("prefix_lm", &["false"]),
    ("pruned_heads", &["{}"]),
    ("q_lora_rank", &["0"]),
    ("qk_layernorm", &["false"]),
    ("qk_norm", &["false"]),
    ("query_pre_attn_scalar", &[]),
    ("relative_attention", &["false"]),
    ("rotary_value", &["false"]),
    ("scale_attn_by_inverse_layer_idx", &["false"]),
    ("scale_attn_weights", &["true"]),
    ("sliding_window", &["0"]),
    ("sliding_window_pattern", &["1"]),
    ("sliding_window_size", &["0"]),
    ("use_attention_gate", &["false"]),
    ("use_attention_sinks", &["false"]),
    ("use_bidirectional_attention", &["false"]),
    ("use_mrope", &["false"]),
    ("use_qk_norm", &["false"]),
    ("use_qkv_bias", &["false"]),
    ("use_sliding_window", &["false"]),
    ("v_head_dim", &[]),
    // Positions.
    ("global_rope_theta", &[]),
    ("interleaved_rope", &["false"]),
    ("layer_rope_theta", &[]),
    ("learned_pos_emb", &["false"]),
    ("llama_4_scaling_beta", &["0", "0.0"]),
    ("local_rope_theta", &[]),
    ("no_rope_layer_interval", &["0"]),
    ("no_rope_layers", &["1", "true"]),
    ("partial_rotary_factor", &["1", "1.0"]),
    ("position_embedding_type", &["\"absolute\"", "\"rope\"", "\"rotary\""]),
    ("qk_nope_head_dim", &["0"]),
    ("qk_rope_head_dim", &[]),
    ("rope_interleave", &["false"]),
    ("rope_interleaved", &["false"]),
    ("rope_local_base_freq", &[]),
    ("rope_parameters", &["{}"]),
    ("rope_scaling", &["{}"]),
    ("rotary_dim", &[]),
    ("rotary_emb_fraction", &["1", "1.0"]),
    ("rotary_pct", &["1", "1.0"]),
    ("sinusoidal_embeddings", &["false"]),
    ("yarn_log_multiplier", &[]),
    // Layers.
    ("add_bias_linear", &["false"]),
    ("add_qkv_bias", &["false"]),
    ("apply_residual_connection_post_layernorm", &["false"]),
    ("attention_bias", &["false"]),
    ("attention_in_multiplier", &["1", "1.0"]),
    ("attention_out_multiplier", &["1", "1.0"]),
    ("block_configs", &[]),
    ("do_layer_norm_before", &["true"]),
    ("hidden_activation", &[]),
    ("hidden_size_per_layer_input", &["0"]),
    ("layer_norm_elementwise_affine", &["true"]),
    ("mlp_bias", &["false"]),
    ("mlp_multipliers", &["1", "1.0"]),
    ("mup_enabled", &["false"]),
    ("new_decoder_architecture", &["false"]),
    ("no_bias", &["true"]),
    ("norm_bias", &["false"]),
    ("parallel_attn", &["false"]),
    ("post_norm", &["false"]),
    ("qkv_bias", &["false"]),
    ("residual_multiplier", &["1", "1.0"]),
    ("rms_norm_add_unit_offset", &["false"]),
    ("scale_depth", &[]),
    ("swiglu_alpha", &[]),
    ("swiglu_limit", &[]),
    ("use_bias", &["false"]),
    ("use_double_wide_mlp", &["false"]),
    ("use_parallel_residual", &["false"]),
    ("use_post_norm", &["false"]),
    ("use_sandwich_norm", &["false"]),
    // Experts.
    ("enable_moe_block", &["false"]),
    ("first_k_dense_replace", &["0"]),
    ("interleave_moe_layer_step", &[]),
    ("is_moe", &["false"]),
    ("mlp_layer_types", &["\"dense\""]),
    ("mlp_only_layers", &[]),
    ("moe_intermediate_size", &["0"]),
    ("moe_k", &["0", "1"]),
    ("moe_layers", &[]),
    ("moe_num_experts", &["0", "1"]),
    ("moe_num_shared_experts", &["0"]),
    ("moe_topk", &["0", "1"]),
    ("n_routed_experts", &["0"]),
    ("n_shared_experts", &["0"]),
    ("num_experts", &["0", "1"]),
    ("num_experts_per_tok", &["0", "1"]),
    ("num_experts_per_token", &["0", "1"]),
    ("num_local_experts", &["0", "1"]),
    ("num_shared_experts", &["0"]),
    ("shared_expert_intermediate_size", &["0"]),
    ("shared_intermediate_size", &["0"]),
    ("zero_expert_num", &["0"]),
    // Embedding and logits.
    ("dim_model_base", &[]),
    ("embedding_multiplier", &["1", "1.0"]),
    ("embedding_scale", &["1", "1.0"]),
    ("final_logit_softcapping", &[]),
    ("layernorm_embedding", &["false"]),
    ("lm_head_bias", &["false"]),
    ("lm_head_multiplier", &["1", "1.0"]),
    ("logit_scale", &["1", "1.0"]),
    ("logits_scaling", &["1", "1.0"]),
    ("logits_soft_cap", &[]),
    ("mup_width_scale", &["1", "1.0"]),
    ("output_logit_soft_cap", &[]),
    ("rescale_embeddings", &["false"]),
    ("scale_emb", &["1", "1.0"]),
    ("scale_embedding", &["false"]),
    ("type_vocab_size", &["0"]),
    ("word_embed_proj_dim", &[]),
    // Other parts of a model, and weights packed in another way.
    ("audio_config", &[]),
    ("compression_config", &["{}"]),
    ("decoder_config", &[]),
    ("encoder_config", &[]),
    ("quantization_config", &["{}"]),
    ("text_config", &[]),
    ("vision_config", &[]),
];

/// Fields that count only where another one is on: the field, and its switch.
const SWITCHED: &[(&str, &str)] = &[
    ("attn_scale", "attn_temperature_tuning"),
    ("floor_scale", "attn_temperature_tuning"),
    ("sliding_window", "use_sliding_window"),
];

/// Judges the fields that were not read: an error for one that would change what is computed, a warning for
/// those that are not known.
///
/// # Errors
/// Of the kind Model: names the field and its value.
pub fn judge(config: &Config, family: &str) -> Result<()> {
    let unknown = unknown(config, family)?;
    if !unknown.is_empty() {
        let (name, unknown) = (config.name(), unknown.join(", "));
        tracing::warn!("{name}: fields that are not known are passed over: {unknown}");
    }
    Ok(())
}

/// The fields that were not read and that nobody knows; an error for one that would change what is computed.
fn unknown<'a>(config: &Config<'a>, family: &str) -> Result<Vec<&'a str>> {
    let mut unknown = Vec::new();
    for (field, value) in config.unread() {
        match CHANGING.iter().find(|(name, _)| *name == field) {
            Some((_, neutral)) if !changes_nothing(value, neutral) && !is_off(config, field) => {
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
    Ok(unknown)
}

/// Whether the field has a switch, and that is off.
fn is_off(config: &Config, field: &str) -> bool {
    let off = |value: &Value| changes_nothing(value, &["false", "0"]);
    SWITCHED.iter().any(|(name, switch)| *name == field && config.get(switch).is_some_and(off))
}

fn changes_nothing(value: &Value, neutral: &[&str]) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.iter().all(|item| changes_nothing(item, neutral)),
        one => neutral.contains(&one.to_string().as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::families::FAMILIES;
    use serde_json::json;

    /// What a config.json is read as: the model as text, and the fields that nobody knows; and whether this
    /// field was read.
    fn read(json: &Value, field: &str) -> (Result<(String, Vec<String>)>, bool) {
        let config = Config::new("config.json", json).expect("an object");
        let family = json["model_type"].as_str().expect("a family");
        let (_, read, _) = FAMILIES.iter().find(|(name, ..)| *name == family).expect("a known one");
        let model = read(&config);
        let is_read = config.unread().all(|(unread, _)| unread != field);
        let names = model.and_then(|model| Ok((format!("{model:?}"), unknown(&config, family)?)));
        (names.map(|(model, names)| (model, names.into_iter().map(str::to_owned).collect())), is_read)
    }

    /// A small model of a family, with some fields more.
    fn config(family: &str, more: &[(&str, Value)]) -> Value {
        let mut json = match family {
            "llava" => json!({"image_token_index": 5, "text_config": {"num_hidden_layers": 1}}),
            _ => json!({"num_hidden_layers": 4, "max_window_layers": 0}),
        };
        json["model_type"] = json!(family);
        more.iter().for_each(|(field, value)| json[field] = value.clone());
        json
    }

    /// The small model that tells whether a field counts: windows take two fields.
    fn fitting(family: &str, field: &str) -> Value {
        let more = match field {
            "sliding_window" | "layer_types" => ("use_sliding_window", json!(true)),
            "use_sliding_window" => ("sliding_window", json!(8)),
            _ => return config(family, &[]),
        };
        let with = config(family, &[more]);
        if read(&with, field).0.is_ok() { with } else { config(family, &[]) }
    }

    fn set(mut config: Value, field: &str, value: &Value) -> Value {
        config[field] = value.clone();
        config
    }

    /// In every family, each field of the table changes the model or is refused by its name, but for the
    /// values that the table lists, which change nothing.
    #[test]
    fn fields_that_change_a_model_are_used_or_refused() {
        let mut values = [
            json!(true),
            json!(false),
            json!(0),
            json!(1),
            json!(3),
            json!(0.5),
            json!("others"),
            json!(["sliding_attention", "full_attention", "full_attention", "full_attention"]),
            json!([0, 1, 1, 1]),
            json!({"type": "others", "model_type": "others"}),
            json!(null),
        ]
        .to_vec();
        for text in CHANGING.iter().flat_map(|(_, neutral)| *neutral) {
            let value = serde_json::from_str(text).expect("JSON");
            if !values.contains(&value) {
                values.push(value);
            }
        }
        for (family, ..) in FAMILIES {
            for (field, neutral) in CHANGING {
                let base = fitting(family, field);
                let (usual, _) = read(&base, field).0.expect("a model");
                for value in &values {
                    let what = format!("{family} with {field}: {value}");
                    let is_neutral = changes_nothing(value, neutral);
                    match read(&set(base.clone(), field, value), field) {
                        (Ok((model, unknown)), is_read) => {
                            let changes = model != usual;
                            assert!(if changes { is_read } else { is_neutral }, "{what} is passed over");
                            assert_eq!(unknown, [""; 0], "{what}");
                        }
                        (Err(error), is_read) => {
                            assert!(!is_neutral || is_read, "{what}: {error}");
                            let error = error.to_string();
                            let mut words = error.split(|c: char| !c.is_alphanumeric() && c != '_');
                            assert!(words.any(|word| word == *field), "{what}: {error}");
                        }
                    }
                }
            }
        }
    }

    /// A field that changes nothing is known, and changes nothing, in families that do not read it.
    #[test]
    fn fields_that_change_nothing_are_known() {
        for (family, ..) in FAMILIES {
            let (usual, _) = read(&config(family, &[]), "").0.expect("a model");
            for field in UNUSED.iter().filter(|field| **field != "model_type") {
                let (result, is_read) = read(&config(family, &[(field, json!([3]))]), field);
                if !is_read {
                    assert_eq!(result.expect(field), (usual.clone(), Vec::new()), "{family} with {field}");
                }
            }
            let odd = config(family, &[("a_field_of_nobody", json!(1)), ("_secret", json!(1))]);
            assert_eq!(read(&odd, "").0.expect("a model").1, ["a_field_of_nobody"]);
        }
    }

    /// A switch that is off makes the field that it switches change nothing.
    #[test]
    fn fields_that_are_switched_off_change_nothing() {
        for (field, switch) in SWITCHED {
            for (off, counts) in [(json!(false), false), (json!(null), true)] {
                let llama = config("llama", &[(field, json!(8)), (switch, off)]);
                assert_eq!(read(&llama, field).0.is_err(), counts, "{field} with {switch}");
            }
        }
    }

    /// What a family has a field for is read from there: another value makes another model.
    #[test]
    fn fields_of_a_family_are_read() {
        const GPT: &[&str] = &["openai-gpt", "gpt2", "gpt_neo"];
        const KIN: &[&str] = &["llama", "mistral", "qwen2", "qwen3", "smollm3"];
        let linear = json!({"rope_type": "linear", "factor": 2.0});
        let cases: &[(&[&str], &str, Value)] = &[
            (&[GPT, KIN].concat(), "vocab_size", json!(99)),
            (&[GPT, KIN].concat(), "max_position_embeddings", json!(99)),
            (&[GPT, KIN].concat(), "num_hidden_layers", json!(5)),
            (&[GPT, KIN].concat(), "num_attention_heads", json!(64)),
            (&[GPT, KIN].concat(), "hidden_size", json!(64 * 96)),
            (&[GPT, KIN, &["llava"]].concat(), "bos_token_id", json!(7)),
            (&[GPT, KIN, &["llava"]].concat(), "eos_token_id", json!([7, 8])),
            (&["llama", "mistral", "qwen2", "qwen3", "llava"], "tie_word_embeddings", json!(true)),
            (&[GPT, &["smollm3"]].concat(), "tie_word_embeddings", json!(false)),
            (GPT, "layer_norm_epsilon", json!(0.1)),
            (&["openai-gpt", "gpt2"], "n_embd", json!(96)),
            (&["openai-gpt", "gpt2"], "n_head", json!(8)),
            (&["openai-gpt", "gpt2"], "n_positions", json!(99)),
            (&["openai-gpt"], "afn", json!("relu")),
            (&["gpt2"], "n_inner", json!(99)),
            (&["gpt2", "gpt_neo"], "activation_function", json!("relu")),
            (&["gpt2"], "scale_attn_weights", json!(false)),
            (&["gpt2"], "scale_attn_by_inverse_layer_idx", json!(true)),
            (&["gpt_neo"], "num_heads", json!(8)),
            (&["gpt_neo"], "window_size", json!(8)),
            (&["gpt_neo"], "attention_types", json!([[["local"], 4]])),
            (&["gpt_neo"], "attention_layers", json!(["local", "local", "local", "local"])),
            (&[KIN, &["gpt_neo"]].concat(), "intermediate_size", json!(99)),
            (KIN, "num_key_value_heads", json!(2)),
            (KIN, "head_dim", json!(96)),
            (KIN, "hidden_act", json!("gelu")),
            (KIN, "rms_norm_eps", json!(0.1)),
            (KIN, "rope_theta", json!(99.0)),
            (KIN, "rope_scaling", linear.clone()),
            (KIN, "rope_parameters", linear.clone()),
            (&["llama", "qwen3", "smollm3"], "attention_bias", json!(true)),
            (&["llama", "smollm3"], "mlp_bias", json!(true)),
            (&["mistral"], "sliding_window", json!(8)),
            (&["qwen2", "qwen3"], "use_sliding_window", json!(true)),
            (&["smollm3"], "no_rope_layers", json!([0, 0, 1, 1])),
            (&["smollm3"], "no_rope_layer_interval", json!(2)),
            (&["llava"], "image_token_id", json!(7)),
            (&["llava"], "image_token_index", json!(7)),
            (&["llava"], "vision_feature_layer", json!(-1)),
            (&["llava"], "vision_feature_select_strategy", json!("full")),
            (&["llava"], "projector_hidden_act", json!("relu")),
            (&["llava"], "multimodal_projector_bias", json!(false)),
            (&["llava"], "text_config", json!({"num_hidden_layers": 1, "model_type": "mistral"})),
            (&["llava"], "text_config", json!({"num_hidden_layers": 1, "attention_bias": true})),
            (&["llava"], "vision_config", json!({"num_hidden_layers": 2})),
        ];
        for (families, field, value) in cases {
            for family in *families {
                let base = config(family, &[]);
                let (usual, _) = read(&base, field).0.expect("a model");
                let (model, unknown) = read(&set(base, field, value), field).0.expect(field);
                assert!(model != usual && unknown.is_empty(), "{family} with {field}: {value}");
            }
        }
        // Objects are judged as the whole is.
        for (family, object, field, value) in [
            ("llama", "rope_scaling", "type", json!("dynamic")),
            ("llama", "rope_parameters", "partial_rotary_factor", json!(0.5)),
            ("llava", "text_config", "qk_norm", json!(true)),
            ("llava", "text_config", "model_type", json!("gpt2")),
            ("llava", "vision_config", "qk_norm", json!(true)),
            ("llava", "vision_config", "model_type", json!("siglip_vision_model")),
        ] {
            let whole = config(family, &[(object, json!({field: value}))]);
            let error = read(&whole, field).0.expect_err(field).to_string();
            assert!(error.starts_with(&format!("config.json's {object}: {field} is {value}")), "{error}");
        }
    }
}
