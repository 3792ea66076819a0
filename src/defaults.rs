//! What generation_config.json recommends. Advice that makes no sense, or that is not followed, is named in a
//! warning and spoils nothing else.

use crate::{
    config::Config,
    error::Result,
    files::read_json,
    sampling::{MAX_BIASES, Penalties, Sampling},
};
use serde_json::Value;
use std::{fmt, ops::RangeInclusive, path::Path};

/// The recommended settings of a generation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Defaults {
    pub temperature: Option<f32>,
    pub top_k: Option<u32>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    pub typical_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
    /// The token ids that end a text.
    pub eos: Vec<u32>,
    /// The texts that end a text.
    pub stop_strings: Vec<String>,
    /// The most tokens to generate.
    pub max_new_tokens: Option<usize>,
    /// The most tokens of a text, its prompt included.
    pub max_length: Option<usize>,
    /// Tokens that are never drawn.
    pub suppress_tokens: Vec<u32>,
    /// Tokens that are never drawn first.
    pub begin_suppress_tokens: Vec<u32>,
    /// Sequences of tokens that are never completed.
    pub bad_words_ids: Vec<Vec<u32>>,
}

/// Advice that is not followed.
const UNFOLLOWED: [&str; 14] = [
    "encoder_repetition_penalty",
    "epsilon_cutoff",
    "eta_cutoff",
    "exponential_decay_length_penalty",
    "force_words_ids",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "guidance_scale",
    "min_length",
    "min_new_tokens",
    "no_repeat_ngram_size",
    "num_beams",
    "penalty_alpha",
    "sequence_bias",
];

impl Defaults {
    /// How tokens are picked: as recommended, else as in [`Sampling::default`].
    pub fn sampling(&self) -> Sampling {
        let plain = Sampling::default();
        Sampling {
            temperature: self.temperature.unwrap_or(plain.temperature),
            top_k: self.top_k.unwrap_or(plain.top_k),
            top_p: self.top_p.unwrap_or(plain.top_p),
            min_p: self.min_p.unwrap_or(plain.min_p),
            typical_p: self.typical_p.unwrap_or(plain.typical_p),
            penalties: Penalties {
                repetition: self.repetition_penalty.unwrap_or(plain.penalties.repetition),
                ..plain.penalties
            },
            biases: self.suppress_tokens.iter().map(|id| (*id, f32::NEG_INFINITY)).collect(),
            banned_first: self.begin_suppress_tokens.clone(),
            banned_sequences: self.bad_words_ids.clone(),
            ..plain
        }
    }

    /// Reads a generation_config.json.
    ///
    /// # Errors
    /// Of the kind Model where the file is no JSON object.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let (name, json) = (path.display().to_string(), read_json(path)?);
        let config = Config::new(&name, &json)?;
        let unfollowed: Vec<_> =
            UNFOLLOWED.into_iter().filter(|field| config.get(field).is_some_and(changes)).collect();
        if !unfollowed.is_empty() {
            tracing::warn!("{name}: this advice is not followed: {}", unfollowed.join(", "));
        }
        let advice = Advice { name: &name, config: &config };
        let samples = config.bool("do_sample", true).unwrap_or_else(|e| {
            tracing::warn!("{e}: it is passed over");
            true
        });
        let number = |field, range| advice.number(field, range).map(|n| n as f32);
        let count = |field| advice.number(field, 1.0..=f64::from(u32::MAX)).map(|n| n as usize);
        Ok(Self {
            temperature: if samples { number("temperature", 0.0..=100.0) } else { Some(0.0) },
            // Some files have -1, which means all tokens.
            top_k: number("top_k", -1.0..=f64::from(u32::MAX)).map(|k| k as u32),
            top_p: number("top_p", 1e-6..=1.0),
            min_p: number("min_p", 0.0..=1.0),
            typical_p: number("typical_p", 1e-6..=1.0),
            repetition_penalty: number("repetition_penalty", 1e-6..=1e6),
            eos: config.ids("eos_token_id"),
            stop_strings: advice.list("stop_strings", "texts", |text| text.as_str().map(str::to_owned)),
            max_new_tokens: count("max_new_tokens"),
            max_length: count("max_length"),
            suppress_tokens: advice.list("suppress_tokens", "token ids", id),
            begin_suppress_tokens: advice.list("begin_suppress_tokens", "token ids", id),
            bad_words_ids: advice.list("bad_words_ids", "lists of token ids", |word| {
                word.as_array()?.iter().map(id).collect::<Option<Vec<_>>>().filter(|ids| !ids.is_empty())
            }),
        })
    }

    /// The most tokens to generate after a prompt of so many. A prompt that is as long as the whole text may
    /// be leaves the advice without sense.
    pub fn max_tokens(&self, prompt: usize) -> Option<usize> {
        let rest = || self.max_length?.checked_sub(prompt).filter(|rest| *rest > 0);
        self.max_new_tokens.or_else(rest)
    }

    /// The same advice without tokens that a vocabulary of this size lacks, and without bans of `eos` alone,
    /// which transformers passes over.
    pub(crate) fn within(mut self, vocab_size: u32, eos: &[u32]) -> Self {
        let is_known = |id: &u32| *id < vocab_size;
        for (field, ids) in [
            ("suppress_tokens", &mut self.suppress_tokens),
            ("begin_suppress_tokens", &mut self.begin_suppress_tokens),
        ] {
            ids.retain(|id| is_known(id) || pass_over(field, id, vocab_size));
        }
        self.bad_words_ids.retain(|word| match word.iter().find(|id| !is_known(id)) {
            Some(id) => pass_over("bad_words_ids", id, vocab_size),
            None => !matches!(word[..], [id] if eos.contains(&id)),
        });
        self
    }
}

/// Warns that an id is beyond the vocabulary. Returns false, as what does not stay.
pub(crate) fn pass_over(field: &str, id: impl fmt::Display, vocab_size: u32) -> bool {
    tracing::warn!("{field}: {id} is passed over, for the vocabulary has {vocab_size} tokens");
    false
}

/// Whether a value of advice says something else than its absence.
fn changes(value: &Value) -> bool {
    match value {
        Value::Number(n) => ![0.0, 1.0].contains(&n.as_f64().unwrap_or_default()),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    }
}

fn id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

/// The fields of a generation_config.json.
struct Advice<'a> {
    name: &'a str,
    config: &'a Config<'a>,
}

impl Advice<'_> {
    fn number(&self, field: &str, range: RangeInclusive<f64>) -> Option<f64> {
        let value = self.config.get(field)?;
        let number = value.as_f64().filter(|n| range.contains(n));
        if number.is_none() {
            let (from, to) = range.into_inner();
            self.pass_over(field, value, format_args!("a number from {from} to {to} belongs"));
        }
        number
    }

    /// A list, or its one item alone.
    fn list<T>(&self, field: &str, items: &str, read: impl Fn(&Value) -> Option<T>) -> Vec<T> {
        let Some(value) = self.config.get(field) else { return Vec::new() };
        let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        match list.iter().map(read).collect::<Option<Vec<_>>>().filter(|list| list.len() <= MAX_BIASES) {
            Some(list) => list,
            None => {
                self.pass_over(field, value, format_args!("at most {MAX_BIASES} {items} belong"));
                Vec::new()
            }
        }
    }

    fn pass_over(&self, field: &str, value: &Value, belongs: fmt::Arguments) {
        let value: String = value.to_string().chars().take(100).collect();
        tracing::warn!("{}: {field} is {value}, and {belongs} there: it is passed over", self.name);
    }
}
