//! Conversations, and the templates that turn them into prompts.
//!
//! Templates are written in Jinja and rendered as transformers does (`apply_chat_template`): with the same
//! whitespace rules, the functions `raise_exception` and `strftime_now`, Python's methods, and JSON in
//! Python's style.

mod arguments;
mod filters;
mod jinja;
mod json;
mod named;
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
    tokenizer::Tokenizer,
};
use minijinja::{Environment, Value, context, value::Serde};
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};
use std::collections::BTreeMap;

/// A message, and the role of its author: system, user or assistant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub role: String,
    pub content: String,
    /// The features of the images that are shown with the message.
    #[serde(skip)]
    pub images: Vec<Features>,
    /// What else it says, by the names that templates use: `tool_calls`, `reasoning_content` and so on.
    #[serde(flatten)]
    pub fields: Map<String, serde_json::Value>,
}

impl Message {
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        Self { role: role.to_owned(), content: content.into(), images: Vec::new(), fields: Map::new() }
    }

    /// The form that most templates of vision models expect, and some others: content as a list of parts,
    /// images first.
    fn in_parts(&self) -> serde_json::Value {
        let mut parts = vec![json!({"type": "image"}); self.images.len()];
        parts.push(json!({"type": "text", "text": self.content}));
        let mut message = json!({"role": self.role, "content": parts});
        message.as_object_mut().expect("an object").extend(self.fields.clone());
        message
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

/// How to render a conversation.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether the prompt ends where the assistant's answer begins.
    pub add_generation_prompt: bool,
    /// Whether the prompt ends with the text of the last message, for an answer that goes on with it.
    pub continues: bool,
    /// Further variables of the template, such as `enable_thinking`.
    pub variables: Map<String, serde_json::Value>,
}

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

    /// The template that a user gives: its text, or one of the names that llama-server's users know.
    ///
    /// # Errors
    /// Of the kind Request where it is neither.
    pub fn given(given: &str, special_tokens: BTreeMap<String, String>) -> Result<Self> {
        let text = match named::named(given.trim()) {
            Some(text) => text,
            None if given.contains("{{") || given.contains("{%") => given,
            None => {
                return Err(Error::request(format!(
                    "the chat template {given:?} is no Jinja text and no name of one: the names are {}",
                    named::names()
                )));
            }
        };
        Self::new("--chat-template", text, special_tokens)
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

    /// The ids that end an answer: the token that the template writes after one, and those that any file of
    /// the model names. Not all files name the one that the model was taught to end its turns with.
    ///
    /// # Errors
    /// Of the kind Request where the tokenizer cannot encode what the template writes.
    pub fn ends(&self, model: &Model, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        let mut ends = model.all_eos(tokenizer);
        for after in self.after_answers() {
            let first = tokenizer.encode(after.trim_start(), false)?.into_iter().next();
            ends.extend(first.filter(|id| tokenizer.is_added(*id)));
        }
        Ok(ends)
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

    /// Whether the template's text has a word.
    pub fn mentions(&self, word: &str) -> bool {
        jinja::mentions(&self.environment, word)
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
        self.render_with(messages, &Options { add_generation_prompt, ..Options::default() })
    }

    /// The same as [`Template::render`], with more options.
    ///
    /// # Errors
    /// Those of [`Template::render`]; also where the last message is to be continued, but the template does
    /// not write it as it is.
    pub fn render_with(&self, messages: &[Message], options: &Options) -> Result<String> {
        let text = self.rendered(messages, options)?;
        let Some(last) = messages.last().filter(|_| options.continues) else { return Ok(text) };
        // As transformers does: templates may drop the blanks around a message. Those at its end are part of
        // what is continued.
        let content = last.content.trim();
        let Some(at) = text.rfind(content) else {
            return Err(Error::request(
                "the model's chat template changes the last message, so it cannot be continued",
            ));
        };
        let blanks = &last.content[last.content.trim_end().len()..];
        Ok(format!("{}{}", &text[..at + content.len()], if content.is_empty() { "" } else { blanks }))
    }

    fn rendered(&self, messages: &[Message], options: &Options) -> Result<String> {
        let messages = match self.in_parts {
            true => Value::from(Serde(messages.iter().map(Message::in_parts).collect::<Vec<_>>())),
            false => {
                let image = self.special_tokens.get("image_token").map_or("<image>", String::as_str);
                Value::from(Serde(messages.iter().map(|message| message.in_words(image)).collect::<Vec<_>>()))
            }
        };
        // A template that asks for what the options do not say gets nothing.
        let mut variables: Map<_, _> = ["tools", "documents"]
            .map(|name| (name.to_owned(), serde_json::Value::Null))
            .into_iter()
            .collect();
        variables
            .extend(self.special_tokens.iter().map(|(name, token)| (name.clone(), token.clone().into())));
        variables.extend(options.variables.clone());
        let words = context! {
            messages,
            add_generation_prompt => options.add_generation_prompt,
            ..Value::from(Serde(&variables))
        };
        jinja::render(&self.environment, words).map_err(|e| {
            let what = jinja::reason(&e);
            Error::request(format!("the model's chat template refuses this conversation: {what}")).because(e)
        })
    }

    /// The texts that follow an answer: where it is the last message, and where another one follows. A
    /// template may write the token that ends a turn only where another turn begins. Empty where the template
    /// refuses such a conversation.
    fn after_answers(&self) -> [String; 2] {
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
