//! The fields of a request that say how tokens are picked, by llama-server's and OpenAI's names.

use super::{
    app::Served,
    error::{ApiError, Result},
};
use crate::sampling::{Dry, MAX_BIASES, Mirostat, Penalties, Sampling, Xtc};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ArrayBuilder, ObjectBuilder, OneOfBuilder, RefOr, Schema, Type,
        schema::{AnyOfBuilder, ArrayItems},
    },
};

/// How tokens are picked. What is absent is as the server was started with, else as the model's
/// generation_config.json recommends, else as `wgpt generate` has it.
#[derive(Debug, Deserialize, ToSchema)]
pub struct SamplingFields {
    /// How adventurous; 0: always the most probable token.
    #[schema(minimum = 0, maximum = 100)]
    pub temperature: Option<f64>,
    /// Consider only the k most probable tokens; 0 or less: all.
    #[schema(minimum = -9223372036854775808_i64, maximum = 9223372036854775807_i64)]
    pub top_k: Option<i64>,
    /// Consider only the fewest tokens whose probabilities reach p.
    #[schema(minimum = 0, maximum = 1)]
    pub top_p: Option<f64>,
    /// Consider only tokens at least p times as probable as the best.
    #[schema(minimum = 0, maximum = 1)]
    pub min_p: Option<f64>,
    /// Consider only the fewest tokens that reach p, those first that are about as surprising as is to be
    /// expected; 1: all.
    #[serde(alias = "typ_p")]
    #[schema(exclusive_minimum = 0, maximum = 1)]
    pub typical_p: Option<f64>,
    /// How often to leave out the likely tokens but the least likely of them.
    #[schema(minimum = 0, maximum = 1)]
    pub xtc_probability: Option<f64>,
    /// From which probability on XTC calls a token likely.
    #[schema(minimum = 0, maximum = 1)]
    pub xtc_threshold: Option<f64>,
    /// 2: mirostat 2 in place of all filters above; 0: no mirostat.
    #[schema(minimum = 0, maximum = 2, multiple_of = 2)]
    pub mirostat: Option<i64>,
    /// The surprise that mirostat aims at, in bits.
    #[schema(exclusive_minimum = 0, maximum = 1000000)]
    pub mirostat_tau: Option<f64>,
    /// How quickly mirostat follows what was drawn.
    #[schema(exclusive_minimum = 0, maximum = 1000000)]
    pub mirostat_eta: Option<f64>,
    /// Divides the logits of tokens that were there before; 1: does not.
    #[serde(alias = "repetition_penalty")]
    #[schema(minimum = 0.000001, maximum = 1000000)]
    pub repeat_penalty: Option<f64>,
    /// Taken off a token's logit for each time that it was there.
    #[schema(minimum = -1000000, maximum = 1000000)]
    pub frequency_penalty: Option<f64>,
    /// Taken off a token's logit if it was there.
    #[schema(minimum = -1000000, maximum = 1000000)]
    pub presence_penalty: Option<f64>,
    /// Penalties are for the last n tokens, prompt included; -1: for all; 0: for none.
    #[schema(minimum = -1, maximum = 4294967295_i64)]
    pub repeat_last_n: Option<i64>,
    /// How much a token costs that would go on with a repetition (DRY); 0: nothing.
    #[schema(minimum = 0, maximum = 1000000)]
    pub dry_multiplier: Option<f64>,
    /// How many times more for each token that the repetition is longer.
    #[schema(minimum = 1, maximum = 1000000)]
    pub dry_base: Option<f64>,
    /// How long a repetition must be to cost something.
    #[schema(minimum = 0, maximum = 4294967295_i64)]
    pub dry_allowed_length: Option<i64>,
    /// DRY looks for repetitions among the last n tokens; -1: among all; 0: nowhere.
    #[schema(minimum = -1, maximum = 4294967295_i64)]
    pub dry_penalty_last_n: Option<i64>,
    /// No repetition goes on over a token with one of these texts.
    pub dry_sequence_breakers: Option<Vec<String>>,
    /// Added to the logits of tokens: `{"15": -1.5}`, or `[[15, -1.5], [" word", false]]`, where false means
    /// never.
    pub logit_bias: Option<Biases>,
    /// What chance starts from: the same seed gives the same text. -1 or absent: random.
    #[schema(minimum = -9223372036854775808_i64, maximum = 9223372036854775807_i64)]
    pub seed: Option<i64>,
    /// Never end the text before the most tokens are generated.
    pub ignore_eos: Option<bool>,
}

/// The tokens that a bias is for.
#[derive(Clone, Debug, PartialEq)]
pub enum Biased {
    Id(u32),
    /// All tokens of a text.
    Text(String),
}

/// What is added to the logits of tokens.
#[derive(Clone, Debug)]
pub struct Biases(Vec<(Biased, f32)>);

impl PartialSchema for Biases {
    fn schema() -> RefOr<Schema> {
        let never = ObjectBuilder::new().schema_type(Type::Boolean).enum_values(Some([false]));
        let bias = OneOfBuilder::new().item(ObjectBuilder::new().schema_type(Type::Number)).item(never);
        let bias = Schema::from(bias.build());
        let text = ObjectBuilder::new().schema_type(Type::String);
        let id = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(u32::MAX));
        let token = OneOfBuilder::new().item(id).item(text);
        let pair = ArrayBuilder::new()
            .items(ArrayItems::False)
            .prefix_items([Schema::from(token.build()), bias.clone()]);
        let pair = pair.min_items(Some(2)).max_items(Some(2));
        AnyOfBuilder::new()
            .item(ObjectBuilder::new().additional_properties(Some(bias)))
            .item(ArrayBuilder::new().items(pair))
            .into()
    }
}

impl ToSchema for Biases {}

impl<'de> Deserialize<'de> for Biases {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        biases(from).map(Self)
    }
}

fn biases<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(Biased, f32)>, D::Error> {
    let wrong = |what: &Value| {
        serde::de::Error::custom(format!(
            "{what} is no bias: give ids or texts and numbers, as in {{\"15\": -1.5}} or [[15, -1.5]]"
        ))
    };
    let bias = |value: &Value| match value {
        Value::Bool(false) => Some(f32::NEG_INFINITY),
        Value::Number(number) => number.as_f64().map(|bias| bias as f32),
        _ => None,
    };
    match Value::deserialize(from)? {
        Value::Object(all) => all
            .iter()
            .map(|(key, value)| {
                let biased = key.parse().map_or_else(|_| Biased::Text(key.clone()), Biased::Id);
                Ok((biased, bias(value).ok_or_else(|| wrong(value))?))
            })
            .collect(),
        Value::Array(all) => all
            .iter()
            .map(|pair| {
                let [key, value] = &pair.as_array().ok_or_else(|| wrong(pair))?[..] else {
                    return Err(wrong(pair));
                };
                let biased = match key {
                    Value::String(text) => Biased::Text(text.clone()),
                    key => {
                        Biased::Id(key.as_u64().and_then(|id| id.try_into().ok()).ok_or_else(|| wrong(pair))?)
                    }
                };
                Ok((biased, bias(value).ok_or_else(|| wrong(pair))?))
            })
            .collect(),
        other => Err(wrong(&other)),
    }
}

impl SamplingFields {
    /// The settings for a generation that any of the ids `ends` ends.
    pub fn sampling(&self, served: &Served, ends: &[u32]) -> Result<Sampling> {
        // Texts among the biases and breakers are held against the vocabulary. Where they are many that takes
        // time, in which this thread would answer nobody else. Where they are few, a change of threads costs
        // more: each thread keeps megabytes of its own.
        let biases = self.logit_bias.as_ref().map_or(0, |biases| biases.0.len());
        let breakers = self.dry_sequence_breakers.as_ref().map_or(0, Vec::len);
        match biases + breakers {
            0..=16 => self.resolve(served, ends),
            _ => tokio::task::block_in_place(|| self.resolve(served, ends)),
        }
    }

    fn resolve(&self, served: &Served, ends: &[u32]) -> Result<Sampling> {
        let count = self.logit_bias.as_ref().map_or(0, |biases| biases.0.len());
        if count > MAX_BIASES {
            let what = format!("has {count} entries, but at most {MAX_BIASES} are possible");
            return Err(ApiError::field("logit_bias", what));
        }
        let base = &served.sampling;
        let number = |value: Option<f64>, or: f32| value.map_or(or, to_f32);
        let temperature = number(self.temperature, base.temperature);
        let window = |field, value: Option<i64>| match value.unwrap_or(-1) {
            count @ -1..=0xffff_ffff => Ok(count),
            count => Err(ApiError::field(field, format_args!("is {count}, but it must be from -1 to 2³²-1"))),
        };
        let (penalised, searched) = (
            window("repeat_last_n", self.repeat_last_n)?,
            window("dry_penalty_last_n", self.dry_penalty_last_n)?,
        );
        let mirostat =
            Mirostat { target: number(self.mirostat_tau, 5.0), rate: number(self.mirostat_eta, 0.1) };
        let has_mirostat = match self.mirostat.unwrap_or(0) {
            0 => false,
            2 => true,
            version => {
                let what = format!("is {version}, but only 2, and 0 for none, are supported");
                return Err(ApiError::field("mirostat", what));
            }
        };
        let multiplier = number(self.dry_multiplier, 0.0);
        let allowed = self.dry_allowed_length.unwrap_or(Dry::NONE.allowed.into());
        let allowed = u32::try_from(allowed).map_err(|_| {
            ApiError::field(
                "dry_allowed_length",
                format_args!("is {allowed}, but it must be from 0 to 2³²-1"),
            )
        })?;
        let mut asked = Vec::new();
        for (biased, bias) in self.logit_bias.iter().flat_map(|biases| &biases.0) {
            match biased {
                Biased::Id(id) => asked.push((*id, *bias)),
                Biased::Text(text) => {
                    let ids = served.tokenizer.encode(text, false)?;
                    asked.extend(ids.into_iter().map(|id| (id, *bias)));
                }
            }
        }
        // What the vocabulary lacks cannot come.
        asked.retain(|(id, _)| *id < served.model.architecture.vocab_size);
        // A bias that is asked for beats a ban that the model's files recommend.
        let recommended = base.biases.iter().filter(|(id, _)| !asked.iter().any(|(other, _)| other == id));
        let mut biases: Vec<_> = recommended.copied().chain(asked.iter().copied()).collect();
        if self.ignore_eos == Some(true) {
            biases.extend(ends.iter().map(|id| (*id, f32::NEG_INFINITY)));
        }
        let mut sampling = Sampling {
            temperature,
            top_k: self.top_k.map_or(base.top_k, |k| k.clamp(0, u32::MAX.into()) as u32),
            // None but the most probable token is within a share of nothing.
            top_p: match number(self.top_p, base.top_p) {
                0.0 => f32::MIN_POSITIVE,
                p => p,
            },
            min_p: number(self.min_p, base.min_p),
            typical_p: number(self.typical_p, base.typical_p),
            xtc: Xtc {
                probability: number(self.xtc_probability, Xtc::NONE.probability),
                threshold: number(self.xtc_threshold, Xtc::NONE.threshold),
            },
            mirostat: Some(mirostat),
            seed: match self.seed {
                Some(-1) => random_seed(),
                Some(seed) => seed as u64,
                None => served.seed.unwrap_or_else(random_seed),
            },
            penalties: Penalties {
                // Greedy decoding has no penalty unless one is asked for.
                repetition: match self.repeat_penalty {
                    None if temperature == 0.0 => served.greedy_penalty,
                    penalty => number(penalty, base.penalties.repetition),
                },
                frequency: number(self.frequency_penalty, base.penalties.frequency),
                presence: number(self.presence_penalty, base.penalties.presence),
                last: penalised.max(0) as u32,
            },
            dry: Dry {
                multiplier,
                base: number(self.dry_base, Dry::NONE.base),
                allowed,
                last: searched.max(0) as u32,
                breakers: match &self.dry_sequence_breakers {
                    _ if multiplier == 0.0 => BTreeSet::new(),
                    None => served.line_ends().clone(),
                    Some(texts) => {
                        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                        served.tokenizer.with_any(&texts)
                    }
                },
            },
            biases,
            banned_first: base.banned_first.clone(),
            banned_sequences: base.banned_sequences.clone(),
        };
        // What has no effect must be right, too.
        sampling.check()?;
        if !has_mirostat {
            sampling.mirostat = None;
        }
        if penalised == 0 {
            sampling.penalties = Penalties::NONE;
        }
        if searched == 0 {
            sampling.dry = Dry::NONE;
        }
        Ok(sampling)
    }
}

/// The nearest f32, but on the same side of whole numbers, where the limits of settings are.
fn to_f32(value: f64) -> f32 {
    let nearest = value as f32;
    match f64::from(nearest) {
        rounded if nearest.fract() != 0.0 || rounded == value => nearest,
        rounded if rounded < value => nearest.next_up(),
        _ => nearest.next_down(),
    }
}

fn random_seed() -> u64 {
    RandomState::new().hash_one(())
}
