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
/// use, of norms of another kind, of layers with windows, and how experts are chosen: whether there are any
/// of these is said elsewhere.
const UNUSED: &[&str] = &[
    "attention.group_norm_epsilon",
    "attention.key_length_swa",
    "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon",
    "attention.value_length_swa",
    "classifier.pooling_type",
    "expert_gating_func",
    "expert_group_count",
    "expert_group_scale",
    "expert_group_used_count",
    "expert_weights_norm",
    "expert_weights_scale",
    "experts_per_group",
    "rope.dimension_count_swa",
    "rope.freq_base_swa",
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
    ("activation.situ_beta", &["0"]),
    ("activation.situ_linear_beta", &["0"]),
    ("adapters.count", &["0"]),
    ("attention.causal", &["true"]),
    ("attention.chunk_size", &["0"]),
    ("attention.clamp_kqv", &["0"]),
    ("attention.compress_ratios", &["0"]),
    ("attention.decay_lora_rank", &["0"]),
    ("attention.gate_lora_rank", &["0"]),
    ("attention.group_norm_groups", &["0"]),
    ("attention.iclr_lora_rank", &["0"]),
    ("attention.indexer.head_count", &["0"]),
    ("attention.indexer.top_k", &["0"]),
    ("attention.key_length_mla", &["0"]),
    ("attention.kv_lora_rank", &["0"]),
    ("attention.max_alibi_bias", &["0"]),
    ("attention.output_group_count", &["0"]),
    ("attention.output_lora_rank", &["0"]),
    ("attention.output_scale", &["0", "1"]),
    ("attention.q_lora_rank", &["0"]),
    ("attention.recurrent_layers", &["0", "false"]),
    ("attention.relative_buckets_count", &["0"]),
    ("attention.rope_pattern", &["1", "true"]),
    ("attention.scale", &["0"]),
    ("attention.shared_kv_layers", &["0"]),
    ("attention.sliding_window", &["0"]),
    ("attention.sliding_window_pattern", &["0", "1", "false"]),
    ("attention.temperature_length", &["0"]),
    ("attention.temperature_scale", &["0"]),
    ("attention.value_length_mla", &["0"]),
    ("attention.value_residual_mix_lora_rank", &["0"]),
    ("attention.value_scale", &["0", "1"]),
    ("attn_logit_softcapping", &["0"]),
    ("attn_res.block_size", &["0"]),
    ("classifier.output_labels", &[]),
    ("decoder_block_count", &["0"]),
    ("decoder_start_token_id", &[]),
    ("deepstack_mapping", &["-1"]),
    ("dense_2_feat_out", &["0"]),
    ("dense_3_feat_out", &["0"]),
    ("embedding_length_out", &["0"]),
    ("embedding_length_per_layer_input", &["0"]),
    ("embedding_scale", &["0", "1"]),
    ("expert_chunk_feed_forward_length", &["0"]),
    ("expert_count", &["0"]),
    ("expert_feed_forward_length", &["0"]),
    ("expert_latent_length", &["0"]),
    ("expert_shared_count", &["0"]),
    ("expert_shared_feed_forward_length", &["0"]),
    ("expert_used_count", &["0"]),
    ("features_length", &["0"]),
    ("final_logit_softcapping", &["0"]),
    ("full_attention_interval", &["0", "1"]),
    ("hash_layer_count", &["0"]),
    ("hidden_activation", &[]),
    ("hrm.layers_per_stack", &["0"]),
    ("hyper_connection.count", &["0"]),
    ("interleave_moe_layer_step", &["0"]),
    ("kda.head_dim", &["0"]),
    ("leading_dense_block_count", &["0"]),
    ("logit_scale", &["0", "1"]),
    ("moe_every_n_layers", &["0"]),
    ("moe_latent_size", &["0"]),
    ("n_deepstack_layers", &["0"]),
    ("nextn_predict_layers", &["0"]),
    ("no_rope_layer_interval", &["0"]),
    ("norm_before_fc", &["false"]),
    ("norm_before_residual", &["false"]),
    ("num_loops", &["0", "1"]),
    ("ple.layers", &[]),
    // Of embeddings alone; 4 is a ranking.
    ("pooling_type", &["0", "1", "2", "3"]),
    ("rescale_every_n_layers", &["0"]),
    ("residual_scale", &["0", "1"]),
    ("rope.dimension_sections", &["0"]),
    ("rope.scaling.alpha", &["0"]),
    ("rope.scaling.attn_factor", &["1"]),
    ("rope.scaling.yarn_log_multiplier", &["0"]),
    ("router_logit_softcapping", &["0"]),
    ("shortconv.l_cache", &["0"]),
    ("ssm.conv_kernel", &["0"]),
    ("ssm.inner_size", &["0"]),
    ("ssm.state_size", &["0"]),
    ("swiglu_clamp_exp", &["0"]),
    ("swiglu_clamp_shexp", &["0"]),
    ("swin_norm", &["false"]),
    ("target_layers", &[]),
    ("time_mix_extra_dim", &["0"]),
    ("token_shift_count", &["0"]),
    ("use_parallel_residual", &["false"]),
    ("wkv.head_size", &["0"]),
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
    let unknown = unknown(gguf, family, read)?;
    if !unknown.is_empty() {
        tracing::warn!("{}: keys that are not known are passed over: {}", gguf.name, unknown.join(", "));
    }
    Ok(())
}

/// The keys that were not read and that nobody knows; an error for one that would change what is computed.
fn unknown<'a>(gguf: &'a Gguf, family: &str, read: &BTreeSet<String>) -> Result<Vec<&'a str>> {
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
    Ok(unknown)
}

/// Whether a key has one of these values, or is a list of such values.
fn changes_nothing(gguf: &Gguf, key: &str, neutral: &[&str]) -> Result<bool> {
    let is_neutral = |value: &Value| neutral.contains(&value.to_string().as_str());
    match gguf.get(key) {
        Some(Value::Array(array)) => {
            let all = gguf.elements(array).collect::<Result<Vec<_>>>()?;
            Ok(all.iter().all(is_neutral))
        }
        value => Ok(value.is_none_or(is_neutral)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        families::gguf::read::{ARCHITECTURES, Fields},
        weights::{Bytes, Format, Made, Values, Writer},
    };
    use std::sync::Arc;

    /// An entry of any type.
    #[derive(Clone, Debug)]
    enum Entry {
        Bool(bool),
        Count(u32),
        Number(f32),
        Text(&'static str),
        Counts(Vec<i32>),
        Numbers(Vec<f32>),
        Texts(Vec<String>),
    }

    impl Entry {
        fn write(&self, key: &str, file: &mut Writer) {
            match self {
                Self::Bool(value) => file.bool(key, *value),
                Self::Count(value) => file.count(key, *value),
                Self::Number(value) => file.number(key, *value),
                Self::Text(value) => file.text(key, value),
                Self::Counts(values) => file.counts(key, values),
                Self::Numbers(values) => file.numbers(key, values),
                Self::Texts(values) => file.texts(key, values),
            }
        }
        /// The values in it, as the tables spell them.
        fn values(&self) -> Vec<String> {
            match self {
                Self::Bool(value) => vec![value.to_string()],
                Self::Count(value) => vec![value.to_string()],
                Self::Number(value) => vec![value.to_string()],
                Self::Text(value) => vec![(*value).to_owned()],
                Self::Counts(values) => values.iter().map(i32::to_string).collect(),
                Self::Numbers(values) => values.iter().map(f32::to_string).collect(),
                Self::Texts(values) => values.clone(),
            }
        }
    }

    /// What the file of a small model is read as, with some keys more: the model as text, and the keys that
    /// nobody knows.
    fn read(family: &'static str, more: &[(&str, Entry)]) -> Result<(String, Vec<String>)> {
        let mut file = Writer::default();
        let usual = [
            ("context_length", Entry::Count(64)),
            ("embedding_length", Entry::Count(32)),
            ("block_count", Entry::Count(4)),
            ("attention.head_count", Entry::Count(4)),
            ("attention.layer_norm_epsilon", Entry::Number(1e-5)),
            ("attention.layer_norm_rms_epsilon", Entry::Number(1e-5)),
        ];
        let is_usual = |key: &str| !more.iter().any(|(other, _)| *other == key);
        for (key, entry) in usual.iter().filter(|(key, _)| is_usual(key)).chain(more) {
            let is_whole = ["tokenizer.", "general."].iter().any(|begin| key.starts_with(begin));
            entry.write(&if is_whole { (*key).to_owned() } else { format!("{family}.{key}") }, &mut file);
        }
        let contents = Arc::new(Values(vec![0.0; 8 * 32]));
        file.tensor("token_embd.weight", Made { shape: vec![8, 32], format: Format::F32, contents });
        let mut bytes = Vec::new();
        file.write(&mut bytes, &|_, _| true).expect("writing to memory");
        let gguf = Gguf::read("file", Bytes::new(bytes)).expect("a GGUF file");
        let fields = Fields::of(&gguf, family);
        let (_, read) = ARCHITECTURES.iter().find(|(name, _)| *name == family).expect("a known family");
        let model = format!("{:?}", read(&fields)?);
        judge(&gguf, family, &fields.read.borrow())?;
        let unknown = unknown(&gguf, family, &fields.read.borrow())?;
        Ok((model, unknown.into_iter().map(str::to_owned).collect()))
    }

    /// In every family, each key of the table is refused by its name, but for the values that the table
    /// lists, which change nothing.
    #[test]
    fn keys_that_change_a_model_are_used_or_refused() {
        let entries = [
            Entry::Bool(true),
            Entry::Bool(false),
            Entry::Count(0),
            Entry::Count(1),
            Entry::Count(3),
            Entry::Number(0.0),
            Entry::Number(0.5),
            Entry::Number(1.0),
            Entry::Text("others"),
            Entry::Counts(vec![0; 4]),
            Entry::Counts(vec![-1; 4]),
            Entry::Counts(vec![0, 1, 2, 3]),
            Entry::Numbers(vec![0.0, 0.5]),
            Entry::Texts(vec!["one".to_owned(), "other".to_owned()]),
        ];
        for (family, _) in ARCHITECTURES {
            let usual = read(family, &[]).expect("a model");
            assert_eq!(usual.1, [""; 0]);
            for (key, neutral) in CHANGING {
                for entry in &entries {
                    let what = format!("{family} with {key}: {entry:?}");
                    let is_neutral = entry.values().iter().all(|value| neutral.contains(&value.as_str()));
                    match read(family, &[(key, entry.clone())]) {
                        Ok(model) => assert!(is_neutral && model == usual, "{what} is passed over"),
                        Err(e) => {
                            let named = e.to_string().starts_with(&format!("file: {family}.{key} is "));
                            assert!(!is_neutral && named, "{what}: {e}");
                        }
                    }
                }
            }
            for key in UNUSED {
                let model = read(family, &[(key, Entry::Number(0.5))]).expect(key);
                let is_read = key.ends_with("epsilon") || key.starts_with("rope.scaling");
                assert!(model == usual || is_read && model.1.is_empty(), "{family} with {key}");
            }
            let odd = read(family, &[("a_key_of_nobody", Entry::Count(1))]).expect("a warning");
            assert_eq!(odd.1, [format!("{family}.a_key_of_nobody")]);
            let adapter = read(family, &[("general.type", Entry::Text("adapter"))]);
            assert!(adapter.is_err_and(|e| e.to_string().contains("general.type is adapter")));
        }
    }

    /// What a family has a key for is read from there: another value makes another model.
    #[test]
    fn keys_of_a_family_are_read() {
        const GPT2: &[&str] = &["gpt2"];
        const KIN: &[&str] = &["llama", "qwen2", "qwen3", "smollm3"];
        let all = [GPT2, KIN].concat();
        let cases: [(&[&str], &str, Entry); 15] = [
            (&all, "context_length", Entry::Count(99)),
            (&all, "embedding_length", Entry::Count(64)),
            (&all, "block_count", Entry::Count(5)),
            (&all, "feed_forward_length", Entry::Count(99)),
            (&all, "feed_forward_length", Entry::Counts(vec![99; 4])),
            (&all, "attention.head_count", Entry::Count(2)),
            (&all, "tokenizer.ggml.bos_token_id", Entry::Count(3)),
            (&all, "tokenizer.ggml.eos_token_id", Entry::Count(3)),
            (GPT2, "attention.layer_norm_epsilon", Entry::Number(0.1)),
            (KIN, "attention.layer_norm_rms_epsilon", Entry::Number(0.1)),
            (KIN, "attention.head_count_kv", Entry::Count(2)),
            (KIN, "attention.key_length", Entry::Count(6)),
            (KIN, "rope.freq_base", Entry::Number(99.0)),
            (KIN, "rope.scaling.factor", Entry::Number(2.0)),
            (KIN, "rope.scale_linear", Entry::Number(2.0)),
        ];
        for (families, key, entry) in &cases {
            for (family, _) in ARCHITECTURES.iter().filter(|(name, _)| families.contains(name)) {
                let usual = read(family, &[]).expect("a model");
                let model = read(family, &[(key, entry.clone())]).expect(key);
                assert!(model.0 != usual.0 && model.1.is_empty(), "{family} with {key}");
            }
        }
        // Scalings take several keys.
        let yarn = [("rope.scaling.type", Entry::Text("yarn")), ("rope.scaling.factor", Entry::Number(2.0))];
        let usual = read("llama", &yarn).expect("a model");
        for key in ["attn_factor", "yarn_beta_fast", "yarn_beta_slow", "yarn_log_multiplier"] {
            let key = format!("rope.scaling.{key}");
            let more = [&yarn[..], &[(&key, Entry::Number(4.0))]].concat();
            assert_ne!(read("llama", &more).expect(&key), usual, "{key}");
        }
        // Sizes that are said twice agree, and others are refused.
        for (key, entry) in [
            ("attention.value_length", Entry::Count(4)),
            ("rope.dimension_count", Entry::Count(4)),
            ("vocab_size", Entry::Count(7)),
            ("rope.scaling.type", Entry::Text("longrope")),
            ("block_count", Entry::Text("4")),
            ("block_count", Entry::Number(4.0)),
            ("rope.freq_base", Entry::Bool(true)),
            ("feed_forward_length", Entry::Counts(vec![9, 9, 9, 8])),
            ("tokenizer.ggml.eos_token_id", Entry::Text("3")),
        ] {
            let error = read("llama", &[(key, entry)]).expect_err(key).to_string();
            assert!(error.contains(&format!("{key} is ")), "{error}");
        }
    }
}
