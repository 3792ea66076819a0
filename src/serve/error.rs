//! Errors as clients read them: a status and a body, in the shape of the dialect that the request spoke.
//!
//! OpenAI's and llama-server's shape is `{"error": {"code", "message", "type", "param"}}` with the status as
//! the code. OpenAI's responses have a text as the code. Anthropic's is `{"type": "error", "error": {"type",
//! "message"}, "request_id"}`.

use crate::error::{Error, Kind as ErrorKind, Setting};
use axum::{
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

/// The APIs whose clients this server understands, as far as their errors differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI's chat and completions, and llama-server's own endpoints.
    OpenAi,
    /// OpenAI's responses.
    Responses,
    /// Anthropic's messages.
    Anthropic,
}

impl Dialect {
    /// The dialect of an endpoint.
    pub fn of(path: &str) -> Self {
        match path {
            _ if path.starts_with("/v1/messages") => Self::Anthropic,
            _ if path.starts_with("/v1/responses") => Self::Responses,
            _ => Self::OpenAi,
        }
    }
}

/// What kind of error it is, which decides status and type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    InvalidRequest,
    /// The prompt has so many tokens, more than the context holds.
    ContextExceeded {
        tokens: usize,
        context: usize,
    },
    Authentication,
    NotFound,
    MethodNotAllowed,
    TooLarge,
    /// Too many requests wait already.
    RateLimit,
    Server,
    /// The model is being loaded, or the server is about to stop.
    Unavailable,
    /// The endpoint is switched off.
    NotSupported,
}

/// An error in answer to a request.
#[derive(Clone, Debug)]
pub struct ApiError {
    pub kind: Kind,
    pub message: String,
    /// The field of the request that is wrong.
    pub param: Option<String>,
}

pub type Result<T, E = ApiError> = std::result::Result<T, E>;

impl ApiError {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), param: None }
    }

    /// A field of the request is wrong. The message follows the field's name.
    pub fn field(field: &str, message: impl std::fmt::Display) -> Self {
        let message = format!("{field} {message}");
        Self { param: Some(field.to_owned()), ..Self::new(Kind::InvalidRequest, message) }
    }

    pub fn status(&self) -> StatusCode {
        match self.kind {
            Kind::InvalidRequest | Kind::ContextExceeded { .. } => StatusCode::BAD_REQUEST,
            Kind::Authentication => StatusCode::UNAUTHORIZED,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::RateLimit => StatusCode::TOO_MANY_REQUESTS,
            Kind::Server => StatusCode::INTERNAL_SERVER_ERROR,
            Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Kind::NotSupported => StatusCode::NOT_IMPLEMENTED,
        }
    }

    /// The name of its kind in a dialect.
    fn kind_name(&self, dialect: Dialect) -> &'static str {
        let is_anthropic = dialect == Dialect::Anthropic;
        match self.kind {
            Kind::ContextExceeded { .. } if !is_anthropic => "exceed_context_size_error",
            Kind::InvalidRequest | Kind::ContextExceeded { .. } | Kind::MethodNotAllowed => {
                "invalid_request_error"
            }
            Kind::Authentication => "authentication_error",
            Kind::NotFound => "not_found_error",
            Kind::TooLarge if is_anthropic => "request_too_large",
            Kind::TooLarge => "invalid_request_error",
            Kind::RateLimit => "rate_limit_error",
            Kind::Server | Kind::NotSupported if is_anthropic => "api_error",
            Kind::Server => "server_error",
            Kind::Unavailable if is_anthropic => "overloaded_error",
            Kind::Unavailable => "unavailable_error",
            Kind::NotSupported => "not_supported_error",
        }
    }

    /// The error's code in OpenAI's responses, where agents look for this text.
    pub fn text_code(&self) -> &'static str {
        match self.kind {
            Kind::ContextExceeded { .. } => "context_length_exceeded",
            _ => self.kind_name(Dialect::Responses),
        }
    }

    /// The body of an answer that is this error.
    pub fn body(&self, dialect: Dialect, request_id: &str) -> Value {
        let kind = self.kind_name(dialect);
        if dialect == Dialect::Anthropic {
            let error = json!({"type": kind, "message": self.message});
            return json!({"type": "error", "error": error, "request_id": request_id});
        }
        let code = match dialect {
            Dialect::Responses => json!(self.text_code()),
            _ => json!(self.status().as_u16()),
        };
        let mut error = Map::new();
        error.insert("code".into(), code);
        error.insert("message".into(), self.message.as_str().into());
        error.insert("type".into(), kind.into());
        error.insert("param".into(), self.param.clone().into());
        if let Kind::ContextExceeded { tokens, context } = self.kind {
            error.insert("n_prompt_tokens".into(), tokens.into());
            error.insert("n_ctx".into(), context.into());
        }
        json!({"error": error})
    }
}

impl From<&Error> for ApiError {
    fn from(error: &Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Request => Kind::InvalidRequest,
            _ => Kind::Server,
        };
        let message = error.worded(|setting| field(setting).to_owned(), |remedy| remedy.to_string());
        Self { param: error.about().map(|setting| field(setting).to_owned()), ..Self::new(kind, message) }
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

/// The field of a request that sets a setting.
fn field(setting: Setting) -> &'static str {
    match setting {
        Setting::Context => "the context",
        Setting::RequireGpu => "require_gpu",
        Setting::Temperature => "temperature",
        Setting::TopP => "top_p",
        Setting::MinP => "min_p",
        Setting::TypicalP => "typical_p",
        Setting::XtcProbability => "xtc_probability",
        Setting::XtcThreshold => "xtc_threshold",
        Setting::RepetitionPenalty => "repeat_penalty",
        Setting::FrequencyPenalty => "frequency_penalty",
        Setting::PresencePenalty => "presence_penalty",
        Setting::DryMultiplier => "dry_multiplier",
        Setting::DryBase => "dry_base",
        Setting::MirostatTarget => "mirostat_tau",
        Setting::MirostatRate => "mirostat_eta",
        Setting::Bias(_) => "logit_bias",
    }
}

impl IntoResponse for ApiError {
    /// The status and headers. The body is written by [`super::access::dress`], which knows the dialect.
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        let headers = response.headers_mut();
        match self.kind {
            Kind::RateLimit | Kind::Unavailable => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            // Clients repeat such a request otherwise.
            Kind::NotSupported => {
                headers.insert("x-should-retry", HeaderValue::from_static("false"));
            }
            _ => (),
        }
        response.extensions_mut().insert(self);
        response
    }
}
