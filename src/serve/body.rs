//! Reads requests: the body is JSON, and an error names the field that is wrong.

use super::error::{ApiError, Kind, Result};
use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::StatusCode,
    response::IntoResponse,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A request's body, read as one or more groups of fields: a tuple of them. Its content type may be any.
pub struct Body<T>(pub T);

/// One or more groups of fields.
pub trait Groups: Sized {
    /// Reads each group from the whole body.
    fn read(body: &Value) -> Result<Self>;
}

impl<A: DeserializeOwned> Groups for (A,) {
    fn read(body: &Value) -> Result<Self> {
        Ok((fields(body)?,))
    }
}

impl<A: DeserializeOwned, B: DeserializeOwned> Groups for (A, B) {
    fn read(body: &Value) -> Result<Self> {
        Ok((fields(body)?, fields(body)?))
    }
}

impl<A: DeserializeOwned, B: DeserializeOwned, C: DeserializeOwned> Groups for (A, B, C) {
    fn read(body: &Value) -> Result<Self> {
        Ok((fields(body)?, fields(body)?, fields(body)?))
    }
}

impl<A, B, C, D> Groups for (A, B, C, D)
where
    A: DeserializeOwned,
    B: DeserializeOwned,
    C: DeserializeOwned,
    D: DeserializeOwned,
{
    fn read(body: &Value) -> Result<Self> {
        Ok((fields(body)?, fields(body)?, fields(body)?, fields(body)?))
    }
}

impl<S: Send + Sync, T: Groups> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let bytes = read(request, state).await?;
        // Reading much takes time, in which this thread would answer nobody else.
        match bytes.len() {
            0..65_536 => Ok(Self(T::read(&object(&bytes)?)?)),
            _ => tokio::task::block_in_place(|| Ok(Self(T::read(&object(&bytes)?)?))),
        }
    }
}

/// A request's body, read as a list.
pub struct List<T>(pub Vec<T>);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for List<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        Ok(Self(fields(&parse(&read(request, state).await?)?)?))
    }
}

async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes> {
    Bytes::from_request(request, state).await.map_err(|rejection| match rejection.into_response().status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(
            Kind::TooLarge,
            "the request's body is larger than this server takes: send less, or start it with a larger \
                 --max-body",
        ),
        _ => ApiError::new(Kind::InvalidRequest, "the request's body broke off: send it again"),
    })
}

fn parse(bytes: &[u8]) -> Result<Value> {
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|e| ApiError::new(Kind::InvalidRequest, format!("the request's body is not JSON: {e}")))?;
    Ok(with_integers(value))
}

fn object(bytes: &[u8]) -> Result<Value> {
    let value = parse(bytes)?;
    match value.is_object() {
        true => Ok(value),
        false => Err(ApiError::new(Kind::InvalidRequest, "the request's body is not a JSON object")),
    }
}

/// The same value, with numbers such as 5.0 as whole numbers: JSON does not tell them apart. What is for
/// templates and for nobody stays as it is.
fn with_integers(value: Value) -> Value {
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 2f64.powi(63) => {
                Value::from(float as i64)
            }
            _ => Value::Number(number),
        },
        Value::Array(list) => list.into_iter().map(with_integers).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| match name.as_str() {
                "messages" | "chat_template_kwargs" | "metadata" => (name, value),
                _ => (name, with_integers(value)),
            })
            .collect(),
        other => other,
    }
}

/// Reads a group of fields.
fn fields<T: DeserializeOwned>(value: &Value) -> Result<T> {
    serde_path_to_error::deserialize(value).map_err(|e| {
        let (path, why) = (e.path().to_string(), worded(&e.inner().to_string()));
        match path.as_str() {
            "." => ApiError::new(Kind::InvalidRequest, format!("the request is wrong: {why}")),
            path => ApiError::field(path, format_args!("is wrong: {why}")),
        }
    })
}

/// What is wrong with a value, with JSON's types in place of Rust's.
fn worded(why: &str) -> String {
    let Some((before, expected)) = why.rsplit_once("expected ") else { return why.to_owned() };
    let expected = match expected {
        "f64" | "f32" => "a number",
        "u32" | "u64" => "a whole number from 0 on",
        "i64" => "a whole number",
        "a sequence" => "a list",
        "a map" => "an object",
        expected if expected.starts_with("struct ") => "an object",
        expected => expected,
    };
    format!("{before}expected {expected}")
}
