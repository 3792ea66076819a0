//! Fields that several endpoints have.

use super::{
    adapter_scales::AdapterScale,
    app::Served,
    error::{ApiError, Result},
    generation::Run,
};
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;
use utoipa::ToSchema;

/// Texts before which an answer ends.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a text or a list of texts belongs there")]
pub enum Stop {
    One(String),
    Many(Vec<String>),
}

impl TryFrom<serde_json::Map<String, Value>> for StreamOptions {
    type Error = &'static str;

    fn try_from(fields: serde_json::Map<String, Value>) -> Result<Self, Self::Error> {
        match fields.get("include_usage") {
            None | Some(Value::Null) => Ok(Self { include_usage: None }),
            Some(Value::Bool(includes)) => Ok(Self { include_usage: Some(*includes) }),
            Some(_) => Err("include_usage must be true or false"),
        }
    }
}

/// The most stop texts, and their most bytes together: each token is held against all of them.
const MAX_STOPS: usize = 256;
const MAX_STOP_BYTES: usize = 65_536;

/// Whether there are not too many stop texts. `field`: where they come from.
pub fn check_stops(field: &str, stops: &[String]) -> Result<()> {
    let bytes: usize = stops.iter().map(String::len).sum();
    match stops.len() <= MAX_STOPS && bytes <= MAX_STOP_BYTES {
        true => Ok(()),
        false => Err(ApiError::field(
            field,
            format_args!(
                "has {} texts of {bytes} bytes, but at most {MAX_STOPS} of {MAX_STOP_BYTES} are taken",
                stops.len()
            ),
        )),
    }
}

impl Stop {
    /// The texts; those that the model's files recommend where there is no such field.
    pub fn texts(stop: Option<Self>, served: &Served) -> Vec<String> {
        match stop {
            None => served.model.defaults.stop_strings.clone(),
            Some(Self::One(text)) => vec![text],
            Some(Self::Many(texts)) => texts,
        }
    }
}

/// What a stream tells besides text.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(try_from = "serde_json::Map<String, Value>")]
pub struct StreamOptions {
    /// Whether the last chunk tells how many tokens it took.
    pub include_usage: Option<bool>,
}

/// Where, how long and with which adapters a request runs, by llama-server's names.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub struct RunFields {
    /// The slot that the request's prompt is of, for `/slots/{id}`; -1, or absent: the one that is free.
    /// Wherever it runs, it gets the same tokens.
    #[serde(default)]
    #[schema(minimum = -1)]
    pub id_slot: Option<i64>,
    /// So many milliseconds after its first token the text ends, unless it is in its first line; 0 or less:
    /// it does not.
    #[serde(default)]
    pub t_max_predict_ms: Option<i64>,
    /// How many tokens of the prompt stay where a server started with --context-shift leaves out others
    /// because the context is full; -1: all.
    #[serde(default)]
    #[schema(minimum = -1)]
    pub n_keep: Option<i64>,
    /// How much of each adapter applies to this request; of those that are not listed, nothing. Absent: as
    /// much as `/lora-adapters` says.
    #[serde(default)]
    pub lora: Option<Vec<AdapterScale>>,
    #[serde(default)]
    #[schema(ignore)]
    pub structured_outputs: Option<Value>,
    #[serde(default)]
    #[schema(ignore)]
    pub guided_json: Option<Value>,
    #[serde(default)]
    #[schema(ignore)]
    pub guided_regex: Option<Value>,
    #[serde(default)]
    #[schema(ignore)]
    pub guided_choice: Option<Value>,
    #[serde(default)]
    #[schema(ignore)]
    pub guided_grammar: Option<Value>,
}

impl RunFields {
    /// What they ask for.
    ///
    /// # Errors
    /// If there is no such slot or adapter, or if they ask for answers of a certain form, by vLLM's names.
    pub fn run(&self, served: &Served) -> Result<Run> {
        refuse(&[
            ("structured_outputs", &self.structured_outputs),
            ("guided_json", &self.guided_json),
            ("guided_regex", &self.guided_regex),
            ("guided_choice", &self.guided_choice),
            ("guided_grammar", &self.guided_grammar),
        ])?;
        let slot = self.id_slot.filter(|slot| *slot != -1);
        if let Some(slot) = slot.filter(|slot| !(0..served.parallel as i64).contains(slot)) {
            let what = format!("is {slot}, but the slots are 0 to {}", served.parallel - 1);
            return Err(ApiError::field("id_slot", what));
        }
        let keep = self.n_keep.unwrap_or(0);
        if keep < -1 {
            return Err(ApiError::field("n_keep", format_args!("is {keep}, but it must be -1 or above")));
        }
        let time = self.t_max_predict_ms.and_then(|millis| u64::try_from(millis).ok());
        Ok(Run {
            slot: slot.map(|slot| slot as u32),
            time: time.filter(|millis| *millis > 0).map(Duration::from_millis),
            keep: Some(usize::try_from(keep).unwrap_or(usize::MAX)),
            adapters: match &self.lora {
                None => served.adapters.scales(),
                Some(asked) => served.adapters.of(asked, "lora")?,
            },
        })
    }
}

/// The most tokens of an answer, by any of its names: the first that is there counts. -1: to the end of the
/// context.
pub fn max_tokens(fields: &[(&str, Option<i64>)], or: Option<usize>) -> Result<Option<usize>> {
    let mut first = None;
    for (name, value) in fields {
        let Some(count) = *value else { continue };
        if count < -1 {
            let what = format!("is {count}, but it must be zero or above, or -1 for no limit");
            return Err(ApiError::field(name, what));
        }
        first = first.or(Some(usize::try_from(count).ok()));
    }
    Ok(first.unwrap_or(or))
}

/// The number of texts.
pub fn count(n: Option<i64>) -> Result<usize> {
    match n.unwrap_or(1) {
        n @ 1..=128 => Ok(n as usize),
        n => Err(ApiError::field("n", format_args!("is {n}, but it must be from 1 to 128"))),
    }
}

/// A number of alternatives to each token.
pub fn alternatives(field: &str, count: i64) -> Result<usize> {
    match count {
        0..=20 => Ok(count as usize),
        _ => Err(ApiError::field(field, format_args!("is {count}, but it must be from 0 to 20"))),
    }
}

/// Refuses fields that are there, but not supported. Null, false, empty lists and empty objects count as
/// absent.
pub fn refuse(fields: &[(&str, &Option<Value>)]) -> Result<()> {
    let is_set = |value: &Option<Value>| match value {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::Object(fields)) => !fields.is_empty(),
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Number(_) | Value::Bool(true)) => true,
    };
    match fields.iter().find(|(_, value)| is_set(value)) {
        None => Ok(()),
        Some((name, _)) => Err(ApiError::field(name, "is not supported: leave it away")),
    }
}

/// Refuses a format of answers other than plain text.
pub fn refuse_format(field: &str, format: &Option<Value>) -> Result<()> {
    match format {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Object(fields)) if fields.get("type").and_then(Value::as_str) == Some("text") => Ok(()),
        Some(_) => Err(ApiError::field(field, "is not supported but for the type text: leave it away")),
    }
}

/// Refuses tools that the model would have to call. They are fine where the request says that none is to be
/// called.
pub fn refuse_tools(tools: &Option<Value>, choice: &Option<Value>) -> Result<()> {
    let is_none = |choice: &Value| choice == "none" || choice["type"] == "none";
    if choice.as_ref().is_some_and(is_none) {
        return Ok(());
    }
    refuse(&[("tools", tools)])
}
