//! Conversations in requests: messages with texts and images → the ids of a prompt.

use super::{
    app::{App, Served},
    error::{ApiError, Result},
    fields::RunFields,
    generation::{Job, Tokens},
    sampling::SamplingFields,
};
use crate::{
    chat::{Message, Options},
    engine::Features,
    image::{Image, Preprocessor},
    language_model::place,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;
use utoipa::ToSchema;

/// A message of a conversation.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct ChatMessage {
    /// system, developer, user, assistant or tool.
    pub role: String,
    /// A text, or a list of parts.
    #[serde(default)]
    pub content: Option<Content>,
    /// What else the message says: the model's chat template may use it.
    #[serde(flatten)]
    #[schema(ignore)]
    pub fields: Map<String, Value>,
}

impl ChatMessage {
    pub fn new(role: &str, content: Content) -> Self {
        Self { role: role.to_owned(), content: Some(content), fields: Map::new() }
    }
}

/// What a message says.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Content {
    Text(String),
    Parts(Vec<ContentPart>),
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Value::deserialize(from)? {
            Value::String(text) => Ok(Self::Text(text)),
            list @ Value::Array(_) => {
                serde_json::from_value(list).map(Self::Parts).map_err(serde::de::Error::custom)
            }
            other => Err(serde::de::Error::custom(format!(
                "it is {other}, but a text or a list of parts belongs there"
            ))),
        }
    }
}

impl ChatMessage {
    /// The data URIs and addresses of its images.
    pub fn image_urls(&mut self) -> impl Iterator<Item = &mut String> {
        let parts = match &mut self.content {
            Some(Content::Parts(parts)) => parts.as_mut_slice(),
            Some(Content::Text(_)) | None => &mut [],
        };
        parts.iter_mut().filter_map(ContentPart::image_url)
    }
}

/// A part of a message: a text or an image.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(tag = "type")]
pub enum ContentPart {
    #[serde(rename = "text", alias = "input_text", alias = "output_text")]
    Text { text: String },
    #[serde(rename = "image_url")]
    Image { image_url: ImageUrl },
    #[serde(rename = "input_image")]
    ResponsesImage { image_url: String },
    #[serde(rename = "image")]
    AnthropicImage { source: ImageSource },
    #[serde(rename = "refusal")]
    Refusal { refusal: String },
}

/// OpenAI's form of an image.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(untagged, expecting = "an object with an url belongs there")]
pub enum ImageUrl {
    Object {
        /// A data URI, `data:image/png;base64,…`, or an address where the server may fetch it.
        url: String,
    },
    Text(String),
}

/// Anthropic's form of an image.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ImageSource {
    Base64 { media_type: String, data: String },
    Url { url: String },
}

impl ContentPart {
    /// The image's bytes in base64, if it is an image.
    fn image(&self) -> Option<Result<&str>> {
        match self {
            Self::Text { .. } | Self::Refusal { .. } => None,
            Self::Image { image_url: ImageUrl::Object { url } | ImageUrl::Text(url) }
            | Self::ResponsesImage { image_url: url }
            | Self::AnthropicImage { source: ImageSource::Url { url } } => Some(data_of(url)),
            Self::AnthropicImage { source: ImageSource::Base64 { data, .. } } => Some(Ok(data)),
        }
    }

    /// The image's data URI or address, if it is an image that has one.
    fn image_url(&mut self) -> Option<&mut String> {
        match self {
            Self::Image { image_url: ImageUrl::Object { url } | ImageUrl::Text(url) }
            | Self::ResponsesImage { image_url: url }
            | Self::AnthropicImage { source: ImageSource::Url { url } } => Some(url),
            Self::Text { .. }
            | Self::Refusal { .. }
            | Self::AnthropicImage { source: ImageSource::Base64 { .. } } => None,
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Text { text } => Some(text),
            Self::Refusal { refusal } => Some(refusal),
            _ => None,
        }
    }
}

/// What a data URI holds, in base64.
fn data_of(url: &str) -> Result<&str> {
    let data = url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,"));
    data.map(|(_, data)| data).ok_or_else(|| {
        let what = "is neither a data URI, data:image/png;base64,…, nor an address of http";
        ApiError::field("image_url", what)
    })
}

/// A conversation, and how it becomes a prompt.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ConversationFields {
    #[schema(min_items = 1)]
    pub messages: Vec<ChatMessage>,
    /// Whether the answer goes on with the last message. Default: where that is the assistant's.
    #[serde(default)]
    pub continue_final_message: Option<bool>,
    /// Whether the prompt ends where an answer begins. Default: true.
    #[serde(default)]
    pub add_generation_prompt: Option<bool>,
    /// Variables of the model's chat template.
    #[serde(default)]
    pub chat_template_kwargs: Option<Map<String, Value>>,
}

impl ConversationFields {
    pub fn rendering(&self) -> Result<Rendering> {
        let is_assistants = self.messages.last().is_some_and(|message| message.role == "assistant");
        let continues = match (self.continue_final_message, self.add_generation_prompt) {
            (Some(true), Some(true)) => {
                let what = "and add_generation_prompt cannot both be true: an answer continues or begins";
                return Err(ApiError::field("continue_final_message", what));
            }
            (Some(continues), _) => continues,
            (None, Some(true)) => false,
            (None, _) => is_assistants,
        };
        Ok(Rendering {
            continues,
            add_generation_prompt: self.add_generation_prompt.unwrap_or(true),
            variables: self.chat_template_kwargs.clone().unwrap_or_default(),
        })
    }
}

/// What a conversation is rendered with.
#[derive(Clone, Debug, Default)]
pub struct Rendering {
    /// Whether the answer goes on with the last message, which is the assistant's.
    pub continues: bool,
    /// Whether the prompt ends where an answer begins.
    pub add_generation_prompt: bool,
    /// Variables of the template.
    pub variables: Map<String, Value>,
}

impl Served {
    /// How one answer in a conversation is generated.
    pub fn answer_job(
        &self,
        sampling: &SamplingFields,
        mut stops: Vec<String>,
        max_tokens: Option<usize>,
        rendering: &Rendering,
    ) -> Result<Job> {
        let ends = self.turn_ends.clone();
        stops.extend(self.template.stop().map(str::to_owned));
        Ok(Job {
            sampling: sampling.sampling(self, &ends)?,
            max_tokens,
            stops,
            ends: if sampling.ignore_eos == Some(true) { Vec::new() } else { ends },
            logprobs: None,
            count: 1,
            // Where the plain form ends, an answer begins with a blank.
            trims: self.template.is_plain() && !rendering.continues,
            run: RunFields::default().run(self)?,
        })
    }

    /// The prompt of a conversation as a text, and its images.
    fn rendered(&self, messages: &[ChatMessage], rendering: &Rendering) -> Result<(String, Vec<Features>)> {
        if messages.is_empty() {
            return Err(ApiError::field("messages", "is empty: give one at least"));
        }
        let said = messages.iter().map(|message| self.message(message)).collect::<Result<Vec<_>>>()?;
        let options = Options {
            add_generation_prompt: rendering.add_generation_prompt && !rendering.continues,
            continues: rendering.continues,
            variables: rendering.variables.clone(),
        };
        let text = self
            .template
            .render_with(&said, &options)
            .map_err(|error| ApiError { param: Some("messages".to_owned()), ..ApiError::from(error) })?;
        Ok((text, said.into_iter().flat_map(|message| message.images).collect()))
    }

    /// A message as templates take it. Its images are encoded, which takes time.
    fn message(&self, message: &ChatMessage) -> Result<Message> {
        let mut images = Vec::new();
        let content = match &message.content {
            None => String::new(),
            Some(Content::Text(text)) => text.clone(),
            Some(Content::Parts(parts)) => {
                for data in parts.iter().filter_map(ContentPart::image) {
                    images.push(self.image(data?)?);
                }
                parts.iter().filter_map(ContentPart::text).collect::<Vec<_>>().join("\n")
            }
        };
        let role = match message.role.as_str() {
            // OpenAI's newer name, which few templates know.
            "developer" if !self.template.mentions("developer") => "system",
            role => role,
        };
        Ok(Message { images, fields: message.fields.clone(), ..Message::new(role, content) })
    }

    /// What makes pixels of images.
    ///
    /// # Errors
    /// If the model sees none.
    pub fn preprocessor(&self) -> Result<&Preprocessor> {
        self.model.preprocessor.as_ref().ok_or_else(|| {
            let what = "holds an image, but this model sees none: leave it away, or take a model that does";
            ApiError::field("messages", what)
        })
    }

    fn image(&self, data: &str) -> Result<Features> {
        let preprocessor = self.preprocessor()?;
        let wrong = |e: &dyn std::fmt::Display| {
            ApiError::field("messages", format_args!("holds an image that cannot be read: {e}"))
        };
        let bytes = BASE64_STANDARD.decode(data.trim()).map_err(|e| wrong(&e))?;
        let image = Image::decode(&bytes).map_err(|e| wrong(&e))?;
        let pixels = preprocessor.pixels(&image);
        Ok(self.worker.with(move |engine| engine.encode_image(&pixels))?)
    }

    /// The ids of a conversation's prompt, and where its images are. Takes time: not for an async thread.
    fn prompt(&self, messages: &[ChatMessage], rendering: &Rendering) -> Result<Tokens> {
        let (text, images) = self.rendered(messages, rendering)?;
        // The template itself writes the start token, if any.
        let tokens = self.model.begun(self.tokenizer.encode(&text, self.template.is_plain())?);
        let (ids, images) = place(&self.model, &self.tokenizer, tokens, &images)?;
        Ok(Tokens { ids, images })
    }
}

/// Whether an image's URL is an address to fetch it from.
fn is_remote(url: &str) -> bool {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

/// The messages with the images that they name by an address in its place.
///
/// # Errors
/// InvalidRequest if an image cannot be had, or none may be fetched.
async fn with_images(app: &Arc<App>, mut messages: Vec<ChatMessage>) -> Result<Vec<ChatMessage>> {
    for url in messages.iter_mut().flat_map(ChatMessage::image_urls).filter(|url| is_remote(url)) {
        app.loaded().preprocessor()?;
        let images = app.remote_images.clone().ok_or_else(|| {
            let what = "is an address, but this server fetches no images: send it as \
                        data:image/png;base64,…, or start the server with --image-hosts";
            ApiError::field("image_url", what)
        })?;
        let address = url.clone();
        let fetched = tokio::task::spawn_blocking(move || images.fetch(&address)).await;
        let bytes = fetched.unwrap_or_else(|_| Err("it broke off".to_owned())).map_err(|why| {
            ApiError::field("image_url", format_args!("is {url}, which cannot be fetched: {why}"))
        })?;
        *url = format!("data:image/*;base64,{}", BASE64_STANDARD.encode(bytes));
    }
    Ok(messages)
}

/// The ids of a conversation's prompt, and where its images are.
pub async fn prompt(app: &Arc<App>, messages: Vec<ChatMessage>, rendering: Rendering) -> Result<Tokens> {
    let messages = with_images(app, messages).await?;
    super::on_a_thread(app, move |served| served.prompt(&messages, &rendering)).await
}

/// A conversation's prompt as a text.
pub async fn text(app: &Arc<App>, messages: Vec<ChatMessage>, rendering: Rendering) -> Result<String> {
    let messages = with_images(app, messages).await?;
    super::on_a_thread(app, move |served| Ok(served.rendered(&messages, &rendering)?.0)).await
}
