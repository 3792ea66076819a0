//! Prompts: texts, token ids, or both mixed.

use super::{
    app::Served,
    error::{ApiError, Result},
};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ArrayBuilder, ObjectBuilder, Ref, RefOr, Schema, Type, schema::AnyOfBuilder},
};

/// The most prompts in a request, as in OpenAI's API.
const MAX_PROMPTS: usize = 2048;

/// A part of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    Text(String),
    Id(u32),
}

/// A prompt: a text, a list of token ids, or a list of both.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt(pub Vec<Part>);

impl Prompt {
    /// From JSON: a text, a list of ids and texts, or llama-server's `{"prompt_string": …}`.
    fn of(value: &Value) -> Option<Self> {
        let part = |value: &Value| match value {
            Value::String(text) => Some(Part::Text(text.clone())),
            value => value.as_u64()?.try_into().ok().map(Part::Id),
        };
        match value {
            Value::String(text) => Some(Self(vec![Part::Text(text.clone())])),
            Value::Array(parts) => parts.iter().map(part).collect::<Option<_>>().map(Self),
            Value::Object(fields) => {
                let has_media =
                    fields.get("multimodal_data").is_some_and(|data| data != &Value::Array(vec![]));
                let text = fields.get("prompt_string")?.as_str()?;
                (!has_media).then(|| Self(vec![Part::Text(text.to_owned())]))
            }
            _ => None,
        }
    }

    /// The prompt's ids. Texts may name special tokens. `add_special`: whether a text at the beginning gets
    /// the tokens that start every text of the model.
    pub fn tokens(&self, served: &Served, add_special: bool) -> Result<Vec<u32>> {
        Ok(served.model.begun(self.ids(served, "prompt", add_special)?))
    }

    /// The ids of its parts. `field`: where it comes from.
    pub fn ids(&self, served: &Served, field: &str, add_special: bool) -> Result<Vec<u32>> {
        let mut tokens = Vec::new();
        for (number, part) in self.0.iter().enumerate() {
            match part {
                Part::Text(text) => {
                    tokens.extend(served.tokenizer.encode(text, add_special && number == 0)?);
                }
                Part::Id(id) => tokens.push(*id),
            }
        }
        check_ids(served, field, &tokens)?;
        Ok(tokens)
    }

    /// The prompt as a text, for an answer that repeats it.
    pub fn text(&self, served: &Served) -> String {
        let spell = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Id(id) => served.tokenizer.decode(&[*id], false),
        };
        // Ids that follow each other are decoded together, for a character may have several.
        match self.0.iter().map(|part| if let Part::Id(id) = part { Some(*id) } else { None }).collect() {
            Some::<Vec<u32>>(ids) => served.tokenizer.decode(&ids, false),
            None => self.0.iter().map(spell).collect(),
        }
    }
}

/// Whether the vocabulary has these ids. `field`: where they come from.
pub fn check_ids(served: &Served, field: &str, ids: &[u32]) -> Result<()> {
    let vocab_size = served.model.architecture.vocab_size;
    match ids.iter().find(|id| **id >= vocab_size) {
        None => Ok(()),
        Some(id) => Err(ApiError::field(
            field,
            format_args!("holds the token id {id}, but the vocabulary ends at {}", vocab_size - 1),
        )),
    }
}

impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let wrong = || serde::de::Error::custom("a text or a list of texts and token ids belongs there");
        Self::of(&Value::deserialize(from)?).ok_or_else(wrong)
    }
}

/// One prompt or a list of them.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompts {
    One(Prompt),
    Many(Vec<Prompt>),
}

impl Prompts {
    /// All of them, in order.
    pub fn all(&self) -> &[Prompt] {
        match self {
            Self::One(prompt) => std::slice::from_ref(prompt),
            Self::Many(prompts) => prompts,
        }
    }
}

/// A token's id.
#[derive(ToSchema)]
#[schema(value_type = u32, minimum = 0)]
#[expect(dead_code, reason = "describes ids, which are numbers here")]
pub struct TokenId(u32);

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

impl PartialSchema for Prompt {
    fn schema() -> RefOr<Schema> {
        let part = AnyOfBuilder::new().item(text()).item(Ref::from_schema_name("TokenId"));
        AnyOfBuilder::new()
            .item(text())
            .item(ArrayBuilder::new().items(part))
            .item(ObjectBuilder::new().property("prompt_string", text()).required("prompt_string"))
            .into()
    }
}

impl ToSchema for Prompt {}

impl PartialSchema for Prompts {
    fn schema() -> RefOr<Schema> {
        let many = ArrayBuilder::new().items(Prompt::schema()).max_items(Some(MAX_PROMPTS));
        AnyOfBuilder::new().item(Prompt::schema()).item(many).into()
    }
}

impl ToSchema for Prompts {}

impl<'de> Deserialize<'de> for Prompts {
    /// A list of numbers, or of numbers and texts, is one prompt; any other list is many.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(from)?;
        let prompts = match &value {
            Value::Array(list) if list.len() > MAX_PROMPTS && !list.iter().any(Value::is_number) => {
                return Err(serde::de::Error::custom(format!(
                    "there are {} prompts, but at most {MAX_PROMPTS} are taken at once",
                    list.len()
                )));
            }
            Value::Array(list) if !list.is_empty() && !list.iter().any(Value::is_number) => {
                list.iter().map(Prompt::of).collect::<Option<_>>().map(Self::Many)
            }
            one => Prompt::of(one).map(Self::One),
        };
        prompts.ok_or_else(|| {
            serde::de::Error::custom("a text, a list of token ids, or a list of texts belongs there")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_are_told_apart() {
        let read = |value: Value| serde_json::from_value::<Prompts>(value).ok();
        let text = |text: &str| Prompt(vec![Part::Text(text.to_owned())]);
        let [one, two] = [Part::Id(1), Part::Id(2)];
        for (value, prompts) in [
            (json!("a"), Some(Prompts::One(text("a")))),
            (json!(["a", "b"]), Some(Prompts::Many(vec![text("a"), text("b")]))),
            (json!([1, 2]), Some(Prompts::One(Prompt(vec![one.clone(), two.clone()])))),
            (json!(["a", 2]), Some(Prompts::One(Prompt(vec![Part::Text("a".into()), two.clone()])))),
            (
                json!([[1], ["b", 2]]),
                Some(Prompts::Many(vec![Prompt(vec![one]), Prompt(vec![Part::Text("b".into()), two])])),
            ),
            (json!({"prompt_string": "a"}), Some(Prompts::One(text("a")))),
            (json!([]), Some(Prompts::One(Prompt(Vec::new())))),
            (json!(5), None),
            (json!([-1]), None),
            (json!([true]), None),
            (json!({"prompt_string": "a", "multimodal_data": ["x"]}), None),
        ] {
            assert_eq!(read(value.clone()), prompts, "{value}");
        }
    }
}
