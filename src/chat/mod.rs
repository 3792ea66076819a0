//! Conversations, and the templates that turn them into prompts.
//!
//! Templates are written in Jinja and rendered as transformers does (`apply_chat_template`): with the same
//! whitespace rules, the functions `raise_exception` and `strftime_now`, Python's methods, and JSON in
//! Python's style.

mod arguments;
mod filters;
mod jinja;
mod json;
mod objects;
mod percent;
mod print;
mod source;
mod text;
mod time;

use crate::{
    engine::Features,
    error::{Error, Result},
    model::Model,
};
use minijinja::{Environment, Value, context, value::Serde};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;

/// A message, and the role of its author: system, user or assistant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub role: String,
    pub content: String,
    /// The features of the images that are shown with the message.
    #[serde(skip)]
    pub images: Vec<Features>,
}

impl Message {
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        Self { role: role.to_owned(), content: content.into(), images: Vec::new() }
    }

    /// The form that most templates of vision models expect, and some others: content as a list of parts,
    /// images first.
    fn in_parts(&self) -> serde_json::Value {
        let mut parts = vec![json!({"type": "image"}); self.images.len()];
        parts.push(json!({"type": "text", "text": self.content}));
        json!({"role": self.role, "content": parts})
    }

    /// The form for other templates: the model's image token for each image, then the text.
    fn in_words(&self, image: &str) -> Self {
        let images = format!("{image}\n").repeat(self.images.len());
        Self { content: images + &self.content, ..self.clone() }
    }
}

/// The template for models that have none, such as base models. Such a model was not taught to end a turn, so
/// an answer must be stopped at [`Template::stop`].
const PLAIN: &str = "{% for message in messages %}{% if message.role == 'system' %}{{ message.content }}\n\n\
    {% else %}{{ message.role | title }}: {{ message.content | trim }}\n{% endif %}{% endfor %}\
    {% if add_generation_prompt %}Assistant:{% endif %}";

/// Turns conversations into prompts.
pub struct Template {
    environment: Environment<'static>,
    /// `bos_token`, `eos_token` and so on, by the names that templates use.
    special_tokens: BTreeMap<String, String>,
    is_plain: bool,
    /// Whether a message's content is a list of parts.
    in_parts: bool,
}

impl Template {
    /// A model's own template, or the plain form where the model has none.
    pub fn of(model: &Model) -> Result<Self> {
        match &model.chat_template {
            Some(text) => {
                let template = Self::new(&model.name, text, model.special_tokens.clone())?;
                for token in jinja::special_tokens(&template.environment) {
                    if !model.special_tokens.contains_key(&token) {
                        let name = &model.name;
                        tracing::warn!(
                            "the chat template of {name} writes {token}, which no file of the model names: \
                             nothing is written in its place"
                        );
                    }
                }
                let sees = model.architecture.vision.is_some();
                let needs_parts = sees || !template.keeps_text();
                let parted = Self { in_parts: true, ..template };
                let in_parts = needs_parts && parted.keeps_text();
                Ok(Self { in_parts, ..parted })
            }
            None => {
                let plain = Self::new("the plain form", PLAIN, BTreeMap::new()).expect("a template");
                Ok(Self { is_plain: true, ..plain })
            }
        }
    }

    /// Compiles a template. `name` is what error messages call the model.
    ///
    /// # Errors
    /// Of the kind Model where the text is not a Jinja template, or has a tag of more than 2000 words and
    /// signs.
    pub fn new(name: &str, text: &str, special_tokens: BTreeMap<String, String>) -> Result<Self> {
        let environment = jinja::environment(text).map_err(|e| {
            Error::model(format!("the chat template of {name} is not one: {}", jinja::reason(&e))).because(e)
        })?;
        Ok(Self { environment, special_tokens, is_plain: false, in_parts: false })
    }

    /// Whether the template renders a message's text, rather than nothing, a literal list or an error.
    fn keeps_text(&self) -> bool {
        const TEXT: &str = "A text of no other use";
        let text = self.render(&[Message::new("user", TEXT)], true).unwrap_or_default();
        text.contains(TEXT) && !text.contains("'type'") && !text.contains("\"type\"")
    }

    /// Whether this is the plain form, because the model has no template.
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// The text at which an answer in the plain form ends.
    pub fn stop(&self) -> Option<&'static str> {
        self.is_plain.then_some("\nUser:")
    }

    /// Renders a conversation as a prompt. With `add_generation_prompt`, it ends where the assistant's answer
    /// begins.
    ///
    /// # Errors
    /// Of the kind Request where the template refuses the conversation, as some do if roles do not alternate,
    /// and where it takes too long or too much memory.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let messages = match self.in_parts {
            true => Value::from(Serde(messages.iter().map(Message::in_parts).collect::<Vec<_>>())),
            false => {
                let image = self.special_tokens.get("image_token").map_or("<image>", String::as_str);
                Value::from(Serde(messages.iter().map(|message| message.in_words(image)).collect::<Vec<_>>()))
            }
        };
        let words = context! {
            messages,
            add_generation_prompt,
            tools => (),
            documents => (),
            ..Value::from(Serde(&self.special_tokens))
        };
        jinja::render(&self.environment, words).map_err(|e| {
            let what = jinja::reason(&e);
            Error::request(format!("the model's chat template refuses this conversation: {what}")).because(e)
        })
    }

    /// The texts that follow an answer: where it is the last message, and where another one follows. A
    /// template may write the token that ends a turn only where another turn begins. Empty where the template
    /// refuses such a conversation.
    pub fn after_answers(&self) -> [String; 2] {
        const ANSWER: &str = "An answer of no other use";
        let last = vec![Message::new("user", "Hello"), Message::new("assistant", ANSWER)];
        let followed = [&last[..], &[Message::new("user", "Hello")]].concat();
        [last, followed].map(|messages| {
            let text = self.render(&messages, false).unwrap_or_default();
            text.rfind(ANSWER).map_or_else(String::new, |at| text[at + ANSWER.len()..].to_owned())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_form_is_as_documented() {
        let (model, _) = Model::built_in().expect("the built-in model");
        let template = Template::of(&model).expect("a template");
        assert!(template.is_plain());
        let said = [
            Message::new("system", "Be kind."),
            Message::new("user", "Hi "),
            Message::new("assistant", "Hello."),
        ];
        let text = template.render(&said, true).expect("a prompt");
        assert_eq!(text, "Be kind.\n\nUser: Hi\nAssistant: Hello.\nAssistant:");
        assert_eq!(template.after_answers(), ["\n", "\nUser: Hello\n"]);
    }

    #[test]
    fn a_template_knows_the_date_and_json_as_python_writes_it() {
        let text = "{{ strftime_now('%Y') }} {{ messages[0] | tojson }} {{ messages | tojson(indent=2) }}";
        let template = Template::new("a test", text, BTreeMap::new()).expect("a template");
        let text = template.render(&[Message::new("user", "é\"")], true).expect("a prompt");
        let year = chrono::Datelike::year(&chrono::Local::now());
        let indented = "[\n  {\n    \"role\": \"user\",\n    \"content\": \"é\\\"\"\n  }\n]";
        assert_eq!(text, format!("{year} {{\"role\": \"user\", \"content\": \"é\\\"\"}} {indented}"));
    }

    #[test]
    fn a_text_reaches_templates_that_read_it_in_parts() {
        for content in [
            "{{ message.content }}",
            "{% for part in message.content %}{{ part.text }}{% endfor %}",
            "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}",
            "{{ message.content[0].text }}",
            "{{ message.content if message.content is string else raise_exception('a list') }}",
            "{{ raise_exception('a text') if message.content is string else message.content[0].text }}",
        ] {
            let (mut model, _) = Model::built_in().expect("the built-in model");
            let before = "{% for message in messages %}[{{ message.role }}: ";
            model.chat_template = Some(format!("{before}{content}]{{% endfor %}}"));
            let said = [Message::new("user", "Hi"), Message::new("assistant", "Well…")];
            let text = Template::of(&model).expect("a template").render(&said, false).expect("a prompt");
            assert_eq!(text, "[user: Hi][assistant: Well…]", "{content}");
        }
    }

    #[test]
    fn what_is_no_template_is_an_error() {
        let error = Template::new("a test", "{% if %}", BTreeMap::new()).err().expect("no template");
        assert_eq!(error.kind(), crate::error::Kind::Model);
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}
